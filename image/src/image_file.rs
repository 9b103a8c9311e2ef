//! A file that a disk's bytes lie in: a regular file or a block device, of which nothing but bytes is known.

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
    /// The true directory in the path as given, as it was before the file was opened: names in an image are relative to it. None
    /// where the system doesn't tell.
    dir: Option<PathBuf>,
    len: u64,
    /// Regular files only.
    stamp: Option<Stamp>,
    /// It was flushed before the stamp was taken, and every change since changes that.
    flushed: bool,
    /// The way past the page cache, if it is to stay as it is.
    direct: Option<DirectReader>,
}

impl ImageFile {
    /// Opens it. Fifos, directories and the like are refused.
    pub fn open(path: &Path) -> Result<Self> {
        let (dir, entry) = settled(path);
        // Non-blocking, so that a fifo in the disk's place doesn't hang us.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(entry);
        Self::of(file.map_err(|source| DiskError::io(path, "cannot open", source))?, path, dir)
    }

    /// A file that is open for reading already, is called `path` in messages, and stands in `dir`.
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

    /// Flushes the file, so that it can be known by its stamp: dirty mapped pages are written, and the next store sets new times. To be
    /// called before anything of the file is read.
    pub fn flush(self) -> Self {
        match flushed(&self.file).filter(|stamp| stamp.size() == self.len) {
            Some(stamp) => Self { stamp: Some(stamp), flushed: true, ..self },
            None => self,
        }
    }

    /// The same file with the size and times that it has now: until it was locked, another program may have written it.
    pub fn looked_at_again(self) -> Result<Self> {
        let Self { file, path, dir, .. } = self;
        Self::of(file, &path, dir)
    }

    /// True if its name, links followed, is still this file's.
    pub fn is_named(&self) -> bool {
        let named = fs::metadata(&self.path).ok().map(|stat| identity(&stat));
        named.is_some() && named == self.identity().ok()
    }

    /// The same, to be read past the page cache, as far as that can be.
    pub fn directly(self) -> Result<Self> {
        let direct = DirectReader::open(&self.file, self.len).map_err(|source| self.io("cannot open", source))?;
        Ok(Self { direct: Some(direct), ..self })
    }

    /// True if it is to be read past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// That it can't be read past the page cache, if that was asked for, is so, and wasn't told before.
    pub fn refuses_direct(&self) -> Option<String> {
        let what = self.direct.as_ref()?.refusal()?;
        Some(format!("{}: {what}", shown(&self.path)))
    }

    /// What was noticed of that while it was read.
    pub fn noticed(&self) -> Option<String> {
        let what = self.direct.as_ref()?.noticed()?;
        Some(format!("{}: {what}", shown(&self.path)))
    }

    /// The file itself, to be spliced from.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it was when it was opened, if it is a regular file that was flushed then, on a file system that tells of all changes since.
    pub fn flushed_stamp(&self) -> Option<Stamp> {
        self.stamp.filter(|_| self.flushed)
    }

    /// How it is called in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its own path, links followed, where the system tells.
    pub fn true_path(&self) -> Option<PathBuf> {
        fs::read_link(proc_link(&self.file)).ok()
    }

    /// The true directory that names in it are relative to, if it could be told when it was opened.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Bytes, as they were when it was opened.
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

    /// What makes two names the same file: device and inode, or the device's own number.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let stat = self.file.metadata().map_err(|source| self.io("cannot look at it", source))?;
        Ok(identity(&stat))
    }

    /// What it is, to be held against other names.
    pub fn storage(&self) -> Option<StorageId> {
        self.file.metadata().ok().map(|stat| StorageId::of(&stat))
    }

    /// Bytes that the file system has allocated for it.
    pub fn allocated(&self) -> Result<u64> {
        let stat = self.file.metadata().map_err(|source| self.io("cannot look at it", source))?;
        Ok(stat.blocks().saturating_mul(512))
    }

    /// True for a block device that is mounted or held otherwise: nothing would tell that it changes while it is read.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let exclusive = || OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.path);
        self.is_device() && exclusive().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    }

    /// Fills `buf` from `at`. Behind the length that the file had at the beginning there are zeros, as QEMU has it; before it,
    /// a short read is an error: what can't be read never becomes zeros.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.fill(at, buf, |there| match &self.direct {
            None => self.file.read_exact_at(there, at),
            Some(direct) => direct.read_cached(&self.file, there, at),
        })
    }

    /// The same, past the page cache if that is asked for: for the disk's own bytes, of which there are many, and each once.
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

    /// Asks whether the file is still that of the beginning. `live` accepts all changes but a shorter file.
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
        // Files of /proc and their like have no size, and bytes all the same.
        if !live && self.file.read_at(&mut [0], self.len).is_ok_and(|bytes| bytes > 0) {
            return Err(
                self.error(DiskErrorKind::Changed, format!("has more bytes than its size of {} says", self.len))
            );
        }
        Ok(())
    }

    /// An error of this file.
    pub fn error(&self, kind: DiskErrorKind, what: impl Into<String>) -> DiskError {
        DiskError::new(kind, &self.path, what)
    }

    /// The system refused something of this file.
    pub fn io(&self, what: impl Into<String>, source: io::Error) -> DiskError {
        DiskError::io(&self.path, what, source)
    }
}

/// The true directory that a name stands in, and the name in it: once looked up, it is no other directory when others are moved.
pub(crate) fn settled(path: &Path) -> (Option<PathBuf>, PathBuf) {
    let dir = fs::canonicalize(directory(path)).ok();
    // "image/" and "image/." are more than a name.
    let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
    let entry = dir.as_deref().zip(name).map_or_else(|| path.into(), |(dir, name)| dir.join(name));
    (dir, entry)
}
