//! Turns a work unit into a batch of segments: reads bytes, finds zeros and computes digests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use xfer_hole_image::{Disk, Extent};
use xfer_hole_os::{Aligned, DiskError, DiskErrorKind, Result};
use xfer_hole_proto::{Digest, Hasher};

use crate::buffer_pool::BufferPool;
use crate::payload::{Payload, PayloadPart, zeros};
use crate::read_options::ReadOptions;
use crate::segment::{Segment, SegmentBatch};
use crate::work_unit::{UnitPart, UnitSource, WorkUnit};
use crate::zero_detector::{ZeroDetector, fill_short_holes};

/// Bytes per read. A read this small is still in the processor's cache when it is searched for zeros.
const READ: usize = 256 << 10;
/// Bytes per read with direct I/O, where each read is a request to a device.
const DIRECT_READ: u64 = 1 << 20;
/// Minimum length in bytes of a segment that is sent from its file although it was read into memory.
const FILE_MIN: u64 = 32 << 10;

/// Reads work units sequentially and makes a batch of segments of each.
pub(crate) struct UnitReader<'a> {
    image: &'a dyn Disk,
    options: ReadOptions,
    buffers: Arc<BufferPool>,
    /// Set when the batch is no longer wanted.
    stop: Arc<AtomicBool>,
    /// Buffer for bytes that are only searched for zeros.
    window: Option<Aligned>,
    /// Bytes per read into a buffer of the pool.
    read: u64,
}

impl<'a> UnitReader<'a> {
    pub(crate) fn new(
        image: &'a dyn Disk,
        options: ReadOptions,
        buffers: Arc<BufferPool>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let read = if image.is_direct() { DIRECT_READ } else { READ as u64 };
        Self { image, options, buffers, stop, window: None, read }
    }

    /// Reads a work unit and returns its batch.
    pub(crate) fn read_unit(&mut self, unit: &WorkUnit) -> Result<SegmentBatch> {
        if let [UnitPart { len, source: UnitSource::Keep, .. }] = unit.parts[..] {
            return Ok(SegmentBatch { runs: vec![Segment::Keep(len)] });
        }
        let mut detector = ZeroDetector::new(unit.start, self.options.grain, self.options.interval);
        let mut buffer = self.buffers.take(usize::try_from(unit.memory).unwrap_or(usize::MAX));
        let mut filled = 0;
        for part in &unit.parts {
            match &part.source {
                UnitSource::Zero => detector.zeros(part.len),
                // The splitter makes unchanged bytes a unit of their own.
                UnitSource::Keep => return Err(DiskError::new(DiskErrorKind::Io, "plan", "keeps what was to be read")),
                UnitSource::File { .. } if !self.options.detect => detector.data(part.len),
                UnitSource::File { extent, .. } if !self.options.digests => {
                    self.read(extent, part, None, &mut detector)?;
                }
                UnitSource::Memory(extent) | UnitSource::File { extent, .. } => {
                    let end = filled + usize::try_from(part.len).unwrap_or(usize::MAX);
                    self.read(extent, part, Some(&mut buffer[filled..end]), &mut detector)?;
                    filled = end;
                }
            }
        }
        let mut segments = detector.finish();
        if self.options.min_hole > 1 {
            segments = fill_short_holes(segments, self.options.min_hole);
        }
        let buffer = buffer.freeze();
        let mut sources =
            ByteSources { parts: &unit.parts, passed: 0, filled: 0, buffer: &buffer, digests: self.options.digests };
        let mut inputs = Vec::new();
        let segments = segments.into_iter().enumerate().map(|(index, (len, data))| {
            if !data {
                sources.pass(len, |_| {});
                return Segment::Zero(len);
            }
            let (payload, input) = sources.data(len);
            let payload = if self.options.bare { Payload::unwanted(len) } else { payload };
            let digest = match input {
                Some(HashInput::Mixed(hasher)) => Some(hasher.digest()),
                Some(HashInput::Whole { from, to }) => {
                    inputs.push((index, from, to));
                    None
                }
                None => None,
            };
            Segment::Data(payload, digest)
        });
        let mut segments: Vec<_> = segments.collect();
        hash(&mut segments, &inputs, &buffer);
        self.buffers.give_back(buffer);
        Ok(SegmentBatch { runs: segments })
    }

    /// Reads a part of a unit piece by piece and searches each piece for zeros: into `target`, or into the reader's own
    /// buffer.
    fn read(
        &mut self,
        extent: &Extent,
        part: &UnitPart,
        mut target: Option<&mut [u8]>,
        detector: &mut ZeroDetector,
    ) -> Result<()> {
        // A read covers at least one chunk of the image, so that no chunk is read twice.
        let step = if target.is_some() { self.read.max(self.image.chunk()) } else { READ as u64 };
        let (mut at, end) = (part.at, part.at + part.len);
        while at < end {
            if self.stop.load(Ordering::Relaxed) {
                return Err(DiskError::new(DiskErrorKind::Refused, "", "reading was called off"));
            }
            let len = usize::try_from((at - at % step + step).min(end) - at).unwrap_or(READ);
            let piece = match &mut target {
                Some(rest) => {
                    let (now, later) = std::mem::take(rest).split_at_mut(len);
                    *rest = later;
                    now
                }
                None => {
                    let window = self.window.get_or_insert_with(|| Aligned::zeroed(READ));
                    &mut window[..len]
                }
            };
            self.image.read(extent, at, piece)?;
            match self.options.detect {
                true => detector.bytes(piece),
                false => detector.data(len as u64),
            }
            at += len as u64;
        }
        Ok(())
    }
}

