//! A file's extents by lseek(2) SEEK_DATA and SEEK_HOLE, asked no oftener than they end.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::layer::Allocation;
use crate::sys;

/// What the file system said last: on some, SEEK_HOLE looks at every page up to the hole. Two readers at different offsets, such as the
/// transfer and the walk ahead of it, have an extent each.
#[derive(Debug, Default)]
pub(crate) struct Seek {
    /// The one that was used last comes first.
    seen: Mutex<[Seen; 2]>,
}

/// An extent, in octets of the file.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    start: u64,
    end: u64,
    data: bool,
    /// Data begins at its end.
    then_data: bool,
}

impl Seek {
    /// The extent at `at`, which is before `size`, the file's: zeros or data, and how many octets of it, at least 1.
    pub(crate) fn extent(&self, file: &File, at: u64, size: u64) -> io::Result<(Allocation, u64)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |seen: &Seen| (seen.start..seen.end).contains(&at) || (seen.end > 0 && seen.end == at);
        if !used(&seen[0]) {
            seen.swap(0, 1);
        }
        let seen = &mut seen[0];
        if !(seen.start..seen.end).contains(&at) {
            *seen = look(file, at, size, seen.then_data && seen.end == at)?;
        }
        let allocation = if seen.data { Allocation::Data } else { Allocation::Zero };
        Ok((allocation, seen.end - at))
    }
}

fn look(file: &File, at: u64, size: u64, is_data: bool) -> io::Result<Seen> {
    let data = if is_data { Some(at) } else { sys::seek_data(file, at)? };
    match data.filter(|&data| data < size) {
        None => Ok(Seen { start: at, end: size, data: false, then_data: false }),
        Some(data) if data > at => Ok(Seen { start: at, end: data, data: false, then_data: true }),
        Some(_) => {
            // `None` here: cut short between the two calls. The read that follows will find that out.
            let end = sys::seek_hole(file, at)?.map_or(size, |hole| hole.min(size));
            if end <= at {
                return Err(io::Error::other("SEEK_HOLE went nowhere"));
            }
            Ok(Seen { start: at, end, data: true, then_data: false })
        }
    }
}
