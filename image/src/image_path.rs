//! Paths of image files: an image's directory, and names relative to it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The directory in an image's path as given.
pub(crate) fn directory(image: &Path) -> &Path {
    image.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path of the file `name` that the image `named_by` refers to. For an image in the working directory, `name` is
/// returned as it is.
pub(crate) fn path_of(named_by: &Path, name: &Path) -> PathBuf {
    let dir = directory(named_by);
    if dir == Path::new(".") { name.into() } else { dir.join(name) }
}

/// The link in /proc to an open file, which gives its true path and opens it again.
pub(crate) fn proc_link(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
