//! The options for the parameters of digests.

use clap::Args;
use xfer_hole_proto::{GRAIN_DEFAULT, GRAIN_MIN, HashParams, INTERVAL_DEFAULT, INTERVAL_MAX, INTERVAL_MIN};
use xfer_hole_ui::parse_size;

use crate::error::SendError;

/// The parameters of digests. Two fingerprints can be equal only if these are.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Hashing")]
pub(crate) struct HashArgs {
    /// Set the interval of the checksums: a power of two from 4K to 16M bytes (default: 1M)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) hash_interval: Option<u64>,

    /// Set the grain in which zeros are found: a power of two from 512 bytes to the interval (default: 4K)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) min_hole: Option<u64>,
}

impl HashArgs {
    pub(crate) fn params(&self) -> Result<HashParams, SendError> {
        let interval = self.hash_interval.unwrap_or(INTERVAL_DEFAULT);
        checked_params(interval, self.min_hole.unwrap_or(GRAIN_DEFAULT.min(interval)))
    }
}

/// Checks an interval and a grain, both in bytes.
pub(crate) fn checked_params(interval: u64, grain: u64) -> Result<HashParams, SendError> {
    HashParams::new(interval, grain).ok_or_else(|| {
        SendError::usage(format!(
            "--hash-interval must be a power of two from {INTERVAL_MIN} to {INTERVAL_MAX}, \
             and --min-hole one from {GRAIN_MIN} to the interval; these are {interval} and {grain}"
        ))
    })
}
