//! Reads a persistent dirty bitmap: a bit per granule, which is set if the granule was written to.
//!
//! qcow2 specification, "Bitmap table" and "Bitmap data".

use std::sync::{Arc, Mutex, PoisonError};

use xfer_hole_os::Result;

use crate::changes::change_tracker::{ChangeTracker, Comparison};
use crate::layer::Layer;
use crate::qcow2::Qcow2;
use crate::qcow2::bitmap_directory::BitmapTableRef;
use crate::qcow2::buffered_range::BufferedRange;
use crate::qcow2::field::{be64, unusable};
use crate::qcow2::geometry::HostOffset;
use crate::qcow2::header::Header;
use crate::qcow2::table_reader::{self, TableRegion};

/// Bits 9 to 55 of a table entry: the offset of its cluster of bits.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 0 of an entry without a cluster: all of its bits are set.
const ALL_SET: u64 = 1;
/// Size of an entry in bytes.
const ENTRY: u64 = 8;
/// The maximum number of bytes of bits, or of entries, that are read and buffered at a time.
const PIECE: u64 = 8 << 10;

/// A bitmap whose table is valid.
#[derive(Debug)]
pub(crate) struct DirtyBitmap {
    top: Arc<Qcow2>,
    /// Offset of its table in the file, in bytes.
    table: u64,
    /// The number of bytes of the disk per bit: a power of two.
    granularity: u64,
    /// The pieces that were read last.
    read: Mutex<BitmapWindow>,
}

/// A piece of the table and a piece of the bits, each with its file offset. A valid offset is not 0.
#[derive(Debug, Default)]
struct BitmapWindow {
    entries: (u64, Vec<u8>),
    bits: (u64, Vec<u8>),
}

/// The meaning of a table entry for the bits of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BitmapCluster {
    /// All bits have this value.
    All(bool),
    /// The bits are at this file offset.
    At(u64),
}

impl DirtyBitmap {
    /// Opens the bitmap of the image `top`, which has this header. Checks its whole table.
    pub(crate) fn new(top: Arc<Qcow2>, header: &Header, table_ref: &BitmapTableRef, granularity: u64) -> Result<Self> {
        let dirty = Self { top, table: table_ref.table, granularity, read: Mutex::default() };
        dirty.check(header, table_ref)?;
        Ok(dirty)
    }

    /// Checks every entry: its value, and that its cluster lies in the file and overlaps neither the others nor another
    /// table.
    fn check(&self, header: &Header, table_ref: &BitmapTableRef) -> Result<()> {
        let (file, cluster_size) = (&*self.top.file, header.geometry.cluster_size());
        let end = table_ref.table + u64::from(table_ref.entries) * ENTRY;
        if end > file.len() {
            let what = format!("the bitmap table at {:#x} runs past the end of the file", table_ref.table);
            return Err(unusable(file, what));
        }
        let mut regions = self.top.table_reader.regions.clone();
        let directory = header.extensions.bitmaps.map(|directory| (directory.offset.0, directory.len));
        regions.extend(directory.map(|(at, len)| TableRegion { what: "bitmap directory", bytes: at..at + len }));
        if let Some(region) = TableRegion::hit(&regions, &(table_ref.table..end)) {
            let what = format!("the bitmap table at {:#x} lies where the {} is", table_ref.table, region.what);
            return Err(unusable(file, what));
        }
        regions.push(TableRegion { what: "bitmap table", bytes: table_ref.table..end });
        let mut clusters = Vec::new();
        let mut range = BufferedRange::new(file, table_ref.table, end);
        for index in 0..u64::from(table_ref.entries) {
            let wrong = |what: String| {
                unusable(file, format!("bitmap table entry at {:#x} {what}", table_ref.table + index * ENTRY))
            };
            let word = range.take(8)?.map_or(0, |word| be64(word, 0));
            let BitmapCluster::At(at) = cluster(word).map_err(|what| wrong(what.into()))? else { continue };
            if !at.is_multiple_of(cluster_size) {
                return Err(wrong("has an offset that is no multiple of the cluster size".into()));
            }
            if let Some(region) = TableRegion::hit(&regions, &(at..at + cluster_size)) {
                return Err(wrong(format!("has its cluster at {at:#x}, where the {} is", region.what)));
            }
            // Missing bits must not be read as clear bits.
            if at + cluster_size > file.len() {
                return Err(wrong(format!("has its cluster at {at:#x}, past the end of the file")));
            }
            clusters.push(at);
        }
        clusters.sort_unstable();
        match clusters.windows(2).find(|two| two[0] == two[1]) {
            Some(two) => Err(unusable(file, format!("two bitmap table entries have the cluster at {:#x}", two[0]))),
            None => Ok(()),
        }
    }

