//! What is in a disk, by digest alone: its runs, its record lines, its fingerprint. All processors hash, and no payload is kept.

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

/// Threads at least where a device is waited for, which needs no processor.
const WAITING: usize = 6;

/// The runs of a disk in canonical form, block by block in order, without their bytes, for `take` to draw. Now and then there is an empty
/// block, so that whoever draws isn't held up.
pub fn hash_disk<T>(
    image: &dyn Disk,
    sums: HashParams,
    take: impl FnOnce(&mut (dyn Iterator<Item = Result<SegmentBatch>> + '_)) -> T,
) -> T {
    let shape = ReadOptions::canonical(sums).bare();
    // Nobody else here has to hash what we do: all processors are ours.
    let all = thread::available_parallelism().map_or(1, NonZero::get);
    let workers = if image.is_direct() { all.max(WAITING) } else { all };
    thread::scope(|scope| match ParallelReader::start(scope, image, shape, workers) {
        Ok(mut blocks) => take(&mut blocks),
        // Not one thread is to be had.
        Err(_) => take(&mut SerialReader::new(image, shape)),
    })
}

/// Tells the lines of the disk's manifest that follow its first, some at a time, END among them, which is only told of a disk that is
/// still what it was, unless `live` accepts that it changes. What is read is added to `counters`.
///
/// # Errors
///
/// What can't be read, a disk that changed ([`DiskErrorKind::Changed`]), and what `tell` gives.
pub fn record_lines<E: From<DiskError>>(
    image: &dyn Disk,
    sums: HashParams,
    live: bool,
    counters: &ProgressCounters,
    mut tell: impl FnMut(&str) -> Result<(), E>,
) -> Result<Fingerprint, E> {
    let (mut writer, mut lines) = (ManifestWriter::new(ManifestHeader::whole(image.size(), sums)), String::new());
    hash_disk(image, sums, |blocks| {
        for block in blocks {
            for run in block?.runs {
                let record = run.record();
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
    Ok(Fingerprint { sums, digest })
}

/// The disk's fingerprint. What is read is added to `counters`.
///
/// # Errors
///
/// What can't be read, and a disk that changed ([`DiskErrorKind::Changed`]).
pub fn fingerprint(image: &dyn Disk, sums: HashParams, counters: &ProgressCounters) -> Result<Fingerprint> {
    counters.set_phase(Phase::Hashing);
    record_lines(image, sums, false, counters, |_| Ok(()))
}

/// The runs of an image aren't what its blocks have to be.
fn out_of_form(what: impl ToString) -> DiskError {
    DiskError::new(DiskErrorKind::Io, "extents", what.to_string())
}
