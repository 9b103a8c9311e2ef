//! A file's extents by lseek(2) SEEK_DATA and SEEK_HOLE, asked no oftener than they end.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use xfer_hole_os::{settle, sys};

use crate::layer::Allocation;

/// What the file system said last: on some, SEEK_HOLE looks at every page up to the hole. Two readers at different offsets, such as the
/// transfer and the walk ahead of it, have an extent each.
#[derive(Debug, Default)]
pub(crate) struct SeekExtents {
    /// The one that was used last comes first.
    seen: Mutex<[SeekExtent; 2]>,
}

/// An extent, in bytes of the file.
#[derive(Clone, Copy, Debug, Default)]
struct SeekExtent {
    start: u64,
    end: u64,
    data: bool,
    /// Data begins at its end.
    then_data: bool,
    /// What was written before the first question is known to the file system.
    settled: bool,
}

impl SeekExtents {
    /// The extent at `at`, which is before `size`, the file's: zeros or data, and how many bytes of it, at least 1.
    pub(crate) fn extent(&self, file: &File, at: u64, size: u64) -> io::Result<(Allocation, u64)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |seen: &SeekExtent| (seen.start..seen.end).contains(&at) || (seen.end > 0 && seen.end == at);
        if !used(&seen[0]) {
            seen.swap(0, 1);
        }
        let seen = &mut seen[0];
        if !(seen.start..seen.end).contains(&at) {
            if !seen.settled {
                settle(file)?;
                seen.settled = true;
            }
            let then_data = seen.then_data && seen.end == at;
            *seen = look(file, at, size, then_data)?;
        }
        let allocation = if seen.data { Allocation::Data } else { Allocation::Zero };
        Ok((allocation, seen.end - at))
    }
}

/// File systems count holes in whole sectors. What is finer is no answer, and would be asked for byte by byte.
fn whole(place: u64, size: u64) -> io::Result<u64> {
    if place < size && !place.is_multiple_of(512) {
        return Err(io::Error::other("data or a hole is said to begin inside a sector"));
    }
    Ok(place)
}

fn look(file: &File, at: u64, size: u64, is_data: bool) -> io::Result<SeekExtent> {
    let data = if is_data { Some(at) } else { sys::seek_data(file, at)? };
    match data.filter(|&data| data < size) {
        None => Ok(SeekExtent { start: at, end: size, data: false, then_data: false, settled: true }),
        Some(data) if data > at => {
            Ok(SeekExtent { start: at, end: whole(data, size)?, data: false, then_data: true, settled: true })
        }
        Some(_) => {
            // `None` here: cut short between the two calls. The read that follows will find that out.
            let end = sys::seek_hole(file, at)?.map_or(size, |hole| hole.min(size));
            let end = whole(end, size)?;
            if end <= at {
                return Err(io::Error::other("a hole begins where data was said to begin"));
            }
            Ok(SeekExtent { start: at, end, data: true, then_data: false, settled: true })
        }
    }
}
