//! An older state of a disk, and what of the disk is still as it was then: told from tables alone, without reading any of it.
//!
//! ```text
//! snapshot of the same image   States   L1 and L2 tables of both, entry by entry
//! layer of the backing chain   Layer    what no layer above it has
//! dirty bitmap                 Dirty    its bits
//! ```

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use xfer_hole_os::Result;

use crate::layer::{Allocation, Layer};

/// Which older state of a disk is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncrementalBase {
    /// An internal snapshot of the image, by its ID or name.
    Snapshot(String),
    /// A file of the backing chain, below the image itself.
    Base(PathBuf),
    /// The state that a persistent bitmap of the image has recorded changes since, by the bitmap's name.
    Bitmap(String),
}

/// What was found of a part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Bytes, at least 1. Two neighbours may be alike.
    pub len: u64,
    /// They are what they were. If not, they may be so all the same: nobody has looked at them.
    pub same: bool,
}

/// An older state of a disk.
pub trait ChangeTracker: Debug + Send + Sync {
    /// Bytes of the disk then.
    fn size(&self) -> u64;

    /// Compares from `at` on (below both sizes), at most `max` bytes (at least 1, and not beyond either size).
    fn compare(&self, at: u64, max: u64) -> Result<Comparison>;
}

/// The disk that a layer of the backing chain holds: whatever the layers above it don't have is as it is there.
#[derive(Debug)]
pub(crate) struct LayerDiff {
    pub(crate) above: Vec<Arc<dyn Layer>>,
    /// Of the disk in that layer, in bytes.
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
                // What is below a layer that ends before doesn't show: zeros.
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
