//! Detects whether two names lead to the same storage: links, other device nodes, a partition and its disk, a loop
//! device and its file.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file's device and inode number, or a block device's own number.
type DeviceInode = (u64, u64);

/// The storage behind a name.
#[derive(Debug)]
pub struct StorageId {
    own: DeviceInode,
    /// The storage that contains this one: the disk of a partition, or the file behind a loop device.
    around: Vec<DeviceInode>,
}

impl StorageId {
    /// The storage at this path, if it exists. Symbolic links are followed.
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|stat| Self::of(&stat))
    }

    /// The storage with this metadata.
    pub fn of(stat: &Metadata) -> Self {
        let device = stat.file_type().is_block_device();
        let around = if device { around(stat.rdev()) } else { Vec::new() };
        Self { own: identity(stat), around }
    }

    /// True if both are the same file or device.
    pub fn is_same(&self, other: &Self) -> bool {
        self.own == other.own
    }

    /// True if writing to one may change the other.
    pub fn is_shared(&self, other: &Self) -> bool {
        self.own == other.own || self.around.contains(&other.own) || other.around.contains(&self.own)
    }
}

/// The whole disk of a partition, and the files behind a loop device. Empty if sysfs doesn't tell.
fn around(device: u64) -> Vec<DeviceInode> {
    let Some(folder) = sysfs_folder(device) else { return Vec::new() };
    let disk = sysfs_disk(&folder);
    let mut found = Vec::new();
    if disk != folder {
        let number = fs::read_to_string(disk.join("dev")).unwrap_or_default();
        let number = number
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?)));
        found.extend(number.map(|number| (u64::MAX, number)));
    }
    let backing = fs::read_to_string(disk.join("loop/backing_file")).unwrap_or_default();
    let backing = PathBuf::from(backing.strip_suffix('\n').unwrap_or(&backing));
    found.extend(fs::metadata(backing).ok().map(|stat| identity(&stat)));
    found
}

/// The sysfs directory of a block device with this number.
pub fn sysfs_folder(device: u64) -> Option<PathBuf> {
    fs::canonicalize(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device))).ok()
}

/// The sysfs directory of the whole disk that a partition belongs to. For a whole disk, `folder` itself.
pub fn sysfs_disk(folder: &Path) -> &Path {
    folder.parent().filter(|_| folder.join("partition").exists()).unwrap_or(folder)
}

/// The numbers that identify a file: device and inode, or the block device's own number.
pub fn identity(stat: &Metadata) -> DeviceInode {
    if stat.file_type().is_block_device() { (u64::MAX, stat.rdev()) } else { (stat.dev(), stat.ino()) }
}
