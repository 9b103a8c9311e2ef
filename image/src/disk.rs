//! The interface of a readable disk: size, extents, data. It is stateless, so that several threads can share a disk.

use xfer_hole_os::Result;

use crate::{ChangeTracker, ImageFile};

/// The status of an extent, resolved through all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// Data, which must be read. It may be zeros.
    Data,
    /// Data according to the image's tables, but its file has a hole there, so the extent reads as zeros.
    Unwritten,
    /// Zeros.
    Zero,
}

/// A range of the disk with one status. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Disk offset of its beginning.
    pub start: u64,
    /// Its length, at least 1.
    pub len: u64,
    /// Data or zeros.
    pub status: BlockStatus,
    /// The number of the layer that determines the status; 0 is the top layer.
    pub depth: u32,
    /// True if a layer allocates the range. False if it reads as zeros because no layer does.
    pub present: bool,
    /// True if the data is compressed.
    pub compressed: bool,
    /// The offset in the file of layer `depth` ([`Disk::host`]), if the extent has one. Uncompressed data is stored
    /// there; an extent of zeros may have an allocated cluster, whose content is not used.
    pub host: Option<u64>,
}

impl Extent {
    /// The disk offset of its end, exclusive.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// A readable disk.
pub trait Disk: Send + Sync {
    /// Size of the disk in bytes, at most 2^63 - 1.
    fn size(&self) -> u64;

    /// The extent that begins at `at` (below the size), at most `max` bytes (at least 1) of it. Adjacent extents may
    /// have equal status. The cost is that of one extent, whatever the size of the disk.
    ///
    /// # Errors
    ///
    /// A table of an image can't be read or is invalid, or the file system reports no extents.
    fn extent(&self, at: u64, max: u64) -> Result<Extent>;

    /// Reads `buf.len()` bytes at disk offset `at`. They must lie in `extent`, which this disk returned.
    ///
    /// # Errors
    ///
    /// The data can't be read completely. Unreadable data is never replaced by zeros.
    fn read(&self, extent: &Extent, at: u64, buf: &mut [u8]) -> Result<()>;

    /// The file of layer `depth`, to which the offset [`Extent::host`] applies.
    fn host(&self, depth: u32) -> Option<&ImageFile>;

    /// The preferred read granularity in bytes, a power of two. Aligned reads decompress no cluster twice.
    fn chunk(&self) -> u64 {
        1
    }

    /// True if the disk is read past the page cache, so that its data must not be sent by reference to cached pages.
    fn is_direct(&self) -> bool {
        false
    }

    /// The tracker of changes since an older state, if the options name one.
    fn older(&self) -> Option<&dyn ChangeTracker> {
        None
    }

    /// Checks that the files of the disk are unchanged since they were opened. With `live`, only a shorter file is an
    /// error.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Changed`](xfer_hole_os::DiskErrorKind::Changed) if a file has changed.
    fn check_unchanged(&self, live: bool) -> Result<()>;

    /// Reads `buf.len()` bytes at disk offset `at`, across any number of extents.
    ///
    /// # Errors
    ///
    /// An extent can't be determined or read.
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
