//! A deal becomes a block: what has to be looked at is read, zeros are found, runs are hashed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use xfer_hole_proto::Hasher;

use super::arena::Arenas;
use super::deal::{Deal, Source, Stretch};
use super::judge::{Judge, fill_short_holes};
use super::payload::zeros;
use super::{Block, Part, Payload, Run, Shape};
use crate::{Error, Extent, Image, Kind, Result};

/// Octets read at once: what is read is still in the cache when it is looked at for zeros.
const READ: usize = 256 << 10;

/// One who makes blocks, one after the other.
pub(crate) struct Gather<'a> {
    image: &'a dyn Image,
    shape: Shape,
    arenas: Arc<Arenas>,
    /// Nobody wants the block any more.
    stop: Arc<AtomicBool>,
    /// For what is only looked at.
    window: Vec<u8>,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(image: &'a dyn Image, shape: Shape, arenas: Arc<Arenas>, stop: Arc<AtomicBool>) -> Self {
        Self { image, shape, arenas, stop, window: Vec::new() }
    }

    /// The block that this deal is.
    pub(crate) fn block(&mut self, deal: &Deal) -> Result<Block> {
        let mut judge = Judge::new(deal.start, self.shape.grain, self.shape.interval);
        let mut arena = self.arenas.take(usize::try_from(deal.memory).unwrap_or(usize::MAX));
        let mut filled = 0;
        for stretch in &deal.stretches {
            match &stretch.source {
                Source::Zero => judge.zeros(stretch.len),
                Source::Memory(extent) => {
                    let end = filled + usize::try_from(stretch.len).unwrap_or(usize::MAX);
                    self.read(extent, stretch, Some(&mut arena[filled..end]), &mut judge)?;
                    filled = end;
                }
                Source::File { extent, .. } if self.shape.detect => self.read(extent, stretch, None, &mut judge)?,
                Source::File { .. } => judge.data(stretch.len),
            }
        }
        let mut runs = judge.finish();
        if self.shape.min_hole > 1 {
            runs = fill_short_holes(runs, self.shape.min_hole);
        }
        let arena = arena.freeze();
        let mut places = Places { stretches: &deal.stretches, passed: 0, filled: 0 };
        let runs = runs.into_iter().map(|(len, data)| {
            let parts = places.parts(len, data, &arena);
            if !data {
                return Run::Zero(len);
            }
            let digest = self.shape.digests.then(|| {
                let mut hasher = Hasher::default();
                for part in &parts {
                    if let Part::Octets(octets) = part {
                        hasher.update(octets);
                    }
                }
                hasher.digest()
            });
            Run::Data(Payload::from(parts), digest)
        });
        let runs = runs.collect();
        self.arenas.keep(arena);
        Ok(Block { runs })
    }

    /// Reads a stretch in pieces, which are judged while they are at hand: into its place, or through the window.
    fn read(
        &mut self,
        extent: &Extent,
        stretch: &Stretch,
        mut place: Option<&mut [u8]>,
        judge: &mut Judge,
    ) -> Result<()> {
        // Never less than what the image would have to read twice otherwise.
        let step = (READ as u64).max(if place.is_some() { self.image.chunk() } else { 1 });
        let (mut at, end) = (stretch.at, stretch.at + stretch.len);
        while at < end {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::Refused, "", "reading was called off"));
            }
            let len = usize::try_from((at - at % step + step).min(end) - at).unwrap_or(READ);
            let piece = match &mut place {
                Some(rest) => {
                    let (now, later) = std::mem::take(rest).split_at_mut(len);
                    *rest = later;
                    now
                }
                None => {
                    self.window.resize(READ, 0);
                    &mut self.window[..len]
                }
            };
            self.image.read(extent, at, piece)?;
            match self.shape.detect {
                true => judge.octets(piece),
                false => judge.data(len as u64),
            }
            at += len as u64;
        }
        Ok(())
    }
}

/// A place that some octets of a run are to be had from, in octets.
#[derive(Clone, Copy)]
enum Place {
    Nowhere { len: u64 },
    Arena { from: usize, to: usize },
    File { depth: u32, at: u64, len: u64 },
}

/// The places of a deal's octets, passed run by run.
struct Places<'a> {
    /// Those that are left.
    stretches: &'a [Stretch],
    /// Octets of the first of them that are passed.
    passed: u64,
    /// Octets of the arena that are passed.
    filled: usize,
}

impl Places<'_> {
    /// Passes the next `len` octets: their parts, if `wanted`.
    fn parts(&mut self, mut len: u64, wanted: bool, arena: &Bytes) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut held: Option<Place> = None;
        while len > 0 {
            let Some((stretch, later)) = self.stretches.split_first() else { break };
            let now = len.min(stretch.len - self.passed);
            let place = match stretch.source {
                Source::Zero => Place::Nowhere { len: now },
                Source::Memory(_) => {
                    let from = self.filled;
                    self.filled += usize::try_from(now).unwrap_or(usize::MAX);
                    Place::Arena { from, to: self.filled }
                }
                Source::File { extent, host } => Place::File { depth: extent.depth, at: host + self.passed, len: now },
            };
            if wanted {
                held = match held {
                    None => Some(place),
                    Some(before) => before.joined(place).or_else(|| {
                        before.put(arena, &mut parts);
                        Some(place)
                    }),
                };
            }
            len -= now;
            self.passed += now;
            if self.passed == stretch.len {
                (self.stretches, self.passed) = (later, 0);
            }
        }
        if let Some(last) = held {
            // Most runs are of one part: no room for more.
            parts.reserve_exact(1);
            last.put(arena, &mut parts);
        }
        parts
    }
}

impl Place {
    /// This place and the next, if they are one.
    fn joined(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Arena { from, to }, Self::Arena { from: next, to: end }) if to == next => {
                Some(Self::Arena { from, to: end })
            }
            (Self::File { depth, at, len }, Self::File { depth: floor, at: next, len: more })
                if depth == floor && at + len == next =>
            {
                Some(Self::File { depth, at, len: len + more })
            }
            (Self::Nowhere { len }, Self::Nowhere { len: more }) => Some(Self::Nowhere { len: len + more }),
            _ => None,
        }
    }

    fn put(self, arena: &Bytes, parts: &mut Vec<Part>) {
        match self {
            Self::Nowhere { len } => parts.extend(zeros(len)),
            Self::Arena { from, to } => parts.push(Part::Octets(arena.slice(from..to))),
            Self::File { depth, at, len } => parts.push(Part::Range { depth, at, len }),
        }
    }
}
