//! L1 and L2 tables: checked once, then read and decoded in pieces as they are asked for.

use std::ops::Range;

use xfer_hole_os::Result;

use crate::ImageFile;
use crate::qcow2::buffered_range::BufferedRange;
use crate::qcow2::entry::{ClusterType, EntryFault, L1Entry, L2Entry, Mapping};
use crate::qcow2::field::{be64, unusable};
use crate::qcow2::geometry::{Geometry, GuestOffset, HostOffset};
use crate::qcow2::run_map::RunMap;
use crate::qcow2::subcluster::Subclusters;

/// Bytes of a table that are read and decoded at once.
const PIECE: u64 = 8 << 10;
/// The same of an extended L2 table, of which each entry may become 32 runs: the cache has to hold pieces of many layers.
const EXTENDED_PIECE: u64 = 512;
/// Bytes of an L1 entry (qcow2 specification, "Cluster mapping").
const L1_ENTRY: u64 = 8;

/// A part of an image file that holds one of its tables.
#[derive(Clone, Debug)]
pub(crate) struct TableRegion {
    pub(crate) what: &'static str,
    pub(crate) bytes: Range<u64>,
}

impl TableRegion {
    /// The first of these that has an byte in common with `bytes`.
    pub(crate) fn hit<'a>(regions: &'a [Self], bytes: &Range<u64>) -> Option<&'a Self> {
        regions.iter().find(|region| region.bytes.start < bytes.end && bytes.start < region.bytes.end)
    }
}

/// How the tables of one disk in an image are to be read.
#[derive(Clone, Debug)]
pub(crate) struct TableReader {
    pub(crate) geometry: Geometry,
    pub(crate) version: u32,
    /// Where the L1 table begins.
    pub(crate) l1: HostOffset,
    /// As many as the disk's size needs, or fewer.
    pub(crate) l1_entries: u64,
    /// The disk's size in bytes: what tables say behind it counts for nothing.
    pub(crate) size: u64,
    /// Guest data lies in a file of its own.
    pub(crate) external: bool,
    /// Where no L2 table and no data may lie.
    pub(crate) regions: Vec<TableRegion>,
}

impl TableReader {
    /// Checks every L1 entry: what it says itself, and that L2 tables lie apart from each other and from all other tables. True if the file
    /// ends before the last entry that speaks of the disk: what isn't there is zeros, which say that nothing is allocated.
    pub(crate) fn check(&self, host: &ImageFile) -> Result<bool> {
        let mut tables = Vec::new();
        let mut end = self.l1.0 + self.l1_entries * L1_ENTRY;
        let mut window = BufferedRange::new(host, self.l1.0, self.l1.0 + self.l1_entries * L1_ENTRY);
        for index in 0..self.l1_entries {
            let word = window.take(8)?.map_or(0, |word| be64(word, 0));
            let table = self.l1_entry(host, index, word)?;
            end = end.max(table.map_or(0, |table| table.0 + self.l2_entries(index) * self.geometry.l2_entry_size()));
            tables.extend(table);
        }
        tables.sort_unstable();
        match tables.windows(2).find(|two| two[0] == two[1]) {
            Some(two) => Err(unusable(host, format!("two L1 entries have the L2 table at {:#x}", two[0].0))),
            None => Ok(end > host.len()),
        }
    }

    /// How many entries of this L1 entry's L2 table speak of the disk.
    fn l2_entries(&self, index: u64) -> u64 {
        let span = self.geometry.l1_span();
        self.size.saturating_sub(index * span).min(span).div_ceil(self.geometry.cluster_size())
    }

    /// What an L1 entry says, checked.
    fn l1_entry(&self, host: &ImageFile, index: u64, word: u64) -> Result<Option<HostOffset>> {
        let wrong = |what: &str| {
            let at = self.l1.0 + index * L1_ENTRY;
            unusable(host, format!("L1 entry at {at:#x} {what}"))
        };
        let Some(table) = L1Entry(word).table(self.geometry).map_err(wrong)? else { return Ok(None) };
        if table.0 >= host.len() {
            return Err(wrong(&format!("has its L2 table at {:#x}, past the end of the file", table.0)));
        }
        if let Some(region) = TableRegion::hit(&self.regions, &self.cluster(table)) {
            return Err(wrong(&format!("has its L2 table at {:#x}, where the {} is", table.0, region.what)));
        }
        Ok(Some(table))
    }

    /// The bytes of a cluster.
    fn cluster(&self, at: HostOffset) -> Range<u64> {
        at.0..at.0 + self.geometry.cluster_size()
    }

