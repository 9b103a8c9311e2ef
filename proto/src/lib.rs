//! The xfer-hole stream format, version 1: encoder, decoder, coverage check and digests.
//!
//! A disk is sent as text lines that a POSIX shell can `read`, and raw bytes after each `DATA` line:
//!
//! ```text
//! XFER-HOLE 1 size [sha256 interval grain]     Open      version and size, before the first byte
//! BASE size [digest]                           Base      the content the target must have, if KEEP may come
//! DATA len [digest]  + len bytes               Record    these bytes
//! HOLE len                                     Record    these bytes read as zeros
//! KEEP len                                     Record    the target has these bytes already
//! WAIT                                         Wait      the sender is alive, and has no record yet
//! END [digest [digest]]                        End       the disk is complete; without END it is not
//! FAIL reason                                  Fail      the sender gives up
//! ```
//!
//! `SPEC.md` in this crate's folder is the normative text. This crate does no I/O, depends on no async runtime and has
//! no unsafe code.
//!
//! - [`StreamDecoder`] and [`StreamEncoder`] convert bytes to [`Frame`]s and back.
//! - [`CoverageChecker`] is the only code that checks whether the records cover the disk.
//! - [`Reply`] is a line from the receiver to the sender, on a link with both directions.
//! - [`ManifestReader`] and [`ManifestWriter`] handle manifests: a disk's record lines without its bytes.

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
mod stream_state;

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
