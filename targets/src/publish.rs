//! Gives a new file the name of the destination.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use xfer_hole_os::sys;

use crate::file_name::is_at;
use crate::temp_mark;

/// Renames `part` to `dest`, over an existing file. `synced` is true if the new file is durable.
pub(crate) fn replace(part: &Path, dest: &Path, synced: bool) -> io::Result<()> {
    // On a rename over a file, ext4 writes the new file out first, even if no sync was requested. Exchanging the two
    // names avoids that.
    if !synced && exchange(part, dest).is_ok() {
        return Ok(());
    }
    fs::rename(part, dest)
}

/// Renames `part` to `dest` if `dest` doesn't exist, in one atomic step.
pub(crate) fn name_new(part: &Path, dest: &Path) -> io::Result<()> {
    match sys::rename_new(part, dest) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems without that operation (NFS) can create a hard link.
        Err(_) => {
            fs::hard_link(part, dest)?;
            let _left = fs::remove_file(part);
            Ok(())
        }
        done => done,
    }
}

/// Exchanges the two names and removes the old file, then called `.part`. The old file is locked and marked until then:
/// if the process is killed before the removal, the next transfer replaces it.
fn exchange(part: &Path, dest: &Path) -> io::Result<()> {
    let old = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(dest)?;
    if old.try_lock().is_err() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let stat = old.metadata()?;
    // A file with other hard links remains under these names, with the mark on it.
    if !stat.is_file() || stat.nlink() != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    temp_mark::set_old(&old)?;
    sys::exchange(part, dest).inspect_err(|_| temp_mark::unset_old(&old))?;
    if !is_at(part, &stat) {
        // Meanwhile the name belongs to another file, which isn't locked. `rename` then decides.
        temp_mark::unset_old(&old);
        sys::exchange(part, dest)?;
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // The new file has its name. An old file that can't be removed is a leftover.
    let _left = fs::remove_file(part);
    Ok(())
}
