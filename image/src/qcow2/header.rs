//! Reads and checks the header of a qcow2 image, which contains its properties and the locations of its tables.
//!
//! qcow2 specification, "Header" and "Additional fields". The limits are QEMU's, with its names. The checks are those
//! of QEMU's `qcow2_do_open`, and that the tables don't overlap.

use xfer_hole_os::{DiskError, Result};
use xfer_hole_proto::LEN_MAX;

use super::compressed::Compression;
use super::extension::Extensions;
use super::feature::{EXTENDED_L2, Features};
use super::field::{HeaderField, string, unusable};
use super::geometry::{CLUSTER_BITS_MAX, CLUSTER_BITS_MIN, Geometry, HostOffset};
use super::metadata_region::MetadataRegion;
use crate::ImageFile;
use crate::probe::decrypting;

const MAGIC: &[u8; 4] = b"QFI\xfb";

const VERSION: HeaderField = HeaderField::new("version", 4);
const BACKING_OFFSET: HeaderField = HeaderField::new("backing_file_offset", 8);
const BACKING_SIZE: HeaderField = HeaderField::new("backing_file_size", 16);
const CLUSTER_BITS: HeaderField = HeaderField::new("cluster_bits", 20);
const SIZE: HeaderField = HeaderField::new("size", 24);
const CRYPT_METHOD: HeaderField = HeaderField::new("crypt_method", 32);
const L1_SIZE: HeaderField = HeaderField::new("l1_size", 36);
const L1_OFFSET: HeaderField = HeaderField::new("l1_table_offset", 40);
const REFCOUNT_OFFSET: HeaderField = HeaderField::new("refcount_table_offset", 48);
const REFCOUNT_CLUSTERS: HeaderField = HeaderField::new("refcount_table_clusters", 56);
const SNAPSHOTS: HeaderField = HeaderField::new("nb_snapshots", 60);
const SNAPSHOTS_OFFSET: HeaderField = HeaderField::new("snapshots_offset", 64);
const INCOMPATIBLE: HeaderField = HeaderField::new("incompatible_features", 72);
const COMPATIBLE: HeaderField = HeaderField::new("compatible_features", 80);
const AUTOCLEAR: HeaderField = HeaderField::new("autoclear_features", 88);
const REFCOUNT_ORDER: HeaderField = HeaderField::new("refcount_order", 96);
const HEADER_LENGTH: HeaderField = HeaderField::new("header_length", 100);
const COMPRESSION_TYPE: HeaderField = HeaderField::new("compression_type", 104);

/// Size of a version 2 header in bytes.
const LENGTH_V2: u32 = 72;
/// The minimum size of a version 3 header in bytes.
const LENGTH_V3: u32 = 104;
/// The maximum length of a backing file's name in bytes.
const BACKING_MAX: u32 = 1023;
/// QEMU's QCOW_MAX_REFTABLE_SIZE, in bytes.
const REFCOUNT_TABLE_MAX: u64 = 8 << 20;
/// QEMU's QCOW_MAX_L1_SIZE, in bytes.
pub(crate) const L1_MAX: u64 = 32 << 20;
/// QEMU's QCOW_MAX_SNAPSHOTS.
const SNAPSHOTS_MAX: u32 = 65536;
/// Reference counts have up to 2^6 bits.
const REFCOUNT_ORDER_MAX: u32 = 6;
/// The size in bytes by which QEMU counts a disk. A remainder at the end is not part of the disk.
const SECTOR: u64 = 512;

/// The minimum size of a snapshot table entry in bytes.
pub(crate) const SNAPSHOT_ENTRY_MIN: u64 = 40;

/// An L1 table: the disk's own or a snapshot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L1Table {
    /// Its file offset.
    pub(crate) offset: HostOffset,
    /// The number of entries, of eight bytes each, at most 32 MiB. The disk beyond them is unallocated.
    pub(crate) entries: u64,
}

impl L1Table {
    /// Fails if the table is too long.
    pub(crate) fn check_len(self, file: &ImageFile, field: HeaderField) -> Result<()> {
        match self.entries * 8 {
            0..=L1_MAX => Ok(()),
            _ => Err(field.bad(file, self.entries, format_args!("an L1 table of more than {L1_MAX} bytes"))),
        }
    }

    /// Fails if the table has fewer entries than a disk of `size` bytes needs.
    pub(crate) fn check_covers(
        self,
        file: &ImageFile,
        field: HeaderField,
        geometry: Geometry,
        size: u64,
    ) -> Result<()> {
        match geometry.l1_entries(size) {
            needed if needed <= self.entries => Ok(()),
            needed => {
                Err(field.bad(file, self.entries, format_args!("a disk of {size} bytes needs {needed} L1 entries")))
            }
        }
    }
}

