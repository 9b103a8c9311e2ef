//! A target that is opened for a disk that builds on what it holds.

use crate::disk_writer::{DiskWriter, StoredFile};

/// A target that is locked and ready, and the files that its bytes so far lie in.
pub struct HeldTarget {
    /// Takes what is to be changed; what is kept stays as it is.
    pub writer: Box<dyn DiskWriter>,
    /// Raw layers, the top first: where the first of two has a hole, the second shows through.
    pub layers: Vec<StoredFile>,
    /// In bytes: so many of them count for the disk that comes.
    pub size: u64,
    /// Which of its bytes are not in the writer's file yet.
    pub copy_over: CopyOver,
}

/// Which bytes of a held target are not in the writer's file yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOver {
    /// None. Zeros that it holds may take space.
    Nothing,
    /// All: they are the old target's, and the sink is new.
    All,
    /// Those that an earlier transfer has not left in the sink: the top layer of the disk is the sink's file, the one below it the old
    /// target.
    Kept,
}
