//! Where a file has data: looked up once, and kept in a file, so that the floor has nothing to do but move bytes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::error::{Error, Result, Told};

/// So many bytes of data from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes; not 0.
    pub len: u64,
}

/// A file's data, as SEEK_DATA and SEEK_HOLE tell it, in order.
///
/// # Errors
/// If it can't be read, or its file system can't tell.
pub fn of(path: &Path) -> Result<Vec<Range>> {
    let file = File::open(path).told(path.display())?;
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match lseek(&file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(ranges),
            Err(why) => return Err(why).told(path.display()),
        };
        at = lseek(&file, start, Whence::SeekHole).told(path.display())?;
        // Both are offsets in the file, so they aren't negative.
        ranges.push(Range { start: start.cast_unsigned(), len: (at - start).cast_unsigned() });
    }
}

/// How many bytes they are together.
#[must_use]
pub fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.len).sum()
}

/// How many bytes they are together if each begins and ends on a multiple of `grain`, a power of two.
#[must_use]
pub fn total_by(ranges: &[Range], grain: u64) -> u64 {
    let (mut bytes, mut end) = (0, 0);
    for range in ranges {
        let start = (range.start & !(grain - 1)).max(end);
        end = end.max((range.start + range.len).next_multiple_of(grain));
        bytes += end - start.min(end);
    }
    bytes
}

/// Writes one a line: start, space, length, in decimal.
///
/// # Errors
/// If the file can't be written.
pub fn write(ranges: &[Range], path: &Path) -> Result<()> {
    let text = ranges.iter().fold(String::new(), |mut text, range| {
        let _always = writeln!(text, "{} {}", range.start, range.len);
        text
    });
    fs::write(path, text).told(path.display())
}

/// Reads what [`write()`] has written.
///
/// # Errors
/// If it can't be read, or isn't that.
pub fn read(path: &Path) -> Result<Vec<Range>> {
    parse(&fs::read_to_string(path).told(path.display())?)
}

/// Understands lines of start and length; they have to be in order and apart.
///
/// # Errors
/// If a line is anything else.
pub fn parse(text: &str) -> Result<Vec<Range>> {
    let mut end = 0;
    text.lines()
        .map(|line| {
            let refused = || Error::new(format!("{line:?} is no start and length behind the line before"));
            let (start, len) = line.split_once(' ').ok_or_else(refused)?;
            let start: u64 = start.parse().map_err(|_| refused())?;
            let len: u64 = len.parse().map_err(|_| refused())?;
            if start < end || len == 0 {
                return Err(refused());
            }
            end = start.checked_add(len).ok_or_else(refused)?;
            Ok(Range { start, len })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranges");
        let ranges = [Range { start: 0, len: 4096 }, Range { start: 8192, len: 1 }];
        write(&ranges, &path).unwrap();
        assert_eq!(read(&path).unwrap(), ranges);
        assert_eq!(total(&ranges), 4097);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["1", "a 1", "1 a", "1 -1", "1 0", "8 8\n15 1", "18446744073709551615 1", "1  2", "1 2 3"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn by_a_larger_grain_what_two_ranges_share_counts_once() {
        let ranges = [(4096, 4096), (16384, 4096), (70000, 1)].map(|(start, len)| Range { start, len });
        assert_eq!([4096, 65536, 1 << 20].map(|grain| total_by(&ranges, grain)), [3 << 12, 2 << 16, 1 << 20]);
    }

    #[test]
    fn a_files_data_is_found_between_its_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(4 << 20).unwrap();
        file.write_all_at(&[1; 65536], 1 << 20).unwrap();
        assert_eq!(of(&path).unwrap(), [Range { start: 1 << 20, len: 65536 }]);
    }
}