/// The location of the refcount table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefcountTable {
    /// Its file offset.
    pub(crate) offset: HostOffset,
    /// Its size in clusters, at most 8 MiB.
    pub(crate) clusters: u32,
}

/// The location of the snapshot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotTable {
    /// Its file offset, if there are snapshots.
    pub(crate) offset: HostOffset,
    /// The number of snapshots, at most 65536.
    pub(crate) count: u32,
}

/// A header whose fields are valid.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// 2 or 3.
    pub(crate) version: u32,
    /// The sizes of clusters and tables.
    pub(crate) geometry: Geometry,
    /// Size of the virtual disk in bytes, as QEMU counts it: a multiple of 512.
    pub(crate) size: u64,
    /// Size of the virtual disk in bytes, as the header states it.
    pub(crate) stated_size: u64,
    /// The disk's own L1 table.
    pub(crate) l1: L1Table,
    /// The refcount table.
    pub(crate) refcount_table: RefcountTable,
    /// The logarithm of the number of bits of a reference count.
    pub(crate) refcount_order: u32,
    /// An error in the location of the refcount table. Reading doesn't need the table.
    pub(crate) refcount_problem: Option<String>,
    /// The snapshot table.
    pub(crate) snapshots: SnapshotTable,
    /// An error in the location of the snapshot table. No snapshot can be read then.
    pub(crate) snapshots_problem: Option<String>,
    /// The name of the backing file, in the bytes of the image, not empty.
    pub(crate) backing_name: Option<Vec<u8>>,
    /// The compression method of compressed clusters.
    pub(crate) compression: Compression,
    /// The feature bits. All incompatible bits are supported.
    pub(crate) features: Features,
    /// The header extensions. They contain the name of the external data file if the features state that there is one.
    pub(crate) extensions: Extensions,
}

impl Header {
    /// Reads the header of a qcow2 image. An error states the field, its offset and the reason.
    pub(crate) fn read(file: &ImageFile) -> Result<Self> {
        // Bytes beyond the end of a short file are zeros, which point to no table.
        let mut cluster = vec![0; 1 << CLUSTER_BITS_MIN];
        file.read_at(0, &mut cluster)?;
        if !cluster.starts_with(MAGIC) {
            return Err(unusable(file, "not a qcow2 image: it doesn't begin with \"QFI\\xfb\""));
        }
        let version = VERSION.u32(&cluster);
        if !(2..=3).contains(&version) {
            return Err(VERSION.bad(file, version, "only versions 2 and 3 of qcow2 can be read"));
        }
        let cluster_bits = CLUSTER_BITS.u32(&cluster);
        if !(CLUSTER_BITS_MIN..=CLUSTER_BITS_MAX).contains(&cluster_bits) {
            let why = format_args!("clusters can have 2^{CLUSTER_BITS_MIN} to 2^{CLUSTER_BITS_MAX} bytes");
            return Err(CLUSTER_BITS.bad(file, cluster_bits, why));
        }
        refuse_encryption(file, CRYPT_METHOD.u32(&cluster))?;
        let raw = RawHeader { version, cluster_bits, cluster };
        raw.check(file)
    }

    /// The name of the external data file, if there is one.
    pub(crate) fn data_file(&self) -> Option<&[u8]> {
        self.extensions.data_file.as_deref().filter(|_| self.features.has_data_file())
    }

    /// The tables that the header points to, without those whose location is invalid.
    pub(crate) fn regions(&self) -> Vec<MetadataRegion> {
        let sound = [true, self.refcount_problem.is_none(), self.snapshots_problem.is_none()];
        self.stated_regions().into_iter().zip(sound).filter_map(|(region, sound)| sound.then_some(region)).collect()
    }

    /// The tables that the header points to. The snapshot table has its minimum length, since the actual one is
    /// unknown.
    fn stated_regions(&self) -> [MetadataRegion; 3] {
        let region = |name, field, offset: HostOffset, len| MetadataRegion { name, field, offset: offset.0, len };
        let refcount_len = u64::from(self.refcount_table.clusters) << self.geometry.cluster_bits;
        let snapshots_len = u64::from(self.snapshots.count) * SNAPSHOT_ENTRY_MIN;
        [
            region("L1 table", L1_OFFSET, self.l1.offset, self.l1.entries * 8),
            region("refcount table", REFCOUNT_OFFSET, self.refcount_table.offset, refcount_len),
            region("snapshot table", SNAPSHOTS_OFFSET, self.snapshots.offset, snapshots_len),
        ]
    }

