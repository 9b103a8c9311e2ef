//! Compares a disk with the records of an existing copy, interval by interval. [`BaseMatcher`] passes batches through
//! and replaces every interval whose bytes the copy already has by [`Segment::Keep`].

use std::collections::VecDeque;

use xfer_hole_os::{DiskError, Result};
use xfer_hole_proto::{HashParams, Record};

use crate::segment::{Segment, SegmentBatch};

/// Maximum number of segments in a batch. The limit is needed because one hole of the disk may match a million records
/// of the copy.
const SEGMENTS_MAX: usize = 1024;

/// Replaces the intervals of a disk that an existing copy already holds by [`Segment::Keep`].
///
/// The input is a disk's batches in canonical form, and the records of the copy, made with the same hash parameters.
/// Intervals that differ pass through unchanged, so the output covers the same bytes in the same order.
///
/// Two long holes are compared by their lengths, and everything after the last record passes through: the cost depends
/// on the number of records, not on the number of intervals. A record is requested only when it is needed.
pub struct BaseMatcher<B, F> {
    batches: B,
    /// Returns the copy's records, in order and in canonical form, and `None` after the last one.
    records: F,
    /// Interval of the hash parameters, in bytes.
    interval: u64,
    /// Size of the disk, in bytes.
    size: u64,
    /// Disk offset up to which the comparison is done, in bytes.
    at: u64,
    /// Segments of the disk from `at` on that are not compared yet.
    own: VecDeque<Segment>,
    /// Length of these segments in bytes. Between two batches it is less than an interval.
    held: u64,
    /// The unread part of the copy's current record.
    existing: Option<Record>,
    /// Disk offset of that part, in bytes.
    existing_at: u64,
    /// True after the last record of the copy.
    ended: bool,
}

impl<B, F> BaseMatcher<B, F> {
    /// Creates a matcher for the batches of a disk of `size` bytes and the records that `records` returns.
    #[must_use]
    pub fn new(batches: B, records: F, size: u64, params: HashParams) -> Self {
        let own = VecDeque::new();
        let interval = params.interval();
        Self { batches, records, interval, size, at: 0, own, held: 0, existing: None, existing_at: 0, ended: false }
    }

    /// Appends the disk's next segment. Adjacent zero segments are joined.
    fn push(&mut self, segment: Segment) {
        self.held += segment.len();
        match (self.own.back_mut(), &segment) {
            (Some(Segment::Zero(before)), Segment::Zero(len)) => *before += len,
            _ => self.own.push_back(segment),
        }
    }

    /// Removes and returns the segments of the next `len` bytes of the disk.
    fn take(&mut self, len: u64) -> Vec<Segment> {
        let mut taken = Vec::new();
        let mut left = len;
        while left > 0 {
            let Some(segment) = self.own.pop_front() else { break };
            match segment {
                Segment::Zero(long) if long > left => {
                    self.own.push_front(Segment::Zero(long - left));
                    taken.push(Segment::Zero(left));
                    left = 0;
                }
                segment => {
                    // A data segment never crosses a multiple of the interval, so it is never split here.
                    left = left.saturating_sub(segment.len());
                    taken.push(segment);
                }
            }
        }
        self.held -= len;
        self.at += len;
        taken
    }

    /// Returns the end of the interval that begins at `at`: a disk offset in bytes.
    fn interval_end(&self) -> u64 {
        self.at.saturating_add(self.interval - self.at % self.interval).min(self.size)
    }

    /// Returns true if all segments of the interval at `at` are buffered.
    fn has_whole(&self) -> bool {
        self.held > 0 && self.held >= self.interval_end() - self.at
    }

    /// Skips the next `len` bytes of the copy's record. The rest of a data record that is split has no digest.
    fn skip(&mut self, len: u64) {
        self.existing_at += len;
        self.existing = match self.existing {
            Some(Record::Hole { len: long }) if long > len => Some(Record::Hole { len: long - len }),
            Some(Record::Data { len: long, .. }) if long > len => Some(Record::Data { len: long - len, digest: None }),
            _ => None,
        };
    }
}

impl<B, F, E> BaseMatcher<B, F>
where
    F: FnMut() -> Result<Option<Record>, E>,
    E: From<DiskError>,
{
    /// Returns the copy's current record, or `None` at the end of its records.
    fn existing(&mut self) -> Result<Option<Record>, E> {
        if self.existing.is_none() && !self.ended {
            self.existing = (self.records)()?;
            self.ended = self.existing.is_none();
        }
        Ok(self.existing)
    }

    /// Compares buffered whole intervals, up to the maximum number of segments in a batch, and returns the result.
    fn compare(&mut self) -> Result<SegmentBatch, E> {
        let mut batch = SegmentBatch::default();
        while self.has_whole() && batch.runs.len() < SEGMENTS_MAX {
            let end = self.interval_end();
            let zeros = if let Some(Segment::Zero(len)) = self.own.front() { *len } else { 0 };
            match self.existing()? {
                None => {
                    let rest = self.held;
                    batch.runs.append(&mut self.take(rest));
                }
                Some(Record::Hole { len }) if self.common_zeros(zeros, len) > 0 => {
                    let both = self.common_zeros(zeros, len);
                    let _zeros = self.take(both);
                    self.skip(both);
                    push_keep(&mut batch, both);
                }
                Some(_) => {
                    let len = end - self.at;
                    let mut own = self.take(len);
                    match self.equals_existing(&own, end)? {
                        true => push_keep(&mut batch, len),
                        false => batch.runs.append(&mut own),
                    }
                }
            }
        }
        Ok(batch)
    }

    /// Returns how many bytes of whole intervals are zeros in both, given the lengths of the two holes at `at`.
    fn common_zeros(&self, ours: u64, existing: u64) -> u64 {
        let end = self.at + ours.min(existing);
        let end = if end == self.size { end } else { end - end % self.interval };
        end.saturating_sub(self.at)
    }

    /// Returns true if these segments, which end at disk offset `end`, equal the copy's records. The copy's records are
    /// skipped up to `end`.
    fn equals_existing(&mut self, own: &[Segment], end: u64) -> Result<bool, E> {
        let mut same = true;
        for segment in own {
            same = match (segment, self.existing()?) {
                (Segment::Zero(len), Some(Record::Hole { len: existing })) => *len <= existing,
                (Segment::Data(payload, digest), Some(Record::Data { len, digest: existing })) => {
                    payload.len() == len && digest.is_some() && *digest == existing
                }
                _ => false,
            };
            if !same {
                break;
            }
            self.skip(segment.len());
        }
        while self.existing_at < end
            && let Some(record) = self.existing()?
        {
            self.skip(record.len().min(end - self.existing_at));
        }
        Ok(same)
    }
}

impl<B, F, E> Iterator for BaseMatcher<B, F>
where
    B: Iterator<Item = Result<SegmentBatch>>,
    F: FnMut() -> Result<Option<Record>, E>,
    E: From<DiskError>,
{
    type Item = Result<SegmentBatch, E>;

    fn next(&mut self) -> Option<Result<SegmentBatch, E>> {
        if !self.has_whole() {
            match self.batches.next()? {
                Ok(batch) => batch.runs.into_iter().for_each(|segment| self.push(segment)),
                Err(error) => return Some(Err(error.into())),
            }
        }
        Some(self.compare())
    }
}

/// Appends `len` unchanged bytes to a batch. Adjacent unchanged segments are joined.
fn push_keep(batch: &mut SegmentBatch, len: u64) {
    match batch.runs.last_mut() {
        Some(Segment::Keep(before)) => *before += len,
        _ => batch.runs.push(Segment::Keep(len)),
    }
}
