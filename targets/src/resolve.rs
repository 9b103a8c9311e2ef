//! Finds the file that a DEST names, and checks whether a new file can be renamed over it.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};

use crate::created_dirs::{missing, parent};
use crate::in_use::is_swap;
use crate::origin;
use crate::refusal::not_here;
use crate::target_options::TargetOptions;

/// Returns the attributes of the file at `dest`, or `None` if there is none.
pub(crate) fn look(dest: &Path, options: &TargetOptions) -> Result<Option<Metadata>> {
    let stat = if options.confined { fs::symlink_metadata(dest) } else { fs::metadata(dest) };
    match stat {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DiskError::io(dest, "cannot write there", source)),
    }
}

/// Returns DEST itself, or the file called `name` in it if DEST is a directory, with its attributes.
pub(crate) fn in_directory(dest: &Path, name: &OsStr, options: &TargetOptions) -> Result<(PathBuf, Option<Metadata>)> {
    let stat = look(dest, options)?;
    let slash = dest.as_os_str().as_bytes().ends_with(b"/");
    if !slash && !stat.as_ref().is_some_and(Metadata::is_dir) {
        return Ok((dest.to_path_buf(), stat));
    }
    if Path::new(name).file_name() != Some(name) {
        return Err(DiskError::new(
            DiskErrorKind::Refused,
            dest,
            "is a directory, in which no file can have the name given",
        ));
    }
    let dest = dest.join(name);
    let stat = look(&dest, options)?;
    check_origin(&dest, stat.as_ref(), options)?;
    Ok((dest, stat))
}

/// Refuses to replace a file in a directory that was made from another image.
pub(crate) fn check_origin(dest: &Path, stat: Option<&Metadata>, options: &TargetOptions) -> Result<()> {
    match &options.source {
        Some(source) if !options.force && stat.is_some_and(Metadata::is_file) => {
            origin::check(dest, source, options.confined)
        }
        _ => Ok(()),
    }
}

/// Follows symbolic links. The final file need not exist.
pub(crate) fn follow(dest: &Path) -> Result<PathBuf> {
    let mut path = dest.to_path_buf();
    for _ in 0..40 {
        if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
            return Err(DiskError::new(DiskErrorKind::Refused, dest, "no such directory"));
        }
        match fs::read_link(&path) {
            Ok(link) => path = parent(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(DiskError::new(DiskErrorKind::Refused, dest, "too many symbolic links"))
}

/// Refuses to create a new file in /dev: the name of a device was mistyped, and the file would be in memory.
fn check_no_device_was_meant(dest: &Path, folder: &Path) -> Result<()> {
    let folder = fs::canonicalize(folder).unwrap_or_default();
    if folder.starts_with("/dev") && !folder.starts_with("/dev/shm") {
        return Err(DiskError::new(DiskErrorKind::Refused, dest, "is no device, and a file is not made there"));
    }
    Ok(())
}

/// Refuses a path that a new file can't be renamed to, before anything is sent.
pub(crate) fn check_can_rename_over(dest: &Path, old: Option<&Metadata>, options: &TargetOptions) -> Result<()> {
    let hinted = |error: DiskError| match old {
        Some(_) if !options.confined => error.hint("use --in-place to update the file directly"),
        _ => error,
    };
    if old.is_none() {
        // Nothing is made there, a directory neither.
        check_no_device_was_meant(dest, missing(parent(dest)).1)?;
    }
    let folder = if options.mkpath { missing(parent(dest)).1 } else { parent(dest) };
    let folder_stat = fs::metadata(folder).map_err(|source| DiskError::io(folder, "no such directory", source));
    let folder_stat = folder_stat.map_err(|error| match error.system().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => DiskError::new(DiskErrorKind::NoDirectory, folder, "no such directory")
            .hint("--mkpath makes the directories that lead to it"),
        _ => error,
    })?;
    if !folder_stat.is_dir() {
        return Err(DiskError::new(DiskErrorKind::Refused, folder, "is no directory"));
    }
    sys::can_write_dir(folder)
        .map_err(|source| hinted(DiskError::io(folder, "cannot make files in this directory", source)))?;
    let Some(old) = old else { return Ok(()) };
    let fixed = sys::fixed(dest);
    let user = sys::effective_user();
    let sticky = folder_stat.mode() & 0o1000 != 0 && user != 0 && ![old.uid(), folder_stat.uid()].contains(&user);
    let why = match fixed {
        _ if fixed.mount_point => "is a mount point",
        _ if fixed.immutable => "is immutable",
        _ if fixed.append_only => "is append-only",
        _ if is_swap(old) => "is in use as swap",
        _ if sticky => "belongs to another user, in a directory where only owners rename",
        _ => return Ok(()),
    };
    if options.confined {
        return Err(not_here(dest));
    }
    Err(hinted(DiskError::new(DiskErrorKind::Refused, dest, format!("cannot be renamed over: it {why}"))))
}
