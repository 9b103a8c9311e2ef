//! How a disk is read: cut, searched for zeros, and hashed.

use xfer_hole_proto::{GRAIN_DEFAULT, GRAIN_MIN, HashParams};

/// The longest of the shortest holes that can be asked for, in bytes.
pub const UNIT: u64 = 16 << 20;
/// An interval that nothing reaches beyond.
const NO_INTERVAL: u64 = 1 << 63;

/// How a disk is cut and judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// In bytes, a power of two: data never crosses a multiple of it.
    pub(crate) interval: u64,
    /// Zeros are looked for in blocks of this many bytes, a power of two that divides `interval`.
    pub(crate) grain: u64,
    /// Whether zeros are looked for at all in what the extents call data.
    pub(crate) detect: bool,
    /// Shorter holes become data.
    pub(crate) min_hole: u64,
    pub(crate) digests: bool,
    /// What was read goes on from memory, though it lies in a file just so.
    pub(crate) held: bool,
    /// Nothing goes on but lengths and digests.
    pub(crate) bare: bool,
}

impl ReadOptions {
    /// Without digests. `min_hole` in bytes: shorter holes become data; 1 for none.
    #[must_use]
    pub fn plain(detect: bool, min_hole: u64) -> Self {
        let below = |bytes: u64| 1_u64 << (63 - bytes.leading_zeros().min(63));
        let grain = match min_hole {
            _ if !detect => 1,
            0 | 1 => GRAIN_DEFAULT,
            bytes => below(bytes).clamp(GRAIN_MIN, GRAIN_DEFAULT),
        };
        Self { interval: NO_INTERVAL, grain, detect, min_hole, digests: false, held: false, bare: false }
    }

    /// The canonical form (proto's SPEC.md): blocks are judged by content alone, and every run of data has its digest.
    #[must_use]
    pub fn canonical(sums: HashParams) -> Self {
        let (interval, grain) = (sums.interval(), sums.grain());
        Self { interval, grain, detect: true, min_hole: 1, digests: true, held: false, bare: false }
    }

    /// Whether what is read has to go on from memory, so that it is the very bytes that were judged and hashed. Otherwise it is
    /// fetched again from where it lies, which costs less than a copy of it; a change in between shows by the digest.
    #[must_use]
    pub fn held(self, held: bool) -> Self {
        Self { held: held && self.digests, ..self }
    }

    /// For those who want digests and no bytes: payloads have their lengths and no parts, and memory is free again once it is hashed.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { bare: self.digests, ..self }
    }

    /// Bytes, a power of two: data never crosses a multiple of it.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// Bytes, a power of two: zeros are found in aligned blocks of so many.
    #[must_use]
    pub fn grain(&self) -> u64 {
        self.grain
    }

    /// True if zeros are looked for in what the extents call data.
    #[must_use]
    pub fn detects_zeros(&self) -> bool {
        self.detect
    }

    /// Holes shorter than this, in bytes, are to travel as data.
    #[must_use]
    pub fn min_hole(&self) -> u64 {
        self.min_hole
    }
}
