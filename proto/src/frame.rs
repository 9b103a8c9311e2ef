//! The elements of a stream: its lines, and pieces of payload.

use bytes::Bytes;

use crate::record::{Base, FailReason, Record, StreamHeader, Trailer};

/// One line of the stream, or one piece of payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The open line, which is the first line.
    Open(StreamHeader),
    /// The line after the open line, in a stream that may contain KEEP.
    Base(Base),
    /// A record's line. After DATA follow pieces of payload, `len` bytes in all.
    Record(Record),
    /// The sender is alive, and has no record yet.
    Wait,
    /// The next bytes of the last DATA's payload, at least one.
    Payload(Bytes),
    /// The disk is complete. In the 2014 dialect this is end of file.
    End(Trailer),
    /// The sender gives up, and states the reason.
    Fail(FailReason),
}
