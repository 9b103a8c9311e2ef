//! The engine of xfer-hole: local copies, deltas, verification, and folding layers of raw files.
//!
//! [`ParallelCopy`] copies a disk on one machine, [`DeltaTarget`] is a target that is changed by a delta, [`verify`]
//! compares a disk with a manifest, [`CacheKey`] finds noted fingerprints, and [`LayerPair`] folds or prunes
//! neighbouring layers.

mod base_reader;
mod delta_target;
mod fingerprint_cache;
mod format_warning;
mod layer_pair;
mod manifest_reader;
mod parallel_copy;
mod verify;
mod verify_written;

pub use base_reader::read_base;
pub use delta_target::DeltaTarget;
pub use fingerprint_cache::{CacheKey, TargetNote, recall_target};
pub use format_warning::FormatWarning;
pub use layer_pair::{LayerPair, LayerPairOptions, ParentCoverage};
pub use manifest_reader::ManifestInput;
pub use parallel_copy::{COPY_THREADS_MAX, ParallelCopy, copy_threads, put};
pub use verify::{Verdict, verify};
pub use verify_written::read_back;
