//! A file that stores a disk's data: a regular file or a block device. It knows nothing of image formats.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::{DirectReader, DiskError, DiskErrorKind, Result, Stamp, StorageId, flushed, identity, shown, sys};
use xfer_hole_proto::LEN_MAX;

use crate::image_path::{directory, proc_link};

/// A regular file or block device, open for reading.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    path: PathBuf,
    /// The true directory of the given path, determined before the file was opened. Names in an image are relative to
    /// it. `None` if /proc isn't mounted.
    dir: Option<PathBuf>,
    len: u64,
    /// For regular files only.
    stamp: Option<Stamp>,
    /// The file was flushed before the stamp was taken, so that every later change of the file changes its stamp.
    flushed: bool,
    /// The reader past the page cache, if the options ask for it.
    direct: Option<DirectReader>,
}

impl ImageFile {
    /// Opens a file. Symbolic links are followed.
    ///
    /// # Errors
    ///
    /// The file can't be opened, or is no regular file or block device.
    pub fn open(path: &Path) -> Result<Self> {
        let (dir, entry) = settled(path);
        // Non-blocking, so that opening a fifo doesn't wait.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(entry);
        Self::of(file.map_err(|source| DiskError::io(path, "cannot open", source))?, path, dir)
    }

    /// Uses a file that is already open for reading, that messages call `path`, and whose directory is `dir`.
    ///
    /// # Errors
    ///
    /// The file is no regular file or block device.
    pub fn of(file: File, path: &Path, dir: Option<PathBuf>) -> Result<Self> {
        let failed = |source| DiskError::io(path, "cannot open", source);
        let stat = file.metadata().map_err(failed)?;
        let (len, stamp) = if stat.is_file() {
            (stat.len(), Some(Stamp::of(&stat)))
        } else if stat.file_type().is_block_device() {
            (sys::device_size(&file).map_err(|source| DiskError::io(path, "cannot tell the size", source))?, None)
        } else {
            let what = if stat.is_dir() { "is a directory" } else { "is neither a regular file nor a block device" };
            return Err(DiskError::new(DiskErrorKind::Refused, path, what));
        };
        if len > LEN_MAX {
            return Err(DiskError::new(
                DiskErrorKind::Unsupported,
                path,
                format!("{len} bytes are more than a disk can have"),
            ));
        }
        sys::set_blocking(&file).map_err(failed)?;
        sys::advise_sequential(&file);
        Ok(Self { file, path: path.into(), dir, len, stamp, flushed: false, direct: None })
    }

    /// Flushes the file, so that its stamp identifies its content: dirty mapped pages are written, and the next store
    /// sets new times. Must be called before any data is read.
    pub fn flush(self) -> Self {
        match flushed(&self.file).filter(|stamp| stamp.size() == self.len) {
            Some(stamp) => Self { stamp: Some(stamp), flushed: true, ..self },
            None => self,
        }
    }

    /// Updates the size and times of the file. Call it after the file is locked, since another program may have written
    /// to it before.
    ///
    /// # Errors
    ///
    /// The size or times can't be read.
    pub fn looked_at_again(self) -> Result<Self> {
        let Self { file, path, dir, .. } = self;
        Self::of(file, &path, dir)
    }

    /// True if its path, with symbolic links followed, still leads to this file.
    pub fn is_named(&self) -> bool {
        let named = fs::metadata(&self.path).ok().map(|stat| identity(&stat));
        named.is_some() && named == self.identity().ok()
    }

    /// Prepares the file for reads past the page cache, if possible.
    ///
    /// # Errors
    ///
    /// The error of the system call that failed. Missing support for O_DIRECT is no error.
    pub fn directly(self) -> Result<Self> {
        let direct = DirectReader::open(&self.file, self.len).map_err(|source| self.io("cannot open", source))?;
        Ok(Self { direct: Some(direct), ..self })
    }

    /// True if data is read past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Returns once, if the file doesn't support reads past the page cache, a warning about it.
    pub fn refuses_direct(&self) -> Option<String> {
        let what = self.direct.as_ref()?.refusal()?;
        Some(format!("{}: {what}", shown(&self.path)))
    }

    /// Returns once, after reading, a warning about the page cache, if there is something to report.
    pub fn noticed(&self) -> Option<String> {
        let what = self.direct.as_ref()?.noticed()?;
        Some(format!("{}: {what}", shown(&self.path)))
    }

    /// The open file, as a source for splice(2).
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The stamp from the time when the file was opened. `None` unless it is a regular file that was flushed then, on a
    /// file system whose times show all later changes.
    pub fn flushed_stamp(&self) -> Option<Stamp> {
        self.stamp.filter(|_| self.flushed)
    }

