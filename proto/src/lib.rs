//! The words of the xfer-hole stream, version 1.
//!
//! A disk travels as text lines that a POSIX shell can `read`, and raw bytes behind a `DATA` line:
//!
//! ```text
//! XFER-HOLE 1 size [sha256 interval grain]     Open      version and size, before the first byte
//! BASE size [digest]                           Base      what the target must hold already, if KEEP comes
//! DATA len [digest]  + len bytes              Record    these bytes
//! HOLE len                                     Record    these bytes read as zeros
//! KEEP len                                     Record    these bytes are right at the target already
//! WAIT                                         Wait      nothing yet
//! END [digest [digest]]                        End       the disk is whole; without this line it is not
//! FAIL reason                                  Fail      the sender gives up
//! ```
//!
//! `SPEC.md` beside this crate is the normative text. This crate does no I/O, knows no async runtime and has no unsafe
//! code: [`StreamDecoder`] and [`StreamEncoder`] turn bytes into [`Frame`]s and back, and [`CoverageChecker`] alone judges
//! whether the records cover the disk. [`Reply`] is what a receiver says back, where a link has both directions. A
//! [`ManifestHeader`] is the lines of a disk without its bytes.

mod coverage;
mod digest;
mod error;
mod fingerprint;
mod frame;
mod line;
mod manifest;
mod record;
mod reply;
mod source_facts;
mod stream;

pub use coverage::{CoverageChecker, CoverageError};
pub use digest::{Digest, Hasher};
pub use error::{Fault, StreamError, StreamErrorKind, Violation};
pub use fingerprint::Fingerprint;
pub use frame::Frame;
pub use manifest::{ManifestEntry, ManifestHeader, ManifestReader, ManifestRequest, ManifestWriter};
pub use record::{
    Base, Dialect, FAIL_LINE_MAX, FAIL_TEXT_MAX, FailReason, GRAIN_DEFAULT, GRAIN_MIN, HashParams, INTERVAL_DEFAULT,
    INTERVAL_MAX, INTERVAL_MIN, LEN_MAX, LINE_MAX, Record, StreamHeader, Trailer, WAIT_SECONDS,
};
pub use reply::{ANSWER_LINE_MAX, CONVERSATION, NOISE_MAX, Refusal, Reply, SILENCE_SECONDS};
pub use source_facts::SourceFacts;
pub use stream::{StreamDecoder, StreamEncoder};
