//! Whether a file is still what it was: by size, times and inode, as far as the system tells them.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::sys;

/// Identity, size and times of a regular file, to the nanosecond. A writer can set the modification time back, but not the
/// change time: both count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    /// The stamp in this `stat` answer.
    #[must_use]
    pub fn of(stat: &Metadata) -> Self {
        Self {
            file: (stat.dev(), stat.ino()),
            size: stat.size(),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            ctime: (stat.ctime(), stat.ctime_nsec()),
        }
    }

    /// True if it is the same file with the same bytes, by all but the change time: that another name or mode changes, too.
    pub fn is_same_content(&self, other: &Self) -> bool {
        let but_ctime = |stamp: &Self| Self { ctime: other.ctime, ..*stamp };
        but_ctime(self) == *other
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When it was changed last, by either time, since 1970; none for what was before.
    pub fn touched(&self) -> Option<Duration> {
        let time = |(seconds, nanoseconds): (i64, i64)| {
            Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
        };
        Some(time(self.mtime)?.max(time(self.ctime)?))
    }

    /// True if a change that is made when the clock of the file system shows `now`, or later, gives it other times than it has.
    pub fn is_past(&self, now: Duration) -> bool {
        // Some keep whole seconds only.
        let whole = self.mtime.1 == 0 && self.ctime.1 == 0;
        let now = if whole { Duration::from_secs(now.as_secs()) } else { now };
        self.touched().is_some_and(|touched| touched < now)
    }
}

/// For a note: all that is known of it.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file: (device, inode), size, mtime, ctime } = self;
        write!(f, "{device} {inode} {size} {}.{:09} {}.{:09}", mtime.0, mtime.1, ctime.0, ctime.1)
    }
}
/// What a regular file is known by: from here on every change of it changes that. None where that can't be had.
#[must_use]
pub fn flushed(file: &File) -> Option<Stamp> {
    if !sys::is_told_of_stores(file) {
        return None;
    }
    // In this order: what is stored before the flush is seen by the reading that follows, and what is stored behind it sets other times.
    file.sync_data().ok()?;
    file.metadata().ok().filter(fs::Metadata::is_file).map(|stat| Stamp::of(&stat))
}
