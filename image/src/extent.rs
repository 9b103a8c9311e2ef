//! What an image answers: size, extents, octets. Stateless, so that map, send, copy and parallel readers share it.

use std::fs::File;

use crate::Result;

/// What the octets of an extent are, resolved through all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// They have to be read. They may still be zeros.
    Data,
    /// They read as zeros.
    Zero,
}

/// A range of the disk with one answer. Offsets and lengths are in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins on the disk.
    pub start: u64,
    /// How long it is, at least 1.
    pub len: u64,
    /// Data or zeros.
    pub status: Status,
    /// The floor of the backing chain that answers; 0 is the top.
    pub depth: u32,
    /// True if a floor has it in its tables, false if it is zeros because no floor has it.
    pub present: bool,
    /// True if the octets lie compressed.
    pub compressed: bool,
    /// Where the octets lie in the file of floor `depth`, if they lie there as they are.
    pub host: Option<u64>,
}

/// A disk that can be read.
pub trait Image: Send + Sync {
    /// The disk's size in octets, at most 2^63 - 1.
    fn size(&self) -> u64;

    /// The extent that begins at `at` (below the size), at most `max` octets of it (at least 1). Two neighbours may be
    /// alike. Costs no more than that extent.
    fn extent(&self, at: u64, max: u64) -> Result<Extent>;

    /// Fills `buf` from `at`. Short reads are errors: what can't be read never becomes zeros.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()>;

    /// The file that holds the disk's octets at their own offsets, if there is one.
    fn flat(&self) -> Option<&File> {
        None
    }

    /// Asks whether the octets are still those of the beginning. `live` accepts all changes but a shorter file.
    fn check_unchanged(&self, live: bool) -> Result<()>;
}
