//! The bytes of a data segment: buffers in memory, and ranges of files that are read when they are sent.

use bytes::Bytes;
use xfer_hole_os::ZEROS;

/// The bytes of a data segment: consecutive parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    parts: Vec<PayloadPart>,
    /// Number of bytes of which only the digest was requested. They have no parts.
    unwanted: u64,
}

/// A part of a payload that lies in one buffer or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadPart {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of the file of a layer ([`xfer_hole_image::Disk::host`]), to be read from there.
    Range {
        /// Depth of the layer; 0 is the top.
        depth: u32,
        /// Offset in that layer's file, in bytes.
        at: u64,
        /// Length in bytes, at least 1.
        len: u64,
    },
}

impl PayloadPart {
    /// Returns the length in bytes.
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
    /// Creates a payload of `len` zero bytes.
    pub fn zeros(len: u64) -> Self {
        zeros(len).map(|zeros| PayloadPart::Bytes(Bytes::from_static(zeros))).collect::<Vec<_>>().into()
    }

    /// Creates a payload of `len` bytes of which only the digest was requested. It has no parts.
    pub fn unwanted(len: u64) -> Self {
        Self { parts: Vec::new(), unwanted: len }
    }

    /// Returns the parts, in order. There are none if only the digest was requested ([`crate::ReadOptions::bare`]).
    #[must_use]
    pub fn parts(&self) -> &[PayloadPart] {
        &self.parts
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.unwanted + self.parts.iter().map(PayloadPart::len).sum::<u64>()
    }

    /// Returns true for 0 bytes. The payload of a segment is never empty.
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

/// Yields slices of a static buffer of zeros, `len` bytes in all.
pub(crate) fn zeros(mut len: u64) -> impl Iterator<Item = &'static [u8]> {
    std::iter::from_fn(move || {
        let some = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        len -= some as u64;
        (some > 0).then(|| &ZEROS[..some])
    })
}
