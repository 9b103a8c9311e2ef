//! Reads a range of a file in pieces, so that a table of 64 MiB takes as little memory as one of 64 KiB.

use xfer_hole_os::Result;

use crate::ImageFile;

/// The number of bytes per read.
const PIECE: u64 = 64 << 10;

/// A range of a file that is read sequentially.
pub(crate) struct BufferedRange<'a> {
    file: &'a ImageFile,
    /// The file offset of the next byte.
    at: u64,
    end: u64,
    /// The bytes of the file from offset `start` on.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> BufferedRange<'a> {
    /// The range `from..end` of the file.
    pub(crate) fn new(file: &'a ImageFile, from: u64, end: u64) -> Self {
        Self { file, at: from, end, buffer: Vec::new(), start: from }
    }

    /// The file offset of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// True if all bytes were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// Takes the next `len` bytes. If fewer are left, takes none and returns `None`.
    pub(crate) fn take(&mut self, len: u32) -> Result<Option<&[u8]>> {
        let len = u64::from(len);
        if self.end.saturating_sub(self.at) < len {
            return Ok(None);
        }
        if self.at + len > self.start + self.buffer.len() as u64 {
            let piece = len.max(PIECE).min(self.end - self.at);
            self.buffer.resize(usize::try_from(piece).unwrap_or(usize::MAX), 0);
            self.file.read_at(self.at, &mut self.buffer)?;
            self.start = self.at;
        }
        let within = usize::try_from(self.at - self.start).unwrap_or(usize::MAX);
        self.at += len;
        Ok(Some(&self.buffer[within..][..usize::try_from(len).unwrap_or(usize::MAX)]))
    }

    /// Skips up to 7 bytes, to a multiple of eight.
    pub(crate) fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}
