//! What is worked on at a time: the disk cut into deals, in order. Moves no data.

use xfer_hole_image::{Disk, Extent};
use xfer_hole_os::Result;
use xfer_hole_proto::GRAIN_DEFAULT;

use crate::plan::{Action, Plan, Step};
use crate::read_options::ReadOptions;

/// Bytes of a deal at most where they stay in their files. Long, because each record costs a shell a process.
const FILE_UNIT: u64 = 64 << 20;
/// Bytes of a deal at most that have to be held in memory, without digests.
const MEMORY: u64 = 4 << 20;
/// Bytes of a deal at least with digests: small intervals are not dealt one by one, and two are hashed at once.
const DIGEST_UNIT: u64 = 2 << 20;
/// Extents shorter than this, in bytes, are read into memory: what is gathered there is written at once. Longer ones are better
/// spliced, each by a call of its own.
const FILE_MIN: u64 = 16 << 10;
/// Not more grains than this, since each may be a run of its own.
const GRAINS: u64 = 16 << 10;
/// Steps after which a deal is long enough, however few bytes they are.
const STEPS: usize = 4096;

/// Bytes of a deal at most that is poured into a sink: small disks are to have some for each thread.
const COPY_UNIT: u64 = 8 << 20;

/// Where the bytes of a stretch come from.
#[derive(Clone, Copy, Debug)]
pub enum UnitSource {
    /// From nowhere: they are zeros.
    Zero,
    /// From nowhere: they are not touched.
    Keep,
    /// They have to be in memory.
    Memory(Extent),
    /// They lie as they are in the file of layer `depth`, and may stay there.
    File {
        /// The extent that the part lies in.
        extent: Extent,
        /// Offset in that file, in bytes, of the part.
        host: u64,
    },
}

/// A part of a deal with one source, in bytes of the disk.
#[derive(Clone, Copy, Debug)]
pub struct UnitPart {
    /// Disk offset, in bytes.
    pub at: u64,
    /// In bytes.
    pub len: u64,
    /// Where its bytes come from.
    pub source: UnitSource,
}

/// A part of the disk that becomes a block: stretches without gaps between them.
#[derive(Debug)]
pub struct WorkUnit {
    /// Disk offset: a multiple of the grain, or behind what is kept.
    pub start: u64,
    /// Its parts, in order, without gaps.
    pub stretches: Vec<UnitPart>,
    /// Bytes that have to be in memory, for a while at least.
    pub memory: u64,
}

/// How a disk is cut. All lengths are powers of two, but for `memory`.
#[derive(Clone, Copy, Debug)]
struct UnitLimits {
    /// A deal crosses no multiple of this, unless it is zeros throughout.
    unit: u64,
    /// A deal that has to end before that ends at a multiple of this, and so begins the next.
    align: u64,
    /// Bytes in memory at most.
    memory: u64,
    /// Steps after which it ends.
    steps: usize,
    /// Long extents may stay in their files.
    files: bool,
    /// They are read into memory all the same, to be hashed.
    hashed: bool,
    /// What is kept is a deal of its own, and is not cut.
    apart: bool,
}

impl UnitLimits {
    fn of(image: &dyn Disk, shape: &ReadOptions) -> Self {
        let chunk = image.chunk().max(1);
        if shape.digests {
            let files = !shape.held && !image.is_direct();
            let unit = shape.interval.max(DIGEST_UNIT).max(chunk);
            return Self { unit, align: unit, memory: unit, steps: usize::MAX, files, hashed: true, apart: true };
        }
        let align = shape.grain.max(chunk).max(GRAIN_DEFAULT);
        let unit = if shape.detect { FILE_UNIT.min(shape.grain * GRAINS) } else { FILE_UNIT };
        Self {
            unit: unit.max(align),
            align,
            memory: MEMORY.max(align),
            steps: STEPS,
            files: !image.is_direct(),
            hashed: false,
            apart: true,
        }
    }

    /// True if its bytes take room in memory.
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
                UnitSource::File { extent, host: host.saturating_add(at - extent.start) }
            }
            _ => UnitSource::Memory(extent),
        }
    }
}

