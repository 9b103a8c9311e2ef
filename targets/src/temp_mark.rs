//! The mark by which a `DEST.part` is known to be a temporary file of ours, and not a user's file of that name.
//!
//! ```text
//! user.xfer-hole.part = 1     extended attribute, where the file system has them
//! user.xfer-hole.part = 1 old the old disk, which has the name for a moment while names are exchanged: never gone on with
//! DEST.part.lines             else, and always by recv-hole.sh: a file whose first line begins with XFER-HOLE
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
/// No first line of ours is longer, in bytes.
const LINE_MAX: u64 = 256;

/// `DEST.part.lines`.
fn side_file(part: &Path) -> PathBuf {
    with_ending(part, ".lines")
}

/// Marks a new `.part`, which we have locked and nothing has been written to. Where that can't be, it stays unmarked: it is refused as
/// another program's file if it is left behind.
pub(crate) fn set(file: &File, part: &Path) {
    if sys::set_xattr(file, ATTRIBUTE, VALUE).is_ok() {
        return;
    }
    let Ok(stat) = file.metadata() else { return };
    // One that an earlier `.part` left would keep this one unmarked.
    remove_side_files(part);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    if let Ok(mut side) = options.open(side_file(part)) {
        let _unmarked = writeln!(side, "XFER-HOLE-PART 1 inode {}", stat.ino());
    }
}

/// True if the `.part` that is open as `file`, with these attributes, is marked as ours.
pub(crate) fn is_set(file: &File, stat: &fs::Metadata, part: &Path) -> bool {
    has_attribute(file) || is_named_by(&side_file(part), stat)
}

fn has_attribute(file: &File) -> bool {
    matches!(sys::short_xattr(file, ATTRIBUTE), Ok(Some(value)) if value == VALUE || value == OLD)
}

/// Marks an old disk that is about to get the name of its `.part`, and to be removed: if it is left there, it is no user's file, and no
/// transfer goes on with it, since other programs may have it open. Only by attribute: a side file names the new disk.
pub(crate) fn set_old(old: &File) -> io::Result<()> {
    sys::set_xattr(old, ATTRIBUTE, OLD)
}

/// True if it is an old disk that was left under the name of a `.part`.
pub(crate) fn is_old(file: &File) -> bool {
    matches!(sys::short_xattr(file, ATTRIBUTE), Ok(Some(value)) if value == OLD)
}

/// Takes the mark off an old disk that keeps its name.
pub(crate) fn unset_old(old: &File) {
    // Nothing goes by it under any other name than `DEST.part`.
    let _left = remove_attribute(old);
}

/// True if this side file is ours, and names the inode of `.part`: it may have been left by an earlier one.
fn is_named_by(side: &Path, part: &fs::Metadata) -> bool {
    let Some(line) = first_line(side) else { return false };
    let last = line.rsplit(|&byte| byte == b' ').next().and_then(|word| str::from_utf8(word).ok());
    // A line that was cut names none, and marks nothing.
    last.and_then(|word| word.parse::<u64>().ok()).is_some_and(|inode| inode == part.ino())
}

/// The first line of a side file of ours, without its LF.
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

/// Takes the mark off a file that has its final name.
pub(crate) fn clear(file: &File, part: &Path) {
    if has_attribute(file) {
        // Nothing goes by it under any other name than `DEST.part`.
        let _left = remove_attribute(file);
    }
    // Another receiver may have begun a new `.part` by now: the side file may be its own, which is made under the lock of that. One that isn't
    // ours is left to it.
    if let Some(held) = locked_anew(part) {
        remove_side_files(part);
        let _left = fs::remove_file(part);
        drop(held);
    }
}

/// An empty `.part`, made and locked, if there are side files to be removed and no other receiver has one.
fn locked_anew(part: &Path) -> Option<File> {
    side_files(part).any(|side| first_line(&side).is_some()).then_some(())?;
    let file = writable().create_new(true).open(part).ok()?;
    let held = !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
    (held && file.metadata().is_ok_and(|stat| stat.len() == 0 && is_at(part, &stat))).then_some(file)
}

/// Only who may write to the file may remove it: an owner who is permitted to read alone gives himself that right for a moment.
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

/// Removes the side files of a `.part` that is no more.
pub(crate) fn remove_side_files(part: &Path) {
    for side in side_files(part) {
        if first_line(&side).is_some() {
            // Without its `.part`, nothing goes by a leftover.
            let _left = fs::remove_file(&side);
        }
    }
}
