//! A new file takes the name of the disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use xfer_hole_os::sys;

use crate::file_name::is_at;
use crate::temp_mark;

/// Gives `part` the name `dest`, over the file that has it. `synced`: its bytes are durable.
pub(crate) fn replace(part: &Path, dest: &Path, synced: bool) -> io::Result<()> {
    // A file that is renamed over another is written out first by ext4, though it was not asked for here: change names instead.
    if !synced && exchange(part, dest).is_ok() {
        return Ok(());
    }
    fs::rename(part, dest)
}

/// Gives `part` the name `dest` if no file has it: the system tells, in one step.
pub(crate) fn name_new(part: &Path, dest: &Path) -> io::Result<()> {
    match sys::rename_new(part, dest) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems that can't (NFS) can make a second name.
        Err(_) => {
            fs::hard_link(part, dest)?;
            let _left = fs::remove_file(part);
            Ok(())
        }
        done => done,
    }
}

/// Changes the two names, and removes the old file, which is `.part` then and is locked and marked as long: one that a kill leaves there is
/// replaced by the next transfer.
fn exchange(part: &Path, dest: &Path) -> io::Result<()> {
    let old = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(dest)?;
    if old.try_lock().is_err() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let stat = old.metadata()?;
    // A file with other names keeps them, and would keep the mark.
    if !stat.is_file() || stat.nlink() != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    temp_mark::set_old(&old)?;
    sys::exchange(part, dest).inspect_err(|_| temp_mark::unset_old(&old))?;
    if !is_at(part, &stat) {
        // The name was another file's by then, which isn't locked: rename says what can be done with it.
        temp_mark::unset_old(&old);
        sys::exchange(part, dest)?;
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // The new file has its name. An old one that can't be removed is a leftover like any other.
    let _left = fs::remove_file(part);
    Ok(())
}
