//! Finds or creates `DEST.part` and locks it, so that only one receiver writes it at a time.
//!
//! Decisions about `DEST.part` and DEST are made after the lock is held, by descriptor, since the last holder of the
//! lock may have replaced both.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, Stamp, sys};

use crate::file_name::{beside, is_at, is_ours, writable};
use crate::refusal::not_here;
use crate::target_options::TargetOptions;
use crate::temp_mark;

/// Maximum time to wait for a lock.
const PATIENCE_MAX: Duration = Duration::from_secs(90);
/// Time between two attempts to lock.
const PATIENCE_PACE: Duration = Duration::from_millis(200);
/// How often the name may be given to another file meanwhile before the attempt fails.
const TRIES: usize = 100;

/// Path of a temporary file, and the options that say which leftovers may be used.
pub(crate) struct TempLock<'a> {
    part: PathBuf,
    dest: &'a Path,
    options: &'a TargetOptions,
    /// Mode of a DEST that didn't exist.
    fresh_mode: u32,
}

/// A locked temporary file.
pub(crate) struct ClaimedTempFile<T> {
    pub file: File,
    /// True if it holds the bytes of an earlier transfer. Otherwise it is new and empty.
    pub left: bool,
    /// The result of examining DEST under the lock.
    pub seen: T,
}

/// The lock of a `DEST.part` that is not written to. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct HeldTempLock {
    file: File,
    /// Path of an empty `.part`, which is removed on drop.
    made: Option<PathBuf>,
}

impl Drop for HeldTempLock {
    fn drop(&mut self) {
        let Some(part) = &self.made else { return };
        if self.file.metadata().is_ok_and(|stat| is_at(part, &stat) && stat.len() == 0) {
            // An empty file that can't be removed does no harm.
            let _left = fs::remove_file(part);
        }
    }
}

/// Returns true for a file of this user that no other user can have opened for writing.
fn is_private(stat: &fs::Metadata) -> bool {
    is_ours(stat) && stat.mode() & 0o077 == 0
}

impl<'a> TempLock<'a> {
    pub(crate) fn new(dest: &'a Path, options: &'a TargetOptions, fresh_mode: u32) -> Self {
        Self { part: beside(dest), dest, options, fresh_mode }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.part
    }

    /// Returns true if a `DEST.part` exists that an interrupted transfer may have left and that can be resumed.
    pub(crate) fn is_left(&self) -> bool {
        let Ok((file, stat)) = self.open_to_look() else { return false };
        stat.blocks() > 0
            && self.can_resume(&stat)
            && temp_mark::is_set(&file, &stat, &self.part)
            && !temp_mark::is_old(&file)
    }

    /// Refuses a `DEST.part` that belongs to another program. It is checked again after it was locked.
    pub(crate) fn check_foreign(&self) -> Result<()> {
        match self.open_to_look() {
            Ok((file, stat)) => self.check_marked(&file, &stat).or_else(|foreign| match file.try_lock_shared() {
                // Another receiver is writing it: the attempt to lock it gives the right error.
                Err(fs::TryLockError::WouldBlock) => Ok(()),
                _ => Err(foreign),
            }),
            // A file that can't be opened is refused when it is to be written.
            Err(_) => Ok(()),
        }
    }

