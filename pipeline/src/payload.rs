//! What a run of data is made of: bytes in memory, and ranges of files that are fetched when they are sent.

use bytes::Bytes;
use xfer_hole_os::ZEROS;

/// The bytes of a run of data: parts, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    parts: Vec<PayloadPart>,
    /// Bytes that nobody wants: only their digest was asked for.
    unwanted: u64,
}

/// A part of a payload that lies in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadPart {
    /// In memory.
    Bytes(Bytes),
    /// In the file of a layer of the image ([`crate::Disk::host`]), from where it still has to be fetched.
    Range {
        /// The layer.
        depth: u32,
        /// Offset in that layer's file, in bytes.
        at: u64,
        /// In bytes, at least 1.
        len: u64,
    },
}

impl PayloadPart {
    /// Bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no part is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }
}

impl Payload {
    /// So many zeros.
    pub fn zeros(len: u64) -> Self {
        zeros(len).map(|zeros| PayloadPart::Bytes(Bytes::from_static(zeros))).collect::<Vec<_>>().into()
    }

    /// So many bytes that only the digest was asked for of. It has no parts.
    pub fn unwanted(len: u64) -> Self {
        Self { parts: Vec::new(), unwanted: len }
    }

    /// Its parts, in order; none where only the digest was asked for ([`crate::ReadOptions::bare`]).
    #[must_use]
    pub fn parts(&self) -> &[PayloadPart] {
        &self.parts
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.unwanted + self.parts.iter().map(PayloadPart::len).sum::<u64>()
    }

    /// True for no bytes, which no run has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<PayloadPart>> for Payload {
    fn from(parts: Vec<PayloadPart>) -> Self {
        Self { parts, unwanted: 0 }
    }
}

/// So many zeros, which nobody has to make.
pub(crate) fn zeros(mut len: u64) -> impl Iterator<Item = &'static [u8]> {
    std::iter::from_fn(move || {
        let some = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        len -= some as u64;
        (some > 0).then(|| &ZEROS[..some])
    })
}
