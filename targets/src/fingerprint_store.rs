//! Where notes are kept: one file for each image, in the user's cache. They belong to this user alone, and none of them is ever needed.

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

/// How a note begins. The lines of the state follow, then a fingerprint in each line.
const MAGIC: &str = "XFER-HOLE-FINGERPRINT 2\n";
/// The longest that is read, in bytes.
const LONGEST: u64 = 64 << 10;
/// Notes that are kept. The oldest go.
const MOST: usize = 1000;

/// The note of an image.
pub fn place(top: &Path) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(|| Some(User::from_uid(nix::unistd::geteuid()).ok()??.dir));
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))?;
    Some(cache.join("xfer-hole").join(format!("{}.fingerprint", Digest::of(top.as_os_str().as_bytes()))))
}

/// The fingerprints that were noted of an image in this state.
pub fn read(top: &Path, state: &str) -> Vec<Fingerprint> {
    let text = place(top).and_then(|place| look(&place));
    let text = text.as_deref().and_then(|text| text.strip_prefix(MAGIC)?.strip_prefix(state));
    // A line that isn't whole is none.
    let lines = text.into_iter().flat_map(|text| text.split_inclusive('\n')).filter_map(|line| line.strip_suffix('\n'));
    lines.filter_map(Fingerprint::parse).collect()
}

/// Notes one, and keeps those of the same state.
pub fn write(top: &Path, state: &str, fingerprint: &Fingerprint) -> io::Result<()> {
    let place = place(top).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no home directory"))?;
    let others = read(top, state).into_iter().filter(|other| other.sums != fingerprint.sums);
    let mut text = format!("{MAGIC}{state}{fingerprint}\n");
    others.for_each(|other| text += &format!("{other}\n"));
    let folder = parent(&place);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Whole, or not at all.
    let new = place.with_extension(format!("{}.new", process::id()));
    let _left = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, &place));
    if written.is_err() {
        let _left = fs::remove_file(&new);
    }
    prune(folder);
    written
}

/// Removes what was noted of the file or image at `path`, which is about to be written.
pub fn forget(path: &Path) {
    let top = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    remove(&top);
}

/// Removes the note of an image.
pub fn remove(top: &Path) {
    let _left = place(top).map(fs::remove_file);
}

/// The note that is there, if we wrote it.
fn look(place: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(place).ok()?;
    let stat = file.metadata().ok()?;
    if !stat.is_file() || stat.uid() != sys::effective_user() || stat.mode() & 0o022 != 0 {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Removes the oldest notes where there are too many, and what kills have left of them.
fn prune(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> =
        files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path()))).collect();
    if files.len() > MOST {
        files.sort_unstable_by_key(|(time, _)| Reverse(*time));
        for (_, file) in &files[MOST..] {
            let _left = fs::remove_file(file);
        }
    }
}
