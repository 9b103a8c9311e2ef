//! A deal becomes a block: what has to be looked at is read, zeros are found, runs are hashed.

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

/// Bytes read at once: what is read is still in the cache when it is looked at for zeros.
const READ: usize = 256 << 10;
/// The same past the page cache, where each read is a request to a device.
const DIRECT_READ: u64 = 1 << 20;
/// Bytes of a run from which on it stays in its file, though it was read into memory.
const STAYS: u64 = 32 << 10;

/// One who makes blocks, one after the other.
pub(crate) struct UnitReader<'a> {
    image: &'a dyn Disk,
    shape: ReadOptions,
    buffers: Arc<BufferPool>,
    /// Nobody wants the block any more.
    stop: Arc<AtomicBool>,
    /// For what is only looked at.
    window: Option<Aligned>,
    /// Bytes read at once into an buffer.
    read: u64,
}

impl<'a> UnitReader<'a> {
    pub(crate) fn new(
        image: &'a dyn Disk,
        shape: ReadOptions,
        buffers: Arc<BufferPool>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let read = if image.is_direct() { DIRECT_READ } else { READ as u64 };
        Self { image, shape, buffers, stop, window: None, read }
    }

    /// The block that this deal is.
    pub(crate) fn block(&mut self, unit: &WorkUnit) -> Result<SegmentBatch> {
        if let [UnitPart { len, source: UnitSource::Keep, .. }] = unit.stretches[..] {
            return Ok(SegmentBatch { runs: vec![Segment::Keep(len)] });
        }
        let mut detector = ZeroDetector::new(unit.start, self.shape.grain, self.shape.interval);
        let mut buffer = self.buffers.take(usize::try_from(unit.memory).unwrap_or(usize::MAX));
        let mut filled = 0;
        for stretch in &unit.stretches {
            match &stretch.source {
                UnitSource::Zero => detector.zeros(stretch.len),
                // What is kept is a deal of its own here.
                UnitSource::Keep => return Err(DiskError::new(DiskErrorKind::Io, "plan", "keeps what was to be read")),
                UnitSource::File { .. } if !self.shape.detect => detector.data(stretch.len),
                UnitSource::File { extent, .. } if !self.shape.digests => {
                    self.read(extent, stretch, None, &mut detector)?;
                }
                UnitSource::Memory(extent) | UnitSource::File { extent, .. } => {
                    let end = filled + usize::try_from(stretch.len).unwrap_or(usize::MAX);
                    self.read(extent, stretch, Some(&mut buffer[filled..end]), &mut detector)?;
                    filled = end;
                }
            }
        }
        let mut runs = detector.finish();
        if self.shape.min_hole > 1 {
            runs = fill_short_holes(runs, self.shape.min_hole);
        }
        let buffer = buffer.freeze();
        let mut places = ByteSources {
            stretches: &unit.stretches,
            passed: 0,
            filled: 0,
            buffer: &buffer,
            digests: self.shape.digests,
        };
        let mut texts = Vec::new();
        let runs = runs.into_iter().enumerate().map(|(index, (len, data))| {
            if !data {
                places.pass(len, |_| {});
                return Segment::Zero(len);
            }
            let (payload, text) = places.data(len);
            let payload = if self.shape.bare { Payload::unwanted(len) } else { payload };
            let digest = match text {
                Some(HashInput::Mixed(hasher)) => Some(hasher.digest()),
                Some(HashInput::Whole { from, to }) => {
                    texts.push((index, from, to));
                    None
                }
                None => None,
            };
            Segment::Data(payload, digest)
        });
        let mut runs: Vec<_> = runs.collect();
        hash(&mut runs, &texts, &buffer);
        self.buffers.keep(buffer);
        Ok(SegmentBatch { runs })
    }

