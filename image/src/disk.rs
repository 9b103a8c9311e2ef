//! What an image answers: size, extents, bytes. Stateless, so that map, send, copy and parallel readers share it.

use xfer_hole_os::Result;

use crate::{ChangeTracker, ImageFile};

/// What the bytes of an extent are, resolved through all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// They have to be read. They may still be zeros.
    Data,
    /// An image's tables call them data, but where they would lie its file has a hole: they read as zeros.
    Unwritten,
    /// They read as zeros.
    Zero,
}

/// A range of the disk with one answer. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins on the disk.
    pub start: u64,
    /// How long it is, at least 1.
    pub len: u64,
    /// Data or zeros.
    pub status: BlockStatus,
    /// The layer of the backing chain that answers; 0 is the top.
    pub depth: u32,
    /// True if a layer has it in its tables, false if it is zeros because no layer has it.
    pub present: bool,
    /// True if the bytes lie compressed.
    pub compressed: bool,
    /// Where the extent's place is in the file of layer `depth` ([`Disk::host`]), if it has one there: data lies there as it is,
    /// zeros may have a place without bytes that count.
    pub host: Option<u64>,
}

impl Extent {
    /// Where it ends, exclusive.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// A disk that can be read.
pub trait Disk: Send + Sync {
    /// The disk's size in bytes, at most 2^63 - 1.
    fn size(&self) -> u64;

    /// The extent that begins at `at` (below the size), at most `max` bytes of it (at least 1). Two neighbours may be
    /// alike. Costs no more than that extent.
    fn extent(&self, at: u64, max: u64) -> Result<Extent>;

    /// Fills `buf` from disk offset `at`: bytes that all lie in `extent`, which is of this image. Short reads are errors: what
    /// can't be read never becomes zeros.
    fn read(&self, extent: &Extent, at: u64, buf: &mut [u8]) -> Result<()>;

    /// The file that the [`Extent::host`] of layer `depth` is an offset of.
    fn host(&self, depth: u32) -> Option<&ImageFile>;

    /// Bytes, a power of two: reads that begin and end on multiples of it do nothing twice.
    fn chunk(&self) -> u64 {
        1
    }

    /// True if it is to be read past the page cache: then nothing may stay in its files until it is sent.
    fn is_direct(&self) -> bool {
        false
    }

    /// The older state of the disk that it is compared with, if that was asked for.
    fn older(&self) -> Option<&dyn ChangeTracker> {
        None
    }

    /// Asks whether the bytes are still those of the beginning. `live` accepts all changes but a shorter file.
    fn check_unchanged(&self, live: bool) -> Result<()>;

    /// Fills `buf` from `at`, through as many extents as it takes.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let extent = self.extent(at, rest.len() as u64)?;
            let (now, later) = rest.split_at_mut(usize::try_from(extent.len).unwrap_or(usize::MAX));
            match extent.status {
                BlockStatus::Data => self.read(&extent, at, now)?,
                BlockStatus::Unwritten | BlockStatus::Zero => now.fill(0),
            }
            at += extent.len;
            rest = later;
        }
        Ok(())
    }
}