    /// The path in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The true path, with symbolic links followed. `None` if /proc isn't mounted.
    pub fn true_path(&self) -> Option<PathBuf> {
        fs::read_link(proc_link(&self.file)).ok()
    }

    /// The true directory that names in the image are relative to. `None` if it could not be determined when the file
    /// was opened.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Size in bytes when the file was opened.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "an empty file is nothing special")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.stamp.is_none()
    }

    /// The numbers that identify the file: device and inode, or the block device's own number.
    ///
    /// # Errors
    ///
    /// The error of fstat(2).
    pub fn identity(&self) -> Result<(u64, u64)> {
        let stat = self.file.metadata().map_err(|source| self.io("cannot look at it", source))?;
        Ok(identity(&stat))
    }

    /// The storage of the file, for comparison with other paths.
    pub fn storage(&self) -> Option<StorageId> {
        self.file.metadata().ok().map(|stat| StorageId::of(&stat))
    }

    /// The allocated space in bytes.
    ///
    /// # Errors
    ///
    /// The error of fstat(2).
    pub fn allocated(&self) -> Result<u64> {
        let stat = self.file.metadata().map_err(|source| self.io("cannot look at it", source))?;
        Ok(stat.blocks().saturating_mul(512))
    }

    /// True for a block device that is mounted or otherwise in use. A change of it during the transfer would not be
    /// noticed.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let exclusive = || OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.path);
        self.is_device() && exclusive().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    }

    /// Reads `buf.len()` bytes at file offset `at`. Beyond the size that the file had when it was opened, it reads as
    /// zeros, as in QEMU.
    ///
    /// # Errors
    ///
    /// The data can't be read, or the file has become shorter.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.fill(at, buf, |there| match &self.direct {
            None => self.file.read_exact_at(there, at),
            Some(direct) => direct.read_cached(&self.file, there, at),
        })
    }

    /// Reads `buf.len()` bytes at file offset `at`, past the page cache if the options ask for it. For the disk's data,
    /// which is read once, and not for tables.
    ///
    /// # Errors
    ///
    /// The data can't be read, or the file has become shorter.
    pub fn read_data_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.fill(at, buf, |there| match &self.direct {
            None => self.file.read_exact_at(there, at),
            Some(direct) => direct.read_exact_at(&self.file, there, at),
        })
    }

    fn fill(&self, at: u64, buf: &mut [u8], read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> Result<()> {
        let there = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let (there, behind) = buf.split_at_mut(there);
        behind.fill(0);
        read(there).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.error(DiskErrorKind::Changed, format!("truncated while it was read, at offset {at} or behind"))
            }
            _ => self.io(format!("cannot read {} bytes at offset {at}", there.len()), source),
        })
    }

    /// Checks that the file is unchanged since it was opened. With `live`, only a shorter file is an error.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Changed`] if the file has changed.
    pub fn check_unchanged(&self, live: bool) -> Result<()> {
        let Some(before) = &self.stamp else { return Ok(()) };
        let stat = self.file.metadata().map_err(|source| self.io("cannot look at it again", source))?;
        if stat.len() < self.len {
            let what = format!("truncated while it was read, from {} to {} bytes", self.len, stat.len());
            return Err(self.error(DiskErrorKind::Changed, what));
        }
        if !live && Stamp::of(&stat) != *before {
            return Err(self
                .error(DiskErrorKind::Changed, "changed while it was read")
                .hint("send a snapshot of it, or accept a disk that is not of one moment with --live"));
        }
        // Files in /proc and similar file systems report size 0 although they have content.
        if !live && self.file.read_at(&mut [0], self.len).is_ok_and(|bytes| bytes > 0) {
            return Err(
                self.error(DiskErrorKind::Changed, format!("has more bytes than its size of {} says", self.len))
            );
        }
        Ok(())
    }

    /// Creates an error about this file.
    pub fn error(&self, kind: DiskErrorKind, what: impl Into<String>) -> DiskError {
        DiskError::new(kind, &self.path, what)
    }

    /// Creates an error of a failed system call on this file.
    pub fn io(&self, what: impl Into<String>, source: io::Error) -> DiskError {
        DiskError::io(&self.path, what, source)
    }
}

/// Splits a path into its true directory and the name in it. The result stays valid if directories are renamed later.
pub(crate) fn settled(path: &Path) -> (Option<PathBuf>, PathBuf) {
    let dir = fs::canonicalize(directory(path)).ok();
    // Paths such as "image/" and "image/." don't end in a plain name.
    let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
    let entry = dir.as_deref().zip(name).map_or_else(|| path.into(), |(dir, name)| dir.join(name));
    (dir, entry)
}