/// Deals out a disk.
pub struct WorkSplitter<'a> {
    plan: Plan<'a>,
    /// Of the disk, in bytes.
    size: u64,
    cut: UnitLimits,
    /// Disk offset reached.
    at: u64,
    /// The step that it lies in, zeros joined.
    step: Option<Step>,
    /// What was drawn behind that.
    ahead: Option<Result<Step>>,
    /// An error has been told. A disk that can't be read is not asked twice.
    failed: bool,
}

impl<'a> WorkSplitter<'a> {
    /// The work units of this disk, or of what changed in it ([`Plan::changed`]).
    #[must_use]
    pub fn new(image: &'a dyn Disk, shape: &ReadOptions) -> Self {
        // With digests, what is kept are whole intervals; the rest is judged by the block, whatever changed in it.
        let align = if shape.digests { shape.interval } else { 1 };
        Self::by(Plan::changed(image, align), image, shape)
    }

    fn by(plan: Plan<'a>, image: &'a dyn Disk, shape: &ReadOptions) -> Self {
        let cut = UnitLimits::of(image, shape);
        Self { plan, size: image.size(), cut, at: 0, step: None, ahead: None, failed: false }
    }

    /// Deals, by this plan of the image, for those who pour into a sink, and hold only a little of a deal at a time.
    pub fn for_pouring(plan: Plan<'a>, image: &'a dyn Disk, shape: &ReadOptions) -> Self {
        let splitter = Self::by(plan, image, shape);
        let unit = COPY_UNIT.max(splitter.cut.align);
        Self { cut: UnitLimits { unit, memory: 2 * unit, apart: false, ..splitter.cut }, ..splitter }
    }

    /// The most bytes that a deal of such a disk has in memory.
    pub fn memory(image: &dyn Disk, shape: &ReadOptions) -> u64 {
        UnitLimits::of(image, shape).memory
    }

    /// The next deal; none at the disk's end and behind an error.
    pub fn unit(&mut self) -> Result<Option<WorkUnit>> {
        if self.failed {
            return Ok(None);
        }
        let dealt = self.draw();
        self.failed = dealt.is_err();
        dealt
    }

    fn draw(&mut self) -> Result<Option<WorkUnit>> {
        let Some(step) = self.step()? else { return Ok(None) };
        let (start, cut) = (self.at, self.cut);
        let last = start.saturating_add(cut.unit - start % cut.unit).min(self.size);
        let mut unit = WorkUnit { start, stretches: Vec::new(), memory: 0 };
        let apart = step.want == Action::Keep && cut.apart;
        if apart || (step.want != Action::Copy && step.extent.end() >= last) {
            // Long zeros, or much that is kept, are one deal, wherever they end.
            let end = step.extent.end();
            self.at = if end == self.size || apart { end } else { end - end % cut.align };
            let source = cut.source(&step, start);
            unit.stretches.push(UnitPart { at: start, len: self.at - start, source });
            return Ok(Some(unit));
        }
        for drawn in 0_usize.. {
            let full = drawn >= cut.steps || unit.memory + cut.align > cut.memory;
            // Where it may end, it ends before it has no room for what leads to the next such place.
            if self.at >= last || (full && self.at.is_multiple_of(cut.align)) {
                break;
            }
            // The plan covers the disk, so there is a step here.
            let Some(step) = self.step()?.filter(|step| step.want != Action::Keep || !cut.apart) else { break };
            let (at, source) = (self.at, cut.source(&step, self.at));
            let mut end = step.extent.end().min(last);
            if full {
                end = end.min(at.next_multiple_of(cut.align));
            } else if self.cut.is_read(&source) {
                let room = at + (cut.memory - unit.memory);
                end = end.min(room - room % cut.align);
            }
            if self.cut.is_read(&source) {
                unit.memory += end - at;
            }
            self.at = end;
            match unit.stretches.last_mut() {
                Some(UnitPart { len, source: UnitSource::Zero, .. }) if matches!(source, UnitSource::Zero) => {
                    *len += end - at;
                }
                _ => unit.stretches.push(UnitPart { at, len: end - at, source }),
            }
        }
        Ok(Some(unit))
    }

    /// The step at the offset reached.
    fn step(&mut self) -> Result<Option<Step>> {
        while self.step.is_none_or(|step| step.extent.end() <= self.at) {
            let Some(step) = self.ahead.take().or_else(|| self.plan.next()) else { return Ok(None) };
            let mut step = step?;
            // Zeros come in many steps, where an image's tables do, and so does what is kept: they are one for us.
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
