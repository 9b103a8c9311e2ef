//! Determines a file's extents by lseek(2) SEEK_DATA and SEEK_HOLE, with one pair of calls per extent.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use xfer_hole_os::{settle, sys};

use crate::layer::Allocation;

/// Caches the last replies of the file system, since SEEK_HOLE examines every page up to the hole on some file systems.
/// Two readers at different offsets have an extent each, such as the transfer and the thread that reads ahead.
#[derive(Debug, Default)]
pub(crate) struct SeekExtents {
    /// The extents of the last replies. The first one was used most recently.
    seen: Mutex<[SeekExtent; 2]>,
}

/// An extent, in bytes of the file.
#[derive(Clone, Copy, Debug, Default)]
struct SeekExtent {
    start: u64,
    end: u64,
    data: bool,
    /// Data follows the extent.
    then_data: bool,
    /// Data that was written before the first call is flushed, so that the file system reports it.
    settled: bool,
}

impl SeekExtents {
    /// The extent at `at`, which is below `size`, the size of the file: zeros or data, and its remaining number of
    /// bytes, at least 1.
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

/// Checks that a reply is a whole number of sectors. File systems count holes in sectors; smaller steps would cause a
/// call for each byte.
fn whole(offset: u64, size: u64) -> io::Result<u64> {
    if offset < size && !offset.is_multiple_of(512) {
        return Err(io::Error::other("data or a hole is said to begin inside a sector"));
    }
    Ok(offset)
}

fn look(file: &File, at: u64, size: u64, is_data: bool) -> io::Result<SeekExtent> {
    let data = if is_data { Some(at) } else { sys::seek_data(file, at)? };
    match data.filter(|&data| data < size) {
        None => Ok(SeekExtent { start: at, end: size, data: false, then_data: false, settled: true }),
        Some(data) if data > at => {
            Ok(SeekExtent { start: at, end: whole(data, size)?, data: false, then_data: true, settled: true })
        }
        Some(_) => {
            // `None` here means that the file was truncated between the two calls. The following read reports that.
            let end = sys::seek_hole(file, at)?.map_or(size, |hole| hole.min(size));
            let end = whole(end, size)?;
            if end <= at {
                return Err(io::Error::other("a hole begins where data was said to begin"));
            }
            Ok(SeekExtent { start: at, end, data: true, then_data: false, settled: true })
        }
    }
}
