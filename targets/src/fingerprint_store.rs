//! Stores noted fingerprints: one file for each image, in the user's cache directory. Notes belong to one user and can
//! be removed at any time.

use std::cmp::Reverse;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{env, process};

use nix::unistd::User;
use xfer_hole_os::sys;
use xfer_hole_proto::{Digest, Fingerprint};

use crate::created_dirs::parent;

/// First line of a note. The lines of the image's state follow, then one fingerprint per line.
const MAGIC: &str = "XFER-HOLE-FINGERPRINT 2\n";
/// Maximum bytes of a note that are read.
const NOTE_MAX: u64 = 64 << 10;
/// Maximum number of notes. The oldest are removed.
const NOTES_MAX: usize = 1000;

/// Returns the path of the note of image `top`, or `None` without a home directory.
pub fn place(top: &Path) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(|| Some(User::from_uid(nix::unistd::geteuid()).ok()??.dir));
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))?;
    Some(cache.join("xfer-hole").join(format!("{}.fingerprint", Digest::of(top.as_os_str().as_bytes()))))
}

/// Returns the fingerprints that were noted of image `top` in this state.
pub fn read(top: &Path, state: &str) -> Vec<Fingerprint> {
    let text = place(top).and_then(|path| look(&path));
    let text = text.as_deref().and_then(|text| text.strip_prefix(MAGIC)?.strip_prefix(state));
    // An incomplete last line is ignored.
    let lines = text.into_iter().flat_map(|text| text.split_inclusive('\n')).filter_map(|line| line.strip_suffix('\n'));
    lines.filter_map(Fingerprint::parse).collect()
}

/// Notes a fingerprint, and keeps the others of the same state.
///
/// # Errors
///
/// If the note can't be written.
pub fn write(top: &Path, state: &str, fingerprint: &Fingerprint) -> io::Result<()> {
    let path = place(top).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no home directory"))?;
    let others = read(top, state).into_iter().filter(|other| other.sums != fingerprint.sums);
    let mut text = format!("{MAGIC}{state}{fingerprint}\n");
    others.for_each(|other| text += &format!("{other}\n"));
    let folder = parent(&path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // The note is replaced as a whole.
    let new = path.with_extension(format!("{}.new", process::id()));
    let _left = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        let _left = fs::remove_file(&new);
    }
    prune(folder);
    written
}

/// Removes the note of the file at `path`, links followed, before it is written.
pub fn forget(path: &Path) {
    let top = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    remove(&top);
}

/// Removes the note of image `top`, whose path has no links.
pub fn remove(top: &Path) {
    let _left = place(top).map(fs::remove_file);
}

/// Reads a note if it belongs to this user.
fn look(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let stat = file.metadata().ok()?;
    if !stat.is_file() || stat.uid() != sys::effective_user() || stat.mode() & 0o022 != 0 {
        return None;
    }
    let mut text = String::new();
    file.take(NOTE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Removes the oldest notes if there are too many, including temporary files of processes that were killed.
fn prune(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> =
        files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path()))).collect();
    if files.len() > NOTES_MAX {
        files.sort_unstable_by_key(|(time, _)| Reverse(*time));
        for (_, file) in &files[NOTES_MAX..] {
            let _left = fs::remove_file(file);
        }
    }
}
