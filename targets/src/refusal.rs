//! Errors that several kinds of targets share.

use std::path::Path;
use std::{fs, io};

use xfer_hole_os::{DiskError, DiskErrorKind, Result};

/// The only error for a caller who may not know what is there.
pub(crate) fn not_here(dest: &Path) -> DiskError {
    DiskError::new(DiskErrorKind::Refused, dest, "cannot be made or replaced here")
}

/// Refuses a file that another process has locked. File systems without locks are accepted.
pub(crate) fn check_locked(locked: Result<(), fs::TryLockError>, path: &Path) -> Result<()> {
    match locked {
        Err(fs::TryLockError::WouldBlock) => {
            Err(DiskError::new(DiskErrorKind::Busy, path, "is locked by another program, maybe another receiver"))
        }
        Err(fs::TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
            Err(DiskError::io(path, "cannot lock", error))
        }
        _ => Ok(()),
    }
}
