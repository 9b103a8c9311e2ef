//! Compares two states of one qcow2 image: its disk and an internal snapshot, or two snapshots. A cluster that both
//! states map to the same offset is unchanged, because a shared cluster is never overwritten.

use std::sync::Arc;

use xfer_hole_os::Result;

use crate::changes::change_tracker::{ChangeTracker, Comparison};
use crate::layer::Layer;
use crate::qcow2::Qcow2;
use crate::qcow2::entry::Mapping;
use crate::qcow2::geometry::GuestOffset;
use crate::{BackingChain, BlockStatus, Disk};

/// Compares two states of an image, which may be in any order of time.
#[derive(Debug)]
pub(crate) struct SnapshotDiff {
    pub(crate) newer: Arc<Qcow2>,
    pub(crate) older: Arc<Qcow2>,
    /// The backing disk of both states, if there is one.
    pub(crate) below: Option<BackingChain>,
}

impl ChangeTracker for SnapshotDiff {
    fn size(&self) -> u64 {
        self.older.size()
    }

    fn compare(&self, at: u64, max: u64) -> Result<Comparison> {
        let guest = GuestOffset(at);
        let (newer, older) = (self.newer.table(guest)?, self.older.table(guest)?);
        if newer.0 == older.0 {
            // Both states share this L2 table, or have none, so its entries need no comparison.
            return Ok(Comparison { len: newer.1.min(older.1).min(max), same: true });
        }
        let (newer, older) = (self.newer.mapping(guest, false)?, self.older.mapping(guest, false)?);
        let len = newer.1.min(older.1).min(max);
        match (newer.0, older.0) {
            // The offset of a cluster that is not read may differ.
            (Mapping::Unallocated(_), Mapping::Unallocated(_)) | (Mapping::Zero(_), Mapping::Zero(_)) => {
                Ok(Comparison { len, same: true })
            }
            (Mapping::Unallocated(_), Mapping::Zero(_)) | (Mapping::Zero(_), Mapping::Unallocated(_)) => {
                self.zeros_below(at, len)
            }
            (newer, older) => Ok(Comparison { len, same: newer == older }),
        }
    }
}

impl SnapshotDiff {
    /// Compares zeros with an unallocated cluster: unchanged if the backing disk reads as zeros.
    fn zeros_below(&self, at: u64, max: u64) -> Result<Comparison> {
        match self.below.as_ref().map(|below| (below, below.size().saturating_sub(at))) {
            None | Some((_, 0)) => Ok(Comparison { len: max, same: true }),
            Some((below, left)) => {
                let extent = below.extent(at, max.min(left))?;
                Ok(Comparison { len: extent.len, same: extent.status != BlockStatus::Data })
            }
        }
    }
}
