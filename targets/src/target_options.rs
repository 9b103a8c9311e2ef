//! How a target may be written: the user's options.

use std::ffi::OsString;
use std::time::Duration;

use crate::in_use::InUse;
use crate::permissions::{FilePermissions, Owner};

/// How a target may be written: the user's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetOptions {
    /// Update an existing regular file in place.
    pub in_place: bool,
    /// Discard holes of a block device that doesn't release the space of zeroed blocks, and read them back.
    pub discard: bool,
    /// Report success without a sync.
    pub no_sync: bool,
    /// Assume that a block device holds zeros: holes are not written.
    pub target_is_zero: bool,
    /// Refuse a DEST that exists, also if another process creates it during the transfer.
    pub no_clobber: bool,
    /// Create missing parent directories of DEST when writing begins.
    pub mkpath: bool,
    /// Mode of the file, 0 to 0o7777. `None`: the mode of the file that is replaced, or what the umask leaves.
    pub mode: Option<u32>,
    /// Owner of the file. `None`: the owner of the file that is replaced, if that is permitted.
    pub owner: Option<Owner>,
    /// File name, one component, to use if DEST is a directory or ends in a slash. `None`: a directory is refused.
    pub name: Option<OsString>,
    /// Name of the source image, which is noted on the file.
    pub source: Option<OsString>,
    /// DEST is the path of a file called `name` in a directory: a file there that was made from another image is not
    /// replaced.
    pub is_named: bool,
    /// How long to wait for a lock of `.part`, at most 90 s, while its holder writes nothing: the holder may be on a
    /// machine that died, which its file server has not noticed yet. `None`: fail immediately.
    pub patience: Option<Duration>,
    /// DEST was named by a caller who may write here and not read. It has to be a regular file or a new one, links are
    /// not followed, only plain permissions are kept from an old file, and messages don't tell what was there.
    pub confined: bool,
    /// Write past the page cache if possible. It has no effect on streams.
    pub direct: bool,
    /// Use a noted fingerprint of the target instead of reading it, if the target has not changed since.
    pub remember: bool,
    /// Read back and compare the target before the transfer is reported as done. Streams are refused.
    pub read_back: bool,
    /// Keep parts of the target only if [`Target::builds_on`](crate::Target::builds_on) gives its fingerprint.
    pub check_base: bool,
    /// Write although a virtual machine or a loop device uses the target, although the file was made from another
    /// image, or although `DEST.part` belongs to another program.
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
