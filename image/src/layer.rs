//! One layer of a backing chain, and what it answers of itself.

use std::fmt::Debug;

use xfer_hole_os::Result;

use crate::{Format, ImageFile};

/// What a layer has of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Bytes, in its file.
    Data,
    /// Bytes by its tables, where its file has a hole: zeros.
    Unwritten,
    /// Zeros, whatever lies below.
    Zero,
    /// Nothing: ask below.
    Unallocated,
}

/// A range of a layer with one answer. It begins where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// In bytes, at least 1.
    pub len: u64,
    pub allocation: Allocation,
    /// The bytes lie compressed.
    pub compressed: bool,
    /// Its place in [`Layer::host`], if it has one there.
    pub host: Option<u64>,
}

/// A layer: a raw disk or an image with tables.
pub trait Layer: Debug + Send + Sync {
    /// What it is read as.
    fn format(&self) -> Format;

    /// Bytes, as the layer above sees them.
    fn size(&self) -> u64;

    /// The span that begins at `at` (below the size), at most `max` bytes of it (at least 1). Two neighbours may be alike.
    fn span(&self, at: u64, max: u64) -> Result<Span>;

    /// The file that [`Span::host`] is an offset of.
    fn host(&self) -> &ImageFile;

    /// All its files.
    fn files(&self) -> Vec<&ImageFile> {
        vec![self.host()]
    }

    /// Fills `buf` from `at`, where all is compressed data.
    fn inflate(&self, at: u64, buf: &mut [u8]) -> Result<()>;

    /// Bytes that are best read together: those of a cluster where clusters may be compressed.
    fn chunk(&self) -> u64;

    /// What was noticed while it was read, and what a user should know.
    fn noticed(&self) -> Option<String>;

    /// Asks whether its files are still those of the beginning.
    fn check_unchanged(&self, live: bool) -> Result<()>;
}
