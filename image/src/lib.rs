//! Disks, read by their extents and written with their holes.
//!
//! ```text
//! Image.extent() ─▶ Plan ─▶ Blocks ─▶ Coalescer ─▶ records      reading
//!                                     records ─▶ Sink      writing
//! ```
//!
//! An [`Disk`] answers what is where, a [`Plan`] turns that into steps, [`SerialReader`] reads them interval by interval and
//! finds zeros and digests, [`Coalescer`] joins the runs to records. A [`DiskWriter`] takes data and holes at their places, and
//! [`Target`] alone decides what becomes of the file or device that was there before.
//!
//! Raw system calls and unsafe code stand in `sys` only.

mod aligned;
mod backing_chain;
mod backing_filename;
mod backing_ref;
mod base_matcher;
mod chain_opener;
mod change_tracker;
mod coalescer;
mod confined_dir;
mod content;
mod data_estimate;
mod direct;
mod disk;
mod disk_options;
mod error;
mod fiemap_extents;
mod fingerprint_cache;
mod guessed_format;
mod hash_disk;
mod image_file;
mod implicit_open_gate;
mod incremental_base;
mod info;
mod layer;
mod layer_pair;
mod listed_locks;
mod page_cache;
mod plan;
mod probe;
mod progress_counters;
mod qcow2;
mod qemu_lock;
mod quote;
mod raw;
mod seek_extents;
mod segment;
mod stamp;
mod storage_id;
pub mod sys;
mod target;
mod zero;

pub use aligned::Aligned;
pub use backing_chain::BackingChain;
pub use backing_ref::BackingRef;
pub use base_matcher::BaseMatcher;
pub use change_tracker::{ChangeTracker, Comparison, IncrementalBase};
pub use coalescer::{Coalescer, Piece};
pub use confined_dir::ConfinedDir;
pub use content::Content;
pub use data_estimate::{DataEstimate, DataEstimator};
pub use disk::{BlockStatus, Disk, Extent};
pub use disk_options::DiskOptions;
pub use error::{DiskError, DiskErrorKind, Result, reason, shown};
pub use fingerprint_cache::{CacheKey, TargetNote, WrittenStamp};
pub use hash_disk::{fingerprint, hash_disk, record_lines};
pub use image_file::ImageFile;
pub use implicit_open_gate::ImplicitOpenGate;
pub use info::{BackingFiles, BitmapInfo, DataFileInfo, Info, Qcow2Info, SnapshotInfo};
pub use layer_pair::{LayerPair, LayerPairOptions, ParentCoverage};
pub use plan::{Action, Plan, Step};
pub use probe::Format;
pub use progress_counters::{Phase, ProgressCounters};
pub use raw::ExtentMethod;
pub use segment::{
    ParallelCopy, ParallelReader, Payload, PayloadPart, ReadOptions, Segment, SegmentBatch, SerialReader, UNIT, put,
};
pub use stamp::Stamp;
pub use target::{
    DeltaTarget, DiskWriter, ExpectedDisk, FormatWarning, Owner, Target, TargetOptions, TargetOutcome, UnchangedTarget,
    parse_mode, parse_owner, read_back,
};
