//! A raw disk: a regular file or a block device, whose extents are the file system's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use xfer_hole_proto::LEN_MAX;

use crate::fiemap::{Fiemap, raw_extent};
use crate::{Error, Extent, Image, Kind, Result, Stamp, Status, sys};

/// How extents are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// lseek(2) SEEK_DATA and SEEK_HOLE.
    Seek,
    /// ioctl(2) FS_IOC_FIEMAP.
    Fiemap,
    /// By reading everything: all is data until its zeros are found.
    Scan,
}

impl Method {
    /// The word for it on a command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Seek => "seek",
            Self::Fiemap => "fiemap",
            Self::Scan => "scan",
        }
    }
}

/// A raw disk, open for reading.
#[derive(Debug)]
pub struct Raw {
    file: File,
    path: PathBuf,
    size: u64,
    method: Method,
    fiemap: Fiemap,
    /// Regular files only.
    stamp: Option<Stamp>,
}

impl Raw {
    /// Opens a regular file or a block device. Without a `method`, the best that is to be had there; a method asked for by name
    /// must be to be had.
    pub fn open(path: &Path, method: Option<Method>) -> Result<Self> {
        let failed = |source| Error::io(path, "cannot open", source);
        // Non-blocking, so that a fifo in the disk's place doesn't hang us; it is refused just below.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        let stat = file.metadata().map_err(failed)?;
        let (size, stamp) = if stat.is_file() {
            (stat.len(), Some(Stamp::of(&stat)))
        } else if stat.file_type().is_block_device() {
            (sys::device_size(&file).map_err(|source| Error::io(path, "cannot tell the size", source))?, None)
        } else {
            let what = if stat.is_dir() { "is a directory" } else { "is neither a regular file nor a block device" };
            return Err(Error::new(Kind::Refused, path, what));
        };
        if size > LEN_MAX {
            return Err(Error::new(Kind::Unsupported, path, format!("{size} octets are more than a disk can have")));
        }
        sys::set_blocking(&file).map_err(failed)?;
        sys::advise_sequential(&file);
        let fiemap = Fiemap::default();
        let probe = |method| match method {
            Method::Seek => sys::seek_hole(&file, 0).map(drop),
            Method::Fiemap if size == 0 => Ok(()),
            Method::Fiemap => fiemap.extent(&file, 0, size).map(drop),
            Method::Scan => Ok(()),
        };
        let method = match method {
            None if probe(Method::Seek).is_ok() => Method::Seek,
            None => Method::Scan,
            Some(method) => {
                probe(method).map_err(|source| no_method(path, method, source))?;
                method
            }
        };
        Ok(Self { path: path.into(), size, method, fiemap, stamp, file })
    }

    /// True for a block device that is mounted or held otherwise: nothing would tell that it changes while it is read.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let exclusive = || OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.path);
        self.stamp.is_none() && exclusive().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    }

    /// How this disk's extents are found.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// True if the disk begins as a qcow2 image does (qcow2 specification, "Header").
    pub fn begins_as_qcow2(&self) -> Result<bool> {
        const MAGIC: [u8; 4] = *b"QFI\xfb";
        let mut head = [0; MAGIC.len()];
        if self.size < head.len() as u64 {
            return Ok(false);
        }
        self.read_at(0, &mut head)?;
        Ok(head == MAGIC)
    }

    fn seek_extent(&self, at: u64) -> io::Result<Extent> {
        let zero_to = |end: u64| raw_extent(at, end - at, Status::Zero);
        match sys::seek_data(&self.file, at)? {
            None => Ok(zero_to(self.size)),
            Some(data) if data > at => Ok(zero_to(data.min(self.size))),
            Some(_) => {
                // `None` here: cut short between the two calls. The read that follows will find that out.
                let end = sys::seek_hole(&self.file, at)?.map_or(self.size, |hole| hole.min(self.size));
                if end <= at {
                    return Err(io::Error::other("SEEK_HOLE went nowhere"));
                }
                Ok(raw_extent(at, end - at, Status::Data))
            }
        }
    }
}

fn no_method(path: &Path, method: Method, source: io::Error) -> Error {
    let word = method.word();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS) => {
            Error::new(Kind::Unsupported, path, format!("extents by {word} are not to be had here"))
                .hint("leave --extents out, or use --extents scan to read everything")
        }
        _ => Error::io(path, format!("cannot find extents by {word}"), source),
    }
}

impl Image for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent(&self, at: u64, max: u64) -> Result<Extent> {
        let extent = match self.method {
            Method::Seek => self.seek_extent(at),
            Method::Fiemap => self.fiemap.extent(&self.file, at, self.size),
            Method::Scan => Ok(raw_extent(at, self.size - at, Status::Data)),
        };
        let failed = |source| Error::io(&self.path, format!("cannot find the extent at disk offset {at}"), source);
        let extent = extent.map_err(failed)?;
        Ok(Extent { len: extent.len.min(max), ..extent })
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, at).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::new(
                Kind::Changed,
                &self.path,
                format!("truncated while it was read, at disk offset {at} or behind"),
            ),
            _ => Error::io(&self.path, format!("cannot read {} octets at disk offset {at}", buf.len()), source),
        })
    }

    fn flat(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn check_unchanged(&self, live: bool) -> Result<()> {
        let Some(before) = &self.stamp else { return Ok(()) };
        let stat = self.file.metadata().map_err(|source| Error::io(&self.path, "cannot look at it again", source))?;
        if stat.len() < self.size {
            let what = format!("truncated while it was read, from {} to {} octets", self.size, stat.len());
            return Err(Error::new(Kind::Changed, &self.path, what));
        }
        if !live && Stamp::of(&stat) != *before {
            return Err(Error::new(Kind::Changed, &self.path, "changed while it was read")
                .hint("send a snapshot of it, or accept a disk that is not of one moment with --live"));
        }
        // Files of /proc and their like have no size, and octets all the same.
        if !live && self.file.read_at(&mut [0], self.size).is_ok_and(|octets| octets > 0) {
            let what = format!("has more octets than its size of {} says", self.size);
            return Err(Error::new(Kind::Changed, &self.path, what));
        }
        Ok(())
    }
}
