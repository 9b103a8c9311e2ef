//! How a target may be written: what the user allows.

use std::ffi::OsString;
use std::time::Duration;

use crate::in_use::InUse;
use crate::permissions::{FilePermissions, Owner};

/// What the user allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetOptions {
    /// Update an existing regular file directly.
    pub in_place: bool,
    /// Holes of a block device that doesn't give back the space of what it zeroes are discarded, and read back.
    pub discard: bool,
    /// Success is said without waiting for the disk.
    pub no_sync: bool,
    /// A block device holds zeros already: holes need not be written.
    pub target_is_zero: bool,
    /// A DEST that is there is refused, and so is one that somebody else makes meanwhile.
    pub no_clobber: bool,
    /// Directories that lead to DEST and aren't there are made when writing begins.
    pub mkpath: bool,
    /// The file's permissions, 0 to 0o7777. Without: those of the file that is replaced, or what the umask leaves.
    pub mode: Option<u32>,
    /// The file's owner. Without: that of the file that is replaced, where that is permitted.
    pub owner: Option<Owner>,
    /// What the file is called if DEST is a directory, or ends in a slash: one component. Without, a directory is refused.
    pub name: Option<OsString>,
    /// What the image itself is called: it is noted on the file.
    pub source: Option<OsString>,
    /// DEST stands in a directory under `name`, though it is named whole: a file there that was made from another image is not replaced.
    pub is_named: bool,
    /// How long a lock of `.part` is waited for, 90 s at most, while its holder writes nothing: it may be dead, and its system is yet
    /// to find out. Without, a lock is refused at once.
    pub patience: Option<Duration>,
    /// DEST is named by somebody who may write here, and not read. It is a regular file or a new one, no link is followed, nothing
    /// but plain permissions is taken over from an old file, and messages don't tell what was there.
    pub confined: bool,
    /// Written past the page cache, as far as that can be. Streams have none.
    pub direct: bool,
    /// A fingerprint that was noted of it is believed where nothing was touched since, and it isn't read.
    pub remember: bool,
    /// What was written is to be read back, and compared, before it is done ([`xfer_hole_transfer::read_back`]): streams are refused.
    pub read_back: bool,
    /// Parts of what is there are kept only where [`Target::builds_on`] says what it has to be.
    pub check_base: bool,
    /// Written although a virtual machine or a loop device uses it, although the file there came from another image, and although
    /// `DEST.part` is another program's file.
    pub force: bool,
}

impl TargetOptions {
    pub(crate) fn rights(&self) -> FilePermissions {
        FilePermissions { mode: self.mode, owner: self.owner }
    }

    pub(crate) fn in_use(&self) -> InUse {
        InUse { force: self.force, confined: self.confined }
    }
}
