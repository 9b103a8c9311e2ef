//! What the times of a file are worth: which file systems set them when a mapped page is stored to, and what clock they are taken from.

use std::fs::{self, File};
use std::time::Duration;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};

/// fstatfs(2): whether the file system takes the right to write from mapped pages when it writes them back, so that the next store into
/// one sets the file's times anew. That was tried out on ext4 (ext2 and ext3 have the same number), XFS and btrfs; tmpfs and overlayfs
/// don't do it, and of network file systems and FUSE it can't be known.
pub fn is_told_of_stores(file: &File) -> bool {
    let known = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
    fstatfs(file).is_ok_and(|stat| known.contains(&stat.filesystem_type()))
}

/// clock_gettime(2) CLOCK_REALTIME_COARSE, since 1970: the clock that the times of files are taken from, which stands still from one
/// tick to the next. No time that is set from now on is before it.
pub fn coarse_now() -> Option<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one struct timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    let told = result == 0;
    told.then(|| Some(Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?))).flatten()
}

/// What tells this run of the system from all others; `None` where there is no /proc.
pub fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
