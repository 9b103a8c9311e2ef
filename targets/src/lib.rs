//! Destinations of xfer-hole: new files, files updated in place, block devices and pipes.
//!
//! [`Target::find`] decides how a destination is written; the [`DiskWriter`] that it opens writes it.

mod acl;
mod attributes;
mod base_requirement;
mod block_device;
mod created_dirs;
mod direct_writer;
mod discard;
mod disk_writer;
mod dry_run;
mod file_name;
mod file_writer;
pub mod fingerprint_store;
mod held_target;
mod in_place;
mod in_use;
mod origin;
mod outcome;
mod permissions;
mod publish;
mod refusal;
mod replaced_file;
mod resolve;
mod resolve_target;
mod stream;
mod target_options;
mod temp_file;
mod temp_lock;
mod temp_mark;
mod unchanged;
mod written_stamp;

pub use base_requirement::BaseReader;
pub use disk_writer::{DiskWriter, StoredFile};
pub use dry_run::ExpectedDisk;
pub use held_target::{CopyOver, HeldTarget};
pub use in_place::InPlace;
pub use outcome::TargetOutcome;
pub use permissions::{Owner, parse_mode, parse_owner};
pub use resolve_target::Target;
pub use target_options::TargetOptions;
pub use unchanged::UnchangedTarget;
pub use written_stamp::WrittenStamp;
