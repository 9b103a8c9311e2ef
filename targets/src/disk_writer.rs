//! The destination of a disk. Writes are positional, so that several threads may write at a time.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};

use crate::written_stamp::WrittenStamp;

/// A file or device that a disk was written to, open for reading.
#[derive(Debug)]
pub struct StoredFile {
    /// The file. It shares its file offset with the descriptor that was used for writing.
    pub file: File,
    /// Path for messages.
    pub path: PathBuf,
}

impl StoredFile {
    /// Duplicates the descriptor of an open file.
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self> {
        let file = file.try_clone().map_err(|source| DiskError::io(path, "cannot open", source))?;
        Ok(Self { file, path: path.to_owned() })
    }
}

/// Writes the bytes of a disk at their offsets. Offsets and lengths are in bytes of the disk.
///
/// Only [`commit`](DiskWriter::commit) publishes the disk. Dropping a writer leaves what
/// [`leftover_message`](DiskWriter::leftover_message) describes.
///
/// # Errors
///
/// Methods fail if the target can't be written, or if another program changed it.
pub trait DiskWriter: Send + Sync {
    /// Writes `bytes` at `at`.
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()>;

    /// Writes consecutive bytes, from `at` on, that the old target holds and that later writes may replace. Nothing is
    /// left in a buffer.
    fn bring(&self, mut at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        for bytes in row {
            self.write_at(at, bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Announces that `len` bytes of data at `at` follow: the writer may allocate space for them.
    fn preallocate_hint(&self, _at: u64, _len: u64) {}

    /// Announces approximately how many bytes of data follow in total. The figure is used in the message for a full
    /// file system.
    fn announce(&self, _data: u64) {}

    /// Moves up to `len` bytes from a pipe to `at` without copying them through the process. Returns how many were
    /// moved, 0 at the end of the pipe, or [`Spliced::Refused`](sys::Spliced::Refused) if that is not supported and
    /// nothing was moved.
    fn data_from_pipe(&self, _at: u64, _pipe: BorrowedFd<'_>, _len: u64) -> Result<sys::Spliced> {
        Ok(sys::Spliced::Refused)
    }

    /// Lets the kernel copy or share up to `len` bytes of a file, from its offset `from`, to `at`. Returns how many
    /// were copied, 0 at the end of that file, or [`Spliced::Refused`](sys::Spliced::Refused) if that is not supported
    /// and nothing was copied.
    fn data_from_file(&self, _at: u64, _file: &File, _from: u64, _len: u64) -> Result<sys::Spliced> {
        Ok(sys::Spliced::Refused)
    }

    /// Shares the blocks of a file that holds the whole disk, including its holes. Fails, with nothing changed, if that
    /// is not supported.
    fn share(&self, _file: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns true if several threads may write in any order. Otherwise bytes must be written in order, by one thread
    /// at a time.
    fn is_positional(&self) -> bool {
        true
    }

    /// Makes the `len` bytes at `at` read as zeros.
    fn zero_range(&self, at: u64, len: u64) -> Result<()>;

    /// Releases the space of `len` bytes at `at` that are zeros in the old target and stay zeros. Only writers of new
    /// files do that.
    fn vacate(&self, _at: u64, _len: u64) {}

    /// Returns true if a hole takes time: old bytes are overwritten with zeros.
    fn zeroes(&self) -> bool {
        false
    }

    /// Leaves the `len` bytes at `at` as the old target holds them.
    fn keep_existing(&self, at: u64, len: u64) -> Result<()>;

    /// Removes what was created, if nothing was written and nothing will be.
    fn give_up(self: Box<Self>) {}

    /// Returns half a sentence for an error message: what is left behind if the transfer ends now.
    fn leftover_message(&self) -> String;

    /// Syncs a complete disk of `size` bytes, and opens it for reading, past the page cache if possible. The disk is
    /// not published yet.
    ///
    /// # Errors
    ///
    /// If the writer can't read back what it wrote.
    fn stored(&self, _size: u64) -> Result<StoredFile> {
        Err(DiskError::new(DiskErrorKind::Refused, "what was written", "cannot be read back"))
    }

    /// Returns a handle to the stamp that [`commit`](DiskWriter::commit) sets once a regular file is complete and
    /// durable. The file's fingerprint is noted with this stamp.
    fn mark(&self) -> WrittenStamp {
        WrittenStamp::default()
    }

    /// Sets the size to `size` bytes, syncs the disk, and gives it its name. Returns messages for the user.
    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>>;
}

/// Calls `each` with the offset and length of pieces of at most `most` bytes that cover `len` bytes from `at`.
pub(crate) fn in_pieces(at: u64, len: u64, most: u64, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let (mut at, end) = (at, at + len);
    while at < end {
        let piece = most.min(end - at);
        each(at, piece)?;
        at += piece;
    }
    Ok(())
}

/// Zeros to write where no hole can be made.
pub(crate) static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Calls `write` with zeros that cover `len` bytes from `at`.
pub(crate) fn write_zeros(at: u64, len: u64, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    in_pieces(at, len, ZEROS.len() as u64, |at, piece| {
        // A piece is at most as long as ZEROS.
        write(at, &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())])
    })
}
