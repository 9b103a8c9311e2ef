//! Notes on a file the name of the image that it was made from. In a destination directory, images of different paths
//! can have the same file name.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, shown, sys};

use crate::refusal::not_here;

/// Extended attribute that holds the image's name.
const ATTRIBUTE: &CStr = c"user.xfer-hole.source";

/// Notes the image's name, if the file system supports extended attributes.
pub(crate) fn note(file: &File, source: Option<&OsStr>) {
    if let Some(source) = source {
        let _unknown = sys::set_xattr(file, ATTRIBUTE, source.as_bytes());
    }
}

/// Refuses to replace a file that was made from another image. A file without a note may be replaced by an image with
/// the file's own name.
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