    /// Warnings about the image.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.features.is_dirty() {
            warnings.push("its dirty bit is set: it was not closed cleanly, or is in use".into());
        }
        if self.features.is_corrupt() {
            warnings.push("its corrupt bit is set: what is read of it may be wrong".into());
        }
        if let Some(problem) = &self.refcount_problem {
            warnings.push(format!("{problem}: it is not needed to read the disk"));
        }
        if let Some(problem) = &self.snapshots_problem {
            warnings.push(format!("{problem}: no snapshot can be read"));
        }
        if self.size != self.stated_size {
            let (stated, lost) = (self.stated_size, self.stated_size - self.size);
            warnings.push(format!(
                "its size of {stated} bytes is no multiple of {SECTOR}: the last {lost} are left out, as QEMU does"
            ));
        }
        warnings
    }
}

/// Fails if the image is encrypted, so that ciphertext is never read as the disk.
fn refuse_encryption(file: &ImageFile, method: u32) -> Result<()> {
    let scheme = match method {
        0 => return Ok(()),
        1 => "AES",
        2 => "LUKS",
        _ => return Err(CRYPT_METHOD.bad(file, method, "an unknown encryption")),
    };
    let refusal =
        CRYPT_METHOD.bad(file, method, format_args!("the image is encrypted ({scheme}), which can't be read"));
    Err(refusal.hint(decrypting(file.path())))
}

/// The first bytes of the file. Version and cluster size are already checked.
struct RawHeader {
    version: u32,
    cluster_bits: u32,
    cluster: Vec<u8>,
}

impl RawHeader {
    /// A field of version 3, which is zero in version 2.
    fn v3<T: Default>(&self, value: T) -> T {
        if self.version >= 3 { value } else { T::default() }
    }

    fn check(mut self, file: &ImageFile) -> Result<Header> {
        let cluster_size = 1u64 << self.cluster_bits;
        let length = if self.version >= 3 { HEADER_LENGTH.u32(&self.cluster) } else { LENGTH_V2 };
        if self.version >= 3 && (length < LENGTH_V3 || u64::from(length) > cluster_size) {
            let why = format_args!("can be {LENGTH_V3} bytes to a cluster of {cluster_size}");
            return Err(HEADER_LENGTH.bad(file, length, why));
        }
        self.cluster.resize(usize_of(cluster_size), 0);
        let (_, rest) = self.cluster.split_at_mut(1 << CLUSTER_BITS_MIN);
        file.read_at(1 << CLUSTER_BITS_MIN, rest)?;

        let (backing, extensions_end) = self.backing(file, length)?;
        let features = Features {
            incompatible: self.v3(INCOMPATIBLE.u64(&self.cluster)),
            compatible: self.v3(COMPATIBLE.u64(&self.cluster)),
            autoclear: self.v3(AUTOCLEAR.u64(&self.cluster)),
        };
        let extensions =
            Extensions::read(file, &self.cluster, usize_of(length), extensions_end, features.bitmaps_are_current());
        if features.unknown() != 0 {
            // The names of feature bits are available if the extensions are valid. The image is refused in any case.
            let words = extensions.map(|found| found.names).unwrap_or_default().of(features.unknown());
            return Err(INCOMPATIBLE.bad_offset(
                file,
                features.incompatible,
                format_args!("unknown features: {words}"),
            ));
        }
        let extensions = extensions?;
        check_data_file(file, features, &extensions)?;
        let geometry = Geometry { cluster_bits: self.cluster_bits, extended_l2: features.extended_l2() };
        if geometry.subcluster_size() < 1 << CLUSTER_BITS_MIN {
            let why =
                format_args!("too small for extended L2 entries (incompatible bit {})", EXTENDED_L2.trailing_zeros());
            return Err(CLUSTER_BITS.bad(file, self.cluster_bits, why));
        }
        let stated_size = SIZE.u64(&self.cluster);
        let mut header = Header {
            version: self.version,
            geometry,
            size: stated_size / SECTOR * SECTOR,
            stated_size,
            l1: L1Table {
                offset: HostOffset(L1_OFFSET.u64(&self.cluster)),
                entries: u64::from(L1_SIZE.u32(&self.cluster)),
            },
            refcount_table: RefcountTable {
                offset: HostOffset(REFCOUNT_OFFSET.u64(&self.cluster)),
                clusters: REFCOUNT_CLUSTERS.u32(&self.cluster),
            },
            refcount_order: if self.version >= 3 { REFCOUNT_ORDER.u32(&self.cluster) } else { 4 },
            refcount_problem: None,
            snapshots_problem: None,
            snapshots: SnapshotTable {
                offset: HostOffset(SNAPSHOTS_OFFSET.u64(&self.cluster)),
                count: SNAPSHOTS.u32(&self.cluster),
            },
            backing_name: backing,
            compression: self.compression(file, length, features)?,
            features,
            extensions,
        };
        check_numbers(file, &header)?;
        let [l1, refcounts, snapshots] = header.stated_regions();
        l1.check(file, geometry, &[])?;
        for region in [&refcounts, &snapshots] {
            region.check_number(file, geometry)?;
            // One of two overlapping tables has a wrong offset. It may be the L1 table, which maps the disk.
            region.overlap(file, &[l1]).map_or(Ok(()), Err)?;
        }
        let said = |problem: Option<DiskError>| problem.map(|problem| problem.what().to_owned());
        header.refcount_problem = said(refcounts.problem(file, geometry));
        let others: &[MetadataRegion] = if header.refcount_problem.is_none() { &[refcounts] } else { &[] };
        header.snapshots_problem = said(snapshots.problem(file, geometry).or_else(|| snapshots.overlap(file, others)));
        Ok(header)
    }

