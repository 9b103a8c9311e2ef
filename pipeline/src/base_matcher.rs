//! A disk held against the record lines of what another has, interval by interval: where both hold the same bytes, the other may keep
//! its own. A sluice: blocks come in, and go on with [`Segment::Keep`] in the place of what is equal.

use std::collections::VecDeque;

use xfer_hole_os::{DiskError, Result};
use xfer_hole_proto::{HashParams, Record};

use crate::segment::{Segment, SegmentBatch};

/// Runs of a block after which it goes on: a hole of ours may be a million records of the other's.
const RUNS: usize = 1024;

/// Blocks of a disk in canonical form, and entries of another that was cut by the same parameters. Each interval that the other has too
/// becomes [`Segment::Keep`], all others stay as they are; so it is covered as before, in the same order.
///
/// Two long holes are compared by their lengths, and where the entries end the rest passes by: what it costs goes by records, not by
/// intervals. No entry is asked for before it is needed.
pub struct BaseMatcher<B, F> {
    blocks: B,
    /// Gives the other's records, in order and in canonical form; none at the end of what is offered.
    entries: F,
    /// In bytes.
    interval: u64,
    /// Of our disk, in bytes.
    size: u64,
    /// Disk offset up to which all is judged.
    at: u64,
    /// Our runs from there on, and their bytes: less than an interval, but within a block.
    own: VecDeque<Segment>,
    held: u64,
    /// What is left of the other's record at `theirs_at`.
    theirs: Option<Record>,
    theirs_at: u64,
    /// All that is offered has been seen.
    ended: bool,
}

impl<B, F> BaseMatcher<B, F> {
    /// The blocks of a disk of `size` bytes, against these entries.
    #[must_use]
    pub fn new(blocks: B, entries: F, size: u64, sums: HashParams) -> Self {
        let own = VecDeque::new();
        let interval = sums.interval();
        Self { blocks, entries, interval, size, at: 0, own, held: 0, theirs: None, theirs_at: 0, ended: false }
    }

    /// Takes note of our next run, zeros joined.
    fn push(&mut self, run: Segment) {
        self.held += run.len();
        match (self.own.back_mut(), &run) {
            (Some(Segment::Zero(before)), Segment::Zero(len)) => *before += len,
            _ => self.own.push_back(run),
        }
    }

    /// Our next `len` bytes.
    fn take(&mut self, len: u64) -> Vec<Segment> {
        let mut taken = Vec::new();
        let mut left = len;
        while left > 0 {
            let Some(run) = self.own.pop_front() else { break };
            match run {
                Segment::Zero(long) if long > left => {
                    self.own.push_front(Segment::Zero(long - left));
                    taken.push(Segment::Zero(left));
                    left = 0;
                }
                run => {
                    // No data crosses a multiple of the interval.
                    left = left.saturating_sub(run.len());
                    taken.push(run);
                }
            }
        }
        self.held -= len;
        self.at += len;
        taken
    }

    /// The end of the interval that begins where all is judged.
    fn interval_end(&self) -> u64 {
        self.at.saturating_add(self.interval - self.at % self.interval).min(self.size)
    }

    /// True if we have all of that interval.
    fn has_whole(&self) -> bool {
        self.held > 0 && self.held >= self.interval_end() - self.at
    }

    /// Passes the next bytes of the other's record. Of data that is cut, the digest says nothing.
    fn pass(&mut self, len: u64) {
        self.theirs_at += len;
        self.theirs = match self.theirs {
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
    /// The other's record that is next, if there is one.
    fn theirs(&mut self) -> Result<Option<Record>, E> {
        if self.theirs.is_none() && !self.ended {
            self.theirs = (self.entries)()?;
            self.ended = self.theirs.is_none();
        }
        Ok(self.theirs)
    }

    /// Judges intervals that are there as a whole: all of them, or many.
    fn detector(&mut self) -> Result<SegmentBatch, E> {
        let mut block = SegmentBatch::default();
        while self.has_whole() && block.runs.len() < RUNS {
            let end = self.interval_end();
            let zeros = if let Some(Segment::Zero(len)) = self.own.front() { *len } else { 0 };
            match self.theirs()? {
                None => {
                    let rest = self.held;
                    block.runs.append(&mut self.take(rest));
                }
                Some(Record::Hole { len }) if self.both(zeros, len) > 0 => {
                    let both = self.both(zeros, len);
                    let _zeros = self.take(both);
                    self.pass(both);
                    keep(&mut block, both);
                }
                Some(_) => {
                    let len = end - self.at;
                    let mut own = self.take(len);
                    match self.is_theirs(&own, end)? {
                        true => keep(&mut block, len),
                        false => block.runs.append(&mut own),
                    }
                }
            }
        }
        Ok(block)
    }

    /// Bytes of whole intervals in which both have zeros, where both runs begin.
    fn both(&self, ours: u64, theirs: u64) -> u64 {
        let end = self.at + ours.min(theirs);
        let end = if end == self.size { end } else { end - end % self.interval };
        end.saturating_sub(self.at)
    }

    /// True if these runs, which end at `end`, are the other's too. Its records are passed up to there.
    fn is_theirs(&mut self, own: &[Segment], end: u64) -> Result<bool, E> {
        let mut same = true;
        for run in own {
            same = match (run, self.theirs()?) {
                (Segment::Zero(len), Some(Record::Hole { len: theirs })) => *len <= theirs,
                (Segment::Data(payload, digest), Some(Record::Data { len, digest: theirs })) => {
                    payload.len() == len && digest.is_some() && *digest == theirs
                }
                _ => false,
            };
            if !same {
                break;
            }
            self.pass(run.len());
        }
        while self.theirs_at < end
            && let Some(record) = self.theirs()?
        {
            self.pass(record.len().min(end - self.theirs_at));
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
            match self.blocks.next()? {
                Ok(block) => block.runs.into_iter().for_each(|run| self.push(run)),
                Err(error) => return Some(Err(error.into())),
            }
        }
        Some(self.detector())
    }
}

/// Adds bytes that are equal.
fn keep(block: &mut SegmentBatch, len: u64) {
    match block.runs.last_mut() {
        Some(Segment::Keep(before)) => *before += len,
        _ => block.runs.push(Segment::Keep(len)),
    }
}
