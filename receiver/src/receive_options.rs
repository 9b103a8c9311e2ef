//! What a receiver accepts of a stream.

use xfer_hole_proto::{Dialect, StreamHeader};

use crate::error::ReceiveError;

/// What the user accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveOptions {
    pub(crate) dialect: Dialect,
    pub(crate) require_hash: bool,
    /// In bytes.
    pub(crate) max_size: Option<u64>,
    /// Parts of what is there may be kept.
    pub(crate) allow_base: bool,
}

impl ReceiveOptions {
    /// Refuses a stream that isn't accepted here, by its open line.
    pub(crate) fn check(&self, open: &StreamHeader) -> Result<(), ReceiveError> {
        self.check_size(open.size)?;
        if self.require_hash && open.sums.is_none() { Err(ReceiveError::NoHash) } else { Ok(()) }
    }

    pub(crate) fn check_size(&self, size: u64) -> Result<(), ReceiveError> {
        match self.max_size {
            Some(max) if size > max => Err(ReceiveError::TooLarge { size, max }),
            _ => Ok(()),
        }
    }
}