/// Where some bytes of a segment can be taken from. Offsets and lengths are in bytes.
#[derive(Clone, Copy)]
enum ByteSource {
    Nowhere { len: u64 },
    Buffer { from: usize, to: usize },
    File { depth: u32, at: u64, len: u64 },
}

/// Some bytes of a segment and their source.
struct SourcedBytes {
    source: ByteSource,
    /// The range of the buffer that also holds them, if they were read.
    read: Option<(usize, usize)>,
}

/// The bytes of a segment that are to be hashed.
enum HashInput {
    /// They are consecutive in the buffer.
    Whole { from: usize, to: usize },
    /// They include zeros that are not in the buffer.
    Mixed(Hasher),
}

impl HashInput {
    fn add(&mut self, source: ByteSource, read: Option<(usize, usize)>, buffer: &Bytes) {
        match (&mut *self, read) {
            (Self::Whole { to, .. }, Some((_, end))) => *to = end,
            (Self::Mixed(hasher), Some((from, to))) => hasher.update(&buffer[from..to]),
            (Self::Mixed(hasher), None) => zeros(source.len()).for_each(|zeros| hasher.update(zeros)),
            (Self::Whole { from, to }, None) => {
                let mut hasher = Hasher::default();
                hasher.update(&buffer[*from..*to]);
                *self = Self::Mixed(hasher);
                self.add(source, None, buffer);
            }
        }
    }
}

/// Computes the digests of the given segments. Each input is the index of the segment and a range of the buffer.
fn hash(segments: &mut [Segment], inputs: &[(usize, usize, usize)], buffer: &Bytes) {
    Digest::of_each(inputs.iter().map(|&(_, from, to)| &buffer[from..to]), |number, made| {
        if let Some(Segment::Data(_, digest)) = segments.get_mut(inputs[number].0) {
            *digest = Some(made);
        }
    });
}

/// The sources of a unit's bytes, consumed segment by segment.
struct ByteSources<'a> {
    /// Parts that are left.
    parts: &'a [UnitPart],
    /// Bytes of the first of these parts that are consumed.
    passed: u64,
    /// Bytes of the buffer that are consumed.
    filled: usize,
    buffer: &'a Bytes,
    digests: bool,
}

impl ByteSources<'_> {
    /// Consumes the next `len` bytes, which are data, and returns their payload. With digests, it also returns what is
    /// to be hashed.
    fn data(&mut self, len: u64) -> (Payload, Option<HashInput>) {
        let (mut parts, mut pending) = (Vec::new(), None::<ByteSource>);
        let buffer = self.buffer;
        let mut input = self.digests.then_some(HashInput::Whole { from: self.filled, to: self.filled });
        self.pass(len, |SourcedBytes { source, read }| {
            if let Some(input) = &mut input {
                input.add(source, read, buffer);
            }
            // A short segment that is in memory is sent from there.
            let source = match read {
                Some((from, to)) if len < FILE_MIN => ByteSource::Buffer { from, to },
                _ => source,
            };
            pending = match pending {
                None => Some(source),
                Some(before) => before.joined(source).or_else(|| {
                    before.put(buffer, &mut parts);
                    Some(source)
                }),
            };
        });
        if let Some(last) = pending {
            // Most segments have one part: reserve no room for more.
            parts.reserve_exact(1);
            last.put(buffer, &mut parts);
        }
        (Payload::from(parts), input)
    }

    /// Consumes the next `len` bytes and calls `tell` with their sources.
    fn pass(&mut self, mut len: u64, mut tell: impl FnMut(SourcedBytes)) {
        while len > 0 {
            let Some((part, later)) = self.parts.split_first() else { break };
            let now = len.min(part.len - self.passed);
            let read = match part.source {
                UnitSource::Zero | UnitSource::Keep => None,
                UnitSource::File { .. } if !self.digests => None,
                UnitSource::Memory(_) | UnitSource::File { .. } => {
                    let from = self.filled;
                    self.filled += usize::try_from(now).unwrap_or(usize::MAX);
                    Some((from, self.filled))
                }
            };
            let source = match (part.source, read) {
                (UnitSource::File { extent, offset }, _) => {
                    ByteSource::File { depth: extent.depth, at: offset + self.passed, len: now }
                }
                (_, Some((from, to))) => ByteSource::Buffer { from, to },
                (_, None) => ByteSource::Nowhere { len: now },
            };
            tell(SourcedBytes { source, read });
            len -= now;
            self.passed += now;
            if self.passed == part.len {
                (self.parts, self.passed) = (later, 0);
            }
        }
    }
}

impl ByteSource {
    fn len(self) -> u64 {
        match self {
            Self::Nowhere { len } | Self::File { len, .. } => len,
            Self::Buffer { from, to } => (to - from) as u64,
        }
    }

    /// Joins this source and the next if they are adjacent.
    fn joined(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Buffer { from, to }, Self::Buffer { from: next, to: end }) if to == next => {
                Some(Self::Buffer { from, to: end })
            }
            (Self::File { depth, at, len }, Self::File { depth: layer, at: next, len: more })
                if depth == layer && at + len == next =>
            {
                Some(Self::File { depth, at, len: len + more })
            }
            (Self::Nowhere { len }, Self::Nowhere { len: more }) => Some(Self::Nowhere { len: len + more }),
            _ => None,
        }
    }

    fn put(self, buffer: &Bytes, parts: &mut Vec<PayloadPart>) {
        match self {
            Self::Nowhere { len } => {
                parts.extend(zeros(len).map(|zeros| PayloadPart::Bytes(Bytes::from_static(zeros))));
            }
            Self::Buffer { from, to } => parts.push(PayloadPart::Bytes(buffer.slice(from..to))),
            Self::File { depth, at, len } => parts.push(PayloadPart::Range { depth, at, len }),
        }
    }
}
