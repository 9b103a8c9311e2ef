//! What of a disk is still as it was in an older state: by a snapshot, a layer of the chain, or a dirty bitmap.

pub(crate) mod change_tracker;
pub(crate) mod dirty_bitmap;
pub(crate) mod found_base;
pub(crate) mod incremental_base;
pub(crate) mod snapshot_diff;
