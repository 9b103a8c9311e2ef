//! Locks of a file that can't be opened, read from /proc/locks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The locks that other programs hold on one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedLocks {
    /// First and last byte of each record lock.
    records: Vec<(i64, i64)>,
    /// A program holds an exclusive flock(2).
    pub is_exclusive: bool,
}

impl ListedLocks {
    /// Reads the locks of the file with this name. A symbolic link is not followed.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        let inode = file.metadata()?.ino();
        let device = mount_device(&file).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self::parse(&fs::read_to_string("/proc/locks")?, device, inode))
    }

    /// True if a record lock covers some of these bytes.
    pub(crate) fn covers(&self, start: i64, len: i64) -> bool {
        self.records.iter().any(|&(first, last)| first < start + len && start <= last)
    }

    /// Parses lines such as `1: OFDLCK ADVISORY  READ -1 08:01:1234 100 101`.
    fn parse(text: &str, device: (u64, u64), inode: u64) -> Self {
        let name = format!("{:02x}:{:02x}:{inode}", device.0, device.1);
        let mut locks = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            // A lock request that waits has "->" as its second word.
            let [_, kind, _, access, _, file, first, last] = words[..] else { continue };
            if file != name {
                continue;
            }
            match kind {
                "FLOCK" => locks.is_exclusive |= access == "WRITE",
                "OFDLCK" | "POSIX" => {
                    let number = |word: &str| word.parse().unwrap_or(i64::MAX);
                    locks.records.push((number(first), number(last)));
                }
                _ => {}
            }
        }
        locks
    }
}

/// Major and minor number of the file's file system, according to its mount. On btrfs, stat(2) returns other numbers
/// than /proc/locks.
fn mount_device(file: &File) -> Option<(u64, u64)> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let (major, minor) = mounts.find(|words| words.clone().next() == Some(id))?.nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_lock_requests_are_not_counted() {
        let text = "1: OFDLCK ADVISORY  READ -1 fd:01:1234 100 101\n\
                    2: POSIX  ADVISORY  WRITE 77 fd:01:1234 201 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 78 fd:01:12345 0 EOF\n\
                    3: -> FLOCK  ADVISORY  WRITE 78 fd:01:1234 0 EOF\n\
                    4: FLOCK  ADVISORY  READ 79 fd:01:1234 0 EOF\n\
                    5: LEASE  ACTIVE    READ 80 fd:01:1234 0 EOF\n\
                    6: OFDLCK ADVISORY  READ -1 08:01:1234 300 300\nx\n\n";
        let locks = ListedLocks::parse(text, (0xfd, 1), 1234);
        assert_eq!(locks, ListedLocks { records: vec![(100, 101), (201, i64::MAX)], is_exclusive: false });
        for (start, len, covered) in [(100, 8, true), (101, 1, true), (102, 90, false), (200, 1, false), (200, 2, true)]
        {
            assert_eq!(locks.covers(start, len), covered, "{start} {len}");
        }
        assert!(ListedLocks::parse(text, (0xfd, 1), 12345).is_exclusive);
    }

    #[test]
    fn own_locks_are_listed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(ListedLocks::at(file.path()).unwrap(), ListedLocks::default());
        crate::sys::share_record(file.as_file(), 301, 1).unwrap();
        file.as_file().lock().unwrap();
        let locks = ListedLocks::at(file.path()).unwrap();
        assert_eq!(locks, ListedLocks { records: vec![(301, 301)], is_exclusive: true });
    }
}
