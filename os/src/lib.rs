//! Linux interfaces for xfer-hole: files, devices, pipes, locks and the page cache. The only crate with unsafe code.

mod aligned;
mod direct;
mod error;
mod listed_locks;
mod page_cache;
pub mod qemu_lock;
mod quote;
mod stamp;
mod storage_id;
pub mod sys;
mod zero;

pub use aligned::{ALIGN, Aligned, aligned_bytes};
pub use direct::{DirectHandle, DirectReader};
pub use error::{DiskError, DiskErrorKind, Result, reason, shown};
pub use page_cache::{DropBehind, settle};
pub use qemu_lock::{LockHolder, lock_for_reading};
pub use quote::{named, quoted};
pub use stamp::{Stamp, flushed};
pub use storage_id::{StorageId, identity, sysfs_disk, sysfs_folder};
pub use zero::{ZEROS, is_zero};
