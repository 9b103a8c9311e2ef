//! Segments: parts of the disk that are all data, all zeros or all unchanged.

use xfer_hole_proto::{Digest, Record};

use crate::payload::Payload;

/// A part of a batch that is all data, all zeros or all unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This many bytes of zeros.
    Zero(u64),
    /// This many bytes that the destination already holds.
    Keep(u64),
    /// Data, with its digest if digests are on.
    Data(Payload, Option<Digest>),
}

impl Segment {
    /// Returns the length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Zero(len) | Self::Keep(len) => *len,
            Self::Data(payload, _) => payload.len(),
        }
    }

    /// Returns the record that sends this segment, alone or joined with its neighbours.
    #[must_use]
    pub fn record(&self) -> Record {
        match self {
            Self::Zero(len) => Record::Hole { len: *len },
            Self::Keep(len) => Record::Keep { len: *len },
            Self::Data(payload, digest) => Record::Data { len: payload.len(), digest: *digest },
        }
    }
}

/// The segments of one work unit. With digests, a work unit consists of whole intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentBatch {
    /// The segments, in order and without gaps.
    pub runs: Vec<Segment>,
}
