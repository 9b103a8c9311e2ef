//! qcow2 images as a layer of a chain: decodes their tables piece by piece, finds clusters and decompresses them.
//!
//! ```text
//! Header ─▶ TableReader (which tables, where) ─▶ ChainTables (decoded pieces, cached) ─▶ Mapping ─▶ Span
//! ```

pub(crate) mod bitmap_directory;
pub(crate) mod buffered_range;
pub(crate) mod compressed;
pub(crate) mod decompressor;
pub(crate) mod entry;
pub(crate) mod extension;
mod feature;
pub(crate) mod field;
pub(crate) mod geometry;
pub(crate) mod header;
mod metadata_region;
mod preallocation;
pub(crate) mod run_map;
pub(crate) mod snapshot;
pub(crate) mod subcluster;
pub(crate) mod table_cache;
pub(crate) mod table_reader;
#[cfg(test)]
mod test_images;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xfer_hole_os::{DiskError, Result, shown};

use crate::layer::{Allocation, Layer, Span};
use crate::qcow2::compressed::{CompressedEntry, Compression};
use crate::qcow2::decompressor::{CompressedSource, DecompressorPool};
use crate::qcow2::entry::Mapping;
use crate::qcow2::field::unusable;
use crate::qcow2::geometry::{GuestOffset, HostOffset};
use crate::qcow2::header::{Header, L1Table};
use crate::qcow2::metadata_region::MetadataRegion;
use crate::qcow2::table_cache::{ChainTables, TableKey};
use crate::qcow2::table_reader::{TableReader, TableRegion};
use crate::raw::seek_extents::SeekExtents;
use crate::{ExtentMethod, Format, ImageFile};

/// The layer number of the image that [`Qcow2::other_state`] returns.
const OTHER_STATE: u32 = u32::MAX;

/// One qcow2 image, without its backing files.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    /// Its number in the chain.
    layer: u32,
    pub(crate) file: Arc<ImageFile>,
    /// The external data file, if the image has one. Else data is in the image file.
    external: Option<ImageFile>,
    pub(crate) table_reader: TableReader,
    compression: Compression,
    /// The image is preallocated, so holes of its file are taken into account.
    preallocated: bool,
    seek: SeekExtents,
    tables: Arc<ChainTables>,
    decompressors: Arc<DecompressorPool>,
    /// A cluster was found that begins beyond the end of the file.
    cut_short: AtomicBool,
    /// The file ends inside a table.
    table_cut: bool,
}

impl Qcow2 {
    /// Opens the disk of an image, or of one of its snapshots, as layer `layer` of a chain. All layers of the chain
    /// share `tables` and `inflaters`.
    pub(crate) fn new(
        file: ImageFile,
        external: Option<ImageFile>,
        header: &Header,
        (l1, size): (L1Table, u64),
        layer: u32,
        (tables, decompressors): (Arc<ChainTables>, Arc<DecompressorPool>),
        method: Option<ExtentMethod>,
    ) -> Result<Self> {
        let table_reader = table_reader(header, (l1, size), external.is_some());
        let table_cut = table_reader.check(&file)?;
        // The user who chose the scan method doesn't rely on the file system's holes.
        let preallocated = method != Some(ExtentMethod::Scan) && preallocation::is_preallocated(&file, header);
        let compression = header.compression;
        Ok(Self {
            layer,
            file: Arc::new(file),
            external,
            table_reader,
            compression,
            preallocated,
            seek: SeekExtents::default(),
            tables,
            decompressors,
            cut_short: AtomicBool::new(false),
            table_cut,
        })
    }

    /// Opens another state of the disk in the same image. The image must have no external data file. The cache keeps
    /// the tables of both states apart.
    pub(crate) fn other_state(&self, header: &Header, state: (L1Table, u64)) -> Result<Self> {
        let table_reader = table_reader(header, state, false);
        let table_cut = table_reader.check(&self.file)?;
        Ok(Self {
            layer: OTHER_STATE,
            file: Arc::clone(&self.file),
            external: None,
            table_reader,
            compression: self.compression,
            preallocated: self.preallocated,
            seek: SeekExtents::default(),
            tables: Arc::clone(&self.tables),
            decompressors: Arc::clone(&self.decompressors),
            cut_short: AtomicBool::new(false),
            table_cut,
        })
    }

    /// The image file, which contains the tables, and the data unless it is in an external file.
    pub(crate) fn image(&self) -> &ImageFile {
        &self.file
    }

    /// The offset of the L2 table for `at`, if there is one, and the number of bytes from there on for which that is
    /// so.
    pub(crate) fn table(&self, at: GuestOffset) -> Result<(Option<HostOffset>, u64)> {
        let covers = self.table_reader.geometry.l1_span();
        if self.table_reader.geometry.l1_index(at) >= self.table_reader.l1_entries {
            return Ok((None, self.table_reader.size - at.0));
        }
        let (piece, entry) = self.table_reader.l1_piece(at);
        let l1 = self.tables.l1.get(self.key(piece), || self.table_reader.read_l1(&self.file, piece))?;
        let found = l1.find(entry).ok_or_else(|| self.lost(at))?;
        Ok((found.what, u64::from(found.left) * covers - at.0 % covers))
    }

    fn lost(&self, at: GuestOffset) -> DiskError {
        unusable(&self.file, format!("no table entry for disk offset {}", at.0))
    }

