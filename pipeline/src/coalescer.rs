//! Turns the segments of batches into pieces, one for each record. Holes are joined across batches, data is not.

use xfer_hole_os::Result;
use xfer_hole_proto::{Digest, Record};

use crate::payload::Payload;
use crate::read_options::ReadOptions;
use crate::segment::{Segment, SegmentBatch};

/// A part of the disk that is sent as one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A hole of this many bytes.
    Hole(u64),
    /// This many bytes that the destination already holds.
    Keep(u64),
    /// Data, with its digest if digests are on.
    Data(Payload, Option<Digest>),
    /// No part of the disk: it marks the start of a new batch.
    Nothing,
}

impl Piece {
    /// Returns the record that announces this piece, or `None` for [`Piece::Nothing`].
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        match self {
            Self::Hole(len) => Some(Record::Hole { len: *len }),
            Self::Keep(len) => Some(Record::Keep { len: *len }),
            Self::Data(payload, digest) => Some(Record::Data { len: payload.len(), digest: *digest }),
            Self::Nothing => None,
        }
    }
}

/// Yields the pieces of a disk, in order, so that they cover the disk exactly once.
///
/// [`Piece::Nothing`] is yielded before each batch, so that the consumer gets control regularly even while a hole is
/// long.
pub struct Coalescer<I> {
    batches: I,
    min_hole: u64,
    segments: std::vec::IntoIter<Segment>,
    /// Length in bytes of a hole that may continue in the next segment.
    hole: u64,
    /// Length in bytes of an unchanged range that may continue in the next segment. Either `hole` or `keep` is 0.
    keep: u64,
    /// The segment that ended the hole or the unchanged range.
    after: Option<Segment>,
}

impl<I> Coalescer<I> {
    /// Creates a coalescer for batches that were read with these options.
    #[must_use]
    pub fn new(batches: I, options: &ReadOptions) -> Self {
        Self { batches, min_hole: options.min_hole(), segments: Vec::new().into_iter(), hole: 0, keep: 0, after: None }
    }

    /// Returns the length in bytes of the hole or unchanged range that has begun and was not yielded yet. A hole counts
    /// once it has reached the minimum hole length.
    #[must_use]
    pub fn pending(&self) -> u64 {
        if self.hole < self.min_hole { self.keep } else { self.hole }
    }

    /// Ends the current hole or unchanged range and returns its piece. A hole shorter than the minimum becomes data.
    fn close(&mut self) -> Option<Piece> {
        let (hole, keep) = (std::mem::take(&mut self.hole), std::mem::take(&mut self.keep));
        match (hole, keep) {
            (0, 0) => None,
            (0, _) => Some(Piece::Keep(keep)),
            _ if hole >= self.min_hole => Some(Piece::Hole(hole)),
            _ => Some(Piece::Data(Payload::zeros(hole), None)),
        }
    }
}

impl<I, E> Iterator for Coalescer<I>
where
    I: Iterator<Item = Result<SegmentBatch, E>>,
{
    type Item = Result<Piece, E>;

    fn next(&mut self) -> Option<Result<Piece, E>> {
        loop {
            match self.after.take().or_else(|| self.segments.next()) {
                Some(Segment::Zero(len)) if self.keep == 0 => self.hole += len,
                Some(Segment::Keep(len)) if self.hole == 0 => self.keep += len,
                Some(Segment::Data(payload, digest)) if self.hole == 0 && self.keep == 0 => {
                    return Some(Ok(Piece::Data(payload, digest)));
                }
                Some(segment) => {
                    self.after = Some(segment);
                    if let Some(piece) = self.close() {
                        return Some(Ok(piece));
                    }
                }
                None => match self.batches.next() {
                    Some(Ok(batch)) => {
                        self.segments = batch.runs.into_iter();
                        return Some(Ok(Piece::Nothing));
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => return self.close().map(Ok),
                },
            }
        }
    }
}
