//! A block device: always in place, and its holes are really zeroed.

use std::os::fd::BorrowedFd;

use crate::sink::place::Place;
use crate::sink::{Sink, in_pieces};
use crate::{Chain, Result, shown, sys};

/// The most octets that one BLKZEROOUT is asked for: larger requests make storage time out.
const ZEROOUT_MAX: u64 = 128 << 20;
/// BLKZEROOUT is asked for whole pages only, so that it never meets a page that is written too.
const PAGE: u64 = 4096;

pub(crate) struct Device {
    pub(crate) place: Place,
    pub(crate) size: u64,
    pub(crate) sync: bool,
    pub(crate) target_is_zero: bool,
}

impl Device {
    fn zero_whole(&self, at: u64, len: u64) -> Result<()> {
        in_pieces(at, len, ZEROOUT_MAX, |at, len| match sys::device_zero(&self.place.file, at, len) {
            Ok(()) => Ok(()),
            Err(_) => self.place.write_zeros(at, len),
        })
    }
}

impl Sink for Device {
    fn data(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.place.write(at, octets)
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.place.splice(at, pipe, len)
    }

    fn hole(&self, at: u64, len: u64) -> Result<()> {
        if self.target_is_zero {
            return Ok(());
        }
        self.place.touch();
        let grain = sys::device_block(&self.place.file).unwrap_or(PAGE).max(PAGE);
        let end = at + len;
        let first = at.next_multiple_of(grain).min(end);
        let last = (end - end % grain).max(first);
        self.place.write_zeros(at, first - at)?;
        self.zero_whole(first, last - first)?;
        self.place.write_zeros(last, end - last)
    }

    fn zeroes(&self) -> bool {
        !self.target_is_zero
    }

    fn keep(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn remains(&self) -> String {
        let state = if self.place.is_touched() { "overwritten in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.place.path))
    }

    fn stored(&self, size: u64) -> Result<Chain> {
        self.place.stored(size)
    }

    fn finish(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        let mut notes = self.place.settle()?;
        if self.sync {
            self.place.sync()?;
        }
        let tail = self.size.saturating_sub(size);
        let note = format!("the last {tail} octets of the device are left as they were");
        notes.extend((tail > 0).then_some(note));
        Ok(notes)
    }
}
