//! A regular file that is updated in place. Holes are punched, and the file is truncated at the end of the disk.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, settle, shown, sys};

use crate::disk_writer::{DiskWriter, StoredFile};
use crate::file_writer::{BLOCK_MAX, FileWriter};
use crate::origin;
use crate::permissions::FilePermissions;
use crate::written_stamp::WrittenStamp;

/// A regular file that is updated in place. It is open, and locked against other receivers and QEMU.
pub struct InPlace {
    pub(crate) writer: FileWriter,
    /// Size of the disk in bytes, if it is known.
    pub(crate) size: Option<u64>,
    /// Length of the file in bytes before the transfer: there is nothing to zero after it.
    pub held: u64,
    /// Requested permissions. They were set already, but writing may clear set-id bits.
    pub(crate) rights: FilePermissions,
    pub(crate) sync: bool,
    /// Name of the source image, if it is known.
    pub(crate) source: Option<OsString>,
}

impl InPlace {
    /// Returns the path of the file, links followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.writer.path
    }

    /// Returns true if any byte was written or punched.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.writer.is_touched()
    }

    /// Returns the size in bytes that the file gets, or else the size that it had.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.unwrap_or(self.held)
    }

    /// Opens the file for reading.
    ///
    /// # Errors
    ///
    /// If its descriptor cannot be duplicated.
    pub fn opened(&self) -> Result<StoredFile> {
        self.writer.opened()
    }

    /// Extends the file for a disk of `size` bytes, which is at least the file's current length.
    ///
    /// # Errors
    ///
    /// If the file can't be extended.
    pub fn grow(&mut self, size: u64) -> Result<()> {
        self.size = Some(size);
        if size == self.held {
            return Ok(());
        }
        let file = &self.writer.file;
        // If a hole at the end of the file ends within a block, Btrfs fills it with zeros when the file grows. In a
        // layer, these zeros would hide the layer below.
        let last = self.held - self.held % sys::page();
        // A range is punched only after delayed allocation was written out: otherwise it could contain data.
        settle(file).map_err(|source| DiskError::io(&self.writer.path, "cannot write out what it holds", source))?;
        let is_hole = last < self.held && sys::seek_data(file, last).is_ok_and(|data| data.is_none());
        let failed = |source| DiskError::io(&self.writer.path, format!("cannot make it {size} bytes long"), source);
        file.set_len(size).map_err(failed)?;
        self.writer.touch();
        if is_hole && sys::seek_data(file, last).is_ok_and(|data| data == Some(last)) {
            sys::punch(file, last, BLOCK_MAX).map_err(failed)?;
        }
        Ok(())
    }

    /// Fails if the name belongs to another file: the updated disk would have no name.
    fn check_named(&self) -> Result<()> {
        match self.writer.is_named() {
            true => Ok(()),
            false => {
                let what = "was replaced or removed by another program while it was updated";
                Err(DiskError::new(DiskErrorKind::Changed, &self.writer.path, what))
            }
        }
    }

    /// Releases the space of `len` bytes at `at`, all within the file: they read as zeros.
    ///
    /// # Errors
    ///
    /// If the file system can't punch holes.
    pub fn punch(&self, at: u64, len: u64) -> Result<()> {
        self.writer.touch();
        // A block that crosses the end of the file is released as a whole.
        let whole = if at + len == self.held { len + BLOCK_MAX } else { len };
        sys::punch(&self.writer.file, at, whole).map_err(|source| {
            DiskError::io(&self.writer.path, format!("cannot punch a hole of {len} bytes at offset {at}"), source)
        })
    }
}

impl DiskWriter for InPlace {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.writer.write(at, bytes)
    }

    fn announce(&self, data: u64) {
        self.writer.announce(data);
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.writer.splice(at, pipe, len)
    }

    fn data_from_file(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        self.writer.copy(at, file, from, len)
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        self.writer.erase(at, len, self.held, self.size == Some(at + len))
    }

    fn zeroes(&self) -> bool {
        true
    }

    fn keep_existing(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn leftover_message(&self) -> String {
        let state = if self.writer.is_touched() { "updated in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.writer.path))
    }

    fn stored(&self, size: u64) -> Result<StoredFile> {
        self.writer.flush()?;
        self.writer.set_len(size)?;
        self.writer.stored()
    }

    fn mark(&self) -> WrittenStamp {
        self.writer.mark()
    }

    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        // Checked before the file is truncated, and again at the end.
        self.check_named()?;
        let notes = self.writer.flush()?;
        self.writer.check_len()?;
        self.writer.set_len(size)?;
        origin::note(&self.writer.file, self.source.as_deref());
        let given = self.rights.give(&self.writer.file);
        given.map_err(|(what, source)| DiskError::io(&self.writer.path, what, source))?;
        if self.sync {
            self.writer.sync()?;
            self.writer.mark.set(&self.writer.file);
        }
        self.check_named()?;
        Ok(notes)
    }
}
