//! Where a disk is written: positional, so that many workers may pour into it. Sources are random access, the wire is
//! ordered, sinks are positional.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};

use crate::written_stamp::WrittenStamp;

/// A file or device that a disk was written to, open to be read.
#[derive(Debug)]
pub struct StoredFile {
    /// It shares the offset of the description that was written by.
    pub file: File,
    /// As it stands in messages.
    pub path: PathBuf,
}

/// Takes a disk's bytes at their places. Offsets and lengths are in bytes of the disk.
///
/// Only [`finish`](Sink::finish) publishes. Dropping a sink leaves what [`remains`](Sink::remains) says.
pub trait DiskWriter: Send + Sync {
    /// These bytes stand at `at`.
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()>;

    /// The same of a row of bytes that the target held before, and that others may yet take the place of: nothing of them is held back.
    fn bring(&self, mut at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        for bytes in row {
            self.write_at(at, bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// So many bytes of data are about to come at `at`: the target may make room for them at once.
    fn preallocate_hint(&self, _at: u64, _len: u64) {}

    /// About so many bytes of data are to come in all: said where the target is found to be full.
    fn announce(&self, _data: u64) {}

    /// Moves up to `len` bytes that stand at `at` from a pipe into the target, without a copy of ours: how many, 0 at the pipe's
    /// end. [`Spliced::Refused`](sys::Spliced::Refused), and nothing moved, where that is not to be had.
    fn data_from_pipe(&self, _at: u64, _pipe: BorrowedFd<'_>, _len: u64) -> Result<sys::Spliced> {
        Ok(sys::Spliced::Refused)
    }

    /// Has the kernel copy, or share, up to `len` bytes at `from` of a file to `at`: how many, 0 at that file's end.
    /// [`Spliced::Refused`](sys::Spliced::Refused), and nothing copied, where that is not to be had.
    fn data_from_file(&self, _at: u64, _file: &File, _from: u64, _len: u64) -> Result<sys::Spliced> {
        Ok(sys::Spliced::Refused)
    }

    /// Shares the blocks of a file that is the whole disk, holes and all. Fails, and nothing is changed, where that is not to be had.
    fn share(&self, _file: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// True if bytes may come in any order, and from many threads; else only from the disk's beginning to its end.
    fn is_positional(&self) -> bool {
        true
    }

    /// The `len` bytes at `at` read as zeros.
    fn zero_range(&self, at: u64, len: u64) -> Result<()>;

    /// The `len` bytes at `at` of what the target held before are zeros, and stay so: a new file gives back the space that they take.
    fn vacate(&self, _at: u64, _len: u64) {}

    /// True if a hole is work: old bytes are really zeroed.
    fn zeroes(&self) -> bool {
        false
    }

    /// The `len` bytes at `at` are those that the target held before.
    fn keep_existing(&self, at: u64, len: u64) -> Result<()>;

    /// Nothing was written, and nothing will be: takes back what making it ready has made.
    fn give_up(self: Box<Self>) {}

    /// What is left behind if nothing more happens from here on: a half sentence for the message of a failure.
    fn leftover_message(&self) -> String;

    /// The disk is whole, and `size` bytes long: waits until it is on stable storage, and opens it to be read from there, past the page
    /// cache as far as that can be. It has no name yet.
    fn stored(&self, _size: u64) -> Result<StoredFile> {
        Err(DiskError::new(DiskErrorKind::Refused, "what was written", "cannot be read back"))
    }

    /// What [`finish`](Sink::finish) sets when a regular file is whole and durable: by it the file's fingerprint can be noted then.
    fn mark(&self) -> WrittenStamp {
        WrittenStamp::default()
    }

    /// The disk is whole, and `size` bytes long: syncs it, and gives it its name. What the user should know of it comes back.
    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>>;
}

/// Calls `each` with pieces of at most `most` bytes that cover `len` bytes from `at`.
pub(crate) fn in_pieces(at: u64, len: u64, most: u64, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let (mut at, end) = (at, at + len);
    while at < end {
        let piece = most.min(end - at);
        each(at, piece)?;
        at += piece;
    }
    Ok(())
}

/// Zeros to write where nothing better than writing them is to be had.
pub(crate) static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Calls `write` with zeros that cover `len` bytes from `at`.
pub(crate) fn write_zeros(at: u64, len: u64, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    in_pieces(at, len, ZEROS.len() as u64, |at, piece| {
        // A piece is no longer than ZEROS.
        write(at, &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())])
    })
}
