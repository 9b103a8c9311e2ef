//! Directories on the way to a new file: found, made, and made durable.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result};

/// The directory that a name stands in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}

/// The directories that lead to `folder` and aren't there, the innermost first; and the one that is.
pub(crate) fn missing(folder: &Path) -> (Vec<&Path>, &Path) {
    let (mut missing, mut at) = (Vec::new(), folder);
    while fs::metadata(at).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && at != parent(at) {
        missing.push(at);
        at = parent(at);
    }
    (missing, at)
}

/// Directories that were made for a new file, the outermost first.
#[derive(Debug, Default)]
pub(crate) struct CreatedDirs(Vec<PathBuf>);

impl CreatedDirs {
    /// Makes `folder` and what leads to it, with what the umask leaves. If that fails, nothing of it is left.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let mut made = Self::default();
        for dir in missing(folder).0.into_iter().rev() {
            match fs::create_dir(dir) {
                Ok(()) => made.0.push(dir.into()),
                // Somebody else was faster, or it is "made/..".
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

    /// Takes them away again, as far as nobody else has put anything there.
    pub(crate) fn remove(&self) {
        for dir in self.0.iter().rev() {
            let _in_use = fs::remove_dir(dir);
        }
    }

    /// Waits until their names are on stable storage.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.iter().rev().try_for_each(|dir| File::open(parent(dir))?.sync_all())
    }
}
