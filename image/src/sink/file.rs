//! A regular file that is updated in place: holes are punched, and what follows the disk is cut off at the end.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sink::{Sink, splice_at, write_at, write_zeros};
use crate::{Error, Kind, Result, shown, sys};

/// No file system's block is larger, in octets.
const BLOCK_MAX: u64 = 64 << 10;

pub(crate) struct InPlace {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// The disk's, if it is known.
    pub(crate) size: Option<u64>,
    pub(crate) sync: bool,
    /// Something was written, punched or made larger.
    pub(crate) touched: AtomicBool,
}

impl InPlace {
    fn write(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.touched.store(true, Ordering::Relaxed);
        write_at(&self.file, &self.path, at, octets)
    }
}

impl Sink for InPlace {
    fn data(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.write(at, octets)
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.touched.store(true, Ordering::Relaxed);
        splice_at(&self.file, &self.path, at, pipe, len)
    }

    fn hole(&self, at: u64, len: u64) -> Result<()> {
        self.touched.store(true, Ordering::Relaxed);
        // A hole that ends the disk within a block takes the whole block: what is behind is cut off at the end.
        let behind = if self.size == Some(at + len) { BLOCK_MAX } else { 0 };
        // Each refuses where the file system can't; writing zeros then says what is really wrong.
        if sys::punch(&self.file, at, len.saturating_add(behind)).is_ok()
            || sys::punch(&self.file, at, len).is_ok()
            || sys::zero_range(&self.file, at, len).is_ok()
        {
            return Ok(());
        }
        write_zeros(at, len, |at, zeros| self.write(at, zeros))
    }

    fn keep(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn remains(&self) -> String {
        let state = if self.touched.load(Ordering::Relaxed) { "updated in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.path))
    }

    fn finish(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        let opened = self.file.metadata().map(|stat| (stat.dev(), stat.ino()));
        let named = std::fs::symlink_metadata(&self.path).map(|stat| (stat.dev(), stat.ino()));
        if !matches!((opened, named), (Ok(opened), Ok(named)) if opened == named) {
            return Err(Error::new(Kind::Changed, &self.path, "was replaced by another file while it was updated"));
        }
        self.file.set_len(size).map_err(|source| Error::io(&self.path, "cannot set the size", source))?;
        if self.sync {
            self.file.sync_all().map_err(|source| Error::io(&self.path, "cannot sync", source))?;
        }
        Ok(Vec::new())
    }
}
