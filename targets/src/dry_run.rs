//! Checks for a dry run: finds every reason for which a transfer would be refused before its first byte, including a
//! lack of space. Nothing is changed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys, sysfs_folder};
use xfer_hole_proto::Fingerprint;

use crate::base_requirement::{BaseReader, BaseRequirement};
use crate::block_device::{check_size, open_exclusive};
use crate::created_dirs::{missing, parent};
use crate::file_name::beside;
use crate::refusal::check_locked;
use crate::resolve_target::{Target, WriteMethod, lock_in_place};

/// What is known of the disk that would be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedDisk {
    /// Size of the disk, in bytes.
    pub size: Option<u64>,
    /// Maximum bytes that would be written.
    pub data: Option<u64>,
    /// True for a delta: bytes that the target already has are not sent.
    pub delta: bool,
    /// Size in bytes of the older disk of which parts are kept, and its fingerprint if it is known. The target has to
    /// hold that disk.
    pub base: Option<(u64, Option<Fingerprint>)>,
}

impl Target {
    /// Makes the checks of a transfer without writing. `read` computes the fingerprint of what the target holds, if
    /// parts of it would be kept.
    ///
    /// # Errors
    ///
    /// The error that the transfer would fail with.
    pub fn rehearse(&self, disk: ExpectedDisk, read: BaseReader) -> Result<()> {
        let base = disk.base.map(|(size, expected)| {
            let expected = expected.map(|expected| (expected, read));
            BaseRequirement { size, expected, recalls: !self.options.confined }
        });
        if let Some(base) = &base {
            self.check_named_base(base.expected.map(|(expected, _)| expected))?;
            base.check_size(&self.path, self.can_hold().then_some(self.method == WriteMethod::Device))?;
        }
        match self.method {
            WriteMethod::Stdout | WriteMethod::Stream => Ok(()),
            WriteMethod::Device => self.rehearse_device(disk),
            WriteMethod::InPlace => self.rehearse_in_place(disk),
            WriteMethod::Part => self.rehearse_part(disk),
        }?;
        match base {
            Some(base) => base.check(&File::open(&self.path).map_err(|source| self.cannot_look(source))?, &self.path),
            None => Ok(()),
        }
    }

    fn rehearse_device(&self, disk: ExpectedDisk) -> Result<()> {
        let path = &self.path;
        let file = open_exclusive(path, false)?;
        self.check_writable()?;
        let stat = file.metadata().map_err(|source| self.cannot_look(source))?;
        let read_only = sysfs_folder(stat.rdev()).and_then(|folder| fs::read_to_string(folder.join("ro")).ok());
        if read_only.is_some_and(|text| text.trim() == "1") {
            return Err(DiskError::new(DiskErrorKind::Refused, path, "is a device that can only be read"));
        }
        lock_in_place(&file, path, self.options.in_use())?;
        check_size(&file, path, disk.size).map(drop)
    }

    fn rehearse_in_place(&self, disk: ExpectedDisk) -> Result<()> {
        let path = &self.path;
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|source| DiskError::io(path, "cannot open", source))?;
        self.check_writable()?;
        lock_in_place(&file, path, self.options.in_use())?;
        let stat = file.metadata().map_err(|source| self.cannot_look(source))?;
        self.check_new_file(disk.size)?;
        // Blocks that the file already has are overwritten.
        self.check_room(disk, stat.blocks() * 512)
    }

    fn rehearse_part(&self, disk: ExpectedDisk) -> Result<()> {
        let part = beside(&self.path);
        let mut given_back = 0;
        if fs::symlink_metadata(&part).is_ok_and(|stat| stat.is_file()) {
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&part);
            let file = opened.map_err(|source| DiskError::io(&part, "cannot create", source))?;
            check_locked(file.try_lock(), &part)?;
            // The leftover is resumed or removed: in both cases its blocks count as free.
            given_back = file.metadata().map_or(0, |stat| stat.blocks() * 512);
        }
        self.check_new_file(disk.size)?;
        // Unchanged blocks take no space if the new file can share them.
        match disk.delta && File::open(&self.path).is_ok_and(|old| self.can_share(&old)) {
            true => Ok(()),
            false => self.check_room(disk, given_back),
        }
    }

    /// Returns the directory of the new file, or its nearest existing parent.
    fn folder(&self) -> &Path {
        missing(parent(&self.path)).1
    }

    /// Creates a file without a name (O_TMPFILE), if the file system supports it.
    fn nameless(&self) -> io::Result<File> {
        OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(self.folder())
    }

    /// Returns true if a new file can share the blocks of `file`, so that they take no extra space.
    #[must_use]
    pub fn can_share(&self, file: &File) -> bool {
        self.nameless().and_then(|new| sys::share_all(&new, file)).is_ok()
    }

    /// Checks that a file of this size and owner can be created.
    fn check_new_file(&self, size: Option<u64>) -> Result<()> {
        let Ok(file) = self.nameless() else { return Ok(()) };
        self.options.rights().try_owner(&file).map_err(|(what, source)| DiskError::io(&self.path, what, source))?;
        let Some(size) = size else { return Ok(()) };
        file.set_len(size)
            .map_err(|source| DiskError::io(&self.path, format!("cannot make a file of {size} bytes"), source))
    }

    /// Fails if the disk has more data than the file system has free space, plus `given_back` bytes.
    fn check_room(&self, disk: ExpectedDisk, given_back: u64) -> Result<()> {
        let folder = File::open(self.folder()).and_then(|folder| sys::free_space(&folder));
        let (Some(data), Ok(free)) = (disk.data, folder) else { return Ok(()) };
        let free = free.saturating_add(given_back);
        if data <= free {
            return Ok(());
        }
        let what = format!("has {free} bytes of free space, and the disk has {data} bytes of data");
        Err(DiskError::new(DiskErrorKind::Refused, self.folder(), what)
            .hint(format!("make room for {} bytes more", data - free)))
    }

    fn check_writable(&self) -> Result<()> {
        sys::can_write(&self.path).map_err(|source| DiskError::io(&self.path, "cannot open", source))
    }

    fn cannot_look(&self, source: io::Error) -> DiskError {
        DiskError::io(&self.path, "cannot look at it", source)
    }
}
