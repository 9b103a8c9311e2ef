//! Parent directories of a new file: found, created and synced.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result};

/// Returns the directory of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}

/// Returns the missing directories up to `folder`, the innermost first, and the nearest existing directory.
pub(crate) fn missing(folder: &Path) -> (Vec<&Path>, &Path) {
    let (mut missing, mut at) = (Vec::new(), folder);
    while fs::metadata(at).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && at != parent(at) {
        missing.push(at);
        at = parent(at);
    }
    (missing, at)
}

/// Directories that were created for a new file, the outermost first.
#[derive(Debug, Default)]
pub(crate) struct CreatedDirs(Vec<PathBuf>);

impl CreatedDirs {
    /// Creates `folder` and its missing parents with the permissions that the umask leaves. On failure, the created
    /// directories are removed.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let mut made = Self::default();
        for dir in missing(folder).0.into_iter().rev() {
            match fs::create_dir(dir) {
                Ok(()) => made.0.push(dir.into()),
                // Another process created it first, or the path is like "made/..".
                Err(_) if dir.is_dir() => {}
                Err(source) => {
                    made.remove();
                    return Err(DiskError::io(dir, "cannot make this directory", source));
                }
            }
        }
        if !folder.is_dir() {
            made.remove();
            return Err(DiskError::new(DiskErrorKind::Refused, folder, "is no directory"));
        }
        Ok(made)
    }

    /// Removes the created directories that are still empty.
    pub(crate) fn remove(&self) {
        for dir in self.0.iter().rev() {
            let _in_use = fs::remove_dir(dir);
        }
    }

    /// Syncs the names of the created directories to stable storage.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.iter().rev().try_for_each(|dir| File::open(parent(dir))?.sync_all())
    }
}
