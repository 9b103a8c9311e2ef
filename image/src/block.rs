//! Reading, interval by interval: each block gathers every extent in its interval, finds the zeros, and hashes each run.
//!
//! Where a disk's octets lie in a file just as they are, and nobody wants digests, blocks only look for zeros: their runs are
//! ranges of that file, which can go from the page cache into a pipe without being copied.

use bytes::{Bytes, BytesMut};
use xfer_hole_proto::{Digest, GRAIN_DEFAULT, GRAIN_MIN, Sums};

use crate::zero::is_zero;
use crate::{Image, Plan, Result, Step, Want};

/// Octets of an interval where there are no digests and data is held in memory: as long as a record gets.
pub const UNIT: u64 = 16 << 20;
/// The same where data stays in its file. Long, because each record costs a shell a process.
const FLAT_UNIT: u64 = 64 << 20;
/// Not more grains than this, since each may be a run of its own.
const FLAT_GRAINS: u64 = 16 << 10;
/// Octets read at once: what is read is still in the cache when it is looked at for zeros.
const READ: usize = 256 << 10;

/// How a disk is cut and judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The interval in octets, a power of two: data never crosses a multiple of it.
    unit: u64,
    /// Zeros are looked for in blocks of this many octets, a power of two that divides `unit`.
    grain: u64,
    /// Whether zeros are looked for at all in what the extents call data.
    detect: bool,
    /// Shorter holes become data.
    min_hole: u64,
    digests: bool,
}

impl Shape {
    /// Without digests. `min_hole` in octets: shorter holes become data; 1 for none.
    #[must_use]
    pub fn plain(detect: bool, min_hole: u64) -> Self {
        let below = |octets: u64| 1_u64 << (63 - octets.leading_zeros().min(63));
        let grain = match min_hole {
            _ if !detect => 1,
            0 | 1 => GRAIN_DEFAULT,
            octets => below(octets).clamp(GRAIN_MIN, GRAIN_DEFAULT),
        };
        Self { unit: UNIT, grain, detect, min_hole, digests: false }
    }

    /// The canonical form (proto's SPEC.md): blocks are judged by content alone, and every run of data has its digest.
    #[must_use]
    pub fn canonical(sums: Sums) -> Self {
        Self { unit: sums.interval(), grain: sums.grain(), detect: true, min_hole: 1, digests: true }
    }

    /// Whether the runs of this image are ranges of its flat file.
    fn is_flat(&self, image: &dyn Image) -> bool {
        image.flat().is_some() && !self.digests
    }

    /// Holes shorter than this, in octets, are to travel as data.
    pub(crate) fn min_hole(&self) -> u64 {
        self.min_hole
    }
}

/// A stretch of a block that is all zeros, or all to be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// So many octets of zeros.
    Zero(u64),
    /// This payload, and its digest where digests are asked for.
    Data(Payload, Option<Digest>),
}

/// The octets of a run of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In memory.
    Octets(Bytes),
    /// In the image's flat file, `len` octets at `at`, where they still have to be fetched.
    Range {
        /// Offset in the file and on the disk, in octets.
        at: u64,
        /// In octets, at least 1.
        len: u64,
    },
}

impl Payload {
    /// Octets.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }

    /// True for no octets, which no run has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What lies in one interval, or in several that are zeros throughout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Its runs, in order and without gaps.
    pub runs: Vec<Run>,
}

/// The blocks of a disk, in order, covering it once.
pub struct Blocks<'a> {
    image: &'a dyn Image,
    plan: Plan<'a>,
    /// The step that the disk offset reached lies in.
    step: Option<Step>,
    at: u64,
    shape: Shape,
    /// Runs are ranges of the image's flat file.
    flat: bool,
    /// Buffers of blocks before, to be used again once their runs are gone.
    spare: Vec<Bytes>,
}

impl<'a> Blocks<'a> {
    /// The blocks of this disk.
    #[must_use]
    pub fn new(image: &'a dyn Image, shape: Shape) -> Self {
        let flat = shape.is_flat(image);
        let unit = match (flat, shape.detect) {
            (true, true) => FLAT_UNIT.min(shape.grain * FLAT_GRAINS),
            _ => shape.unit,
        };
        let shape = Shape { unit, ..shape };
        Self { image, plan: Plan::whole(image), step: None, at: 0, shape, flat, spare: Vec::new() }
    }

    /// How many blocks may lie ready at a time, so that they take some MiB and no more.
    #[must_use]
    pub fn ahead(image: &dyn Image, shape: &Shape) -> usize {
        const AHEAD: u64 = 8 << 20;
        if shape.is_flat(image) { 4 } else { usize::try_from(AHEAD / shape.unit).unwrap_or_default() }
    }

    /// The step at the offset reached.
    fn step(&mut self) -> Result<Option<Step>> {
        while self.step.is_none_or(|step| step.end() <= self.at) {
            match self.plan.next() {
                Some(step) => self.step = Some(step?),
                None => return Ok(None),
            }
        }
        Ok(self.step)
    }

    fn deal(&mut self) -> Result<Option<Block>> {
        let Some(step) = self.step()? else { return Ok(None) };
        let (size, unit) = (self.image.size(), self.shape.unit);
        let start = self.at;
        let block_end = start.saturating_add(unit).min(size);
        if step.want == Want::Zero && step.end() >= block_end {
            let whole = if step.end() == size { size } else { step.end() / unit * unit };
            self.at = whole;
            return Ok(Some(Block { runs: vec![Run::Zero(whole - start)] }));
        }
        let len = usize::try_from(block_end - start).unwrap_or(usize::MAX);
        let buffer = self.buffer(if self.flat { READ } else { len });
        let mut gather = Gather::new(self.image, self.shape, start, len, self.flat, buffer);
        while self.at < block_end {
            // The plan covers the disk, so there is a step here.
            let Some(step) = self.step()? else { break };
            let end = step.end().min(block_end);
            if step.want == Want::Copy {
                gather.read(self.at, end)?;
            }
            self.at = end;
        }
        let (runs, payload) = gather.finish();
        self.spare.push(payload);
        Ok(Some(Block { runs }))
    }

