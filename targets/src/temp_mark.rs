//! The mark that tells a `DEST.part` of xfer-hole from a user's file of that name.
//!
//! ```text
//! user.xfer-hole.part = 1      extended attribute, if the file system supports them
//! user.xfer-hole.part = 1 old  the old disk, which briefly has the name during an exchange: it is never resumed
//! DEST.part.lines              otherwise, and always by recv-hole.sh: a file whose first line begins with XFER-HOLE
//! ```

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::sys;

use crate::file_name::{is_at, is_ours, with_ending, writable};

const ATTRIBUTE: &CStr = c"user.xfer-hole.part";
const VALUE: &[u8] = b"1";
const OLD: &[u8] = b"1 old";
/// How the first line of the side file begins.
const WORD: &[u8] = b"XFER-HOLE";
/// Maximum length of that first line, in bytes.
const LINE_MAX: u64 = 256;

/// Returns `DEST.part.lines`.
fn side_file(part: &Path) -> PathBuf {
    with_ending(part, ".lines")
}

/// Marks a new, locked and empty `.part`. If that is not possible, the file stays unmarked, and is refused as another
/// program's file if it is left behind.
pub(crate) fn set(file: &File, part: &Path) {
    if sys::set_xattr(file, ATTRIBUTE, VALUE).is_ok() {
        return;
    }
    let Ok(stat) = file.metadata() else { return };
    // A side file of an earlier `.part` would prevent the mark.
    remove_side_files(part);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    if let Ok(mut side) = options.open(side_file(part)) {
        let _unmarked = writeln!(side, "XFER-HOLE-PART 1 inode {}", stat.ino());
    }
}

/// Returns true if the `.part` that is open as `file`, with attributes `stat`, is marked.
pub(crate) fn is_set(file: &File, stat: &fs::Metadata, part: &Path) -> bool {
    has_attribute(file) || is_named_by(&side_file(part), stat)
}

fn has_attribute(file: &File) -> bool {
    matches!(sys::short_xattr(file, ATTRIBUTE), Ok(Some(value)) if value == VALUE || value == OLD)
}

/// Marks an old disk that is about to be renamed to its `.part` and removed. If it is left there, it is not mistaken
/// for a user's file and is never resumed, since other programs may have it open. Only the attribute is used, since a
/// side file would mark the new disk.
pub(crate) fn set_old(old: &File) -> io::Result<()> {
    sys::set_xattr(old, ATTRIBUTE, OLD)
}

/// Returns true if the file is an old disk that was left under the name of a `.part`.
pub(crate) fn is_old(file: &File) -> bool {
    matches!(sys::short_xattr(file, ATTRIBUTE), Ok(Some(value)) if value == OLD)
}

/// Removes the mark from an old disk that keeps its name.
pub(crate) fn unset_old(old: &File) {
    // The mark only matters on a file called `DEST.part`.
    let _left = remove_attribute(old);
}

/// Returns true if the side file is one of xfer-hole and names the inode of `.part`. Otherwise an earlier `.part` may
/// have left it.
fn is_named_by(side: &Path, part: &fs::Metadata) -> bool {
    let Some(line) = first_line(side) else { return false };
    let last = line.rsplit(|&byte| byte == b' ').next().and_then(|word| str::from_utf8(word).ok());
    // An incomplete line names no inode and marks nothing.
    last.and_then(|word| word.parse::<u64>().ok()).is_some_and(|inode| inode == part.ino())
}

/// Returns the first line of a side file of xfer-hole, without its LF.
fn first_line(side: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(side).ok()?;
    if !is_ours(&file.metadata().ok()?) {
        return None;
    }
    let mut text = Vec::new();
    file.take(LINE_MAX).read_to_end(&mut text).ok()?;
    let line = text.split(|&byte| byte == b'\n').next()?;
    line.starts_with(WORD).then(|| line.to_vec())
}

/// Removes the mark from a file that has its final name.
pub(crate) fn clear(file: &File, part: &Path) {
    if has_attribute(file) {
        // The mark only matters on a file called `DEST.part`.
        let _left = remove_attribute(file);
    }
    // Another receiver may have created a new `.part`: the side file may be its own, written while it holds the lock. A
    // side file of another owner is left to that receiver.
    if let Some(held) = locked_anew(part) {
        remove_side_files(part);
        let _left = fs::remove_file(part);
        drop(held);
    }
}

/// Creates and locks an empty `.part`, if there are side files to remove and no other receiver has one.
fn locked_anew(part: &Path) -> Option<File> {
    side_files(part).any(|side| first_line(&side).is_some()).then_some(())?;
    let file = writable().create_new(true).open(part).ok()?;
    let held = !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
    (held && file.metadata().is_ok_and(|stat| stat.len() == 0 && is_at(part, &stat))).then_some(file)
}

/// Removing an attribute needs write permission: an owner with read permission only gets it for a moment.
fn remove_attribute(file: &File) -> io::Result<()> {
    let refused = match sys::remove_xattr(file, ATTRIBUTE) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        done => return done,
    };
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & 0o200 != 0 {
        return Err(refused);
    }
    file.set_permissions(Permissions::from_mode(mode | 0o200))?;
    let removed = sys::remove_xattr(file, ATTRIBUTE);
    file.set_permissions(Permissions::from_mode(mode))?;
    removed
}

fn side_files(part: &Path) -> impl Iterator<Item = PathBuf> {
    [".lines", ".next"].into_iter().map(|ending| with_ending(part, ending))
}

/// Removes the side files of a `.part` that no longer exists.
pub(crate) fn remove_side_files(part: &Path) {
    for side in side_files(part) {
        if first_line(&side).is_some() {
            // Without its `.part`, a leftover side file has no effect.
            let _left = fs::remove_file(&side);
        }
    }
}
