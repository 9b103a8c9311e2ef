//! Reading, block by block: each gathers the extents of a part of the disk, finds the zeros, and hashes each run.
//!
//! ```text
//! Plan ─▶ Dealer ─▶ Gather ─▶ blocks, in order
//!         deals     reads the bytes of a deal (into an buffer, or through a window), Judge finds runs
//! ```
//!
//! [`SerialReader`] does that in its turn, [`ParallelReader`] many deals at a time; the blocks are the same. Where bytes lie in a file just
//! as they are, they are only looked at, and stay there: they can go from the page cache into a pipe without being copied.

mod buffer_pool;
mod parallel_copy;
mod parallel_reader;
mod payload;
mod unit_reader;
mod work_unit;
mod zero_detector;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use xfer_hole_proto::{Digest, GRAIN_DEFAULT, GRAIN_MIN, HashParams, Record};

pub use parallel_copy::{ParallelCopy, put};
pub use parallel_reader::ParallelReader;
pub use payload::{Payload, PayloadPart};

use crate::{Disk, Result};
use buffer_pool::BufferPool;
use unit_reader::UnitReader;
use work_unit::WorkSplitter;

/// The longest of the shortest holes that can be asked for, in bytes.
pub const UNIT: u64 = 16 << 20;
/// An interval that nothing reaches beyond.
const NO_INTERVAL: u64 = 1 << 63;

/// How a disk is cut and judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// In bytes, a power of two: data never crosses a multiple of it.
    interval: u64,
    /// Zeros are looked for in blocks of this many bytes, a power of two that divides `interval`.
    grain: u64,
    /// Whether zeros are looked for at all in what the extents call data.
    detect: bool,
    /// Shorter holes become data.
    min_hole: u64,
    digests: bool,
    /// What was read goes on from memory, though it lies in a file just so.
    held: bool,
    /// Nothing goes on but lengths and digests.
    bare: bool,
}

impl ReadOptions {
    /// Without digests. `min_hole` in bytes: shorter holes become data; 1 for none.
    #[must_use]
    pub fn plain(detect: bool, min_hole: u64) -> Self {
        let below = |bytes: u64| 1_u64 << (63 - bytes.leading_zeros().min(63));
        let grain = match min_hole {
            _ if !detect => 1,
            0 | 1 => GRAIN_DEFAULT,
            bytes => below(bytes).clamp(GRAIN_MIN, GRAIN_DEFAULT),
        };
        Self { interval: NO_INTERVAL, grain, detect, min_hole, digests: false, held: false, bare: false }
    }

    /// The canonical form (proto's SPEC.md): blocks are judged by content alone, and every run of data has its digest.
    #[must_use]
    pub fn canonical(sums: HashParams) -> Self {
        let (interval, grain) = (sums.interval(), sums.grain());
        Self { interval, grain, detect: true, min_hole: 1, digests: true, held: false, bare: false }
    }

    /// Whether what is read has to go on from memory, so that it is the very bytes that were judged and hashed. Otherwise it is
    /// fetched again from where it lies, which costs less than a copy of it; a change in between shows by the digest.
    #[must_use]
    pub fn held(self, held: bool) -> Self {
        Self { held: held && self.digests, ..self }
    }

    /// For those who want digests and no bytes: payloads have their lengths and no parts, and memory is free again once it is hashed.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { bare: self.digests, ..self }
    }

    /// Holes shorter than this, in bytes, are to travel as data.
    pub(crate) fn min_hole(&self) -> u64 {
        self.min_hole
    }
}

/// A stretch of a block that is all zeros, or all to be carried, or all to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// So many bytes of zeros.
    Zero(u64),
    /// So many bytes that the target holds already.
    Keep(u64),
    /// This payload, and its digest where digests are asked for.
    Data(Payload, Option<Digest>),
}

impl Segment {
    /// Bytes of the disk.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no run is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Zero(len) | Self::Keep(len) => *len,
            Self::Data(payload, _) => payload.len(),
        }
    }

    /// The record that it is, or is a part of.
    #[must_use]
    pub fn record(&self) -> Record {
        match self {
            Self::Zero(len) => Record::Hole { len: *len },
            Self::Keep(len) => Record::Keep { len: *len },
            Self::Data(payload, digest) => Record::Data { len: payload.len(), digest: *digest },
        }
    }
}

/// What lies in one part of the disk: whole intervals, where there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentBatch {
    /// Its runs, in order and without gaps.
    pub runs: Vec<Segment>,
}

/// The blocks of a disk, in order, covering it once. An error is the last.
pub struct SerialReader<'a> {
    splitter: WorkSplitter<'a>,
    gather: UnitReader<'a>,
    failed: bool,
}

impl<'a> SerialReader<'a> {
    /// The blocks of this disk.
    #[must_use]
    pub fn new(image: &'a dyn Disk, shape: ReadOptions) -> Self {
        let memory = usize::try_from(WorkSplitter::memory(image, &shape)).unwrap_or(usize::MAX);
        let (buffers, stop) = (Arc::new(BufferPool::new(memory)), Arc::new(AtomicBool::new(false)));
        Self {
            splitter: WorkSplitter::new(image, &shape),
            gather: UnitReader::new(image, shape, buffers, stop),
            failed: false,
        }
    }
}

impl Iterator for SerialReader<'_> {
    type Item = Result<SegmentBatch>;

    fn next(&mut self) -> Option<Result<SegmentBatch>> {
        if self.failed {
            return None;
        }
        let unit = self.splitter.unit().transpose()?;
        let block = unit.and_then(|unit| self.gather.block(&unit));
        self.failed = block.is_err();
        Some(block)
    }
}
