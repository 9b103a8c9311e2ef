//! Whether a file is still what it was: by size, times and inode, as far as the system tells them.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

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

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// True if it is the same file with the same octets, by all but the change time: that another name or mode changes, too.
    pub(crate) fn is_same_content(&self, other: &Self) -> bool {
        let but_ctime = |stamp: &Self| Self { ctime: other.ctime, ..*stamp };
        but_ctime(self) == *other
    }

    /// When it was changed last, by either time, since 1970; none for what was before.
    pub(crate) fn touched(&self) -> Option<Duration> {
        let time = |(seconds, nanoseconds): (i64, i64)| {
            Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
        };
        Some(time(self.mtime)?.max(time(self.ctime)?))
    }
}

/// For a note that outlives a restart: without the device's number, which is given anew then.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file: (_, inode), size, mtime, ctime } = self;
        write!(f, "{inode} {size} {}.{:09} {}.{:09}", mtime.0, mtime.1, ctime.0, ctime.1)
    }
}
