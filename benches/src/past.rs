//! What stands at the target before a run that is to bring it up to date: an old state of the disk, the disk itself, or half of it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::case::Way;
use crate::disk::BenchDisk;
use crate::error::{Result, Told};
use crate::ranges::{self, Range};
use crate::seeded::Seeded;
use crate::tool::{self, text};

/// What manifests are cut at where a receiver is asked what it has, and what is changed at once, in bytes.
const INTERVAL: u64 = 64 << 10;
/// What is looked at for zeros, in bytes.
const GRAIN: usize = 4096;

/// An old state, and what is missing in it.
#[derive(Clone, Debug)]
pub struct Past {
    /// The data that was other bytes then.
    changed: Vec<Range>,
    /// Where there was nothing yet from, in bytes.
    cut: Option<u64>,
    /// What has to flow.
    pub due: Due,
}

/// What has to flow, whoever does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The data of all intervals that differ, in bytes.
    pub bytes: u64,
    /// The records of the disk's manifest.
    pub records: u64,
}

impl Past {
    /// What stands there before a run of this way; `None` if nothing does.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn of(way: Way, disk: &BenchDisk) -> Result<Option<Self>> {
        if !way.renews() {
            return Ok(None);
        }
        let data = ranges::read(&disk.ranges)?;
        let (mut changed, mut cut) = (Vec::new(), None);
        let bytes = match way {
            Way::Resume => {
                let at = half(&data);
                cut = Some(at);
                ranges::total(&within(&data, at / INTERVAL * INTERVAL, disk.size))
            }
            Way::DeltaSame => 0,
            _ => {
                changed = some(&data, disk.size);
                ranges::total(&changed)
            }
        };
        let due = Due { bytes, records: records(disk, &data)? };
        Ok(Some(Self { changed, cut, due }))
    }

    /// Has it stand at `out`, where there is nothing, or what a run has made; as `part` where a transfer was cut, if that is given.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn stand(&self, disk: &BenchDisk, out: &Path, part: Option<&Path>) -> Result<()> {
        if !out.exists() {
            tool::run("cp", ["--sparse=always", "--reflink=never", text(&disk.raw)?, text(out)?])?;
        }
        let file = File::options().write(true).open(out).told(out.display())?;
        let mut seeded = Seeded::new(disk.size);
        let mut bytes = Vec::new();
        for range in &self.changed {
            bytes.resize(usize::try_from(range.len).told("a piece")?, 0);
            seeded.fill(&mut bytes);
            file.write_all_at(&bytes, range.start).told(out.display())?;
        }
        if let Some(at) = self.cut {
            file.set_len(at).and_then(|()| file.set_len(disk.size)).told(out.display())?;
            if let Some(part) = part {
                // As a receiver leaves it: nobody else's is gone on from.
                file.set_permissions(Permissions::from_mode(0o600)).told(part.display())?;
                fs::rename(out, part).told(part.display())?;
                let mut side = part.as_os_str().to_owned();
                side.push(".lines");
                let inode = file.metadata().told(part.display())?.ino();
                fs::write(&side, format!("XFER-HOLE-PART 1 inode {inode}\n")).told(part.display())?;
            }
        }
        Ok(())
    }
}

/// One in a hundred of the disk's intervals, all of them with data, at random places that are the same each time: their data.
fn some(data: &[Range], size: u64) -> Vec<Range> {
    let mut places: Vec<u64> =
        data.iter().flat_map(|range| range.start / INTERVAL..(range.start + range.len).div_ceil(INTERVAL)).collect();
    places.dedup();
    Seeded::new(size).shuffle(&mut places);
    places.truncate(usize::try_from((size / INTERVAL).div_ceil(100)).unwrap_or(usize::MAX));
    places.sort_unstable();
    places.into_iter().flat_map(|place| within(data, place * INTERVAL, (place + 1) * INTERVAL)).collect()
}

