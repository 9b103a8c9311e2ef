//! What is to become of each byte of the disk: steps, lazily, from the image's extents. Moves no data.

use xfer_hole_image::{BlockStatus, ChangeTracker, Disk, Extent};
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_proto::{Base, CoverageChecker, Record, StreamHeader};

/// What a step wants of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are to be read.
    Copy,
    /// They are zeros.
    Zero,
    /// They are not touched, and nothing of them is read: whoever takes the disk has them already, or they are what they were in the
    /// older state that the image is compared with.
    Keep,
}

/// A part of the disk with one wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part, and all that is needed to read it; of what is kept, only its place counts.
    pub extent: Extent,
    /// What is to be done.
    pub want: Action,
}

/// The steps of a whole disk, in order: they cover `[0, size)` once, for the cursor that each is drawn through says so.
pub struct Plan<'a> {
    image: &'a dyn Disk,
    cursor: CoverageChecker,
    /// What no layer has is kept.
    over: bool,
    /// What is the same in it is kept.
    older: Option<&'a dyn ChangeTracker>,
    /// In bytes: what is the same begins at a multiple of it, and ends at one or at the disk's end.
    align: u64,
    /// Nothing is the same up to this disk offset, which is such a multiple, or the end.
    changed: u64,
}

impl<'a> Plan<'a> {
    /// All of the disk, by its extents.
    #[must_use]
    pub fn whole(image: &'a dyn Disk) -> Self {
        Self::by(image, None)
    }

    /// What the disk's layers have, to be laid over another disk of its size: what none of them has is kept.
    #[must_use]
    pub fn over(image: &'a dyn Disk) -> Self {
        let base = Base { size: image.size(), digest: None };
        Self { over: true, ..Self::by(image, Some(&base)) }
    }

    /// What changed since the older state that the image is compared with, and the rest to be kept, in whole stretches of `align`
    /// bytes (a power of two). All of the disk, if there is no such state.
    #[must_use]
    pub fn changed(image: &'a dyn Disk, align: u64) -> Self {
        let older = image.older();
        let base = older.map(|older| Base { size: older.size(), digest: None });
        Self { older, align, ..Self::by(image, base.as_ref()) }
    }

    fn by(image: &'a dyn Disk, base: Option<&Base>) -> Self {
        let cursor = CoverageChecker::new(&StreamHeader { size: image.size(), sums: None }, base);
        Self { image, cursor, over: false, older: None, align: 1, changed: 0 }
    }

    /// Where what is kept from `at` on ends; none if it is to be read.
    fn kept(&mut self, at: u64) -> Result<Option<u64>> {
        let size = self.cursor.size();
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
        let at = self.cursor.at();
        let (extent, want) = match self.kept(at)? {
            Some(end) => (nowhere(at, end - at), Action::Keep),
            None => {
                let end = if at < self.changed { self.changed } else { self.cursor.size() };
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
        let stepped = self.cursor.step(&record).map_err(|step| step.to_string());
        let place = stepped.map_err(|what| DiskError::new(DiskErrorKind::Io, "extents", what))?;
        if place.start != extent.start {
            let what = format!("asked for at 0x{at:x}, one begins at 0x{:x}", extent.start);
            return Err(DiskError::new(DiskErrorKind::Io, "extents", what));
        }
        Ok(Step { extent, want })
    }
}

/// The place of what is kept.
fn nowhere(start: u64, len: u64) -> Extent {
    Extent { start, len, status: BlockStatus::Zero, depth: 0, present: false, compressed: false, host: None }
}

impl Iterator for Plan<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        self.cursor.finish().is_err().then(|| self.draw())
    }
}
