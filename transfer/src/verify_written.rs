//! What was written, read once more from where it is stored, and held against its fingerprint.

use xfer_hole_image::BackingChain;
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_pipeline::{Phase, ProgressCounters, fingerprint};
use xfer_hole_proto::Fingerprint;
use xfer_hole_target::{DiskWriter, StoredFile};

/// Stores what a sink was given, `size` bytes, reads it back, past the page cache as far as that can be, and fails unless it has this
/// fingerprint. Nothing is published yet.
///
/// # Errors
///
/// What can't be stored or read, and [`DiskErrorKind::Changed`] for another disk.
pub fn read_back(sink: &dyn DiskWriter, size: u64, said: Fingerprint, counters: &ProgressCounters) -> Result<()> {
    counters.set_phase(Phase::Syncing);
    let StoredFile { file, path } = sink.stored(size)?;
    let stored = BackingChain::of_file(file, &path, size)?;
    counters.set_phase(Phase::ReadingBack);
    // The disk is counted already.
    let found = fingerprint(&stored, said.sums, &ProgressCounters::default())?;
    if found == said {
        return Ok(());
    }
    Err(DiskError::new(DiskErrorKind::Changed, path, "what is read back isn't what was written"))
}
