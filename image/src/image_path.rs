//! Paths of image files: the directory of one, and what it names from there.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The directory in an image's path as given.
pub(crate) fn directory(image: &Path) -> &Path {
    image.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file that the image `named_by` calls `name`. An image of the working directory keeps its names short.
pub(crate) fn path_of(named_by: &Path, name: &Path) -> PathBuf {
    let dir = directory(named_by);
    if dir == Path::new(".") { name.into() } else { dir.join(name) }
}

/// Where the system tells the true path of an open file, and opens it again.
pub(crate) fn proc_link(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
