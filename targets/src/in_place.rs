//! A regular file that is updated in place: holes are punched, and what follows the disk is cut off at the end.

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
    pub(crate) place: FileWriter,
    /// The disk's, if it is known.
    pub(crate) size: Option<u64>,
    /// What the file had before: behind that there is nothing to be zeroed.
    pub held: u64,
    /// Given already, but a mode may lose its set-id bits while the file is written.
    pub(crate) rights: FilePermissions,
    pub(crate) sync: bool,
    /// What the image is called, if that is known.
    pub(crate) source: Option<OsString>,
}

impl InPlace {
    /// The path of the file, links followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// True if any byte of it was written or punched.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.place.is_touched()
    }

    /// The size in bytes that it gets, or else the one that it had.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.unwrap_or(self.held)
    }

    /// The file, to be read.
    ///
    /// # Errors
    /// If its descriptor cannot be duplicated.
    pub fn opened(&self) -> Result<StoredFile> {
        self.place.opened()
    }

    /// Makes room for a disk of this size in bytes, which is no less than what the file holds.
    pub fn grow(&mut self, size: u64) -> Result<()> {
        self.size = Some(size);
        if size == self.held {
            return Ok(());
        }
        let file = &self.place.file;
        // Btrfs puts zeros where a hole ends with the file inside a block: in a file of a chain, they would hide what lies below.
        let last = self.held - self.held % sys::page();
        // What is punched must not be data that the file system doesn't know of yet.
        settle(file).map_err(|source| DiskError::io(&self.place.path, "cannot write out what it holds", source))?;
        let is_hole = last < self.held && sys::seek_data(file, last).is_ok_and(|data| data.is_none());
        let failed = |source| DiskError::io(&self.place.path, format!("cannot make it {size} bytes long"), source);
        file.set_len(size).map_err(failed)?;
        self.place.touch();
        if is_hole && sys::seek_data(file, last).is_ok_and(|data| data == Some(last)) {
            sys::punch(file, last, BLOCK_MAX).map_err(failed)?;
        }
        Ok(())
    }

    /// Fails if the name is another file's: the disk would be where nothing leads to.
    fn check_named(&self) -> Result<()> {
        match self.place.is_named() {
            true => Ok(()),
            false => {
                let what = "was replaced or removed by another program while it was updated";
                Err(DiskError::new(DiskErrorKind::Changed, &self.place.path, what))
            }
        }
    }

    /// Gives back what these bytes, which the file has, take on the disk: they read as zeros. Fails where the file system can't.
    pub fn punch(&self, at: u64, len: u64) -> Result<()> {
        self.place.touch();
        // A block that ends behind the file's end is to go, too.
        let whole = if at + len == self.held { len + BLOCK_MAX } else { len };
        sys::punch(&self.place.file, at, whole).map_err(|source| {
            DiskError::io(&self.place.path, format!("cannot punch a hole of {len} bytes at offset {at}"), source)
        })
    }
}

impl DiskWriter for InPlace {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.place.write(at, bytes)
    }

    fn announce(&self, data: u64) {
        self.place.announce(data);
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.place.splice(at, pipe, len)
    }

    fn data_from_file(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        self.place.copy(at, file, from, len)
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        self.place.erase(at, len, self.held, self.size == Some(at + len))
    }

    fn zeroes(&self) -> bool {
        true
    }

    fn keep_existing(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn leftover_message(&self) -> String {
        let state = if self.place.is_touched() { "updated in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.place.path))
    }

    fn stored(&self, size: u64) -> Result<StoredFile> {
        self.place.settle()?;
        self.place.set_len(size)?;
        self.place.stored()
    }

    fn mark(&self) -> WrittenStamp {
        self.place.mark()
    }

    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        // Before the disk's end is cut off a file that nothing leads to any more, and once more when all is done.
        self.check_named()?;
        let notes = self.place.settle()?;
        self.place.check_len()?;
        self.place.set_len(size)?;
        origin::note(&self.place.file, self.source.as_deref());
        let given = self.rights.give(&self.place.file);
        given.map_err(|(what, source)| DiskError::io(&self.place.path, what, source))?;
        if self.sync {
            self.place.sync()?;
            self.place.mark.set(&self.place.file);
        }
        self.check_named()?;
        Ok(notes)
    }
}
