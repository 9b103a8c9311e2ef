//! `DEST.part`, found or made, and locked: one receiver at a time writes it. What is decided about the file is decided once it is locked,
//! by its descriptor; so is what is decided about DEST, which the last holder of the lock may have replaced.

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

/// The longest that a lock is waited for.
const PATIENCE_MAX: Duration = Duration::from_secs(90);
/// How often a lock that is waited for is tried.
const PATIENCE_PACE: Duration = Duration::from_millis(200);
/// How often the name may come to be another file's before it is given up.
const TRIES: usize = 100;

/// The name of a temporary file, and who may have left one there.
pub(crate) struct TempLock<'a> {
    part: PathBuf,
    dest: &'a Path,
    options: &'a TargetOptions,
    /// The mode of a DEST that wasn't there before.
    fresh_mode: u32,
}

/// A temporary file that is ours alone.
pub(crate) struct ClaimedTempFile<T> {
    pub file: File,
    /// It holds what an earlier transfer has left. Else it is new and empty.
    pub left: bool,
    /// What was seen of DEST under the lock.
    pub seen: T,
}

/// The lock of a `DEST.part` that nothing is written to. It ends with this.
#[derive(Debug)]
pub(crate) struct HeldTempLock {
    file: File,
    /// The name of one that is empty: it goes, too.
    made: Option<PathBuf>,
}

impl Drop for HeldTempLock {
    fn drop(&mut self) {
        let Some(part) = &self.made else { return };
        if self.file.metadata().is_ok_and(|stat| is_at(part, &stat) && stat.len() == 0) {
            // An empty one does no harm if it stays.
            let _left = fs::remove_file(part);
        }
    }
}

