//! The words of the xfer-hole stream, version 1.
//!
//! A disk travels as text lines that a POSIX shell can `read`, and raw octets behind a `DATA` line:
//!
//! ```text
//! XFER-HOLE 1 size [sha256 interval grain]     Open      version and size, before the first octet
//! BASE size [digest]                           Base      what the target must hold already, if KEEP comes
//! DATA len [digest]  + len octets              Record    these octets
//! HOLE len                                     Record    these octets read as zeros
//! KEEP len                                     Record    these octets are right at the target already
//! WAIT                                         Wait      nothing yet
//! END [digest [digest]]                        End       the disk is whole; without this line it is not
//! FAIL reason                                  Fail      the sender gives up
//! ```
//!
//! `SPEC.md` beside this crate is the normative text. This crate does no I/O, knows no async runtime and has no unsafe
//! code: [`StreamDecoder`] and [`StreamEncoder`] turn octets into [`Item`]s and back, and [`Cursor`] alone judges
//! whether the records cover the disk. [`Answer`] is what a receiver says back, where a link has both directions. A
//! [`Manifest`] is the lines of a disk without its octets.

mod answer;
mod codec;
mod cursor;
mod digest;
mod error;
mod line;
mod manifest;
mod record;
mod source_facts;

pub use answer::{ANSWER_LINE_MAX, Answer, CONVERSATION, NOISE_MAX, Refusal, SILENCE_SECONDS};
pub use codec::{Item, StreamDecoder, StreamEncoder};
pub use cursor::{Cursor, OutOfStep};
pub use digest::{Digest, Fingerprint, Hasher};
pub use error::{Error, Fault, Flaw, Kind};
pub use manifest::{Entry, Manifest, ManifestReader, ManifestWriter, Want};
pub use record::{
    Base, Dialect, End, FAIL_LINE_MAX, FAIL_TEXT_MAX, GRAIN_DEFAULT, GRAIN_MIN, INTERVAL_DEFAULT, INTERVAL_MAX,
    INTERVAL_MIN, LEN_MAX, LINE_MAX, Open, Reason, Record, Sums, WAIT_SECONDS,
};
pub use source_facts::SourceFacts;