    /// The name of the backing file, and the end of the extensions.
    fn backing(&self, file: &ImageFile, header_length: u32) -> Result<(Option<Vec<u8>>, usize)> {
        let (offset, len) = (BACKING_OFFSET.u64(&self.cluster), BACKING_SIZE.u32(&self.cluster));
        if offset == 0 {
            return Ok((None, self.cluster.len()));
        }
        if offset < u64::from(header_length) || offset > self.cluster.len() as u64 {
            let why = format_args!(
                "not between the header's end at {header_length:#x} and its cluster's at {:#x}",
                self.cluster.len()
            );
            return Err(BACKING_OFFSET.bad_offset(file, offset, why));
        }
        let room = self.cluster.len() as u64 - offset;
        if len > BACKING_MAX || u64::from(len) > room {
            let why = format_args!("the backing file's name has room for {} bytes", room.min(u64::from(BACKING_MAX)));
            return Err(BACKING_SIZE.bad(file, len, why));
        }
        let name = string(&self.cluster[usize_of(offset)..][..usize_of(len)]);
        Ok(((!name.is_empty()).then(|| name.to_vec()), usize_of(offset)))
    }

    /// The compression method, which must agree with the feature bit.
    fn compression(&self, file: &ImageFile, header_length: u32, features: Features) -> Result<Compression> {
        let there = u64::from(header_length) > COMPRESSION_TYPE.at;
        let kind = if there { self.cluster[usize_of(COMPRESSION_TYPE.at)] } else { 0 };
        let bad = |why: &str| -> DiskError { COMPRESSION_TYPE.bad(file, kind, why) };
        match (kind, features.has_compression_type()) {
            (0, false) => Ok(Compression::Zlib),
            (1, true) => Ok(Compression::Zstd),
            (0, true) => Err(bad("zlib, but incompatible bit 3 says that it isn't")),
            (1, false) => Err(bad("zstd, but incompatible bit 3, which says so, is not set")),
            _ => Err(bad("an unknown compression, only zlib (0) and zstd (1) can be read")),
        }
    }
}

/// Fails if the features state an external data file, and the extensions don't name one.
fn check_data_file(file: &ImageFile, features: Features, extensions: &Extensions) -> Result<()> {
    let named = extensions.data_file.as_ref().is_some_and(|name| !name.is_empty());
    if features.has_data_file() && !named {
        let why = "guest data lies in an external data file, which the image doesn't name";
        return Err(INCOMPATIBLE.bad_offset(file, features.incompatible, why));
    }
    if features.data_file_raw() && !features.has_data_file() {
        return Err(AUTOCLEAR.bad_offset(
            file,
            features.autoclear,
            "a raw external data file, but there is no external data file",
        ));
    }
    Ok(())
}

/// Checks counts and sizes.
fn check_numbers(file: &ImageFile, header: &Header) -> Result<()> {
    let &Header { geometry, refcount_order, refcount_table, snapshots, l1, stated_size, .. } = header;
    if refcount_order > REFCOUNT_ORDER_MAX {
        return Err(REFCOUNT_ORDER.bad(file, refcount_order, "reference counts have at most 2^6 bits"));
    }
    let clusters = refcount_table.clusters;
    if clusters == 0 {
        return Err(REFCOUNT_CLUSTERS.bad(file, clusters, "there is no refcount table"));
    }
    if u64::from(clusters) << geometry.cluster_bits > REFCOUNT_TABLE_MAX {
        let why = format_args!("a refcount table of more than {REFCOUNT_TABLE_MAX} bytes");
        return Err(REFCOUNT_CLUSTERS.bad(file, clusters, why));
    }
    if snapshots.count > SNAPSHOTS_MAX {
        return Err(SNAPSHOTS.bad(file, snapshots.count, format_args!("more than {SNAPSHOTS_MAX} snapshots")));
    }
    l1.check_len(file, L1_SIZE)?;
    if stated_size > LEN_MAX {
        return Err(SIZE.bad(file, stated_size, "more bytes than a disk can have"));
    }
    l1.check_covers(file, L1_SIZE, geometry, stated_size)
}

/// Converts a number that is at most a cluster, and so fits.
fn usize_of(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
