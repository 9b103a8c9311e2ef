//! A disk against a manifest: which intervals differ. What is read is hashed by all processors, and holes cost nothing.

use xfer_hole_image::Disk;
use xfer_hole_os::{DiskError, Result};
use xfer_hole_pipeline::{BaseMatcher, Phase, ProgressCounters, Segment, hash_disk};

use crate::ManifestInput;

/// What a disk is like, held against a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that it would have by the manifest.
    pub expected: u64,
    /// Bytes of an interval.
    pub interval: u64,
    /// Offset of the first interval that differs.
    pub first: Option<u64>,
    /// Intervals that differ: of the larger disk, if the sizes do.
    pub count: u64,
}

impl Verdict {
    /// True if the disk is that of the manifest.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.first.is_none() && self.size == self.expected
    }

    /// A line for another size, if it is one, and a line of where the disk of this name differs; nothing if it doesn't.
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

/// Holds a disk against a manifest, all of it, and tells each range that differs, in order: offset and length in bytes. Ranges are whole
/// intervals, but for the disk's end, and as long as can be. Where one disk is larger, what is behind the other's end differs.
///
/// # Errors
///
/// What can't be read, a disk that changed meanwhile, a manifest that is none, was cut, or is of a part of a disk; and what `tell` gives.
pub fn verify<E: From<DiskError>>(
    image: &dyn Disk,
    manifest: &mut ManifestInput,
    counters: &ProgressCounters,
    tell: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Verdict, E> {
    let (sums, expected, offered) = (manifest.manifest().sums, manifest.manifest().size, manifest.manifest().offered);
    if offered < expected {
        let what = format!("is of the first {offered} bytes of a disk of {expected}: it can't tell of the whole");
        return Err(manifest.error(what).into());
    }
    let size = image.size();
    counters.set_size(size);
    counters.set_phase(Phase::Hashing);
    let mut found = Differences { interval: sums.interval(), next: 0, first: None, count: 0, range: None, tell };
    hash_disk(image, sums, |blocks| {
        let mut at = 0;
        let data =
            blocks.inspect(|block| block.iter().flat_map(|block| &block.runs).for_each(|run| count(run, counters)));
        for block in BaseMatcher::new(data, || manifest.record(), size, sums) {
            for run in block?.runs {
                if !matches!(run, Segment::Keep(_)) {
                    found.add(at, run.len())?;
                }
                at += run.len();
            }
        }
        Ok::<(), E>(())
    })?;
    // The manifest is judged to its end, whatever was found.
    while manifest.record()?.is_some() {}
    if expected > size {
        found.add(size, expected - size)?;
    }
    image.check_unchanged(false)?;
    found.close()?;
    Ok(Verdict { size, expected, interval: found.interval, first: found.first, count: found.count })
}

fn count(run: &Segment, counters: &ProgressCounters) {
    counters.add_disk(run.len());
    counters.add_data(if matches!(run, Segment::Data(..)) { run.len() } else { 0 });
}

/// What differs, joined and counted.
struct Differences<T> {
    interval: u64,
    /// The number of the first interval that isn't counted yet.
    next: u64,
    first: Option<u64>,
    count: u64,
    /// A range that more may follow: its offset and its end.
    range: Option<(u64, u64)>,
    tell: T,
}

impl<T, E> Differences<T>
where
    T: FnMut(u64, u64) -> Result<(), E>,
{
    /// The next `len` bytes at `at` differ.
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
