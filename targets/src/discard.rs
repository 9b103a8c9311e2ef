//! Discards holes of a thinly provisioned device that releases space only on discard (dm-thin). Discarded blocks need
//! not read as zeros, so they are read back.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use xfer_hole_os::{ALIGN, Aligned, is_zero, sys, sysfs_disk, sysfs_folder};

/// Bytes that are read at each end of a discarded range: a device may leave parts of its own units unchanged there.
const ENDS: u64 = 1 << 20;
/// Number of blocks that are read between the ends.
const SAMPLES: u64 = 16;

/// Discards ranges of a device, as long as they read as zeros afterwards.
pub(crate) struct Discard {
    /// Discard granularity of the device, and offset of its first unit, both in bytes.
    unit: u64,
    first: u64,
    /// The device, opened for direct I/O. `None` if it can't discard.
    device: Option<File>,
    /// True after a discarded range did not read as zeros.
    failed: AtomicBool,
}

impl Discard {
    pub(crate) fn of(file: &File) -> Self {
        let number = |path: std::path::PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let folder = file.metadata().ok().and_then(|stat| sysfs_folder(stat.rdev()));
        let unit = folder.as_deref().and_then(|folder| number(sysfs_disk(folder).join("queue/discard_granularity")));
        let first = folder.as_deref().and_then(|folder| number(folder.join("discard_alignment"))).unwrap_or(0);
        let unit = unit.filter(|&unit| unit > 0);
        let device = unit.and_then(|_| sys::open_direct(file, false).ok());
        let unit = unit.unwrap_or(1).next_multiple_of(ALIGN as u64);
        Self { unit, first: first % unit, device, failed: AtomicBool::new(false) }
    }

    /// Discards the whole units of a range and returns the part that now reads as zeros. The returned range is empty if
    /// that is not certain.
    pub(crate) fn zero(&self, file: &File, at: u64, len: u64) -> Range<u64> {
        let units = units(at, at + len, self.unit, self.first);
        let Some(device) = self.device.as_ref().filter(|_| !units.is_empty() && !self.failed.load(Ordering::Relaxed))
        else {
            return at..at;
        };
        let zeroed = sys::device_discard(file, units.start, units.end - units.start).is_ok()
            && reads_as_zeros(device, &units).unwrap_or(false);
        if !zeroed {
            self.failed.store(true, Ordering::Relaxed);
            return at..at;
        }
        units
    }

    /// Returns a message for the user if no space was released by discarding.
    pub(crate) fn note(&self) -> Option<String> {
        let why = match (&self.device, self.failed.load(Ordering::Relaxed)) {
            (None, _) => "can't discard",
            (Some(_), true) => "doesn't read as zeros where it was discarded",
            (Some(_), false) => return None,
        };
        Some(format!("the device {why}: holes were zeroed, and may take space"))
    }
}

/// Returns the whole units in a range. Units are aligned to `first` plus or minus a multiple of `unit` bytes.
fn units(start: u64, end: u64, unit: u64, first: u64) -> Range<u64> {
    let up = |at: u64| (at + unit - first).next_multiple_of(unit) + first - unit;
    let from = up(start);
    let to = end.checked_sub(first).map_or(0, |end| end - end % unit + first);
    if from < to { from..to } else { start..start }
}

/// Reads both ends of a range and some blocks between. Returns true if all of them are zeros.
fn reads_as_zeros(device: &File, range: &Range<u64>) -> io::Result<bool> {
    let len = range.end - range.start;
    let block = ALIGN as u64;
    let ends = ENDS.min(len);
    let mut ranges = vec![(range.start, ends), (range.end - ends, ends)];
    ranges.extend((1..=SAMPLES).map(|n| (range.start + len / (SAMPLES + 1) * n / block * block, block.min(len))));
    let mut buffer = Aligned::zeroed(usize::try_from(ends).unwrap_or(ALIGN));
    for (at, len) in ranges {
        let bytes = &mut buffer[..usize::try_from(len).unwrap_or(ALIGN)];
        bytes.fill(0xff);
        device.read_exact_at(bytes, at)?;
        if !is_zero(bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_units_are_discarded() {
        for (start, end, unit, first, expected) in [
            (0, 65536, 65536, 0, 0..65536),
            (4096, 131072, 65536, 0, 65536..131072),
            (0, 131071, 65536, 0, 0..65536),
            (1, 65536, 65536, 0, 1..1),
            (0, 262144, 65536, 4096, 4096..200704),
            (4096, 69632, 65536, 4096, 4096..69632),
            (8192, 12288, 4096, 0, 8192..12288),
            (0, 4096, 65536, 8192, 0..0),
        ] {
            assert_eq!(units(start, end, unit, first), expected, "{start}..{end} by {unit} from {first}");
        }
    }

    #[test]
    fn nonzero_bytes_at_the_ends_or_throughout_are_found() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        let (page, len) = (ALIGN as u64, 64_u64 << 20);
        file.set_len(len + page).unwrap();
        assert!(reads_as_zeros(&file, &(page..len)).unwrap());
        assert!(reads_as_zeros(&file, &(page..2 * page)).unwrap());
        for at in [page, 3 * page + 77, len - 1] {
            file.write_all_at(&[1], at).unwrap();
            assert!(!reads_as_zeros(&file, &(page..len)).unwrap(), "{at}");
            file.write_all_at(&[0], at).unwrap();
        }
        // Bytes outside the range don't count.
        file.write_all_at(&[1], 0).unwrap();
        file.write_all_at(&[1], len).unwrap();
        assert!(reads_as_zeros(&file, &(page..len)).unwrap());
        file.write_all(&vec![0xee; 64 << 20]).unwrap();
        assert!(!reads_as_zeros(&file, &(16 << 20..48 << 20)).unwrap());
        // A range that can't be read returns an error.
        assert!(reads_as_zeros(&file, &(len..2 * len)).is_err());
    }
}
