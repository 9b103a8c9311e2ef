//! Options that limit which streams the receiver accepts.

use xfer_hole_proto::{Dialect, StreamHeader};

use crate::error::ReceiveError;

/// Which streams the receiver accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveOptions {
    /// The dialect of the stream.
    pub(crate) dialect: Dialect,
    /// Refuse a stream without digests.
    pub(crate) require_hash: bool,
    /// Maximum size of the disk in bytes; `None` for no limit.
    pub(crate) max_size: Option<u64>,
    /// Accept a stream that keeps parts of the existing target.
    pub(crate) allow_base: bool,
}

impl ReceiveOptions {
    /// Checks the header of a stream.
    ///
    /// # Errors
    /// Returns an error if the disk is too large, or if digests are required and missing.
    pub(crate) fn check(&self, open: &StreamHeader) -> Result<(), ReceiveError> {
        self.check_size(open.size)?;
        if self.require_hash && open.sums.is_none() { Err(ReceiveError::NoHash) } else { Ok(()) }
    }

    /// Checks the size of a disk in bytes.
    ///
    /// # Errors
    /// Returns an error if the disk is too large.
    pub(crate) fn check_size(&self, size: u64) -> Result<(), ReceiveError> {
        match self.max_size {
            Some(max) if size > max => Err(ReceiveError::TooLarge { size, max }),
            _ => Ok(()),
        }
    }
}
