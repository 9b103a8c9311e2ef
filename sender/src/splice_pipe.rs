//! Splices file ranges into the stream through a private pipe, so that a record's line and the pages after it are
//! written by one system call.
//!
//! The reader of the stream holds its pipe's lock while it copies data out. The private pipe is filled with pages
//! meanwhile, and no line is written alone, which would wake the reader for a few bytes.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;

use xfer_hole_os::sys::{self, Spliced};

/// The requested size of the pipe in bytes. A large pipe causes fewer context switches.
pub(crate) const PIPE: i32 = 1 << 20;

/// A private pipe. All bytes that were put in must be spliced out before anything is written to the stream directly.
#[derive(Debug)]
pub(crate) struct SplicePipe {
    write_end: PipeWriter,
    read_end: PipeReader,
}

impl SplicePipe {
    /// The maximum size in bytes of lines that are written at a time: one page of the pipe.
    pub(crate) const LINES: usize = 4096;

    /// Creates the pipe. Fails if it can hold one page only, since lines must be followed by pages of a file before
    /// they are spliced out.
    pub(crate) fn new() -> io::Result<Self> {
        let (read_end, write_end) = io::pipe()?;
        sys::enlarge_pipe(write_end.as_fd(), PIPE);
        Self::of(read_end, write_end)
    }

    fn of(read_end: PipeReader, write_end: PipeWriter) -> io::Result<Self> {
        if sys::pipe_size(write_end.as_fd())? <= sys::page() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Self { write_end, read_end })
    }

    /// Writes bytes from memory, at most [`LINES`](SplicePipe::LINES), into the empty pipe.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_end.write_all(bytes)
    }

    /// Splices up to `len` bytes of a file into the pipe, as far as there is room.
    pub(crate) fn fill(&mut self, file: &File, at: u64, len: u64) -> io::Result<Spliced> {
        sys::splice_to_pipe(file, at, self.write_end.as_fd(), len)
    }

    /// Splices up to `len` bytes of the pipe into `out`, and returns their number.
    pub(crate) fn drain_to(&mut self, out: &File, len: u64) -> io::Result<u64> {
        sys::splice_out(self.read_end.as_fd(), out.as_fd(), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_of_one_page_is_refused() {
        let pipe = |bytes| {
            let (read_end, write_end) = io::pipe().unwrap();
            sys::enlarge_pipe(write_end.as_fd(), bytes);
            SplicePipe::of(read_end, write_end)
        };
        assert!(pipe(1).is_err());
        assert!(pipe(8192).is_ok());
    }
}
