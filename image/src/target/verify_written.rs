//! What was written, read once more from where it is stored, and held against its fingerprint.

use std::path::PathBuf;

use xfer_hole_proto::Fingerprint;

use crate::hash_disk::fingerprint;
use crate::{DiskError, DiskErrorKind, DiskWriter, Phase, ProgressCounters, Result};

/// Stores what a sink was given, `size` bytes, reads it back, past the page cache as far as that can be, and fails unless it has this
/// fingerprint. Nothing is published yet.
///
/// # Errors
///
/// What can't be stored or read, and [`DiskErrorKind::Changed`] for another disk.
pub fn read_back(sink: &dyn DiskWriter, size: u64, said: Fingerprint, counters: &ProgressCounters) -> Result<()> {
    counters.set_phase(Phase::Syncing);
    let stored = sink.stored(size)?;
    counters.set_phase(Phase::ReadingBack);
    // The disk is counted already.
    let found = fingerprint(&stored, said.sums, &ProgressCounters::default())?;
    if found == said {
        return Ok(());
    }
    let path = stored.files().next().map_or_else(PathBuf::new, |host| host.path().into());
    Err(DiskError::new(DiskErrorKind::Changed, path, "what is read back isn't what was written"))
}
