//! Cuts a disk into work units, in order. No data is moved.

use xfer_hole_image::{Disk, Extent};
use xfer_hole_os::Result;
use xfer_hole_proto::GRAIN_DEFAULT;

use crate::plan::{Action, Plan, Step};
use crate::read_options::ReadOptions;

/// Maximum bytes of a unit whose bytes stay in their files. It is large because each record costs a shell receiver a
/// process.
const FILE_UNIT: u64 = 64 << 20;
/// Maximum bytes of a unit that are held in memory, without digests.
const MEMORY: u64 = 4 << 20;
/// Minimum bytes of a unit with digests: small intervals are grouped, and two are hashed at a time.
const DIGEST_UNIT: u64 = 2 << 20;
/// Minimum length in bytes of an extent whose bytes stay in their file. Shorter extents are read into memory and
/// written together; longer ones are better spliced, each with a system call of its own.
const FILE_MIN: u64 = 16 << 10;
/// Maximum number of grains in a unit, since each may become a segment.
const GRAINS: u64 = 16 << 10;
/// Number of steps after which a unit ends, however few bytes it has.
const STEPS: usize = 4096;

/// Maximum bytes of a unit that is copied into a writer. It is small so that a small disk has units for each thread.
const COPY_UNIT: u64 = 8 << 20;

/// Where the bytes of a part come from.
#[derive(Clone, Copy, Debug)]
pub enum UnitSource {
    /// No source: the bytes are zeros.
    Zero,
    /// No source: the bytes are left unchanged.
    Keep,
    /// The bytes have to be read into memory.
    Memory(Extent),
    /// The bytes lie unchanged in the file of a layer and may stay there.
    File {
        /// The extent that the part lies in.
        extent: Extent,
        /// Offset of the part in that file, in bytes.
        offset: u64,
    },
}

/// A part of a work unit with one source.
#[derive(Clone, Copy, Debug)]
pub struct UnitPart {
    /// Disk offset, in bytes.
    pub at: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where the bytes come from.
    pub source: UnitSource,
}

/// A part of the disk that is read into one batch.
#[derive(Debug)]
pub struct WorkUnit {
    /// Disk offset in bytes: a multiple of the grain, or the end of an unchanged range.
    pub start: u64,
    /// The parts, in order, without gaps.
    pub parts: Vec<UnitPart>,
    /// Bytes of the unit that have to be read into memory.
    pub memory: u64,
}

/// How a disk is cut into work units. All lengths are in bytes and, except `memory`, powers of two.
#[derive(Clone, Copy, Debug)]
struct UnitLimits {
    /// A unit never crosses a multiple of this, unless all of it is zeros or unchanged.
    unit: u64,
    /// A unit that ends early ends at a multiple of this, so that the next one begins there.
    align: u64,
    /// Maximum bytes in memory.
    memory: u64,
    /// Number of steps after which a unit ends.
    steps: usize,
    /// True if long extents may stay in their files.
    files: bool,
    /// True if such extents are also read into memory, to be hashed.
    hashed: bool,
    /// True if an unchanged range is a unit of its own, of any length.
    alone: bool,
}

impl UnitLimits {
    fn of(image: &dyn Disk, options: &ReadOptions) -> Self {
        let chunk = image.chunk().max(1);
        if options.digests {
            let files = !options.held && !image.is_direct();
            let unit = options.interval.max(DIGEST_UNIT).max(chunk);
            return Self { unit, align: unit, memory: unit, steps: usize::MAX, files, hashed: true, alone: true };
        }
        let align = options.grain.max(chunk).max(GRAIN_DEFAULT);
        let unit = if options.detect { FILE_UNIT.min(options.grain * GRAINS) } else { FILE_UNIT };
        Self {
            unit: unit.max(align),
            align,
            memory: MEMORY.max(align),
            steps: STEPS,
            files: !image.is_direct(),
            hashed: false,
            alone: true,
        }
    }

    /// Returns true if bytes of this source are read into memory.
    fn is_read(&self, source: &UnitSource) -> bool {
        match source {
            UnitSource::Zero | UnitSource::Keep => false,
            UnitSource::Memory(_) => true,
            UnitSource::File { .. } => self.hashed,
        }
    }

    fn source(&self, step: &Step, at: u64) -> UnitSource {
        let extent = step.extent;
        match extent.host {
            _ if step.want == Action::Zero => UnitSource::Zero,
            _ if step.want == Action::Keep => UnitSource::Keep,
            Some(host) if self.files && !extent.compressed && extent.len >= FILE_MIN => {
                UnitSource::File { extent, offset: host.saturating_add(at - extent.start) }
            }
            _ => UnitSource::Memory(extent),
        }
    }
}

