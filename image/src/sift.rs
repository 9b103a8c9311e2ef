//! Joins the runs of blocks to what becomes a record each: holes are joined across blocks, data is not.

use xfer_hole_proto::{Digest, Record};

use crate::{Block, Payload, Result, Run, Shape};

/// What becomes one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many octets of zeros.
    Hole(u64),
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
            Self::Data(payload, digest) => Some(Record::Data { len: payload.len(), digest: *digest }),
            Self::Nothing => None,
        }
    }
}

/// The pieces of a disk, in order, covering it once; [`Piece::Nothing`] stands between them, so that whoever draws them isn't held
/// up by a long hole.
pub struct Sift<I> {
    blocks: I,
    min_hole: u64,
    runs: std::vec::IntoIter<Run>,
    /// Zeros that have been seen, and that more zeros may follow.
    hole: u64,
    /// Data that waits behind that hole.
    data: Option<(Payload, Option<Digest>)>,
}

impl<I> Sift<I> {
    /// The pieces of these blocks, which are of this shape.
    #[must_use]
    pub fn new(blocks: I, shape: &Shape) -> Self {
        Self { blocks, min_hole: shape.min_hole(), runs: Vec::new().into_iter(), hole: 0, data: None }
    }

    /// Octets of a hole that has begun, is long enough to be one, and is no piece yet.
    #[must_use]
    pub fn pending(&self) -> u64 {
        if self.hole < self.min_hole { 0 } else { self.hole }
    }

    /// The hole that has come to its end: data if it is too short for a hole.
    fn close_hole(&mut self) -> Option<Piece> {
        let len = std::mem::take(&mut self.hole);
        if len >= self.min_hole {
            return (len > 0).then_some(Piece::Hole(len));
        }
        (len > 0).then(|| Piece::Data(Payload::zeros(len), None))
    }
}

impl<I: Iterator<Item = Result<Block>>> Iterator for Sift<I> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            if let Some((payload, digest)) = self.data.take() {
                return Some(Ok(Piece::Data(payload, digest)));
            }
            match self.runs.next() {
                Some(Run::Zero(len)) => self.hole += len,
                Some(Run::Data(payload, digest)) => {
                    self.data = Some((payload, digest));
                    if let Some(hole) = self.close_hole() {
                        return Some(Ok(hole));
                    }
                }
                None => match self.blocks.next() {
                    Some(Ok(block)) => {
                        self.runs = block.runs.into_iter();
                        return Some(Ok(Piece::Nothing));
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => return self.close_hole().map(Ok),
                },
            }
        }
    }
}
