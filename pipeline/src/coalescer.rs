//! Joins the runs of blocks to what becomes a record each: holes are joined across blocks, data is not.

use xfer_hole_os::Result;
use xfer_hole_proto::{Digest, Record};

use crate::payload::Payload;
use crate::read_options::ReadOptions;
use crate::segment::{Segment, SegmentBatch};

/// What becomes one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of zeros.
    Hole(u64),
    /// So many bytes that the target holds already.
    Keep(u64),
    /// This payload.
    Data(Payload, Option<Digest>),
    /// Nothing yet: a new block is looked at.
    Nothing,
}

impl Piece {
    /// The record that announces it.
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

/// The pieces of a disk, in order, covering it once; [`Piece::Nothing`] stands between them, so that whoever draws them isn't held
/// up by a long hole.
pub struct Coalescer<I> {
    blocks: I,
    min_hole: u64,
    runs: std::vec::IntoIter<Segment>,
    /// Zeros that have been seen, and that more zeros may follow.
    hole: u64,
    /// The same of what is kept; one of the two is 0.
    keep: u64,
    /// What ends that hole, or that which is kept.
    behind: Option<Segment>,
}

impl<I> Coalescer<I> {
    /// The pieces of these blocks, which are of this shape.
    #[must_use]
    pub fn new(blocks: I, shape: &ReadOptions) -> Self {
        Self { blocks, min_hole: shape.min_hole(), runs: Vec::new().into_iter(), hole: 0, keep: 0, behind: None }
    }

    /// Bytes of a hole that has begun, is long enough to be one, and is no piece yet; or of what is kept.
    #[must_use]
    pub fn pending(&self) -> u64 {
        if self.hole < self.min_hole { self.keep } else { self.hole }
    }

    /// What has come to its end: a hole that is too short for one is data.
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
            match self.behind.take().or_else(|| self.runs.next()) {
                Some(Segment::Zero(len)) if self.keep == 0 => self.hole += len,
                Some(Segment::Keep(len)) if self.hole == 0 => self.keep += len,
                Some(Segment::Data(payload, digest)) if self.hole == 0 && self.keep == 0 => {
                    return Some(Ok(Piece::Data(payload, digest)));
                }
                Some(run) => {
                    self.behind = Some(run);
                    if let Some(piece) = self.close() {
                        return Some(Ok(piece));
                    }
                }
                None => match self.blocks.next() {
                    Some(Ok(block)) => {
                        self.runs = block.runs.into_iter();
                        return Some(Ok(Piece::Nothing));
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => return self.close().map(Ok),
                },
            }
        }
    }
}
