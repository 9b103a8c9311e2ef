//! What can be wrong with a stream, where, and whose fault it is.

use std::{fmt, io};

use thiserror::Error;

use crate::CoverageError;

/// A few stable words for what is wrong. [`StreamErrorKind::word`] is what the vectors' index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamErrorKind {
    /// The first line doesn't begin with `XFER-HOLE `.
    NotAStream,
    /// A version that this crate doesn't speak.
    Version,
    /// A line that the grammar doesn't have.
    Line,
    /// A line beyond its limit.
    TooLong,
    /// A number out of its range.
    Number,
    /// A digest that should be there and isn't, or the other way round.
    Sums,
    /// A line at a place where the grammar doesn't have it.
    Order,
    /// The records don't cover the disk once.
    Coverage,
    /// The records aren't in canonical form, though there are digests.
    Form,
    /// A KEEP that BASE doesn't allow.
    Keep,
    /// Bytes or lines that don't have their digest.
    Mismatch,
    /// The stream ends before END.
    Cut,
    /// Something follows END.
    Trailing,
    /// The sender said FAIL.
    Fail,
    /// The stream couldn't be read or written.
    Io,
}

impl StreamErrorKind {
    /// The stable word of this kind.
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

    /// Whose fault it is.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::Mismatch | Self::Cut | Self::Io => Fault::Link,
            Self::Fail => Fault::Source,
            _ => Fault::Sender,
        }
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program that wrote the stream broke the grammar or the law.
    Sender,
    /// What was written isn't what arrived.
    Link,
    /// The sender couldn't read the disk, and said so.
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

/// An error with its place: the record's number and the disk offset where that record begins.
#[derive(Debug, Error)]
pub struct StreamError {
    kind: StreamErrorKind,
    record: u64,
    offset: u64,
    what: String,
    system: Option<io::Error>,
}

impl StreamError {
    /// `record` counts from 1, and is 0 for the open line and BASE; `offset` is in bytes of the disk.
    pub fn new(kind: StreamErrorKind, record: u64, offset: u64, what: impl Into<String>) -> Self {
        Self { kind, record, offset, what: what.into(), system: None }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    /// What is wrong, in words, without its place.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The record's number: from 1; 0 is the open line and BASE. END, FAIL and a cut have the number of the next record.
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

/// An error without a place: in a line that belongs to no disk, or before its place is known.
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

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    pub(crate) fn at(self, record: u64, offset: u64) -> StreamError {
        StreamError::new(self.kind, record, offset, self.what)
    }
}

impl From<CoverageError> for Violation {
    fn from(step: CoverageError) -> Self {
        let kind = match step {
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
        Self::new(kind, step.to_string())
    }
}
