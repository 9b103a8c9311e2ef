//! The state of a stream: the only judge of the order of its lines, at both ends.

use crate::error::Violation;
use crate::frame::Frame;
use crate::{
    CoverageChecker, Dialect, Digest, Fingerprint, Hasher, LEN_MAX, Record, StreamError, StreamErrorKind, StreamHeader,
    Trailer,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    Base,
    Records,
    Ended,
    Failed,
}

/// The state of a stream. Checks each frame: order, coverage, canonical form, and digests of lines.
#[derive(Clone, Debug)]
pub(crate) struct StreamState {
    pub(crate) dialect: Dialect,
    pub(crate) stage: Stage,
    pub(crate) open: Option<StreamHeader>,
    pub(crate) coverage: CoverageChecker,
    /// The number of records so far.
    pub(crate) records: u64,
    /// The disk offset where the last record begins.
    pub(crate) start: u64,
    pub(crate) payload_left: u64,
    pub(crate) lines: Hasher,
    pub(crate) kept: bool,
    /// The receiver has stated what its target holds, so END must contain the digest of the whole result's fingerprint.
    pub(crate) agreed: bool,
    /// The digest of the result's fingerprint, from END.
    pub(crate) result: Option<Digest>,
}

impl StreamState {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let (stage, coverage) = match dialect {
            Dialect::V1 => (Stage::Open, CoverageChecker::new(&StreamHeader { size: 0, sums: None }, None)),
            Dialect::Classic => (Stage::Records, CoverageChecker::unsized_disk()),
        };
        let lines = Hasher::default();
        Self {
            dialect,
            stage,
            open: None,
            coverage,
            records: 0,
            start: 0,
            payload_left: 0,
            lines,
            kept: false,
            agreed: false,
            result: None,
        }
    }

    pub(crate) fn hashed(&self) -> bool {
        self.open.is_some_and(|open| open.sums.is_some())
    }

    /// The record number and disk offset of the next line.
    pub(crate) fn place_next(&self) -> (u64, u64) {
        match self.stage {
            Stage::Open => (0, 0),
            _ => (self.records + 1, self.coverage.at()),
        }
    }

    /// The record number and disk offset of a line that was read. A BASE in the right position counts as part of the
    /// header, as the open line does.
    pub(crate) fn place_line(&self, is_base: bool) -> (u64, u64) {
        if is_base && self.stage == Stage::Base { (0, 0) } else { self.place_next() }
    }

    /// The record number and disk offset of the record whose payload is incomplete, else of the next line.
    pub(crate) fn place(&self) -> (u64, u64) {
        if self.payload_left > 0 { (self.records, self.start) } else { self.place_next() }
    }

    pub(crate) fn admit(&mut self, frame: &Frame, text: &[u8]) -> Result<(), StreamError> {
        let (record, offset) = self.place_line(matches!(frame, Frame::Base(_)));
        self.admit_line(frame, text).map_err(|violation| violation.at(record, offset))
    }

    pub(crate) fn admit_line(&mut self, frame: &Frame, text: &[u8]) -> Result<(), Violation> {
        let order = |what: &str| Err(Violation::new(StreamErrorKind::Order, what));
        match (self.stage, frame) {
            (Stage::Ended, _) => return Err(Violation::new(StreamErrorKind::Trailing, "something follows END")),
            (Stage::Failed, _) => return order("something follows FAIL"),
            (Stage::Open, Frame::Open(_)) => {}
            (Stage::Open, _) => return order("a line before the open line"),
            (_, Frame::Open(_)) => return order("a second open line"),
            _ if self.payload_left > 0 => return order("a line inside a payload"),
            _ => {}
        }
        match frame {
            Frame::Open(open) => {
                if open.size > LEN_MAX {
                    return Err(Violation::new(
                        StreamErrorKind::Number,
                        format!("size {} is larger than {LEN_MAX}", open.size),
                    ));
                }
                self.open = Some(*open);
                self.coverage = CoverageChecker::new(open, None);
                self.stage = Stage::Base;
            }
            Frame::Base(base) => {
                let (Stage::Base, Some(open)) = (self.stage, &self.open) else {
                    return order("BASE that is not behind the open line");
                };
                if base.size > LEN_MAX {
                    return Err(Violation::new(
                        StreamErrorKind::Number,
                        format!("BASE {} is larger than {LEN_MAX}", base.size),
                    ));
                }
                self.coverage = CoverageChecker::new(open, Some(base));
                self.stage = Stage::Records;
            }
            Frame::Record(record) => self.admit_record(record, text)?,
            Frame::Wait => {
                if self.dialect == Dialect::Classic {
                    return order("WAIT in the 2014 dialect");
                }
                self.records += 1;
                self.start = self.coverage.at();
                self.stage = Stage::Records;
            }
            Frame::Payload(_) => return order("payload without DATA"),
            Frame::End(end) => {
                self.admit_trailer(end)?;
                self.result = end.result;
                self.stage = Stage::Ended;
            }
            Frame::Fail(_) => {
                if self.dialect == Dialect::Classic {
                    return order("FAIL in the 2014 dialect");
                }
                self.stage = Stage::Failed;
            }
        }
        Ok(())
    }

    pub(crate) fn admit_record(&mut self, record: &Record, text: &[u8]) -> Result<(), Violation> {
        if let Record::Data { digest, .. } = record {
            self.check_digest("DATA", *digest)?;
        }
        let range = self.coverage.step(record)?;
        self.records += 1;
        self.start = range.start;
        self.stage = Stage::Records;
        self.kept |= matches!(record, Record::Keep { .. });
        self.payload_left = record.payload_len();
        if self.hashed() {
            self.lines.update(text);
        }
        Ok(())
    }

    pub(crate) fn check_digest(&self, line: &str, digest: Option<Digest>) -> Result<(), Violation> {
        match (self.hashed(), digest) {
            (true, None) => {
                Err(Violation::new(StreamErrorKind::Sums, format!("{line} without a digest in a stream with digests")))
            }
            (false, Some(_)) => {
                Err(Violation::new(StreamErrorKind::Sums, format!("{line} with a digest in a stream without digests")))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn admit_trailer(&self, end: &Trailer) -> Result<(), Violation> {
        if end.lines.is_none() && end.result.is_some() {
            return Err(Violation::new(
                StreamErrorKind::Sums,
                "END with the result's digest and without that of the lines",
            ));
        }
        if self.dialect == Dialect::Classic {
            if self.records == 0 {
                return Err(Violation::new(
                    StreamErrorKind::Cut,
                    "a stream of no bytes, which is no disk in the dialect of 2014",
                ));
            }
            return self.check_digest("END", end.lines);
        }
        self.coverage.finish()?;
        self.check_digest("END", end.lines)?;
        let Some(said) = end.lines else { return Ok(()) };
        let lines = self.lines.clone().digest();
        if said != lines {
            return Err(Violation::new(
                StreamErrorKind::Mismatch,
                "the record lines don't have the digest that END gives",
            ));
        }
        match end.result {
            None if self.agreed => Err(Violation::new(
                StreamErrorKind::Sums,
                "END without the result's digest, where the receiver has told what it holds",
            )),
            Some(_) if self.kept && self.agreed => Ok(()),
            Some(_) if self.kept => {
                Err(Violation::new(StreamErrorKind::Sums, "END with the result's digest, one way, after KEEP"))
            }
            Some(result) if result != lines => {
                Err(Violation::new(StreamErrorKind::Mismatch, "END's two digests differ in a stream without KEEP"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn pass_payload(&mut self, bytes: u64) -> Result<(), StreamError> {
        let (record, offset) = self.place();
        let over = || StreamError::new(StreamErrorKind::Order, record, offset, "more payload than DATA announced");
        self.payload_left = self.payload_left.checked_sub(bytes).ok_or_else(over)?;
        Ok(())
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        let hash_params = self.open?.sums?;
        let whole = self.stage == Stage::Ended && !self.kept;
        whole.then(|| Fingerprint { sums: hash_params, digest: self.lines.clone().digest() })
    }
}