    /// Reads a stretch in pieces, which are judged while they are at hand: into its place, or through the window.
    fn read(
        &mut self,
        extent: &Extent,
        stretch: &UnitPart,
        mut place: Option<&mut [u8]>,
        detector: &mut ZeroDetector,
    ) -> Result<()> {
        // Never less than what the image would have to read twice otherwise.
        let step = if place.is_some() { self.read.max(self.image.chunk()) } else { READ as u64 };
        let (mut at, end) = (stretch.at, stretch.at + stretch.len);
        while at < end {
            if self.stop.load(Ordering::Relaxed) {
                return Err(DiskError::new(DiskErrorKind::Refused, "", "reading was called off"));
            }
            let len = usize::try_from((at - at % step + step).min(end) - at).unwrap_or(READ);
            let piece = match &mut place {
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
            match self.shape.detect {
                true => detector.bytes(piece),
                false => detector.data(len as u64),
            }
            at += len as u64;
        }
        Ok(())
    }
}

/// A place that some bytes of a run are to be had from, in bytes.
#[derive(Clone, Copy)]
enum ByteSource {
    Nowhere { len: u64 },
    Buffer { from: usize, to: usize },
    File { depth: u32, at: u64, len: u64 },
}

/// Some bytes of a run.
struct SourcedBytes {
    place: ByteSource,
    /// Where in the buffer they are too, if they were read.
    read: Option<(usize, usize)>,
}

/// The bytes of a run, to be hashed.
enum HashInput {
    /// They lie in the buffer, one behind the other.
    Whole { from: usize, to: usize },
    /// Zeros that nobody has made are among them.
    Mixed(Hasher),
}

impl HashInput {
    fn add(&mut self, place: ByteSource, read: Option<(usize, usize)>, buffer: &Bytes) {
        match (&mut *self, read) {
            (Self::Whole { to, .. }, Some((_, end))) => *to = end,
            (Self::Mixed(hasher), Some((from, to))) => hasher.update(&buffer[from..to]),
            (Self::Mixed(hasher), None) => zeros(place.len()).for_each(|zeros| hasher.update(zeros)),
            (Self::Whole { from, to }, None) => {
                let mut hasher = Hasher::default();
                hasher.update(&buffer[*from..*to]);
                *self = Self::Mixed(hasher);
                self.add(place, None, buffer);
            }
        }
    }
}

/// Gives these runs the digests of their bytes, which lie in the buffer.
fn hash(runs: &mut [Segment], texts: &[(usize, usize, usize)], buffer: &Bytes) {
    Digest::of_each(texts.iter().map(|&(_, from, to)| &buffer[from..to]), |number, made| {
        if let Some(Segment::Data(_, digest)) = runs.get_mut(texts[number].0) {
            *digest = Some(made);
        }
    });
}

/// The places of a deal's bytes, passed run by run.
struct ByteSources<'a> {
    /// Those that are left.
    stretches: &'a [UnitPart],
    /// Bytes of the first of them that are passed.
    passed: u64,
    /// Bytes of the buffer that are passed.
    filled: usize,
    buffer: &'a Bytes,
    digests: bool,
}

impl ByteSources<'_> {
    /// The next `len` bytes, which are data, and what is to be hashed of them, if there are to be digests.
    fn data(&mut self, len: u64) -> (Payload, Option<HashInput>) {
        let (mut parts, mut held) = (Vec::new(), None::<ByteSource>);
        let buffer = self.buffer;
        let mut text = self.digests.then_some(HashInput::Whole { from: self.filled, to: self.filled });
        self.pass(len, |SourcedBytes { place, read }| {
            if let Some(text) = &mut text {
                text.add(place, read, buffer);
            }
            // What is in memory, and is little, is sent from there.
            let place = match read {
                Some((from, to)) if len < STAYS => ByteSource::Buffer { from, to },
                _ => place,
            };
            held = match held {
                None => Some(place),
                Some(before) => before.joined(place).or_else(|| {
                    before.put(buffer, &mut parts);
                    Some(place)
                }),
            };
        });
        if let Some(last) = held {
            // Most runs are of one part: no room for more.
            parts.reserve_exact(1);
            last.put(buffer, &mut parts);
        }
        (Payload::from(parts), text)
    }

    /// Passes the next `len` bytes, and tells of their places.
    fn pass(&mut self, mut len: u64, mut tell: impl FnMut(SourcedBytes)) {
        while len > 0 {
            let Some((stretch, later)) = self.stretches.split_first() else { break };
            let now = len.min(stretch.len - self.passed);
            let read = match stretch.source {
                UnitSource::Zero | UnitSource::Keep => None,
                UnitSource::File { .. } if !self.digests => None,
                UnitSource::Memory(_) | UnitSource::File { .. } => {
                    let from = self.filled;
                    self.filled += usize::try_from(now).unwrap_or(usize::MAX);
                    Some((from, self.filled))
                }
            };
            let place = match (stretch.source, read) {
                (UnitSource::File { extent, host }, _) => {
                    ByteSource::File { depth: extent.depth, at: host + self.passed, len: now }
                }
                (_, Some((from, to))) => ByteSource::Buffer { from, to },
                (_, None) => ByteSource::Nowhere { len: now },
            };
            tell(SourcedBytes { place, read });
            len -= now;
            self.passed += now;
            if self.passed == stretch.len {
                (self.stretches, self.passed) = (later, 0);
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

    /// This place and the next, if they are one.
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
