//! Names of a target and of the files next to it, and checks of their owner.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::sys;

/// Returns `DEST.part`.
pub(crate) fn beside(dest: &Path) -> PathBuf {
    with_ending(dest, ".part")
}

/// Appends `ending` to a path.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Returns true for a regular file with one name that this user owns.
pub(crate) fn is_ours(stat: &fs::Metadata) -> bool {
    stat.is_file() && stat.nlink() == 1 && stat.uid() == sys::effective_user()
}

/// Returns true if `path` is a name of the file with attributes `stat`.
pub(crate) fn is_at(path: &Path, stat: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (stat.dev(), stat.ino()))
}

/// Returns the options to open a temporary file: links are not followed, and the mode is 0600.
pub(crate) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}