    /// The mapping of `at`, and the number of bytes for which it applies: until the mapping changes, or the decoded
    /// piece of the table ends. Each compressed cluster has its own mapping; with `neighbours`, following compressed
    /// clusters are counted too.
    pub(crate) fn mapping(&self, at: GuestOffset, neighbours: bool) -> Result<(Mapping, u64)> {
        let geometry = self.table_reader.geometry;
        let (covers, unit_size) = (geometry.l1_span(), geometry.subcluster_size());
        let (table, left) = self.table(at)?;
        let Some(table) = table else { return Ok((Mapping::Unallocated(None), left)) };
        let (piece, unit) = self.table_reader.l2_piece(table, at);
        let first = GuestOffset(at.0 - at.0 % covers);
        let l2 = self.tables.l2.get(self.key(piece), || self.table_reader.read_l2(&self.file, table, piece, first))?;
        let found = l2.find(unit).ok_or_else(|| self.lost(at))?;
        let mut units = found.left;
        if neighbours && found.what.is_compressed() {
            while let Some(next) = l2.find(unit + units).filter(|next| next.what.is_compressed()) {
                units += next.left;
            }
        }
        let within = at.0 % unit_size;
        let mapping = found.what.moved(u64::from(found.passed) * unit_size + within);
        Ok((mapping, u64::from(units) * unit_size - within))
    }

    fn key(&self, piece: HostOffset) -> TableKey {
        TableKey { layer: self.layer, piece }
    }

    /// Checks whether the file has a hole at the data at file offset `offset`. If that is unknown, it counts as data.
    fn written(&self, offset: u64, len: u64) -> (Allocation, u64) {
        let file = self.host();
        if offset >= file.len() {
            return (Allocation::Unwritten, len);
        }
        match self.seek.extent(file.file(), offset, file.len()) {
            Ok((Allocation::Data, data)) => (Allocation::Data, len.min(data)),
            // A hole at the end of the file extends beyond it.
            Ok((_, hole)) if offset + hole == file.len() => (Allocation::Unwritten, len),
            Ok((_, hole)) => (Allocation::Unwritten, len.min(hole)),
            Err(_) => (Allocation::Data, len),
        }
    }
}

/// Creates the reader for the tables of one state of the disk, with that state's L1 table and size.
fn table_reader(header: &Header, (l1, size): (L1Table, u64), external: bool) -> TableReader {
    let geometry = header.geometry;
    let mut regions = vec![TableRegion { what: "header", bytes: 0..geometry.cluster_size() }];
    let region =
        |table: &MetadataRegion| TableRegion { what: table.name, bytes: table.offset..table.offset + table.len };
    regions.extend(header.regions().iter().map(region));
    regions.push(TableRegion { what: "L1 table", bytes: l1.offset.0..l1.offset.0 + l1.entries * 8 });
    let l1_entries = l1.entries.min(geometry.l1_entries(size));
    TableReader { geometry, version: header.version, l1: l1.offset, l1_entries, size, external, regions }
}

impl Layer for Qcow2 {
    fn format(&self) -> Format {
        Format::Qcow2
    }

    fn size(&self) -> u64 {
        self.table_reader.size
    }

    fn span(&self, at: u64, max: u64) -> Result<Span> {
        let (mapping, len) = self.mapping(GuestOffset(at), true)?;
        let len = len.min(max);
        if let Mapping::Data(HostOffset(offset)) = mapping
            && offset + len > self.host().len().next_multiple_of(self.table_reader.geometry.cluster_size())
        {
            self.cut_short.store(true, Ordering::Relaxed);
        }
        let span = |allocation, offset: Option<HostOffset>| Span {
            len,
            allocation,
            compressed: false,
            host: offset.map(|offset| offset.0),
        };
        Ok(match mapping {
            Mapping::Unallocated(offset) => span(Allocation::Unallocated, offset),
            Mapping::Zero(offset) => span(Allocation::Zero, offset),
            Mapping::Compressed(_) => Span { compressed: true, ..span(Allocation::Data, None) },
            Mapping::Data(offset) if self.preallocated => {
                let (allocation, len) = self.written(offset.0, len);
                Span { len, ..span(allocation, Some(offset)) }
            }
            Mapping::Data(offset) => span(Allocation::Data, Some(offset)),
        })
    }

    fn host(&self) -> &ImageFile {
        self.external.as_ref().unwrap_or(&self.file)
    }

    fn files(&self) -> Vec<&ImageFile> {
        [&*self.file].into_iter().chain(&self.external).collect()
    }

    fn inflate(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let geometry = self.table_reader.geometry;
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let (mapping, _) = self.mapping(GuestOffset(at), false)?;
            let Mapping::Compressed(word) = mapping else {
                return Err(unusable(&self.file, format!("disk offset {at} is not compressed, though it was before")));
            };
            let within = geometry.in_cluster(GuestOffset(at));
            let len = usize::try_from(geometry.cluster_size() - within).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            let entry = CompressedEntry::parse(word, geometry);
            let (file, layer, compression) = (&*self.file, self.layer, self.compression);
            self.decompressors.read(&CompressedSource { file, layer, compression, geometry, entry }, within, now)?;
            at += len as u64;
            rest = later;
        }
        Ok(())
    }

    fn chunk(&self) -> u64 {
        self.table_reader.geometry.cluster_size()
    }

    fn noticed(&self) -> Option<String> {
        let told = |file: &ImageFile, what: &str| format!("{}: ends at {:#x}, {what}", shown(file.path()), file.len());
        if self.table_cut {
            let what = "inside a table of its clusters: what the rest of that told is lost, and is unallocated, as QEMU has it";
            return Some(told(&self.file, what));
        }
        let what = "before data that its tables tell of: zeros there, as QEMU has it";
        self.cut_short.load(Ordering::Relaxed).then(|| told(self.host(), what))
    }

    fn check_unchanged(&self, live: bool) -> Result<()> {
        self.file.check_unchanged(live)?;
        self.external.as_ref().map_or(Ok(()), |external| external.check_unchanged(live))
    }
}
