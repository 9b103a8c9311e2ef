//! Standard output, for what was asked for.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use clap::ValueEnum;
use xfer_hole_os::sys;

use crate::error::SendError;

/// How something is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputKind {
    /// For people
    #[default]
    Human,
    /// JSON, with qemu-img's names for what both tell
    Json,
}

/// Bytes that are gathered before they are written.
const GATHER: usize = 64 << 10;

/// Standard output, past the runtime's own buffer, which would be flushed line by line.
pub(crate) struct Output(File);

impl Output {
    pub(crate) fn stdout() -> Result<BufWriter<Self>, SendError> {
        let out = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(BufWriter::with_capacity(GATHER, Self(out.into())))
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

/// A failed write of what was asked for. That nobody reads on, as `head` doesn't, is no news to the user.
pub(crate) fn failed(source: io::Error) -> SendError {
    match source.kind() {
        io::ErrorKind::BrokenPipe => SendError::Unread,
        _ => SendError::Output(source),
    }
}