    /// The value of bit `bit`, and the minimum number of bits from there on with the same value.
    fn run(&self, bit: u64) -> Result<(bool, u64)> {
        let file = &*self.top.file;
        let cluster_size = self.top.table_reader.geometry.cluster_size();
        // The size of a piece divides the size of a cluster, so a piece contains bits of one cluster only.
        let (cluster_bits, piece) = (cluster_size * 8, cluster_size.min(PIECE));
        let (entry, within) = (self.table + bit / cluster_bits * ENTRY, bit % cluster_bits);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let BitmapWindow { entries, bits } = &mut *read;
        let fetch = |held: &mut (u64, Vec<u8>), at: u64| {
            if held.0 != at {
                *held = (at, table_reader::read(file, HostOffset(at), piece)?);
            }
            Ok::<(), xfer_hole_os::DiskError>(())
        };
        fetch(entries, entry - entry % piece)?;
        let word = be64(&entries.1, index(entry % piece));
        let at =
            match cluster(word).map_err(|what| unusable(file, format!("bitmap table entry at {entry:#x} {what}")))? {
                BitmapCluster::All(set) => return Ok((set, cluster_bits - within)),
                BitmapCluster::At(at) => at + within / 8,
            };
        fetch(bits, at - at % piece)?;
        Ok(alike(&bits.1[index(at % piece)..], within % 8))
    }
}

impl ChangeTracker for DirtyBitmap {
    fn size(&self) -> u64 {
        self.top.size()
    }

    fn compare(&self, at: u64, max: u64) -> Result<Comparison> {
        let within = at % self.granularity;
        let (set, bits) = self.run(at / self.granularity)?;
        // No overflow: a bit covers at most 2 GiB, a cluster of bits at most 2^55 bytes.
        Ok(Comparison { len: (bits * self.granularity - within).min(max), same: !set })
    }
}

/// Decodes a table entry.
fn cluster(word: u64) -> std::result::Result<BitmapCluster, &'static str> {
    let at = word & OFFSET;
    match word & !OFFSET {
        0 if at != 0 => Ok(BitmapCluster::At(at)),
        0 => Ok(BitmapCluster::All(false)),
        ALL_SET if at == 0 => Ok(BitmapCluster::All(true)),
        _ => Err("has reserved bits set"),
    }
}

/// The value of bit `first`, below 8, of these bytes, and the number of bits from there on with the same value. The
/// lowest bit of a byte comes first.
fn alike(bytes: &[u8], first: u64) -> (bool, u64) {
    let set = bytes[0] >> first & 1 == 1;
    let mut count = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let passed = if index == 0 { u32::try_from(first).unwrap_or_default() } else { 0 };
        // A set bit in `other` differs from bit `first`.
        let other = if set { !byte } else { byte } >> passed;
        if other != 0 {
            return (set, count + u64::from(other.trailing_zeros()));
        }
        count += u64::from(8 - passed);
    }
    (set, count)
}

/// An index into a piece.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_entry_is_a_cluster_or_a_value_for_all_bits() {
        assert_eq!(cluster(0), Ok(BitmapCluster::All(false)));
        assert_eq!(cluster(1), Ok(BitmapCluster::All(true)));
        assert_eq!(cluster(0x5_0000), Ok(BitmapCluster::At(0x5_0000)));
        for bit in (1..9).chain(56..64) {
            assert!(cluster(1 << bit).is_err() && cluster(0x5_0000 | 1 << bit).is_err(), "bit {bit}");
        }
        assert!(cluster(0x5_0001).is_err());
    }

    #[test]
    fn run_of_equal_bits_has_maximum_length() {
        let bytes = [0b1110_0110, 0xff, 0xff, 0b0000_0001, 0, 0];
        let cases = [(0, (false, 1)), (1, (true, 2)), (3, (false, 2)), (5, (true, 20))];
        for (first, expected) in cases {
            assert_eq!(alike(&bytes, first), expected, "bit {first}");
        }
        assert_eq!(alike(&bytes[3..], 1), (false, 23));
        assert_eq!(alike(&bytes[1..3], 7), (true, 9));
    }
}
