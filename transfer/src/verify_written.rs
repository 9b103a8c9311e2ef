//! Reads a written disk back from storage and compares its fingerprint.

use xfer_hole_image::BackingChain;
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_pipeline::{Phase, ProgressCounters, fingerprint};
use xfer_hole_proto::Fingerprint;
use xfer_hole_target::{DiskWriter, StoredFile};

/// Syncs a disk of `size` bytes that was written to `writer`, reads it back, past the page cache if possible, and
/// compares its fingerprint. The disk is not published yet.
///
/// # Errors
///
/// Sync and read errors, and [`DiskErrorKind::Changed`] if the fingerprint differs.
pub fn read_back(writer: &dyn DiskWriter, size: u64, expected: Fingerprint, counters: &ProgressCounters) -> Result<()> {
    counters.set_phase(Phase::Syncing);
    let StoredFile { file, path } = writer.stored(size)?;
    let stored = BackingChain::of_file(file, &path, size)?;
    counters.set_phase(Phase::ReadingBack);
    // The disk was counted when it was written.
    let found = fingerprint(&stored, expected.sums, &ProgressCounters::default())?;
    if found == expected {
        return Ok(());
    }
    Err(DiskError::new(DiskErrorKind::Changed, path, "what is read back isn't what was written"))
}
