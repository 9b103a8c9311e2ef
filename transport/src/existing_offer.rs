//! What a receiver says that it has already, in answer to WANT (SPEC.md, "The conversation").

use xfer_hole_proto::{ManifestHeader, Record};

/// The reply of a receiver to WANT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingOffer {
    /// The existing disk has the fingerprint of the request.
    Same,
    /// A manifest of the existing disk, whose records follow.
    Manifest(ManifestHeader),
}

/// The next part of a manifest that is being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestProgress {
    /// The next record.
    Record(Record),
    /// No record has arrived within the time.
    Nothing,
    /// All records were taken.
    End,
}