/// What of these ranges lies between two offsets.
fn within(ranges: &[Range], from: u64, to: u64) -> Vec<Range> {
    let first = ranges.partition_point(|range| range.start + range.len <= from);
    let those = ranges[first..].iter().take_while(|range| range.start < to);
    those
        .map(|range| {
            let start = range.start.max(from);
            Range { start, len: (range.start + range.len).min(to) - start }
        })
        .collect()
}

/// The offset with half of the data in front of it.
fn half(data: &[Range]) -> u64 {
    let mut left = ranges::total(data) / 2;
    for range in data {
        if left < range.len {
            return range.start + left;
        }
        left -= range.len;
    }
    0
}

/// How many records its canonical form has.
fn records(disk: &BenchDisk, data: &[Range]) -> Result<u64> {
    let file = File::open(&disk.raw).told(disk.raw.display())?;
    let (mut records, mut end) = (0, 0);
    let mut piece = vec![0; usize::try_from(INTERVAL).told("an interval")?];
    for range in data {
        let mut at = range.start;
        while at < range.start + range.len {
            let len = (range.start + range.len - at).min(INTERVAL - at % INTERVAL);
            let bytes = &mut piece[..usize::try_from(len).told("an interval")?];
            file.read_exact_at(bytes, at).told(disk.raw.display())?;
            for block in bytes.chunks(GRAIN) {
                let len = block.len() as u64;
                if block.iter().any(|&byte| byte != 0) {
                    // A hole and data, data behind an interval, or more of the same.
                    records += if at != end { 2 } else { u64::from(at.is_multiple_of(INTERVAL)) };
                    end = at + len;
                }
                at += len;
            }
        }
    }
    Ok(records + u64::from(end < disk.size))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::disk::fragments;

    /// 1 MiB of fragments and 15 MiB of nothing.
    fn disk(folder: &Path) -> BenchDisk {
        let [raw, ranges] = ["raw", "ranges"].map(|name| folder.join(name));
        fragments(&raw, 1 << 20).unwrap();
        File::options().write(true).open(&raw).unwrap().set_len(16 << 20).unwrap();
        ranges::write(&ranges::of(&raw).unwrap(), &ranges).unwrap();
        BenchDisk { path: raw.clone(), format: "raw", raw, ranges, size: 16 << 20, allocated: 512 << 10 }
    }

    fn stood(way: Way) -> (Past, Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let past = Past::of(way, &disk).unwrap().unwrap();
        let [out, part] = ["out", "part"].map(|name| folder.path().join(name));
        past.stand(&disk, &out, Some(&part)).unwrap();
        let there: PathBuf = if way == Way::Resume { part } else { out };
        let read = [&disk.raw, &there].map(|path| fs::read(path).unwrap());
        let [disk, there] = read;
        (past, disk, there)
    }

    #[test]
    fn one_interval_in_a_hundred_is_changed_where_there_is_data() {
        let (past, disk, there) = stood(Way::Delta);
        // 256 intervals, three of them, each with eight pieces of 4 KiB.
        assert_eq!(past.due, Due { bytes: 3 * 8 * 4096, records: 256 });
        let differ = |size: usize| disk.chunks(size).zip(there.chunks(size)).filter(|(a, b)| a != b).count();
        assert_eq!((differ(64 << 10), differ(4096)), (3, 24));
    }

    #[test]
    fn a_cut_leaves_half_of_the_data() {
        let (past, disk, there) = stood(Way::Resume);
        assert_eq!(past.due.bytes, 256 << 10);
        assert!(disk[..512 << 10] == there[..512 << 10] && there[512 << 10..].iter().all(|&byte| byte == 0));
        assert_eq!(there.len(), disk.len());
    }

    #[test]
    fn the_same_is_the_same_and_another_way_finds_nothing() {
        let (past, disk, there) = stood(Way::DeltaSame);
        assert!(disk == there && past.due.bytes == 0);
        let folder = tempfile::tempdir().unwrap();
        assert!(Past::of(Way::Ssh, &self::disk(folder.path())).unwrap().is_none());
    }
}
