//! A directory that an image has to lie beneath, with all files that it names, for a key that may read nothing else.
//!
//! The kernel holds the look-up of names to the directory (openat2(2)). One answer is given for all that isn't found: what lies outside
//! isn't told.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};

use crate::ImageFile;

/// The directory.
#[derive(Clone, Debug)]
pub struct ConfinedDir {
    dir: Arc<File>,
    path: PathBuf,
}

/// They are the same if they are of the same directory by its true path.
impl PartialEq for ConfinedDir {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for ConfinedDir {}

impl ConfinedDir {
    /// Opens the directory; links that lead to it are followed.
    pub fn of(path: &Path) -> Result<Self> {
        let failed = |source| DiskError::io(path, "cannot open the directory", source);
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path).map_err(failed)?;
        let path = fs::read_link(link_of(&dir)).map_err(failed)?;
        Ok(Self { dir: Arc::new(dir), path })
    }

    /// Opens an image by its name relative to the directory. No link is followed.
    pub fn open(&self, name: &Path) -> Result<ImageFile> {
        self.host(name, name, false).ok_or_else(|| {
            DiskError::new(
                DiskErrorKind::Refused,
                name,
                "is not there, or is no regular file within the directory allowed here",
            )
        })
    }

    /// Opens the file that an image in the directory `own` calls `name`, and that is called `path` in messages. Links that stay within
    /// bounds are followed.
    pub fn open_named(&self, own: &Path, name: &Path, path: &Path) -> Option<ImageFile> {
        let joined = own.join(name);
        self.host(joined.strip_prefix(&self.path).ok()?, path, true)
    }

    fn host(&self, name: &Path, path: &Path, follows: bool) -> Option<ImageFile> {
        // Only looked at: a fifo or a device does nothing when it is opened so.
        let place = sys::look_beneath(&self.dir, name, follows).ok()?;
        if !place.metadata().ok()?.is_file() {
            return None;
        }
        let link = link_of(&place);
        let lies = fs::read_link(&link).ok()?;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(link).ok()?;
        ImageFile::of(file, path, lies.parent().map(Path::to_path_buf)).ok()
    }
}

/// Where the system tells the true path of an open file, and opens it again.
fn link_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
