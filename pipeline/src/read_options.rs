//! How a disk is read: cut into units, searched for zeros, and hashed.

use xfer_hole_proto::{GRAIN_DEFAULT, GRAIN_MIN, HashParams};

/// Largest minimum hole length that can be requested, in bytes.
pub const UNIT: u64 = 16 << 20;
/// Interval without effect: no disk reaches beyond it.
const NO_INTERVAL: u64 = 1 << 63;

/// How a disk is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Interval in bytes, a power of two: data never crosses a multiple of it.
    pub(crate) interval: u64,
    /// Zeros are searched in aligned grains of this many bytes, a power of two that divides `interval`.
    pub(crate) grain: u64,
    /// True if zeros are searched in extents with data.
    pub(crate) detect: bool,
    /// Minimum hole length in bytes: shorter holes become data.
    pub(crate) min_hole: u64,
    pub(crate) digests: bool,
    /// True if payloads refer to the buffer that was read, even if the bytes lie unchanged in a file.
    pub(crate) held: bool,
    /// True if payloads have only lengths and digests.
    pub(crate) bare: bool,
}

impl ReadOptions {
    /// Reads without digests. `min_hole` is the minimum hole length in bytes: shorter holes become data; 1 for no
    /// minimum.
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

    /// Reads in canonical form (proto's SPEC.md): zeros are found by content alone, and every data segment has its
    /// digest.
    #[must_use]
    pub fn canonical(params: HashParams) -> Self {
        let (interval, grain) = (params.interval(), params.grain());
        Self { interval, grain, detect: true, min_hole: 1, digests: true, held: false, bare: false }
    }

    /// Sets whether payloads refer to the very bytes in memory that were searched and hashed. Otherwise they are read
    /// again from their file when they are sent, which costs less than copying them; the digest shows a change in
    /// between.
    #[must_use]
    pub fn held(self, held: bool) -> Self {
        Self { held: held && self.digests, ..self }
    }

    /// Requests digests and no bytes: payloads have lengths and no parts, and memory is free again once it is hashed.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { bare: self.digests, ..self }
    }

    /// Returns the interval in bytes, a power of two: data never crosses a multiple of it.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// Returns the grain in bytes, a power of two: zeros are found in aligned grains.
    #[must_use]
    pub fn grain(&self) -> u64 {
        self.grain
    }

    /// Returns true if zeros are searched in extents with data.
    #[must_use]
    pub fn detects_zeros(&self) -> bool {
        self.detect
    }

    /// Returns the minimum hole length in bytes: shorter holes are sent as data.
    #[must_use]
    pub fn min_hole(&self) -> u64 {
        self.min_hole
    }
}
