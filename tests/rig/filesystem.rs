//! Real file systems on loop devices, and loop devices as disks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{requires, requires_root, tool};

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fs {
    /// mkfs.ext4
    Ext4,
    /// mkfs.xfs
    Xfs,
    /// mkfs.btrfs
    Btrfs,
    /// In memory.
    Tmpfs,
    /// In memory, without extended attributes and without an account of holes.
    Ramfs,
}

impl Fs {
    /// Those that disks lie on.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];
}

/// A mounted file system of its own, unmounted and deleted when dropped.
#[derive(Debug)]
pub struct Filesystem {
    mount: PathBuf,
    mounted: bool,
    image: PathBuf,
    /// Last, so that it is removed after the unmounting.
    _folder: TempDir,
}

impl Filesystem {
    /// Makes and mounts one of this size in bytes. The image behind it is sparse.
    pub fn new(kind: Fs, size: u64) -> Self {
        Self::with_options(kind, size, &[])
    }

    /// The same, with more options for its mkfs.
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// A name in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// The file behind it; none behind a tmpfs.
    pub fn backing(&self) -> &Path {
        &self.image
    }

    /// Unmounts it.
    pub fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            drop(tool("umount", &[self.mount.to_str().unwrap()]));
        }
    }

    /// Mounts it again from its image.
    pub fn mount(&mut self) {
        drop(tool("mount", &["-o", "loop", self.image.to_str().unwrap(), self.mount.to_str().unwrap()]));
        self.mounted = true;
    }
}

/// A file system that takes no changes: whoever makes one waits until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Filesystem);

impl<'a> Frozen<'a> {
    /// Freezes it, after all that was written has been stored.
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
            // Lazily, so that a failed test's open files don't leave it behind.
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
    /// One over this file.
    pub fn over(image: &Path) -> Self {
        requires_root();
        requires(&["losetup"]);
        let out = tool("losetup", &["--find", "--show", image.to_str().unwrap()]);
        Self { path: out.trim().into(), image: image.into(), folder: None }
    }

    /// One of this size in bytes, every byte of which is `old`.
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

    /// The file behind it.
    pub fn backing(&self) -> PathBuf {
        self.image.clone()
    }

    /// Its name in /dev.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _detached = std::process::Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}