/// True for a file of ours that no other user can have opened, to change it later.
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

    /// True if there is a `DEST.part` that an earlier transfer may have left, and that can be gone on with.
    pub(crate) fn is_left(&self) -> bool {
        let Ok((file, stat)) = self.open_to_look() else { return false };
        stat.blocks() > 0
            && self.may_go_on(&stat)
            && temp_mark::is_set(&file, &stat, &self.part)
            && !temp_mark::is_old(&file)
    }

    /// Refuses a `DEST.part` that is another program's file. It is judged again once it is locked.
    pub(crate) fn check_foreign(&self) -> Result<()> {
        match self.open_to_look() {
            Ok((file, stat)) => self.check_marked(&file, &stat).or_else(|foreign| match file.try_lock_shared() {
                // Another receiver writes it: that is what is to be said of it.
                Err(fs::TryLockError::WouldBlock) => Ok(()),
                _ => Err(foreign),
            }),
            // What can't be opened is refused where it is to be written.
            Err(_) => Ok(()),
        }
    }

    fn open_to_look(&self) -> io::Result<(File, fs::Metadata)> {
        // A fifo doesn't hang us, and a device isn't opened.
        if !fs::symlink_metadata(&self.part)?.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.part)?;
        let stat = file.metadata()?;
        Ok((file, stat))
    }

    /// Locks `DEST.part` while DEST stays as it is. A leftover stays, too.
    pub(crate) fn hold(&self) -> Result<HeldTempLock> {
        let deadline = self.deadline();
        for _ in 0..TRIES {
            if let Some((file, stat)) = self.lock(deadline)? {
                let part = if stat.len() == 0 && is_private(&stat) { Some(self.part.clone()) } else { None };
                return Ok(HeldTempLock { file, made: part });
            }
        }
        Err(self.restless())
    }

    fn deadline(&self) -> Option<Instant> {
        self.options.patience.map(|patience| Instant::now() + patience.min(PATIENCE_MAX))
    }

    fn restless(&self) -> DiskError {
        DiskError::new(DiskErrorKind::Busy, &self.part, "is made and removed by others all the time")
    }

    /// Locks `DEST.part`, which is waited for as long as the options say. `look` is what is to be seen of DEST under the lock: if it fails,
    /// what lies there stays. A leftover is replaced by a new file, unless the transfer is to go on with it (`goes_on`).
    pub(crate) fn claim<T>(&self, goes_on: bool, mut look: impl FnMut() -> Result<T>) -> Result<ClaimedTempFile<T>> {
        let deadline = self.deadline();
        for _ in 0..TRIES {
            let Some((file, stat)) = self.lock(deadline)? else { continue };
            let is_new = stat.len() == 0 && is_private(&stat);
            if stat.len() > 0 {
                self.check_marked(&file, &stat)?;
            }
            let seen = self.check_clobber().and_then(|()| look()).inspect_err(|_| {
                if is_new {
                    // Nothing is lost with it.
                    let _not_wanted = fs::remove_file(&self.part);
                }
            })?;
            if goes_on && stat.len() > 0 && self.may_go_on(&stat) && !temp_mark::is_old(&file) {
                return Ok(ClaimedTempFile { file, left: true, seen });
            }
            if let Some(file) = if is_new { Some(file) } else { self.renew(&file)? } {
                temp_mark::set(&file, &self.part);
                return Ok(ClaimedTempFile { file, left: false, seen });
            }
        }
        Err(self.restless())
    }

    /// Opens what has the name, or makes it, and locks it. None if the name is another file's by then.
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
            // Who held it may have given it its name: it is opened anew.
            Err(fs::TryLockError::WouldBlock) if deadline.is_some_and(|end| outlived(&file, end)) => return Ok(None),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(DiskError::new(DiskErrorKind::Busy, part, "is being written by another receiver"));
            }
            // A file system without locks: the risk of two writers is there, but no other way to write.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(fs::TryLockError::Error(error)) => return Err(DiskError::io(part, "cannot lock", error)),
        }
        // Only now: until it was locked, another receiver may have written, renamed or removed it.
        let stat = file.metadata().map_err(|source| self.cannot_create(source))?;
        Ok(is_at(part, &stat).then_some((file, stat)))
    }

    /// Replaces a leftover by a new file, since others may have the leftover open or know it by another name. Emptying it instead would
    /// have ext4 write everything out when it is closed. None if another receiver was first.
    fn renew(&self, _held: &File) -> Result<Option<File>> {
        let part = &self.part;
        fs::remove_file(part).map_err(|source| match self.options.confined {
            true => not_here(part),
            false => DiskError::io(part, "cannot remove the leftover", source),
        })?;
        temp_mark::remove_side_files(part);
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

    /// A file of no bytes may be used, and one that a transfer has left. Anything else isn't ours to replace.
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

    /// The last holder of the lock may have made DEST.
    fn check_clobber(&self) -> Result<()> {
        match self.options.no_clobber && fs::symlink_metadata(self.dest).is_ok() {
            true => {
                Err(DiskError::new(DiskErrorKind::Refused, self.dest, "is there already, and --no-clobber was given"))
            }
            false => Ok(()),
        }
    }

    /// True if no user can change the file later who may not change DEST: it is private, or has its final owner and mode already, after
    /// which a kill came before the rename.
    fn may_go_on(&self, stat: &fs::Metadata) -> bool {
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
        // The group of a new file is its directory's choice, or that of the process.
        let group = owner.group.or(old.as_ref().map(fs::Metadata::gid)).unwrap_or(stat.gid());
        let others = stat.mode() & 0o022;
        [user, sys::effective_user()].contains(&stat.uid())
            && others & !mode == 0
            && (others & 0o020 == 0 || stat.gid() == group)
    }

    fn cannot_create(&self, source: io::Error) -> DiskError {
        match source.raw_os_error() {
            // Where the reason could be what stands there, it isn't told.
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

/// Gives a leftover that has its final mode, by which its owner may only read it, its private mode again.
fn make_writable(part: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(part)?;
    let locked = file.try_lock();
    let stat = file.metadata()?;
    if locked.is_err() || !is_ours(&stat) || !temp_mark::is_set(&file, &stat, part) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Waits for the holder of a lock to let go of it, as long as it doesn't write: true if it did. Every write changes the times; the
/// blocks don't count, which writing back changes too.
fn outlived(file: &File, end: Instant) -> bool {
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
