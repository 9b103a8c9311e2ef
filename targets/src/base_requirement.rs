//! What a target has to hold already, where parts of it are kept.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};
use xfer_hole_proto::{Fingerprint, HashParams};

/// Reads the first bytes of an open file or device, so many, for their fingerprint with these parameters. The last argument says whether a
/// fingerprint that was noted of the file is believed. The path is the one for messages.
pub type BaseReader = fn(&File, &Path, u64, HashParams, bool) -> Result<Fingerprint>;

/// An older disk that parts are kept of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseRequirement {
    /// In bytes: the target has as many, or more, of which the first count.
    pub size: u64,
    /// What those bytes have to be, and what reads them, if that is to be checked.
    pub expected: Option<(Fingerprint, BaseReader)>,
    /// A fingerprint that was noted of the target is believed. Whoever may write beside it, unseen, could have noted it.
    pub recalls: bool,
}

impl BaseRequirement {
    /// Refuses a target that is too small. `device`: whether it is one, or a file; none if nothing is kept in what it is.
    pub(crate) fn check_size(&self, path: &Path, device: Option<bool>) -> Result<()> {
        let base = self.size;
        let refused = |what: String| Err(DiskError::new(DiskErrorKind::Refused, path, what));
        let failed = |source| DiskError::io(path, "cannot tell the size of what is to be kept", source);
        let holds = match device {
            None => return refused("the stream keeps parts of an older image, which can't be kept here".into()),
            Some(true) => File::open(path).and_then(|device| sys::device_size(&device)).map_err(failed)?,
            Some(false) => match fs::symlink_metadata(path) {
                Ok(old) => old.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let what = format!("the stream keeps parts of an older image of {base} bytes, but there is none");
                    return refused(what);
                }
                Err(source) => return Err(failed(source)),
            },
        };
        self.check_holds(path, holds)
    }

    fn check_holds(&self, path: &Path, holds: u64) -> Result<()> {
        let base = self.size;
        if holds >= base {
            return Ok(());
        }
        let what = format!("the stream keeps parts of an older image of {base} bytes, but it has {holds}");
        Err(DiskError::new(DiskErrorKind::Refused, path, what))
    }

    /// Refuses what was opened if it has become too small since, reads it, if that is asked for, and refuses another content. Nothing of
    /// it has been changed yet.
    pub(crate) fn check(&self, file: &File, path: &Path) -> Result<()> {
        let failed = |source| DiskError::io(path, "cannot tell the size of what is to be kept", source);
        let stat = file.metadata().map_err(failed)?;
        let holds = if stat.is_file() { stat.len() } else { sys::device_size(file).map_err(failed)? };
        // It may have been another's to write until it was locked.
        self.check_holds(path, holds)?;
        let Some((expected, read)) = self.expected else { return Ok(()) };
        let found = read(file, path, self.size, expected.sums, self.recalls).map_err(|error| match error.kind() {
            DiskErrorKind::Changed => DiskError::new(DiskErrorKind::Changed, path, "changed while it was checked"),
            _ => error,
        })?;
        if found == expected {
            return Ok(());
        }
        let what = format!("is not the older disk that the changes are for: it is {found}, and not {expected}");
        let hint = "xfer-hole digest IMAGE tells whether it is the new disk; else send the changes since the disk that it holds, or the whole disk, or use --delta";
        Err(DiskError::new(DiskErrorKind::Refused, path, what).hint(hint).found(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_became_too_small_before_it_was_locked_is_refused() {
        let path = std::env::temp_dir().join(format!("xfer-hole-basis-{}", std::process::id()));
        fs::write(&path, [7; 100]).unwrap();
        let file = File::open(&path).unwrap();
        let basis = |size| BaseRequirement { size, expected: None, recalls: false };
        assert!(basis(100).check(&file, &path).is_ok());
        let refused = basis(101).check(&file, &path).unwrap_err().to_string();
        assert!(refused.ends_with("keeps parts of an older image of 101 bytes, but it has 100"), "{refused}");
        fs::remove_file(path).unwrap();
    }
}
