//! Where a disk is written: positional, so that many workers may pour into it. Sources are random access, the wire is
//! ordered, sinks are positional.

use crate::Result;

mod device;
mod file;
mod part;
mod stream;
mod target;

pub use target::{Target, TargetOptions};

/// Takes a disk's octets at their places. Offsets and lengths are in octets of the disk.
///
/// Only [`finish`](Sink::finish) publishes. Dropping a sink leaves what [`remains`](Sink::remains) says.
pub trait Sink: Send + Sync {
    /// These octets stand at `at`.
    fn data(&self, at: u64, octets: &[u8]) -> Result<()>;

    /// The `len` octets at `at` read as zeros.
    fn hole(&self, at: u64, len: u64) -> Result<()>;

    /// The `len` octets at `at` are those that the target held before.
    fn keep(&self, at: u64, len: u64) -> Result<()>;

    /// What is left behind if nothing more happens: a half sentence for the message of a failure.
    fn remains(&self) -> String;

    /// The disk is whole, and `size` octets long: syncs it, and gives it its name. What the user should know of it comes back.
    fn finish(self: Box<Self>, size: u64) -> Result<Vec<String>>;
}

/// Calls `each` with pieces of at most `most` octets that cover `len` octets from `at`.
fn in_pieces(at: u64, len: u64, most: u64, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let (mut at, end) = (at, at + len);
    while at < end {
        let piece = most.min(end - at);
        each(at, piece)?;
        at += piece;
    }
    Ok(())
}

/// Zeros to write where nothing better than writing them is to be had.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Calls `write` with zeros that cover `len` octets from `at`.
fn write_zeros(at: u64, len: u64, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    in_pieces(at, len, ZEROS.len() as u64, |at, piece| {
        // A piece is no longer than ZEROS.
        write(at, &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())])
    })
}
