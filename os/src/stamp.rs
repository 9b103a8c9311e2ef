//! Detects whether a file has changed: by its size, times and inode, as far as the file system updates them.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::sys;

/// Identity, size and times of a regular file. Times are in nanoseconds. A program can set the modification time back,
/// but not the change time, so both are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    /// The stamp of a file with this metadata.
    #[must_use]
    pub fn of(stat: &Metadata) -> Self {
        Self {
            file: (stat.dev(), stat.ino()),
            size: stat.size(),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            ctime: (stat.ctime(), stat.ctime_nsec()),
        }
    }

    /// True if both are the same file with the same content. The change time is not compared, since renaming a file or
    /// changing its mode sets it too.
    pub fn is_same_content(&self, other: &Self) -> bool {
        let but_ctime = |stamp: &Self| Self { ctime: other.ctime, ..*stamp };
        but_ctime(self) == *other
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The later of the modification and the change time, since 1970. `None` for times before 1970.
    pub fn touched(&self) -> Option<Duration> {
        let time = |(seconds, nanoseconds): (i64, i64)| {
            Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
        };
        Some(time(self.mtime)?.max(time(self.ctime)?))
    }

    /// True if a change at time `now` or later, by the file system's clock, sets times that differ from this stamp.
    pub fn is_past(&self, now: Duration) -> bool {
        // Some file systems store times in whole seconds.
        let whole = self.mtime.1 == 0 && self.ctime.1 == 0;
        let now = if whole { Duration::from_secs(now.as_secs()) } else { now };
        self.touched().is_some_and(|touched| touched < now)
    }
}

/// The text form that the fingerprint cache stores: all fields.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file: (device, inode), size, mtime, ctime } = self;
        write!(f, "{device} {inode} {size} {}.{:09} {}.{:09}", mtime.0, mtime.1, ctime.0, ctime.1)
    }
}
/// Flushes a regular file and returns a stamp that every later change of the file changes. `None` if the file system
/// doesn't guarantee that.
#[must_use]
pub fn flushed(file: &File) -> Option<Stamp> {
    if !sys::is_told_of_stores(file) {
        return None;
    }
    // The order matters: the following read sees stores before the flush, and stores after it set new times.
    file.sync_data().ok()?;
    file.metadata().ok().filter(fs::Metadata::is_file).map(|stat| Stamp::of(&stat))
}
