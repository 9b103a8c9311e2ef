//! Decides for each extent of a disk whether it is copied, zeroed or left unchanged. Steps are computed lazily; no data
//! is moved.

use xfer_hole_image::{BlockStatus, ChangeTracker, Disk, Extent};
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_proto::{Base, CoverageChecker, Record, StreamHeader};

/// What is done with the bytes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The bytes are read and copied.
    Copy,
    /// The bytes are zeros.
    Zero,
    /// The bytes are neither read nor written: the destination already has them, or they equal those of the older state
    /// that the disk is compared with.
    Keep,
}

/// A part of the disk with one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The extent, with all that is needed to read it. For [`Action::Keep`] only its start and length are meaningful.
    pub extent: Extent,
    /// The action.
    pub want: Action,
}

/// Yields the steps of a whole disk, in order. They cover `[0, size)` exactly once: a [`CoverageChecker`] checks each
/// step.
pub struct Plan<'a> {
    image: &'a dyn Disk,
    coverage: CoverageChecker,
    /// True if bytes that no layer has are left unchanged.
    over: bool,
    /// The older state. Bytes that are the same in it are left unchanged.
    older: Option<&'a dyn ChangeTracker>,
    /// Alignment of unchanged ranges, in bytes: they begin at a multiple of it, and end at one or at the end of the
    /// disk.
    align: u64,
    /// Disk offset, a multiple of `align` or the end of the disk, before which nothing is unchanged.
    changed: u64,
}

impl<'a> Plan<'a> {
    /// Plans the whole disk by its extents.
    #[must_use]
    pub fn whole(image: &'a dyn Disk) -> Self {
        Self::by(image, None)
    }

    /// Plans a disk that is laid over another of the same size: bytes that no layer of the disk has are left unchanged.
    #[must_use]
    pub fn over(image: &'a dyn Disk) -> Self {
        let base = Base { size: image.size(), digest: None };
        Self { over: true, ..Self::by(image, Some(&base)) }
    }

    /// Plans what changed since the older state that the disk is compared with. The rest is left unchanged, in ranges
    /// aligned to `align` bytes (a power of two). Without an older state, it plans the whole disk.
    #[must_use]
    pub fn changed(image: &'a dyn Disk, align: u64) -> Self {
        let older = image.older();
        let base = older.map(|older| Base { size: older.size(), digest: None });
        Self { older, align, ..Self::by(image, base.as_ref()) }
    }

    fn by(image: &'a dyn Disk, base: Option<&Base>) -> Self {
        let coverage = CoverageChecker::new(&StreamHeader { size: image.size(), sums: None }, base);
        Self { image, coverage, over: false, older: None, align: 1, changed: 0 }
    }

    /// Returns the end of the unchanged range that begins at `at`, or `None` if the bytes at `at` have to be read.
    fn kept(&mut self, at: u64) -> Result<Option<u64>> {
        let size = self.coverage.size();
        let Some(older) = self.older else { return Ok(None) };
        let both = older.size().min(size);
        if at < self.changed || at >= both {
            return Ok(None);
        }
        let next = (at - at % self.align + self.align).min(size);
        let (mut end, mut differs) = (at, next);
        while end < next.min(both) {
            let found = older.compare(end, both - end)?;
            if found.same {
                end += found.len;
            } else {
                differs = end + found.len;
                break;
            }
        }
        let whole = |end: u64| if end == size { end } else { end - end % self.align };
        match whole(end) {
            kept if kept > at => Ok(Some(kept)),
            _ => {
                self.changed = whole(differs).max(next);
                Ok(None)
            }
        }
    }

    fn draw(&mut self) -> Result<Step> {
        let at = self.coverage.at();
        let (extent, want) = match self.kept(at)? {
            Some(end) => (unchanged_extent(at, end - at), Action::Keep),
            None => {
                let end = if at < self.changed { self.changed } else { self.coverage.size() };
                let extent = self.image.extent(at, end - at)?;
                let want = match extent.status {
                    BlockStatus::Data => Action::Copy,
                    _ if self.over && !extent.present => Action::Keep,
                    BlockStatus::Unwritten | BlockStatus::Zero => Action::Zero,
                };
                (extent, want)
            }
        };
        let len = extent.len;
        let record = match want {
            Action::Copy => Record::Data { len, digest: None },
            Action::Zero => Record::Hole { len },
            Action::Keep => Record::Keep { len },
        };
        let stepped = self.coverage.step(&record).map_err(|step| step.to_string());
        let covered = stepped.map_err(|what| DiskError::new(DiskErrorKind::Io, "extents", what))?;
        if covered.start != extent.start {
            let what = format!("asked for at 0x{at:x}, one begins at 0x{:x}", extent.start);
            return Err(DiskError::new(DiskErrorKind::Io, "extents", what));
        }
        Ok(Step { extent, want })
    }
}

/// Makes the extent of an unchanged range.
fn unchanged_extent(start: u64, len: u64) -> Extent {
    Extent { start, len, status: BlockStatus::Zero, depth: 0, present: false, compressed: false, host: None }
}

impl Iterator for Plan<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        self.coverage.finish().is_err().then(|| self.draw())
    }
}
