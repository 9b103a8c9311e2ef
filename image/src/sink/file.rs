//! A regular file that is updated in place: holes are punched, and what follows the disk is cut off at the end.

use std::os::fd::BorrowedFd;

use crate::sink::Sink;
use crate::sink::place::Place;
use crate::sink::rights::Rights;
use crate::{Error, Kind, Result, shown, sys};

/// No file system's block is larger, in octets.
const BLOCK_MAX: u64 = 64 << 10;

pub(crate) struct InPlace {
    pub(crate) place: Place,
    /// The disk's, if it is known.
    pub(crate) size: Option<u64>,
    /// What the file had before: behind that there is nothing to be zeroed.
    pub(crate) held: u64,
    /// Given already, but a mode may lose its set-id bits while the file is written.
    pub(crate) rights: Rights,
    pub(crate) sync: bool,
}

impl Sink for InPlace {
    fn data(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.place.write(at, octets)
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.place.splice(at, pipe, len)
    }

    fn hole(&self, at: u64, len: u64) -> Result<()> {
        let old = len.min(self.held.saturating_sub(at));
        if old == 0 {
            return Ok(());
        }
        self.place.touch();
        // Where old octets, or the disk, end within a block, the whole block is to go: nothing that stays is behind it.
        let whole = if self.size == Some(at + len) { old.saturating_add(BLOCK_MAX) } else { len.min(old + BLOCK_MAX) };
        // Each refuses where the file system can't; writing zeros then says what is really wrong.
        let file = &self.place.file;
        if sys::punch(file, at, whole).is_ok()
            || sys::punch(file, at, old).is_ok()
            || sys::zero_range(file, at, old).is_ok()
        {
            return Ok(());
        }
        self.place.write_zeros(at, old)
    }

    fn zeroes(&self) -> bool {
        true
    }

    fn keep(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn remains(&self) -> String {
        let state = if self.place.is_touched() { "updated in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.place.path))
    }

    fn finish(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        if !self.place.is_named() {
            let what = "was replaced by another file while it was updated";
            return Err(Error::new(Kind::Changed, &self.place.path, what));
        }
        let notes = self.place.settle()?;
        self.place.set_len(size)?;
        let given = self.rights.give(&self.place.file);
        given.map_err(|(what, source)| Error::io(&self.place.path, what, source))?;
        if self.sync {
            self.place.sync()?;
        }
        Ok(notes)
    }
}
