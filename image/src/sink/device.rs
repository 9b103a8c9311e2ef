//! A block device: always in place, and its holes are really zeroed.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sink::{Sink, in_pieces, splice_at, write_at, write_zeros};
use crate::{Error, Result, shown, sys};

/// The most octets that one BLKZEROOUT is asked for: larger requests make storage time out.
const ZEROOUT_MAX: u64 = 128 << 20;
/// BLKZEROOUT is asked for whole pages only, so that it never meets a page that is written too.
const PAGE: u64 = 4096;

pub(crate) struct Device {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) sync: bool,
    pub(crate) target_is_zero: bool,
    /// Something was written or zeroed.
    pub(crate) touched: AtomicBool,
}

impl Device {
    fn write(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.touched.store(true, Ordering::Relaxed);
        write_at(&self.file, &self.path, at, octets)
    }

    fn zero_whole(&self, at: u64, len: u64) -> Result<()> {
        in_pieces(at, len, ZEROOUT_MAX, |at, len| match sys::device_zero(&self.file, at, len) {
            Ok(()) => Ok(()),
            Err(_) => write_zeros(at, len, |at, zeros| self.write(at, zeros)),
        })
    }
}

impl Sink for Device {
    fn data(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.write(at, octets)
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.touched.store(true, Ordering::Relaxed);
        splice_at(&self.file, &self.path, at, pipe, len)
    }

    fn hole(&self, at: u64, len: u64) -> Result<()> {
        if self.target_is_zero {
            return Ok(());
        }
        self.touched.store(true, Ordering::Relaxed);
        let grain = sys::device_block(&self.file).unwrap_or(PAGE).max(PAGE);
        let end = at + len;
        let first = at.next_multiple_of(grain).min(end);
        let last = (end - end % grain).max(first);
        write_zeros(at, first - at, |at, zeros| self.write(at, zeros))?;
        self.zero_whole(first, last - first)?;
        write_zeros(last, end - last, |at, zeros| self.write(at, zeros))
    }

    fn keep(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn remains(&self) -> String {
        let state = if self.touched.load(Ordering::Relaxed) { "overwritten in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.path))
    }

    fn finish(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        if self.sync {
            self.file.sync_all().map_err(|source| Error::io(&self.path, "cannot sync", source))?;
        }
        let tail = self.size.saturating_sub(size);
        let note = format!("the last {tail} octets of the device are left as they were");
        Ok(if tail > 0 { vec![note] } else { Vec::new() })
    }
}
