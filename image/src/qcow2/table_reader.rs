//! Reads L1 and L2 tables: checks the L1 table once, then reads and decodes pieces on demand.

use std::ops::Range;

use xfer_hole_os::Result;

use crate::ImageFile;
use crate::qcow2::buffered_range::BufferedRange;
use crate::qcow2::entry::{ClusterType, EntryFault, L1Entry, L2Entry, Mapping};
use crate::qcow2::field::{be64, unusable};
use crate::qcow2::geometry::{Geometry, GuestOffset, HostOffset};
use crate::qcow2::run_map::RunMap;
use crate::qcow2::subcluster::Subclusters;

/// The number of bytes of a table that are read and decoded at once.
const PIECE: u64 = 8 << 10;
/// The number of bytes of an extended L2 table that are read and decoded at once. It is smaller because each entry can
/// become 32 runs, and the cache holds pieces of many layers.
const EXTENDED_PIECE: u64 = 512;
/// Size of an L1 entry in bytes (qcow2 specification, "Cluster mapping").
const L1_ENTRY: u64 = 8;

/// A range of an image file that contains one of its tables.
#[derive(Clone, Debug)]
pub(crate) struct TableRegion {
    pub(crate) what: &'static str,
    pub(crate) bytes: Range<u64>,
}

impl TableRegion {
    /// The first of `regions` that overlaps the range `bytes`.
    pub(crate) fn hit<'a>(regions: &'a [Self], bytes: &Range<u64>) -> Option<&'a Self> {
        regions.iter().find(|region| region.bytes.start < bytes.end && bytes.start < region.bytes.end)
    }
}

/// Reads the tables of one disk state in an image.
#[derive(Clone, Debug)]
pub(crate) struct TableReader {
    pub(crate) geometry: Geometry,
    pub(crate) version: u32,
    /// Offset of the L1 table.
    pub(crate) l1: HostOffset,
    /// The number of L1 entries, at most as many as the disk's size needs.
    pub(crate) l1_entries: u64,
    /// Size of the disk in bytes. Table entries beyond it are ignored.
    pub(crate) size: u64,
    /// Data is in an external file.
    pub(crate) external: bool,
    /// The ranges in which no L2 table and no data may be.
    pub(crate) regions: Vec<TableRegion>,
}

impl TableReader {
    /// Checks every L1 entry: its value, and that no L2 table overlaps another table. Returns true if the file ends
    /// before the last entry that the disk needs; the missing entries read as zeros, so that part of the disk is
    /// unallocated.
    pub(crate) fn check(&self, file: &ImageFile) -> Result<bool> {
        let mut tables = Vec::new();
        let mut end = self.l1.0 + self.l1_entries * L1_ENTRY;
        let mut range = BufferedRange::new(file, self.l1.0, self.l1.0 + self.l1_entries * L1_ENTRY);
        for index in 0..self.l1_entries {
            let word = range.take(8)?.map_or(0, |word| be64(word, 0));
            let table = self.l1_entry(file, index, word)?;
            end = end.max(table.map_or(0, |table| table.0 + self.l2_entries(index) * self.geometry.l2_entry_size()));
            tables.extend(table);
        }
        tables.sort_unstable();
        match tables.windows(2).find(|two| two[0] == two[1]) {
            Some(two) => Err(unusable(file, format!("two L1 entries have the L2 table at {:#x}", two[0].0))),
            None => Ok(end > file.len()),
        }
    }

    /// The number of entries that the disk needs in the L2 table of this L1 entry.
    fn l2_entries(&self, index: u64) -> u64 {
        let span = self.geometry.l1_span();
        self.size.saturating_sub(index * span).min(span).div_ceil(self.geometry.cluster_size())
    }

    /// Decodes and checks an L1 entry.
    fn l1_entry(&self, file: &ImageFile, index: u64, word: u64) -> Result<Option<HostOffset>> {
        let wrong = |what: &str| {
            let at = self.l1.0 + index * L1_ENTRY;
            unusable(file, format!("L1 entry at {at:#x} {what}"))
        };
        let Some(table) = L1Entry(word).table(self.geometry).map_err(wrong)? else { return Ok(None) };
        if table.0 >= file.len() {
            return Err(wrong(&format!("has its L2 table at {:#x}, past the end of the file", table.0)));
        }
        if let Some(region) = TableRegion::hit(&self.regions, &self.cluster(table)) {
            return Err(wrong(&format!("has its L2 table at {:#x}, where the {} is", table.0, region.what)));
        }
        Ok(Some(table))
    }

    /// The byte range of a cluster.
    fn cluster(&self, at: HostOffset) -> Range<u64> {
        at.0..at.0 + self.geometry.cluster_size()
    }

    /// The offset of the piece of the L1 table that contains the entry for `at`, and the entry's index in the piece.
    pub(crate) fn l1_piece(&self, at: GuestOffset) -> (HostOffset, u32) {
        piece(self.l1, self.geometry.l1_index(at), L1_ENTRY, PIECE)
    }

