//! Compares a disk with a manifest and finds the intervals that differ. The disk is hashed on all processors; holes are
//! not read.

use xfer_hole_image::Disk;
use xfer_hole_os::{DiskError, Result};
use xfer_hole_pipeline::{BaseMatcher, Phase, ProgressCounters, Segment, hash_disk};

use crate::ManifestInput;

/// The result of comparing a disk with a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Size of the disk, in bytes.
    pub size: u64,
    /// Size of the disk by the manifest, in bytes.
    pub expected: u64,
    /// Interval of the manifest, in bytes.
    pub interval: u64,
    /// Disk offset of the first interval that differs, in bytes.
    pub first: Option<u64>,
    /// Number of intervals that differ. If the sizes differ, intervals of the larger disk are counted.
    pub count: u64,
}

impl Verdict {
    /// Returns true if the disk equals that of the manifest.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.first.is_none() && self.size == self.expected
    }

    /// Returns the result as text: one line if the sizes differ, and one line if intervals differ. The text is empty if
    /// the disk equals that of the manifest.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        let Self { size, expected, interval, first, count } = self;
        let mut text = String::new();
        if size != expected {
            text += &format!("{name}: has {size} bytes, and by the manifest {expected}\n");
        }
        match (first, count) {
            (None, _) => {}
            (Some(first), 1) => {
                text += &format!("{name}: 1 interval of {interval} bytes differs, at offset {first}\n");
            }
            (Some(first), _) => {
                text += &format!("{name}: {count} intervals of {interval} bytes differ, the first at offset {first}\n");
            }
        }
        text
    }
}

/// Compares a whole disk with a manifest, and calls `tell` with the offset and length in bytes of each range that
/// differs, in order.
///
/// Ranges consist of whole intervals, except at the end of the disk, and adjacent ones are joined. If one disk is
/// larger, the part after the end of the other differs.
///
/// # Errors
///
/// Read errors, a disk that changes meanwhile, an invalid or incomplete manifest, a manifest of a part of a disk, and
/// errors of `tell`.
pub fn verify<E: From<DiskError>>(
    image: &dyn Disk,
    manifest: &mut ManifestInput,
    counters: &ProgressCounters,
    tell: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Verdict, E> {
    let (params, expected, offered) = (manifest.manifest().sums, manifest.manifest().size, manifest.manifest().offered);
    if offered < expected {
        let what = format!("is of the first {offered} bytes of a disk of {expected}: it can't tell of the whole");
        return Err(manifest.error(what).into());
    }
    let size = image.size();
    counters.set_size(size);
    counters.set_phase(Phase::Hashing);
    let mut found = Differences { interval: params.interval(), next: 0, first: None, count: 0, range: None, tell };
    hash_disk(image, params, |batches| {
        let mut at = 0;
        let data = batches
            .inspect(|batch| batch.iter().flat_map(|batch| &batch.runs).for_each(|segment| count(segment, counters)));
        for batch in BaseMatcher::new(data, || manifest.record(), size, params) {
            for segment in batch?.runs {
                if !matches!(segment, Segment::Keep(_)) {
                    found.add(at, segment.len())?;
                }
                at += segment.len();
            }
        }
        Ok::<(), E>(())
    })?;
    // The rest of the manifest is checked too, whatever was found.
    while manifest.record()?.is_some() {}
    if expected > size {
        found.add(size, expected - size)?;
    }
    image.check_unchanged(false)?;
    found.close()?;
    Ok(Verdict { size, expected, interval: found.interval, first: found.first, count: found.count })
}

fn count(segment: &Segment, counters: &ProgressCounters) {
    counters.add_disk(segment.len());
    counters.add_data(if matches!(segment, Segment::Data(..)) { segment.len() } else { 0 });
}

/// Collects ranges that differ: joins adjacent ones and counts intervals.
struct Differences<T> {
    interval: u64,
    /// Number of the first interval that isn't counted yet.
    next: u64,
    first: Option<u64>,
    count: u64,
    /// The current range, which may continue: its offset and its end.
    range: Option<(u64, u64)>,
    tell: T,
}

impl<T, E> Differences<T>
where
    T: FnMut(u64, u64) -> Result<(), E>,
{
    /// Adds `len` bytes at disk offset `at` that differ.
    fn add(&mut self, at: u64, len: u64) -> Result<(), E> {
        let (first, end) = (at / self.interval, at + len);
        let behind = end.div_ceil(self.interval);
        self.count += behind - first.max(self.next).min(behind);
        self.next = behind;
        self.first.get_or_insert(first * self.interval);
        match &mut self.range {
            Some((_, before)) if *before == at => *before = end,
            _ => {
                self.close()?;
                self.range = Some((first * self.interval, end));
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), E> {
        self.range.take().map_or(Ok(()), |(at, end)| (self.tell)(at, end - at))
    }
}
