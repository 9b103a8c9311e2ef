//! Errors in a stream: the kind, the place and the responsible party.

use std::{fmt, io};

use thiserror::Error;

use crate::CoverageError;

/// The kind of a stream error. [`StreamErrorKind::word`] is its stable name, which the test vectors' index uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamErrorKind {
    /// The first line doesn't begin with `XFER-HOLE `.
    NotAStream,
    /// The open line has a version that this crate doesn't support.
    Version,
    /// The line doesn't match the grammar.
    Line,
    /// The line exceeds the length limit.
    TooLong,
    /// A number is out of range.
    Number,
    /// A digest is missing, or is present where the stream has no digests.
    Sums,
    /// The grammar doesn't allow this line at this position.
    Order,
    /// The records don't cover the disk exactly once.
    Coverage,
    /// The stream has digests, and its records aren't in canonical form.
    Form,
    /// BASE doesn't allow this KEEP.
    Keep,
    /// Bytes or lines don't match their digest.
    Mismatch,
    /// The stream ends before END.
    Cut,
    /// There is data after END.
    Trailing,
    /// The sender sent FAIL.
    Fail,
    /// Reading or writing the stream failed.
    Io,
}

impl StreamErrorKind {
    /// The stable name of this kind, in lower case.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAStream => "not-a-stream",
            Self::Version => "version",
            Self::Line => "line",
            Self::TooLong => "too-long",
            Self::Number => "number",
            Self::Sums => "sums",
            Self::Order => "order",
            Self::Coverage => "coverage",
            Self::Form => "form",
            Self::Keep => "keep",
            Self::Mismatch => "mismatch",
            Self::Cut => "cut",
            Self::Trailing => "trailing",
            Self::Fail => "fail",
            Self::Io => "io",
        }
    }

    /// The party that is responsible for errors of this kind.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::Mismatch | Self::Cut | Self::Io => Fault::Link,
            Self::Fail => Fault::Source,
            _ => Fault::Sender,
        }
    }
}

/// The party that is responsible for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program that wrote the stream broke the grammar or the coverage rules.
    Sender,
    /// The stream was damaged or cut on its way.
    Link,
    /// The sender couldn't read the disk and reported it.
    Source,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "malformed stream",
            Self::Link => "broken link",
            Self::Source => "sender gave up",
        })
    }
}

/// An error with its position: the record's number and the disk offset where that record begins.
#[derive(Debug, Error)]
pub struct StreamError {
    kind: StreamErrorKind,
    record: u64,
    offset: u64,
    what: String,
    system: Option<io::Error>,
}

impl StreamError {
    /// Creates an error. `record` counts from 1 and is 0 for the open line and BASE; `offset` is in bytes of the disk.
    pub fn new(kind: StreamErrorKind, record: u64, offset: u64, what: impl Into<String>) -> Self {
        Self { kind, record, offset, what: what.into(), system: None }
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    /// The description, without the position.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The record's number, from 1; 0 for the open line and BASE. END, FAIL and a truncated stream have the number of
    /// the next record.
    #[must_use]
    pub fn record(&self) -> u64 {
        self.record
    }

    /// The disk offset where that record begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.record) {
            (StreamErrorKind::Io, _) => {}
            (_, 0) => f.write_str("open line: ")?,
            (_, record) => write!(f, "record {record} at disk offset {}: ", self.offset)?,
        }
        write!(f, "{}: {}", self.kind.fault(), self.what)?;
        self.system.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

impl From<io::Error> for StreamError {
    fn from(source: io::Error) -> Self {
        Self { kind: StreamErrorKind::Io, record: 0, offset: 0, what: "cannot move bytes".into(), system: Some(source) }
    }
}

/// An error without a position: in a line that belongs to no disk, or before the position is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct Violation {
    pub(crate) kind: StreamErrorKind,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(kind: StreamErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    pub(crate) fn at(self, record: u64, offset: u64) -> StreamError {
        StreamError::new(self.kind, record, offset, self.what)
    }
}

impl From<CoverageError> for Violation {
    fn from(error: CoverageError) -> Self {
        let kind = match error {
            CoverageError::Empty | CoverageError::PastEnd { .. } | CoverageError::Uncovered { .. } => {
                StreamErrorKind::Coverage
            }
            CoverageError::KeepWithoutBase | CoverageError::KeepPastBase { .. } => StreamErrorKind::Keep,
            CoverageError::OffGrain { .. }
            | CoverageError::AcrossInterval { .. }
            | CoverageError::DataAfterData { .. }
            | CoverageError::HoleAfterHole
            | CoverageError::KeepAfterKeep
            | CoverageError::KeepOffInterval { .. } => StreamErrorKind::Form,
        };
        Self::new(kind, error.to_string())
    }
}
