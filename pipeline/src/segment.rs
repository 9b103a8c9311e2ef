//! Segments: what becomes of a part of the disk, all data, all zeros or all unchanged.

use xfer_hole_proto::{Digest, Record};

use crate::payload::Payload;

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
