//! Requirements for the bytes that a target holds, for streams that keep parts of them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};
use xfer_hole_proto::{Fingerprint, HashParams};

/// Computes the fingerprint of the first bytes of an open file or device.
///
/// The arguments are the file, its path for messages, the number of bytes, the hash parameters, and whether a noted
/// fingerprint of the file may be used instead of reading it.
pub type BaseReader = fn(&File, &Path, u64, HashParams, bool) -> Result<Fingerprint>;

/// An older disk of which parts are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseRequirement {
    /// Size of the older disk, in bytes. The target must have at least this size; only its first `size` bytes count.
    pub size: u64,
    /// The fingerprint that these bytes must have and the function that computes it, if it is to be checked.
    pub expected: Option<(Fingerprint, BaseReader)>,
    /// True if a noted fingerprint of the target may be used. It is false if the caller could have written to the
    /// target and noted the fingerprint.
    pub recalls: bool,
}

impl BaseRequirement {
    /// Fails if the target is too small. `device` tells whether it is a device (true) or a file (false); `None` means
    /// that nothing can be kept in this kind of target.
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

    /// Fails if the open target has become too small. If a fingerprint is to be checked, reads the target and fails if
    /// its content differs. Nothing was changed in the target yet.
    pub(crate) fn check(&self, file: &File, path: &Path) -> Result<()> {
        let failed = |source| DiskError::io(path, "cannot tell the size of what is to be kept", source);
        let stat = file.metadata().map_err(failed)?;
        let holds = if stat.is_file() { stat.len() } else { sys::device_size(file).map_err(failed)? };
        // Until it was locked, another program may have written to it.
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
    fn target_that_shrank_before_its_lock_is_refused() {
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
