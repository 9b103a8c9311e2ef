//! Buffered standard output for the results of commands.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use clap::ValueEnum;
use xfer_hole_os::sys;

use crate::error::SendError;

/// The argument of `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputKind {
    /// A table for people
    #[default]
    Human,
    /// JSON, with the field names of qemu-img
    Json,
}

/// The size of the output buffer, in bytes.
const BUFFER_SIZE: usize = 64 << 10;

/// Standard output without the runtime's buffer, which is flushed after each line.
pub(crate) struct Output(File);

impl Output {
    pub(crate) fn stdout() -> Result<BufWriter<Self>, SendError> {
        let out = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(BufWriter::with_capacity(BUFFER_SIZE, Self(out.into())))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::write_all(&self.0, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Converts a failed write of a result. A broken pipe, as from `head`, is reported without a message.
pub(crate) fn failed(source: io::Error) -> SendError {
    match source.kind() {
        io::ErrorKind::BrokenPipe => SendError::ReaderGone,
        _ => SendError::Output(source),
    }
}