/// Cuts a disk into work units, in order.
pub struct WorkSplitter<'a> {
    plan: Plan<'a>,
    /// Size of the disk, in bytes.
    size: u64,
    limits: UnitLimits,
    /// Disk offset reached, in bytes.
    at: u64,
    /// The step at that offset. Adjacent steps without data are joined.
    step: Option<Step>,
    /// The step after it, if it was drawn from the plan already.
    ahead: Option<Result<Step>>,
    /// True after an error. A disk that failed is not read again.
    failed: bool,
}

impl<'a> WorkSplitter<'a> {
    /// Creates a splitter for this disk, or for what changed in it ([`Plan::changed`]).
    #[must_use]
    pub fn new(image: &'a dyn Disk, options: &ReadOptions) -> Self {
        // With digests, unchanged ranges are whole intervals, since the rest is hashed by interval.
        let align = if options.digests { options.interval } else { 1 };
        Self::by(Plan::changed(image, align), image, options)
    }

    fn by(plan: Plan<'a>, image: &'a dyn Disk, options: &ReadOptions) -> Self {
        let limits = UnitLimits::of(image, options);
        Self { plan, size: image.size(), limits, at: 0, step: None, ahead: None, failed: false }
    }

    /// Creates a splitter for a copy into a positional writer by the given plan. Its units may be larger than memory,
    /// since a copying thread holds only a small part of a unit at a time.
    pub fn for_copy(plan: Plan<'a>, image: &'a dyn Disk, options: &ReadOptions) -> Self {
        let splitter = Self::by(plan, image, options);
        let unit = COPY_UNIT.max(splitter.limits.align);
        Self { limits: UnitLimits { unit, memory: 2 * unit, alone: false, ..splitter.limits }, ..splitter }
    }

    /// Returns the maximum bytes that a unit of such a disk needs in memory.
    pub fn memory(image: &dyn Disk, options: &ReadOptions) -> u64 {
        UnitLimits::of(image, options).memory
    }

    /// Returns the next work unit, or `None` at the end of the disk and after an error.
    ///
    /// # Errors
    ///
    /// Errors of the plan.
    pub fn unit(&mut self) -> Result<Option<WorkUnit>> {
        if self.failed {
            return Ok(None);
        }
        let unit = self.draw();
        self.failed = unit.is_err();
        unit
    }

    fn draw(&mut self) -> Result<Option<WorkUnit>> {
        let Some(step) = self.step()? else { return Ok(None) };
        let (start, limits) = (self.at, self.limits);
        let last = start.saturating_add(limits.unit - start % limits.unit).min(self.size);
        let mut unit = WorkUnit { start, parts: Vec::new(), memory: 0 };
        let alone = step.want == Action::Keep && limits.alone;
        if alone || (step.want != Action::Copy && step.extent.end() >= last) {
            // A long range of zeros, or an unchanged range, is one unit, however long it is.
            let end = step.extent.end();
            self.at = if end == self.size || alone { end } else { end - end % limits.align };
            let source = limits.source(&step, start);
            unit.parts.push(UnitPart { at: start, len: self.at - start, source });
            return Ok(Some(unit));
        }
        for drawn in 0_usize.. {
            let full = drawn >= limits.steps || unit.memory + limits.align > limits.memory;
            // A unit ends at an aligned offset before its memory would not suffice to reach the next one.
            if self.at >= last || (full && self.at.is_multiple_of(limits.align)) {
                break;
            }
            // The plan covers the whole disk, so there is a step here.
            let Some(step) = self.step()?.filter(|step| step.want != Action::Keep || !limits.alone) else { break };
            let (at, source) = (self.at, limits.source(&step, self.at));
            let mut end = step.extent.end().min(last);
            if full {
                end = end.min(at.next_multiple_of(limits.align));
            } else if self.limits.is_read(&source) {
                let room = at + (limits.memory - unit.memory);
                end = end.min(room - room % limits.align);
            }
            if self.limits.is_read(&source) {
                unit.memory += end - at;
            }
            self.at = end;
            match unit.parts.last_mut() {
                Some(UnitPart { len, source: UnitSource::Zero, .. }) if matches!(source, UnitSource::Zero) => {
                    *len += end - at;
                }
                _ => unit.parts.push(UnitPart { at, len: end - at, source }),
            }
        }
        Ok(Some(unit))
    }

    /// Returns the step at the offset reached.
    fn step(&mut self) -> Result<Option<Step>> {
        while self.step.is_none_or(|step| step.extent.end() <= self.at) {
            let Some(step) = self.ahead.take().or_else(|| self.plan.next()) else { return Ok(None) };
            let mut step = step?;
            // Image tables split zeros and unchanged ranges into many steps: they are joined here.
            for _ in 0..if step.want == Action::Copy { 0 } else { STEPS } {
                match self.plan.next() {
                    Some(Ok(next)) if next.want == step.want => step.extent.len += next.extent.len,
                    other => {
                        self.ahead = other;
                        break;
                    }
                }
            }
            self.step = Some(step);
        }
        Ok(self.step)
    }
}
