//! From a file's pages to the stream by way of a pipe of our own: what is announced and the pages behind it go out in one move.
//!
//! Whoever reads the stream holds its pipe for as long as it copies what lies in there. Meanwhile pages of the file are fetched
//! here, and no line goes out alone, for which the reader would wake, and wait again.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;

use xfer_hole_os::sys::{self, Spliced};

/// The pipe we ask for: fewer switches between the two ends.
pub(crate) const PIPE: i32 = 1 << 20;

/// Bytes on their way, in order. All that was put in is to be poured out before anything is written past it.
#[derive(Debug)]
pub(crate) struct SplicePipe {
    upper: PipeWriter,
    lower: PipeReader,
}

impl SplicePipe {
    /// The most bytes that are [put](Lift::put) at a time: they take one page of the pipe.
    pub(crate) const LINES: usize = 4096;

    /// An empty one. Fails if there is none to be had with room for more than one page: what is put in has to be followed by something
    /// before anybody takes it out.
    pub(crate) fn new() -> io::Result<Self> {
        let (lower, upper) = io::pipe()?;
        sys::enlarge_pipe(upper.as_fd(), PIPE);
        Self::of(lower, upper)
    }

    fn of(lower: PipeReader, upper: PipeWriter) -> io::Result<Self> {
        if sys::pipe_size(upper.as_fd())? <= sys::page() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Self { upper, lower })
    }

    /// Puts in some bytes that are in memory, at most [`LINES`](Lift::LINES), while it is empty.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.upper.write_all(bytes)
    }

    /// Puts in up to `len` bytes of a file, as many as there is room for.
    pub(crate) fn fetch(&mut self, file: &File, at: u64, len: u64) -> io::Result<Spliced> {
        sys::splice_to_pipe(file, at, self.upper.as_fd(), len)
    }

    /// Pours up to `len` bytes out, of those that were put in: how many.
    pub(crate) fn pour(&mut self, out: &File, len: u64) -> io::Result<u64> {
        sys::splice_out(self.lower.as_fd(), out.as_fd(), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_of_one_page_is_not_taken_since_it_would_never_have_room_for_a_file() {
        let pipe = |bytes| {
            let (lower, upper) = io::pipe().unwrap();
            sys::enlarge_pipe(upper.as_fd(), bytes);
            SplicePipe::of(lower, upper)
        };
        assert!(pipe(1).is_err());
        assert!(pipe(8192).is_ok());
    }
}
