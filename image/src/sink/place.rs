//! A file or device that is written at offsets, and remembers whether it was.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sink::write_zeros;
use crate::{Error, Result, sys};

pub(crate) struct Place {
    pub(crate) file: File,
    /// As it stands in messages.
    pub(crate) path: PathBuf,
    touched: AtomicBool,
}

impl Place {
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, touched: AtomicBool::new(false) }
    }

    /// Takes note that it isn't as it was.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// True if it isn't as it was.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.touch();
        self.file.write_all_at(octets, at).map_err(|source| self.cannot_write(at, source))
    }

    /// Writes zeros, octet for octet.
    pub(crate) fn write_zeros(&self, at: u64, len: u64) -> Result<()> {
        write_zeros(at, len, |at, zeros| self.write(at, zeros))
    }

    /// Moves octets from a pipe.
    pub(crate) fn splice(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.touch();
        sys::splice_from_pipe(pipe, &self.file, at, len).map_err(|source| self.cannot_write(at, source))
    }

    /// Has the kernel copy octets of a file.
    pub(crate) fn copy(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        self.touch();
        sys::copy_range(file, from, &self.file, at, len).map_err(|source| self.cannot_write(at, source))
    }

    /// True if its name is still this file's: nobody put another in its place.
    pub(crate) fn is_named(&self) -> bool {
        let opened = self.file.metadata().map(|stat| (stat.dev(), stat.ino()));
        let named = fs::symlink_metadata(&self.path).map(|stat| (stat.dev(), stat.ino()));
        matches!((opened, named), (Ok(opened), Ok(named)) if opened == named)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|source| Error::io(&self.path, "cannot sync", source))
    }

    pub(crate) fn set_len(&self, size: u64) -> Result<()> {
        // XFS writes a file out when it is closed after it was set to the size that it had: nobody asked for that.
        if self.file.metadata().is_ok_and(|stat| stat.len() == size) {
            return Ok(());
        }
        self.file.set_len(size).map_err(|source| Error::io(&self.path, "cannot set the size", source))
    }

    fn cannot_write(&self, at: u64, source: io::Error) -> Error {
        Error::io(&self.path, format!("cannot write at disk offset {at}"), source)
    }
}
