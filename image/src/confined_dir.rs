//! A directory that contains all images and files that may be opened, for an SSH key that may read nothing else.
//!
//! The kernel confines name lookups to the directory (openat2(2)). All files that are not found get the same error, so
//! that it discloses nothing about files outside.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};

use crate::ImageFile;

/// A directory that lookups can't leave.
#[derive(Clone, Debug)]
pub struct ConfinedDir {
    dir: Arc<File>,
    path: PathBuf,
}

/// Two values are equal if the true paths of their directories are.
impl PartialEq for ConfinedDir {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for ConfinedDir {}

impl ConfinedDir {
    /// Opens the directory. Symbolic links in `path` are followed.
    ///
    /// # Errors
    ///
    /// The directory can't be opened.
    pub fn of(path: &Path) -> Result<Self> {
        let failed = |source| DiskError::io(path, "cannot open the directory", source);
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path).map_err(failed)?;
        let path = fs::read_link(link_of(&dir)).map_err(failed)?;
        Ok(Self { dir: Arc::new(dir), path })
    }

    /// Opens an image by its name relative to the directory. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// The image is not found, or is no regular file or block device.
    pub fn open(&self, name: &Path) -> Result<ImageFile> {
        self.find(name, name, false).ok_or_else(|| {
            DiskError::new(
                DiskErrorKind::Refused,
                name,
                "is not there, or is no regular file within the directory allowed here",
            )
        })
    }

    /// Opens the file `name` that an image in the directory `own` refers to, and that messages call `path`. Symbolic
    /// links that stay within the directory are followed. `None` if no such file is found.
    pub fn open_named(&self, own: &Path, name: &Path, path: &Path) -> Option<ImageFile> {
        let joined = own.join(name);
        self.find(joined.strip_prefix(&self.path).ok()?, path, true)
    }

    fn find(&self, name: &Path, path: &Path, follows: bool) -> Option<ImageFile> {
        // O_PATH finds the file without opening it, so a fifo or a device is not affected.
        let found = sys::look_beneath(&self.dir, name, follows).ok()?;
        if !found.metadata().ok()?.is_file() {
            return None;
        }
        let link = link_of(&found);
        let true_path = fs::read_link(&link).ok()?;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(link).ok()?;
        ImageFile::of(file, path, true_path.parent().map(Path::to_path_buf)).ok()
    }
}

/// The link in /proc to an open file, which gives its true path and opens it again.
fn link_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