    /// The buffer of an earlier block that nobody holds on to, else a new one.
    fn buffer(&mut self, len: usize) -> BytesMut {
        let mut held = Vec::new();
        let mut free = None;
        for buffer in self.spare.drain(..) {
            match buffer.try_into_mut() {
                Ok(buffer) if buffer.len() >= len => free = Some(buffer),
                Ok(_) => {}
                Err(buffer) => held.push(buffer),
            }
        }
        self.spare = held;
        free.unwrap_or_else(|| BytesMut::zeroed(len))
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        self.deal().transpose()
    }
}

/// One block in the making. Positions are octets from the block's start, which is a multiple of the grain.
struct Gather<'a> {
    image: &'a dyn Image,
    shape: Shape,
    start: u64,
    len: usize,
    /// The runs are to be ranges of the image's flat file.
    flat: bool,
    /// At least `len` octets, or a window of [`READ`] if flat; what was left in it by an earlier block is nobody's.
    buffer: BytesMut,
    /// Up to here the buffer is judged; beyond the last run it isn't filled either.
    judged: usize,
    /// Up to here the buffer is filled: with what was read, and zeros up to whole grains around it.
    filled: usize,
    /// Lengths, and whether it is data.
    runs: Vec<(usize, bool)>,
}

impl<'a> Gather<'a> {
    fn new(image: &'a dyn Image, shape: Shape, start: u64, len: usize, flat: bool, buffer: BytesMut) -> Self {
        Self { image, shape, start, len, flat, buffer, judged: 0, filled: 0, runs: Vec::new() }
    }

    fn grain(&self) -> usize {
        usize::try_from(self.shape.grain).unwrap_or(usize::MAX)
    }

    /// Reads disk octets `from..to`, which lie in this block and behind all read before.
    fn read(&mut self, from: u64, to: u64) -> Result<()> {
        let within = |at: u64| usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let (from, to) = (within(from), within(to));
        let first = from - from % self.grain();
        if first >= self.filled {
            // A gap, whose octets are not in the buffer: whole grains of zeros.
            self.judge(self.filled);
            self.push(first - self.filled, false);
            self.judged = first;
            self.slot(first, from).fill(0);
        }
        let mut at = from;
        while at < to {
            let end = to.min(at - at % READ + READ);
            if self.shape.detect || !self.flat {
                let start = self.start + at as u64;
                self.image.read_at(start, self.slot(at, end))?;
            }
            at = end;
            self.judge(at - at % self.grain());
        }
        let last = to.next_multiple_of(self.grain()).min(self.len);
        if last > self.filled.max(to) {
            self.slot(to, last).fill(0);
        }
        self.filled = last.max(self.filled);
        Ok(())
    }

    /// Where the octets `from..to` are kept, which cross no multiple of [`READ`] if flat.
    fn slot(&mut self, from: usize, to: usize) -> &mut [u8] {
        let at = if self.flat { from % READ } else { from };
        &mut self.buffer[at..at + (to - from)]
    }

    /// Judges the grains up to `to`, all of which the buffer holds, and which lie in one window if flat.
    fn judge(&mut self, to: usize) {
        if !self.shape.detect {
            self.push(to.saturating_sub(self.judged), true);
            self.judged = self.judged.max(to);
            return;
        }
        while self.judged < to {
            let end = to.min(self.judged + self.grain());
            let data = !is_zero(self.slot(self.judged, end));
            self.push(end - self.judged, data);
            self.judged = end;
        }
    }

    fn push(&mut self, len: usize, data: bool) {
        match self.runs.last_mut() {
            _ if len == 0 => {}
            Some((before, kind)) if *kind == data => *before += len,
            _ => self.runs.push((len, data)),
        }
    }

    /// The runs of the block, and the buffer behind them.
    fn finish(mut self) -> (Vec<Run>, Bytes) {
        self.judge(self.filled);
        self.push(self.len - self.filled, false);
        if self.shape.min_hole > 1 {
            self.fill_short_holes();
        }
        let payload = self.buffer.freeze();
        let mut at = 0;
        let runs = self.runs.iter().map(|&(len, data)| {
            let from = at;
            at += len;
            if !data {
                Run::Zero(len as u64)
            } else if self.flat {
                Run::Data(Payload::Range { at: self.start + from as u64, len: len as u64 }, None)
            } else {
                let octets = payload.slice(from..at);
                let digest = self.shape.digests.then(|| Digest::of(&octets));
                Run::Data(Payload::Octets(octets), digest)
            }
        });
        let runs = runs.collect();
        (runs, payload)
    }

    /// Makes data of holes that are too short, where both ends are seen: those at the block's ends are for the sift.
    fn fill_short_holes(&mut self) {
        let runs = std::mem::take(&mut self.runs);
        let last = runs.len().saturating_sub(1);
        let mut at = 0;
        for (index, (len, data)) in runs.into_iter().enumerate() {
            let short = !data && (len as u64) < self.shape.min_hole && (1..last).contains(&index);
            if short && !self.flat {
                self.slot(at, at + len).fill(0);
            }
            self.push(len, data || short);
            at += len;
        }
    }
}
