//! Which image a file was made from, noted on the file: in a directory, images of several names become files of one name.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, shown, sys};

use crate::refusal::not_here;

/// Holds the image's own name.
const ATTRIBUTE: &CStr = c"user.xfer-hole.source";

/// Notes it, where the file system has such attributes.
pub(crate) fn note(file: &File, source: Option<&OsStr>) {
    if let Some(source) = source {
        let _unknown = sys::set_xattr(file, ATTRIBUTE, source.as_bytes());
    }
}

/// Refuses to replace a file that was named after another image than this one. A file that nothing is known of may be replaced by an image
/// of its own name.
pub(crate) fn check(dest: &Path, source: &OsStr, confined: bool) -> Result<()> {
    let file: PathBuf = if confined { dest.into() } else { fs::canonicalize(dest).unwrap_or_else(|_| dest.into()) };
    let known = sys::xattr_of(&file, ATTRIBUTE).ok().flatten();
    let is_same = known.as_deref().map_or_else(|| dest.file_name() == Some(source), |known| known == source.as_bytes());
    if is_same {
        return Ok(());
    }
    if confined {
        return Err(not_here(dest));
    }
    let source = shown(source.as_ref());
    let what = match known {
        Some(known) => {
            format!("was made from {}, and {source} would replace it", shown(OsStr::from_bytes(&known).as_ref()))
        }
        None => format!("is there already, and is not known to be made from {source}"),
    };
    Err(DiskError::new(DiskErrorKind::Refused, dest, what)
        .hint("to replace it, name the file instead of its directory, or use --force"))
}
