//! File systems on loop devices, and loop devices as destination disks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{requires, requires_root, tool};

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fs {
    /// ext4, made by mkfs.ext4.
    Ext4,
    /// XFS, made by mkfs.xfs.
    Xfs,
    /// btrfs, made by mkfs.btrfs.
    Btrfs,
    /// tmpfs, in memory.
    Tmpfs,
    /// ramfs, in memory, without extended attributes and without holes.
    Ramfs,
}

impl Fs {
    /// The file systems that disk images are usually on.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];
}

/// A mounted file system, unmounted and deleted when dropped.
#[derive(Debug)]
pub struct Filesystem {
    mount: PathBuf,
    mounted: bool,
    image: PathBuf,
    /// The last field, so that it is dropped after the unmount.
    _folder: TempDir,
}

impl Filesystem {
    /// Creates and mounts a file system of `size` bytes. The image behind it is sparse.
    pub fn new(kind: Fs, size: u64) -> Self {
        Self::with_options(kind, size, &[])
    }

    /// Creates and mounts a file system of `size` bytes, with more options for mkfs.
    pub fn with_options(kind: Fs, size: u64, options: &[&str]) -> Self {
        requires_root();
        requires(&["mount", "umount", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"]);
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        fs::create_dir(&mount).unwrap();
        if !matches!(kind, Fs::Tmpfs | Fs::Ramfs) {
            File::create(&image).unwrap().set_len(size).unwrap();
        }
        let name = image.to_str().unwrap();
        match kind {
            Fs::Ext4 => drop(tool("mkfs.ext4", &[&["-q", "-F", "-m", "0"], options, &[name]].concat())),
            Fs::Xfs => drop(tool("mkfs.xfs", &[&["-q", "-f"], options, &[name]].concat())),
            Fs::Btrfs => drop(tool("mkfs.btrfs", &[&["-q", "-f"], options, &[name]].concat())),
            Fs::Tmpfs | Fs::Ramfs => {}
        }
        let mut made = Self { mount, mounted: false, image, _folder: folder };
        if kind == Fs::Tmpfs {
            let size = format!("size={size}");
            drop(tool("mount", &["-t", "tmpfs", "-o", &size, "none", made.mount.to_str().unwrap()]));
            made.mounted = true;
        } else if kind == Fs::Ramfs {
            drop(tool("mount", &["-t", "ramfs", "none", made.mount.to_str().unwrap()]));
            made.mounted = true;
        } else {
            made.mount();
        }
        made
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// A path in the file system.
    pub fn join(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// The image file behind the file system; tmpfs has none.
    pub fn backing(&self) -> &Path {
        &self.image
    }

    /// Unmounts the file system.
    pub fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            drop(tool("umount", &[self.mount.to_str().unwrap()]));
        }
    }

    /// Mounts the file system from its image.
    pub fn mount(&mut self) {
        drop(tool("mount", &["-o", "loop", self.image.to_str().unwrap(), self.mount.to_str().unwrap()]));
        self.mounted = true;
    }
}

/// A frozen file system: writers block until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Filesystem);

impl<'a> Frozen<'a> {
    /// Flushes the file system and freezes it.
    pub fn new(filesystem: &'a Filesystem) -> Self {
        requires(&["fsfreeze"]);
        drop(tool("fsfreeze", &["-f", filesystem.mount.to_str().unwrap()]));
        Self(filesystem)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _thawed = std::process::Command::new("fsfreeze").arg("-u").arg(&self.0.mount).status();
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        if self.mounted {
            // The unmount is lazy, so that open files of a failed test don't prevent it.
            let _unmounted = std::process::Command::new("umount").arg("-l").arg(&self.mount).status();
        }
    }
}

/// A loop device, detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    image: PathBuf,
    folder: Option<TempDir>,
}

impl LoopDevice {
    /// Attaches a loop device to this file.
    pub fn over(image: &Path) -> Self {
        requires_root();
        requires(&["losetup"]);
        let out = tool("losetup", &["--find", "--show", image.to_str().unwrap()]);
        Self { path: out.trim().into(), image: image.into(), folder: None }
    }

    /// Creates a loop device of `size` bytes, all of which are `old`.
    pub fn filled(size: u64, old: u8) -> Self {
        requires_root();
        requires(&["losetup"]);
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let mut file = File::create(&image).unwrap();
        let block = vec![old; 1 << 16];
        let mut left = size;
        while left > 0 {
            let piece = left.min(1 << 16);
            std::io::Write::write_all(&mut file, &block[..usize::try_from(piece).unwrap()]).unwrap();
            left -= piece;
        }
        let mut device = Self::over(&image);
        device.folder = Some(folder);
        device
    }

    /// The file behind the device.
    pub fn backing(&self) -> PathBuf {
        self.image.clone()
    }

    /// The device's path in /dev.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _detached = std::process::Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}
