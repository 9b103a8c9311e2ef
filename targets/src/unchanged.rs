//! A target that already holds the disk. It stays open, and locked against other receivers, until that was reported.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, Stamp};

use crate::Target;
use crate::temp_lock::HeldTempLock;

/// A regular file that stays as it is.
#[derive(Debug)]
pub struct UnchangedTarget {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    /// The lock of `DEST.part`. `None` if the file itself is locked, as for an update in place.
    _lock: Option<HeldTempLock>,
}

impl Target {
    /// Opens and locks a target if `is_known` returns true: it holds the disk already. Returns `None` if it doesn't, or
    /// if another program is writing it; the target then has to be written.
    ///
    /// # Errors
    ///
    /// If the target can't be opened or locked.
    pub fn hold_unchanged(&self, is_known: impl Fn() -> bool) -> Result<Option<UnchangedTarget>> {
        // Checked before locking, since most targets don't hold the disk already.
        if !is_known() {
            return Ok(None);
        }
        let path = self.path().to_owned();
        let failed = |source| DiskError::io(&path, "cannot open", source);
        let (file, lock) = match self.lock_in_place()? {
            Some(file) => (file, None),
            None => {
                let lock = self.temp_lock().hold()?;
                let opened =
                    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
                (opened.map_err(failed)?, Some(lock))
            }
        };
        // A receiver that updates the file in place holds a lock on the file itself.
        if lock.is_some() && matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)) {
            return Ok(None);
        }
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        let held = UnchangedTarget { path, file, stamp, _lock: lock };
        // Checked again: until it was locked, another receiver may have changed it.
        let known = is_known() && held.check().is_ok();
        Ok(known.then_some(held))
    }
}

impl UnchangedTarget {
    /// Checks that the file has not changed since it was locked.
    ///
    /// # Errors
    ///
    /// If it has.
    pub fn check(&self) -> Result<()> {
        let now = self.file.metadata().map(|stat| Stamp::of(&stat));
        let named = fs::symlink_metadata(&self.path).map(|stat| Stamp::of(&stat));
        match (now, named) {
            (Ok(now), Ok(named)) if now == self.stamp && named == self.stamp => Ok(()),
            _ => Err(DiskError::new(
                DiskErrorKind::Changed,
                &self.path,
                "changed while it was found to be the disk already",
            )),
        }
    }
}
