//! Hashes a disk on all processors: its segments, its manifest's record lines and its fingerprint. No payload is kept.

use std::num::NonZero;
use std::thread;

use xfer_hole_image::Disk;
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_proto::{Fingerprint, HashParams, ManifestHeader, ManifestWriter};

use crate::parallel_reader::ParallelReader;
use crate::progress_counters::{Phase, ProgressCounters};
use crate::read_options::ReadOptions;
use crate::segment::SegmentBatch;
use crate::serial_reader::SerialReader;

/// Minimum number of threads for direct I/O, where threads mostly wait for the device and need no processor.
const DIRECT_THREADS_MIN: usize = 6;

/// Reads and hashes a disk with parameters `params`. `take` gets an iterator over its batches in canonical form, in
/// order, whose payloads have lengths and digests and no bytes.
///
/// The iterator may return empty batches, so that `take` gets control regularly.
pub fn hash_disk<T>(
    image: &dyn Disk,
    params: HashParams,
    take: impl FnOnce(&mut (dyn Iterator<Item = Result<SegmentBatch>> + '_)) -> T,
) -> T {
    let options = ReadOptions::canonical(params).bare();
    // No other thread of the process hashes now, so one thread for each processor is right.
    let all = thread::available_parallelism().map_or(1, NonZero::get);
    let workers = if image.is_direct() { all.max(DIRECT_THREADS_MIN) } else { all };
    thread::scope(|scope| match ParallelReader::start(scope, image, options, workers) {
        Ok(mut batches) => take(&mut batches),
        // No thread could be started: read on this thread.
        Err(_) => take(&mut SerialReader::new(image, options)),
    })
}

/// Calls `tell` with the record lines of the disk's manifest, several at a time, including the END line. Before END,
/// the disk is checked to be unchanged, unless `live` accepts changes. Returns the fingerprint. Bytes read are added to
/// `counters`.
///
/// # Errors
///
/// Read errors, [`DiskErrorKind::Changed`] if the disk changed, and errors of `tell`.
pub fn record_lines<E: From<DiskError>>(
    image: &dyn Disk,
    params: HashParams,
    live: bool,
    counters: &ProgressCounters,
    mut tell: impl FnMut(&str) -> Result<(), E>,
) -> Result<Fingerprint, E> {
    let (mut writer, mut lines) = (ManifestWriter::new(ManifestHeader::whole(image.size(), params)), String::new());
    hash_disk(image, params, |batches| {
        for batch in batches {
            for segment in batch?.runs {
                let record = segment.record();
                writer.record(&record, &mut lines).map_err(out_of_form)?;
                counters.add_data(record.payload_len());
                counters.add_disk(record.len());
            }
            if !lines.is_empty() {
                tell(&lines)?;
                lines.clear();
            }
        }
        Ok::<(), E>(())
    })?;
    image.check_unchanged(live)?;
    let digest = writer.end(&mut lines).map_err(out_of_form)?;
    tell(&lines)?;
    Ok(Fingerprint { sums: params, digest })
}

/// Returns the disk's fingerprint. Bytes read are added to `counters`.
///
/// # Errors
///
/// Read errors, and [`DiskErrorKind::Changed`] if the disk changed.
pub fn fingerprint(image: &dyn Disk, params: HashParams, counters: &ProgressCounters) -> Result<Fingerprint> {
    counters.set_phase(Phase::Hashing);
    record_lines(image, params, false, counters, |_| Ok(()))
}

/// Makes the error for a disk whose segments violate the manifest's rules.
fn out_of_form(what: impl ToString) -> DiskError {
    DiskError::new(DiskErrorKind::Io, "extents", what.to_string())
}
