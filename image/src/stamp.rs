//! Whether a file is still what it was: by size, times and inode, as far as the system tells them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

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
}
