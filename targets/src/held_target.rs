//! A target that is open for a disk that builds on what the target holds.

use crate::disk_writer::{DiskWriter, StoredFile};

/// A target that is locked and ready for writing, and the files that hold its current bytes.
pub struct HeldTarget {
    /// Writes the bytes that change; all others stay as they are.
    pub writer: Box<dyn DiskWriter>,
    /// Raw layers, the top first: where the first one has a hole, the second one is read.
    pub layers: Vec<StoredFile>,
    /// Number of bytes, from the beginning, that count for the new disk.
    pub size: u64,
    /// Which of the current bytes are not in the writer's file yet.
    pub copy_over: CopyOver,
}

/// Which bytes of a held target have to be copied to the writer's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOver {
    /// None. Zeros may still take space.
    Nothing,
    /// All bytes: they are in the old target, and the writer's file is new.
    All,
    /// The bytes that an earlier, interrupted transfer didn't write. The top layer is the writer's file; the layer
    /// below is the old target.
    Kept,
}