    /// Reads a piece of the L1 table: the offsets of L2 tables.
    pub(crate) fn read_l1(&self, file: &ImageFile, piece: HostOffset) -> Result<RunMap<Option<HostOffset>>> {
        let first = (piece.0 - self.l1.0) / L1_ENTRY;
        let bytes = read(file, piece, ((self.l1_entries - first) * L1_ENTRY).min(PIECE))?;
        let mut runs = RunMap::default();
        for (index, word) in (first..).zip(words(&bytes)) {
            let table = self.l1_entry(file, index, word)?;
            runs.push(1, table, |before: Option<HostOffset>, _| before.is_none() && table.is_none());
        }
        Ok(runs.close())
    }

    /// Size in bytes of a piece of an L2 table.
    fn l2_size(&self) -> u64 {
        if self.geometry.extended_l2 { EXTENDED_PIECE } else { PIECE }
    }

    /// The offset of the piece of an L2 table that contains the entry for `at`, and the index of the subcluster in the
    /// piece.
    pub(crate) fn l2_piece(&self, table: HostOffset, at: GuestOffset) -> (HostOffset, u32) {
        let (piece, entry) = piece(table, self.geometry.l2_index(at), self.geometry.l2_entry_size(), self.l2_size());
        (piece, entry * self.geometry.subclusters() + self.geometry.subcluster(at))
    }

    /// Reads a piece of an L2 table, decoded by subclusters. The first entry of the piece covers the disk from `guest`
    /// on.
    pub(crate) fn read_l2(
        &self,
        file: &ImageFile,
        table: HostOffset,
        piece: HostOffset,
        guest: GuestOffset,
    ) -> Result<RunMap<Mapping>> {
        let entry_size = self.geometry.l2_entry_size();
        let first = (piece.0 - table.0) / entry_size;
        let bytes = read(file, piece, (self.cluster(table).end - piece.0).min(self.l2_size()))?;
        let mut words = words(&bytes);
        let mut runs = RunMap::default();
        for index in first.. {
            let guest = GuestOffset(guest.0 + index * self.geometry.cluster_size());
            let Some(entry) = words.next().map(L2Entry).filter(|_| guest.0 < self.size) else { break };
            let bits = self.geometry.extended_l2.then(|| Subclusters(words.next().unwrap_or_default()));
            let wrong = |problem: &str| {
                let at = table.0 + index * entry_size;
                unusable(file, format!("L2 entry at {at:#x} {problem}"))
            };
            let cluster = entry.cluster(self.geometry, self.version, self.external).map_err(wrong)?;
            self.check_place(cluster, guest, table).map_err(|what| wrong(&what))?;
            self.decode(entry, cluster, bits, &mut runs).map_err(wrong)?;
        }
        Ok(runs.close())
    }

    /// Checks that data overlaps no table. In an external data file, checks that data is at its disk offset.
    fn check_place(&self, cluster: ClusterType, guest: GuestOffset, table: HostOffset) -> Result<(), String> {
        let (ClusterType::Normal(offset) | ClusterType::Zero(Some(offset))) = cluster else { return Ok(()) };
        if self.external {
            let wrong = || format!("has its cluster at {:#x} of the data file, not at {:#x}", offset.0, guest.0);
            return if offset.0 == guest.0 { Ok(()) } else { Err(wrong()) };
        }
        let what = if offset == table {
            Some("L2 table itself")
        } else {
            TableRegion::hit(&self.regions, &self.cluster(offset)).map(|region| region.what)
        };
        what.map_or(Ok(()), |what| Err(format!("has its cluster at {:#x}, where the {what} is", offset.0)))
    }

    /// Appends the mappings of an entry's subclusters.
    fn decode(
        &self,
        entry: L2Entry,
        cluster: ClusterType,
        bits: Option<Subclusters>,
        runs: &mut RunMap<Mapping>,
    ) -> Result<(), EntryFault> {
        let unit = self.geometry.subcluster_size();
        let mut push = |units: u32, mapping: Mapping| {
            let goes_on = |before: Mapping, units: u32| before.moved(u64::from(units) * unit) == mapping;
            runs.push(units, mapping, |before, units| !mapping.is_compressed() && goes_on(before, units));
        };
        match (cluster, bits) {
            // The bitmap of a compressed cluster is reserved (qcow2 specification, "Extended L2 Entries"), and QEMU
            // ignores it.
            (ClusterType::Compressed, _) => push(self.geometry.subclusters(), Mapping::Compressed(entry.0)),
            (_, None) => push(1, cluster.into()),
            (_, Some(bits)) => {
                for index in 0..self.geometry.subclusters() {
                    push(1, Mapping::of_subcluster(cluster, bits, index, self.geometry)?);
                }
            }
        }
        Ok(())
    }
}

/// The offset of the piece of a table that contains entry `index`, and the entry's index in the piece.
fn piece(table: HostOffset, index: u64, entry_size: u64, size: u64) -> (HostOffset, u32) {
    let bytes = index * entry_size;
    let within = bytes % size;
    (HostOffset(table.0 + bytes - within), u32::try_from(within / entry_size).unwrap_or(u32::MAX))
}

/// Reads `len` bytes of a table. Beyond the end of the file it reads as zeros.
pub(crate) fn read(file: &ImageFile, piece: HostOffset, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_at(piece.0, &mut bytes)?;
    Ok(bytes)
}

/// The big-endian words of a table.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| be64(word, 0))
}