    /// Where the piece of the L1 table is that speaks of `at`, and which of its entries does.
    pub(crate) fn l1_piece(&self, at: GuestOffset) -> (HostOffset, u32) {
        piece(self.l1, self.geometry.l1_index(at), L1_ENTRY, PIECE)
    }

    /// The offsets of L2 tables in a piece of the L1 table.
    pub(crate) fn read_l1(&self, host: &ImageFile, piece: HostOffset) -> Result<RunMap<Option<HostOffset>>> {
        let first = (piece.0 - self.l1.0) / L1_ENTRY;
        let bytes = read(host, piece, ((self.l1_entries - first) * L1_ENTRY).min(PIECE))?;
        let mut runs = RunMap::default();
        for (index, word) in (first..).zip(words(&bytes)) {
            let table = self.l1_entry(host, index, word)?;
            runs.push(1, table, |before: Option<HostOffset>, _| before.is_none() && table.is_none());
        }
        Ok(runs.close())
    }

    /// Bytes of a piece of an L2 table.
    fn l2_size(&self) -> u64 {
        if self.geometry.extended_l2 { EXTENDED_PIECE } else { PIECE }
    }

    /// Where the piece of an L2 table is that speaks of `at`, and which of its subclusters that is.
    pub(crate) fn l2_piece(&self, table: HostOffset, at: GuestOffset) -> (HostOffset, u32) {
        let (piece, entry) = piece(table, self.geometry.l2_index(at), self.geometry.l2_entry_size(), self.l2_size());
        (piece, entry * self.geometry.subclusters() + self.geometry.subcluster(at))
    }

    /// What a piece of an L2 table says, by subclusters. The table speaks of the disk from `guest` on.
    pub(crate) fn read_l2(
        &self,
        host: &ImageFile,
        table: HostOffset,
        piece: HostOffset,
        guest: GuestOffset,
    ) -> Result<RunMap<Mapping>> {
        let entry_size = self.geometry.l2_entry_size();
        let first = (piece.0 - table.0) / entry_size;
        let bytes = read(host, piece, (self.cluster(table).end - piece.0).min(self.l2_size()))?;
        let mut words = words(&bytes);
        let mut runs = RunMap::default();
        for index in first.. {
            let guest = GuestOffset(guest.0 + index * self.geometry.cluster_size());
            let Some(entry) = words.next().map(L2Entry).filter(|_| guest.0 < self.size) else { break };
            let bits = self.geometry.extended_l2.then(|| Subclusters(words.next().unwrap_or_default()));
            let wrong = |flaw: &str| {
                let at = table.0 + index * entry_size;
                unusable(host, format!("L2 entry at {at:#x} {flaw}"))
            };
            let cluster = entry.cluster(self.geometry, self.version, self.external).map_err(wrong)?;
            self.check_place(cluster, guest, table).map_err(|what| wrong(&what))?;
            self.decode(entry, cluster, bits, &mut runs).map_err(wrong)?;
        }
        Ok(runs.close())
    }

    /// Guest data lies where no table is, or in a file of its own at its own place.
    fn check_place(&self, cluster: ClusterType, guest: GuestOffset, table: HostOffset) -> Result<(), String> {
        let (ClusterType::Normal(place) | ClusterType::Zero(Some(place))) = cluster else { return Ok(()) };
        if self.external {
            let wrong = || format!("has its cluster at {:#x} of the data file, not at {:#x}", place.0, guest.0);
            return if place.0 == guest.0 { Ok(()) } else { Err(wrong()) };
        }
        let what = if place == table {
            Some("L2 table itself")
        } else {
            TableRegion::hit(&self.regions, &self.cluster(place)).map(|region| region.what)
        };
        what.map_or(Ok(()), |what| Err(format!("has its cluster at {:#x}, where the {what} is", place.0)))
    }

    /// Adds what an entry says of its cluster's parts.
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
            // Its bitmap is reserved (qcow2 specification, "Extended L2 Entries"), and QEMU ignores it.
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

/// Where the piece of a table is that holds entry `index`, and which entry of the piece that is.
fn piece(table: HostOffset, index: u64, entry_size: u64, size: u64) -> (HostOffset, u32) {
    let bytes = index * entry_size;
    let within = bytes % size;
    (HostOffset(table.0 + bytes - within), u32::try_from(within / entry_size).unwrap_or(u32::MAX))
}

/// So many bytes of a table. It may be longer than its file: zeros there.
pub(crate) fn read(host: &ImageFile, piece: HostOffset, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    host.read_at(piece.0, &mut bytes)?;
    Ok(bytes)
}

/// The big-endian words of a table.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| be64(word, 0))
}
