//! What a stream consists of: its lines, and pieces of payload.

use bytes::Bytes;

use crate::record::{Base, FailReason, Record, StreamHeader, Trailer};

/// A line of the stream, or a piece of payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first line.
    Open(StreamHeader),
    /// The line behind it, if KEEP may come.
    Base(Base),
    /// A record's line. DATA is followed by pieces of payload, `len` bytes in all.
    Record(Record),
    /// Nothing yet.
    Wait,
    /// The next bytes of the last DATA's payload, at least one.
    Payload(Bytes),
    /// The disk is whole. In the 2014 dialect this is end of file.
    End(Trailer),
    /// The sender gives up.
    Fail(FailReason),
}
