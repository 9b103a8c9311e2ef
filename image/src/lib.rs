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
