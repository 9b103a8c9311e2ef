//! The reliability of file times: which file systems update them for stores into mapped pages, and the clock they use.

use std::fs::{self, File};
use std::time::Duration;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};

/// fstatfs(2): true if the file system write-protects mapped pages when it writes them back, so that the next store
/// into one updates the file's times. Tested on ext4 (ext2 and ext3 have the same number), XFS and btrfs. False for
/// tmpfs and overlayfs, which don't do it, and for network file systems and FUSE, where it is unknown.
pub fn is_told_of_stores(file: &File) -> bool {
    let known = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
    fstatfs(file).is_ok_and(|stat| known.contains(&stat.filesystem_type()))
}

/// clock_gettime(2) CLOCK_REALTIME_COARSE, since 1970: the clock of file times, which advances by ticks. No file time
/// that is set from now on is earlier.
pub fn coarse_now() -> Option<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one struct timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    let told = result == 0;
    told.then(|| Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))).flatten()
}

/// The boot ID of the running system, which differs after each reboot; `None` if /proc isn't mounted.
pub fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