    fn open_to_look(&self) -> io::Result<(File, fs::Metadata)> {
        // Opening a fifo could block, and opening a device could have side effects.
        if !fs::symlink_metadata(&self.part)?.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.part)?;
        let stat = file.metadata()?;
        Ok((file, stat))
    }

    /// Locks `DEST.part` while DEST stays unchanged. A leftover is not removed.
    pub(crate) fn hold(&self) -> Result<HeldTempLock> {
        let deadline = self.deadline();
        for _ in 0..TRIES {
            if let Some((file, stat)) = self.lock(deadline)? {
                let part = if stat.len() == 0 && is_private(&stat) { Some(self.part.clone()) } else { None };
                return Ok(HeldTempLock { file, made: part });
            }
        }
        Err(self.too_many_changes())
    }

    fn deadline(&self) -> Option<Instant> {
        self.options.patience.map(|patience| Instant::now() + patience.min(PATIENCE_MAX))
    }

    fn too_many_changes(&self) -> DiskError {
        DiskError::new(DiskErrorKind::Busy, &self.part, "is made and removed by others all the time")
    }

    /// Locks `DEST.part`, and waits for the lock as long as the options allow. `look` examines DEST under the lock; if
    /// it fails, leftovers stay. A leftover is replaced by a new file, unless `resume` is true and it can be resumed.
    pub(crate) fn claim<T>(&self, resume: bool, mut look: impl FnMut() -> Result<T>) -> Result<ClaimedTempFile<T>> {
        let deadline = self.deadline();
        for _ in 0..TRIES {
            let Some((file, stat)) = self.lock(deadline)? else { continue };
            let is_new = stat.len() == 0 && is_private(&stat);
            if stat.len() > 0 {
                self.check_marked(&file, &stat)?;
            }
            let seen = self.check_clobber().and_then(|()| look()).inspect_err(|_| {
                if is_new {
                    // The file is empty: nothing is lost.
                    let _not_wanted = fs::remove_file(&self.part);
                }
            })?;
            if resume && stat.len() > 0 && self.can_resume(&stat) && !temp_mark::is_old(&file) {
                return Ok(ClaimedTempFile { file, left: true, seen });
            }
            if let Some(file) = if is_new { Some(file) } else { self.renew(&file)? } {
                temp_mark::set(&file, &self.part);
                return Ok(ClaimedTempFile { file, left: false, seen });
            }
        }
        Err(self.too_many_changes())
    }

    /// Opens or creates the file and locks it. Returns `None` if the name belongs to another file by then.
    fn lock(&self, deadline: Option<Instant>) -> Result<Option<(File, fs::Metadata)>> {
        let part = &self.part;
        let file = open(part).map_err(|source| self.cannot_create(source))?;
        if !file.metadata().map_err(|source| self.cannot_create(source))?.is_file() {
            return Err(match self.options.confined {
                true => not_here(part),
                false => DiskError::new(DiskErrorKind::Refused, part, "is there already and is no regular file"),
            });
        }
        match file.try_lock() {
            Ok(()) => {}
            // The holder of the lock may have renamed the file: open it again.
            Err(fs::TryLockError::WouldBlock) if deadline.is_some_and(|end| wait_for_release(&file, end)) => {
                return Ok(None);
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(DiskError::new(DiskErrorKind::Busy, part, "is being written by another receiver"));
            }
            // A file system without locks: two receivers could write at a time, but refusing would make such file
            // systems unusable.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(fs::TryLockError::Error(error)) => return Err(DiskError::io(part, "cannot lock", error)),
        }
        // The attributes are read after the lock was taken: until then, another receiver may write, rename or remove
        // the file.
        let stat = file.metadata().map_err(|source| self.cannot_create(source))?;
        Ok(is_at(part, &stat).then_some((file, stat)))
    }

    /// Replaces a leftover by a new file, since other programs may have the leftover open or know it by another name.
    /// Truncating it instead would make ext4 write it out on close. Returns `None` if another receiver was first.
    fn renew(&self, held: &File) -> Result<Option<File>> {
        let part = &self.part;
        // While the lock holds: later, the side files may be the next receiver's. The attribute marks what a kill leaves here.
        temp_mark::set(held, part);
        temp_mark::remove_side_files(part);
        fs::remove_file(part).map_err(|source| match self.options.confined {
            true => not_here(part),
            false => DiskError::io(part, "cannot remove the leftover", source),
        })?;
        let file = match writable().create_new(true).open(part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            made => made.map_err(|source| self.cannot_create(source))?,
        };
        if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return Ok(None);
        }
        let stat = file.metadata().map_err(|source| self.cannot_create(source))?;
        Ok((is_at(part, &stat) && stat.len() == 0).then_some(file))
    }

    /// Accepts an empty file, and one that a transfer has left. Any other file is not replaced.
    fn check_marked(&self, file: &File, stat: &fs::Metadata) -> Result<()> {
        if self.options.force || stat.len() == 0 || temp_mark::is_set(file, stat, &self.part) {
            return Ok(());
        }
        if self.options.confined {
            return Err(not_here(&self.part));
        }
        let what = "is there already, and no transfer has left it: it would be overwritten";
        Err(DiskError::new(DiskErrorKind::Refused, &self.part, what)
            .hint("move it away, or have it replaced by --force"))
    }

    /// Refuses an existing DEST with `--no-clobber`: the last holder of the lock may have created it.
    fn check_clobber(&self) -> Result<()> {
        match self.options.no_clobber && fs::symlink_metadata(self.dest).is_ok() {
            true => {
                Err(DiskError::new(DiskErrorKind::Refused, self.dest, "is there already, and --no-clobber was given"))
            }
            false => Ok(()),
        }
    }

    /// Returns true if no user who may not change DEST can change the file later. Either the file is private, or it has
    /// its final owner and mode because the process was killed before the rename.
    fn can_resume(&self, stat: &fs::Metadata) -> bool {
        if !stat.is_file() || stat.nlink() != 1 {
            return false;
        }
        if is_private(stat) {
            return true;
        }
        let owner = self.options.owner.unwrap_or_default();
        let old = fs::symlink_metadata(self.dest).ok();
        let mode = self.options.mode.or(old.as_ref().map(fs::Metadata::mode)).unwrap_or(self.fresh_mode);
        let user = owner.user.or(old.as_ref().map(fs::Metadata::uid)).unwrap_or_else(sys::effective_user);
        // The group of a new file is that of its directory or of the process.
        let group = owner.group.or(old.as_ref().map(fs::Metadata::gid)).unwrap_or(stat.gid());
        let others = stat.mode() & 0o022;
        [user, sys::effective_user()].contains(&stat.uid())
            && others & !mode == 0
            && (others & 0o020 == 0 || stat.gid() == group)
    }

    fn cannot_create(&self, source: io::Error) -> DiskError {
        match source.raw_os_error() {
            // If the error could depend on what is there, it isn't told.
            Some(libc::ELOOP | libc::EISDIR | libc::ENXIO | libc::EACCES) if self.options.confined => {
                not_here(&self.part)
            }
            Some(libc::ELOOP) => {
                DiskError::new(DiskErrorKind::Refused, &self.part, "is a symbolic link, which is not followed")
                    .hint("remove it if it isn't needed")
            }
            _ => DiskError::io(&self.part, "cannot create", source),
        }
    }
}

fn open(part: &Path) -> io::Result<File> {
    match writable().create_new(true).open(part) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    match writable().create(true).open(part) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && make_writable(part).is_ok() => {
            writable().create(true).open(part)
        }
        opened => opened,
    }
}

/// Makes a leftover private again whose final mode allows its owner only to read it.
fn make_writable(part: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(part)?;
    let locked = file.try_lock();
    let stat = file.metadata()?;
    if locked.is_err() || !is_ours(&stat) || !temp_mark::is_set(&file, &stat, part) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Waits until the lock is released, as long as its holder doesn't write. Returns true if it was released. A write
/// changes the file's times. Block counts are not compared, since writeback changes them too.
fn wait_for_release(file: &File, end: Instant) -> bool {
    let look = || file.metadata().ok().map(|stat| Stamp::of(&stat));
    let before = look();
    while before.is_some() && look() == before && Instant::now() < end {
        thread::sleep(PATIENCE_PACE);
        if !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return true;
        }
    }
    false
}
