//! The parts of a disk that are unchanged since an older state. Trackers read only tables, no data.
//!
//! ```text
//! snapshot of the same image   SnapshotDiff   L1 and L2 tables of both states, entry by entry
//! layer of the backing chain   LayerDiff      the ranges that no layer above it allocates
//! dirty bitmap                 DirtyBitmap    the bits of the bitmap
//! ```

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use xfer_hole_os::Result;

use crate::layer::{Allocation, Layer};

/// The older state of a disk to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncrementalBase {
    /// An internal snapshot of the image, by its ID or name.
    Snapshot(String),
    /// A file of the backing chain, below the image itself.
    Base(PathBuf),
    /// The state at which a persistent bitmap of the image began to record changes, by the bitmap's name.
    Bitmap(String),
}

/// The result of comparing a range of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Length in bytes, at least 1. Adjacent ranges may have equal results.
    pub len: u64,
    /// True if the bytes are unchanged. If false, they may be equal all the same, since data is not compared.
    pub same: bool,
}

/// Compares a disk with an older state of it.
pub trait ChangeTracker: Debug + Send + Sync {
    /// Size of the disk in the older state, in bytes.
    fn size(&self) -> u64;

    /// Compares the range from `at` (below both sizes) of at most `max` bytes (at least 1, and within both sizes).
    ///
    /// # Errors
    ///
    /// A table of the image can't be read, or is invalid.
    fn compare(&self, at: u64, max: u64) -> Result<Comparison>;
}

/// Compares a disk with the disk of a layer in its backing chain. A range that no layer above allocates is unchanged.
#[derive(Debug)]
pub(crate) struct LayerDiff {
    pub(crate) above: Vec<Arc<dyn Layer>>,
    /// Size of that layer's disk in bytes.
    pub(crate) size: u64,
}

impl ChangeTracker for LayerDiff {
    fn size(&self) -> u64 {
        self.size
    }

    fn compare(&self, at: u64, max: u64) -> Result<Comparison> {
        let mut len = max;
        for layer in &self.above {
            let left = layer.size().saturating_sub(at);
            if left == 0 {
                // A layer that ends before `at` hides the layers below it; the range reads as zeros.
                return Ok(Comparison { len, same: false });
            }
            let span = layer.span(at, len.min(left))?;
            len = span.len;
            if span.allocation != Allocation::Unallocated {
                return Ok(Comparison { len, same: false });
            }
        }
        Ok(Comparison { len, same: true })
    }
}
