//! The interface of a layer of a backing chain.

use std::fmt::Debug;

use xfer_hole_os::Result;

use crate::{Format, ImageFile};

/// The allocation status of a range in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Allocated data.
    Data,
    /// Allocated according to the tables, but the file has a hole there: reads as zeros.
    Unwritten,
    /// Reads as zeros, whatever the layers below contain.
    Zero,
    /// Not allocated: the layer below determines the content.
    Unallocated,
}

/// A range of a layer with one allocation status. It begins at the offset that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Length in bytes, at least 1.
    pub len: u64,
    pub allocation: Allocation,
    /// The data is compressed.
    pub compressed: bool,
    /// Its offset in [`Layer::host`], if it has one.
    pub host: Option<u64>,
}

/// A layer: a raw disk, or an image with tables.
pub trait Layer: Debug + Send + Sync {
    /// The format of the layer.
    fn format(&self) -> Format;

    /// Size of the layer's disk in bytes, as the layer above sees it.
    fn size(&self) -> u64;

    /// The span that begins at `at` (below the size), at most `max` bytes (at least 1) of it. Adjacent spans may have
    /// equal status.
    ///
    /// # Errors
    ///
    /// A table can't be read or is invalid, or the file system reports no extents.
    fn span(&self, at: u64, max: u64) -> Result<Span>;

    /// The file that stores uncompressed data. Offsets of spans refer to it.
    fn host(&self) -> &ImageFile;

    /// All files of the layer.
    fn files(&self) -> Vec<&ImageFile> {
        vec![self.host()]
    }

    /// Reads `buf.len()` bytes at offset `at`, all of which are compressed data.
    ///
    /// # Errors
    ///
    /// The compressed data can't be read or decompressed.
    fn inflate(&self, at: u64, buf: &mut [u8]) -> Result<()>;

    /// The preferred read granularity in bytes: the cluster size if clusters may be compressed.
    fn chunk(&self) -> u64;

    /// A warning that reading the layer has produced, if there is one.
    fn noticed(&self) -> Option<String>;

    /// Checks that the layer's files are unchanged since they were opened. With `live`, only a shorter file is an
    /// error.
    ///
    /// # Errors
    ///
    /// A file has changed.
    fn check_unchanged(&self, live: bool) -> Result<()>;
}
