//! Refusals that several kinds of targets share.

use std::path::Path;
use std::{fs, io};

use xfer_hole_os::{DiskError, DiskErrorKind, Result};

/// The one refusal of a caller who may not know what is there.
pub(crate) fn not_here(dest: &Path) -> DiskError {
    DiskError::new(DiskErrorKind::Refused, dest, "cannot be made or replaced here")
}

/// Refuses a file that somebody else has locked. Where locks are not to be had, nobody has one.
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
