//! Reads disk images: raw files, block devices and qcow2 images with their backing chains.
//!
//! ```text
//! path ─▶ DiskOptions ─▶ BackingChain ─▶ Disk::extent, Disk::read
//!                          │
//!                          └─ Layer (Raw, qcow2), top first; each reads its ImageFile
//! ```
//!
//! [`BackingChain::open`] opens an image with all the files that back it, and checks them. [`Disk`] is the interface
//! for reading: size, extents, data. [`ChangeTracker`] compares a disk with an older state of it. [`ImplicitOpenGate`]
//! decides which of the files that an image refers to may be opened. [`Info`] describes an image without reading its
//! data.

mod backing_chain;
mod backing_filename;
mod backing_ref;
mod chain_opener;
mod changes;
mod confined_dir;
mod content;
mod disk;
mod disk_options;
mod guessed_format;
mod image_file;
mod image_path;
mod implicit_open_gate;
mod info;
mod layer;
mod open_chain;
mod probe;
mod qcow2;
mod raw;

pub use backing_chain::BackingChain;
pub use backing_ref::BackingRef;
pub use changes::change_tracker::{ChangeTracker, Comparison, IncrementalBase};
pub use confined_dir::ConfinedDir;
pub use content::Content;
pub use disk::{BlockStatus, Disk, Extent};
pub use disk_options::DiskOptions;
pub use image_file::ImageFile;
pub use implicit_open_gate::ImplicitOpenGate;
pub use info::{BackingFiles, BitmapInfo, DataFileInfo, Info, Qcow2Info, SnapshotInfo};
pub use layer::Layer;
pub use probe::Format;
pub use raw::{ExtentMethod, Raw};
