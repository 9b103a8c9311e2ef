//! Names of a target and of the files beside it, and whose these are.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::sys;

/// `DEST.part`.
pub(crate) fn beside(dest: &Path) -> PathBuf {
    with_ending(dest, ".part")
}

/// The name with this behind it.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// True for a plain file of one name that this user owns.
pub(crate) fn is_ours(stat: &fs::Metadata) -> bool {
    stat.is_file() && stat.nlink() == 1 && stat.uid() == sys::effective_user()
}

/// True if the name is that of the file with these attributes.
pub(crate) fn is_at(path: &Path, stat: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (stat.dev(), stat.ino()))
}

/// How a temporary file is opened: without following a link, and private.
pub(crate) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}
