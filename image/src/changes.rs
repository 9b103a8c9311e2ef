//! Compares a disk with an older state: a snapshot, a layer of the chain, or the state before a dirty bitmap.

pub(crate) mod change_tracker;
pub(crate) mod dirty_bitmap;
pub(crate) mod found_base;
pub(crate) mod incremental_base;
pub(crate) mod snapshot_diff;
