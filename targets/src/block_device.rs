//! A block device, always written in place. Holes are zeroed, and their space is released if the device is thinly
//! provisioned.

use std::fs::{File, OpenOptions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, shown, sys};

use crate::discard::Discard;
use crate::disk_writer::{DiskWriter, StoredFile, in_pieces};
use crate::file_writer::FileWriter;

/// Maximum bytes that the device is asked to zero by one call: larger requests can time out.
const ZEROOUT_MAX: u64 = 128 << 20;
/// The device is asked to zero whole pages only, so that a request never overlaps a page that is being written.
const PAGE: u64 = 4096;

pub(crate) struct BlockDevice {
    pub writer: FileWriter,
    pub size: u64,
    pub sync: bool,
    pub target_is_zero: bool,
    /// Discards holes, if the user requested that and the device doesn't release the space of zeroed blocks.
    pub discard: Option<Discard>,
}

/// Opens a block device exclusively: fails if another program holds it.
pub(crate) fn open_exclusive(path: &Path, write: bool) -> Result<File> {
    // O_EXCL without O_CREAT fails with EBUSY on a block device that is mounted or otherwise held.
    let opened = OpenOptions::new().read(true).write(write).custom_flags(libc::O_EXCL).open(path);
    opened.map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => DiskError::new(DiskErrorKind::Refused, path, "is mounted or in use"),
        _ => DiskError::io(path, "cannot open", source),
    })
}

/// Returns the device's size in bytes. Fails if a disk of `size` bytes is larger.
pub(crate) fn check_size(file: &File, path: &Path, size: Option<u64>) -> Result<u64> {
    let device_size = sys::device_size(file).map_err(|source| DiskError::io(path, "cannot tell the size", source))?;
    match size.filter(|&size| size > device_size) {
        None => Ok(device_size),
        Some(size) => {
            let what = format!("the device of {device_size} bytes is too small for the disk of {size}");
            Err(DiskError::new(DiskErrorKind::Refused, path, what))
        }
    }
}

impl BlockDevice {
    fn zero_whole(&self, at: u64, len: u64) -> Result<()> {
        let file = &self.writer.file;
        in_pieces(at, len, ZEROOUT_MAX, |at, len| {
            // `punch` fails if the device would have to write zeros. BLKZEROOUT would write them, which takes space on
            // a thinly provisioned device.
            if sys::punch(file, at, len).is_ok() {
                return Ok(());
            }
            let discarded = self.discard.as_ref().map(|discard| discard.zero(file, at, len)).unwrap_or(at..at);
            self.zero_by_writing(at, discarded.start - at)?;
            self.zero_by_writing(discarded.end, at + len - discarded.end)
        })
    }

    fn zero_by_writing(&self, at: u64, len: u64) -> Result<()> {
        match sys::device_zero(&self.writer.file, at, len) {
            _ if len == 0 => Ok(()),
            Ok(()) => Ok(()),
            Err(_) => self.writer.write_zeros(at, len),
        }
    }
}

impl DiskWriter for BlockDevice {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.writer.write(at, bytes)
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.writer.splice(at, pipe, len)
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        if self.target_is_zero {
            return Ok(());
        }
        self.writer.touch();
        let grain = sys::device_block(&self.writer.file).unwrap_or(PAGE).max(PAGE);
        let end = at + len;
        let first = at.next_multiple_of(grain).min(end);
        let last = (end - end % grain).max(first);
        self.writer.write_zeros(at, first - at)?;
        self.zero_whole(first, last - first)?;
        self.writer.write_zeros(last, end - last)
    }

    fn zeroes(&self) -> bool {
        !self.target_is_zero
    }

    fn keep_existing(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn leftover_message(&self) -> String {
        let state = if self.writer.is_touched() { "overwritten in part" } else { "as it was" };
        format!("{} is {state}", shown(&self.writer.path))
    }

    fn stored(&self, _size: u64) -> Result<StoredFile> {
        self.writer.stored()
    }

    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        let mut notes = self.writer.flush()?;
        if self.sync {
            self.writer.sync()?;
        }
        let tail = self.size.saturating_sub(size);
        notes.extend(self.discard.as_ref().and_then(Discard::note));
        let note = format!("the last {tail} bytes of the device are left as they were");
        notes.extend((tail > 0).then_some(note));
        Ok(notes)
    }
}
