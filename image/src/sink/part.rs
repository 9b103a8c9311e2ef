//! A new file, written as `DEST.part` and renamed over DEST when it is whole and durable.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::layer::Layer;
use crate::raw::Raw;
use crate::remember::{Mark, forget};
use crate::sink::basis::Basis;
use crate::sink::holding::{Brings, Holding};
use crate::sink::in_use::InUse;
use crate::sink::path::{Made, parent};
use crate::sink::place::Place;
use crate::sink::rights::Rights;
use crate::sink::target::not_here;
use crate::sink::{Sink, TargetOptions};
use crate::zero::is_zero;
use crate::{Chain, Error, Host, Kind, Result, Stamp, reason, shown, sys};

/// Octets of the old file that are copied at once for KEEP; a zero block of [`KEEP_GRAIN`] in them stays a hole.
const KEEP_COPY: usize = 256 << 10;
/// Shorter runs are not worth a call to make room for them, in octets.
const ROOM_MIN: u64 = 128 << 10;
const KEEP_GRAIN: usize = 4 << 10;
/// The longest that a lock is waited for.
const PATIENCE_MAX: Duration = Duration::from_secs(90);
/// How often a lock that is waited for is tried.
const PATIENCE_PACE: Duration = Duration::from_millis(200);

pub(crate) struct Part {
    /// `DEST.part`.
    place: Place,
    dest: PathBuf,
    /// Directories that were made for it.
    made: Made,
    sync: bool,
    /// DEST must not be there.
    no_clobber: bool,
    /// The caller isn't told of a DEST that is there.
    confined: bool,
    in_use: InUse,
    rights: Rights,
    /// The mode of a DEST that wasn't there before.
    fresh_mode: u32,
    /// Blocks are taken before they are written: on ext4 that saves a third of the time, elsewhere it saves none.
    make_room: bool,
    old: Option<Old>,
    /// Octets from its beginning on that may be others than zeros: of an earlier transfer, or of the old file.
    holds: u64,
    /// The disk's octets, if it builds on such.
    size: Option<u64>,
}

/// The DEST that is there, as KEEP reads it.
struct Old {
    file: File,
    stamp: Stamp,
    kept: AtomicBool,
}

impl Part {
    /// Makes and locks `DEST.part`, of `size` octets if that is known, all hole. `base`: what the old DEST has to be, which is read for
    /// KEEP.
    pub(crate) fn create(
        dest: PathBuf,
        size: Option<u64>,
        base: Option<&Basis>,
        fresh_mode: u32,
        options: TargetOptions,
    ) -> Result<Self> {
        let old = base.map(|_| Old::open(&dest)).transpose()?;
        if let (Some(base), Some(old)) = (base, &old) {
            // It must be the same when parts of it have been kept: its stamp is older than what is read here.
            base.check(&old.file, &dest)?;
        }
        let part = beside(&dest);
        let made = if options.mkpath { Made::make(parent(&dest))? } else { Made::default() };
        let (file, _) = lock(&part, &options, false).inspect_err(|_| made.remove())?;
        let rights = Rights { mode: options.mode, owner: options.owner };
        prepare(&file, size, rights).map_err(|(what, source)| {
            // Nothing is lost with it.
            let _not_wanted = fs::remove_file(&part);
            made.remove();
            Error::io(&part, what, source)
        })?;
        Self::of(file, part, dest, made, fresh_mode, old, &options)
    }

    fn of(
        file: File,
        part: PathBuf,
        dest: PathBuf,
        made: Made,
        fresh_mode: u32,
        old: Option<Old>,
        options: &TargetOptions,
    ) -> Result<Self> {
        let &TargetOptions { no_sync, no_clobber, confined, mode, owner, direct, .. } = options;
        let rights = Rights { mode, owner };
        let (make_room, place) = (sys::is_ext4(&file), Place::new(file, part));
        let place = if direct { place.directly()? } else { place };
        // What was noted of DEST is over, however what begins now ends.
        forget(&dest);
        Ok(Self {
            make_room,
            place,
            dest,
            made,
            sync: !no_sync,
            no_clobber,
            confined,
            in_use: options.in_use(),
            rights,
            fresh_mode,
            old,
            holds: 0,
            size: None,
        })
    }

    /// True if there is a `DEST.part` that an earlier transfer may have left.
    pub(crate) fn is_left(dest: &Path) -> bool {
        fs::symlink_metadata(beside(dest)).is_ok_and(|stat| is_left(&stat) && stat.blocks() > 0)
    }

    /// Locks `DEST.part` for a disk of `size` octets, and leaves in it what an earlier transfer has left, if that is to be gone on with; a
    /// new one shares the blocks of the old DEST, where that is to be had. What it holds is the disk that all of that is, up to `size`.
    pub(crate) fn hold(
        dest: PathBuf,
        size: u64,
        resume: bool,
        fresh_mode: u32,
        options: &TargetOptions,
    ) -> Result<Holding> {
        let old = match Old::open(&dest) {
            Ok(old) => old.file.metadata().is_ok_and(|stat| stat.is_file()).then_some(old),
            // What can't be read is replaced all the same, as it is where nobody asks for a delta.
            Err(error) => match error.system().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => None,
                _ => return Err(error),
            },
        };
        let part = beside(&dest);
        let made = if options.mkpath { Made::make(parent(&dest))? } else { Made::default() };
        let (file, left) = lock(&part, options, resume).inspect_err(|_| made.remove())?;
        let failed = |what: &str, source| Error::io(&part, what, source);
        let shared = !left && old.as_ref().is_some_and(|old| sys::share_all(&file, &old.file).is_ok());
        let held = file.metadata().map_err(|source| failed("cannot tell the size", source))?.len();
        let rights = Rights { mode: options.mode, owner: options.owner };
        prepare(&file, Some(size), rights).map_err(|(what, source)| {
            if !left {
                // Nothing is lost with it.
                let _not_wanted = fs::remove_file(&part);
                made.remove();
            }
            failed(&what, source)
        })?;
        let open = |file: &File, path: &Path| -> Result<Raw> {
            let file = file.try_clone().map_err(|source| Error::io(path, "cannot open", source))?;
            Raw::of(Host::of(file, path, None)?, None)
        };
        let mut floors: Vec<Arc<dyn Layer>> = Vec::new();
        // What it shares is its own.
        let old = old.filter(|_| !shared);
        let mut holds = held;
        if left || old.is_none() {
            let raw = open(&file, &part)?;
            floors.push(Arc::new(if old.is_some() { raw.above() } else { raw }));
        }
        // A new one has nothing yet, whatever its file system says.
        if let Some(old) = &old {
            let below = open(&old.file, &dest)?;
            holds = if left { holds } else { 0 }.max(below.host().len());
            floors.push(Arc::new(below));
            old.kept.store(true, Ordering::Relaxed);
        }
        let brings = match (&old, left) {
            (None, _) => Brings::Nothing,
            (Some(_), false) => Brings::All,
            (Some(_), true) => Brings::Kept,
        };
        let holds = holds.min(size);
        let made = Self { holds, size: Some(size), ..Self::of(file, part, dest, made, fresh_mode, old, options)? };
        Ok(Holding { sink: Box::new(made), image: Chain::of_floors(floors, holds), brings })
    }

    /// Gives the new file its name.
    fn publish(&self) -> io::Result<()> {
        if self.no_clobber {
            return self.publish_new();
        }
        // A file that is renamed over another is written out first by ext4, though nobody asked for it here: change names instead.
        if !self.sync && self.exchange().is_ok() {
            return Ok(());
        }
        fs::rename(&self.place.path, &self.dest)
    }

    /// Gives it its name if there is none by that name: the system tells, in one step.
    fn publish_new(&self) -> io::Result<()> {
        let (part, dest) = (&self.place.path, &self.dest);
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

    /// Changes the two names, and removes the old file, which is `.part` then and is locked as long.
    fn exchange(&self) -> io::Result<()> {
        let old = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.dest)?;
        if !old.metadata()?.is_file() || old.try_lock().is_err() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        sys::exchange(&self.place.path, &self.dest)?;
        // The new file has its name. An old one that can't be removed is a leftover like any other.
        let _left = fs::remove_file(&self.place.path);
        Ok(())
    }

    /// Gives the new file the owner and mode that were asked for, else those of the old one. Says so where the old owner isn't
    /// permitted.
    fn give_owner_and_mode(&self) -> Result<Option<String>> {
        let failed = |what: &'static str, source| Error::io(&self.place.path, what, source);
        let (mut mode, mut note) = (self.fresh_mode, None);
        if let Some(old) = self.looked_up()? {
            let owner = self.rights.owner.unwrap_or_default();
            let new = self.place.file.metadata().map_err(|source| failed("cannot set the mode", source))?;
            mode = old.mode() & 0o7777;
            if self.confined || self.rights.owner.is_some() {
                // Set-id bits are for the octets that had them.
                mode &= 0o777;
            }
            let (uid, gid) = (old.uid(), old.gid());
            let user = (owner.user.is_none() && uid != new.uid()).then_some(uid);
            let group = (owner.group.is_none() && gid != new.gid()).then_some(gid);
            if (user.is_some() || group.is_some())
                && let Err(error) = fchown(&self.place.file, user, group)
            {
                // Set-id bits of another owner are not ours to give, nor what a group may to another group.
                let group_kept = group.is_none() || fchown(&self.place.file, None, group).is_ok();
                mode &= if group_kept { 0o777 } else { 0o707 };
                let rights = if group_kept { "" } else { ", so its group gets no rights" };
                note = Some(format!("cannot give it the old owner {uid}:{gid}{rights}: {}", reason(&error)));
            }
        }
        let rights = Rights { mode: Some(self.rights.mode.unwrap_or(mode)), ..self.rights };
        rights.give(&self.place.file).map_err(|(what, source)| failed(what, source))?;
        Ok(note.filter(|_| !self.confined))
    }

    /// The file that is to be replaced, if there is one.
    fn looked_up(&self) -> Result<Option<fs::Metadata>> {
        match fs::symlink_metadata(&self.dest) {
            _ if self.no_clobber => Ok(None),
            Ok(old) => Ok(Some(old)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(&self.dest, "cannot look at the old file", source)),
        }
    }
}

/// Makes a new, locked `.part` ready for octets.
fn prepare(file: &File, size: Option<u64>, rights: Rights) -> Result<(), (String, io::Error)> {
    let private = file.set_permissions(Permissions::from_mode(0o600));
    private.map_err(|source| ("cannot set the mode".to_owned(), source))?;
    rights.try_owner(file).map_err(|(what, source)| (what.to_owned(), source))?;
    // Seeking past a hole in a growing file would get it preallocated on some file systems: sized first.
    let sized = size.map_or(Ok(()), |size| file.set_len(size));
    sized.map_err(|source| (format!("cannot make a file of {} octets", size.unwrap_or_default()), source))
}

impl Old {
    fn open(dest: &Path) -> Result<Self> {
        let failed = |source| Error::io(dest, "cannot read what is to be kept", source);
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(dest);
        let file = file.map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        Ok(Self { file, stamp, kept: AtomicBool::new(false) })
    }
}

/// `DEST.part`.
pub(crate) fn beside(dest: &Path) -> PathBuf {
    let mut name = OsString::from(dest);
    name.push(".part");
    name.into()
}

/// Removes what recv-hole.sh has written down of `.part`, if it had begun it.
fn remove_lines(part: &Path) {
    for ending in [".lines", ".next"] {
        let mut name = OsString::from(part);
        name.push(ending);
        if fs::symlink_metadata(&name).is_ok_and(|stat| is_ours(&stat)) {
            // Nothing believes a leftover.
            let _left = fs::remove_file(&name);
        }
    }
}

/// Opens `.part` without following a link; true if it wasn't there before.
fn open_part(part: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    match options.clone().create_new(true).open(part) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((options.create(true).open(part)?, false)),
        made => Ok((made?, true)),
    }
}

/// True for what a transfer of ours can have left.
fn is_ours(stat: &fs::Metadata) -> bool {
    stat.is_file() && stat.nlink() == 1 && stat.uid() == sys::effective_user()
}

/// The same, and nobody else can have opened it, to change what is in it later.
fn is_left(stat: &fs::Metadata) -> bool {
    is_ours(stat) && stat.mode() & 0o077 == 0
}

/// Opens `.part` without following a link, and locks it: it is ours alone from here on. A leftover goes, unless it is to be
/// `kept`: true if it is.
fn lock(part: &Path, options: &TargetOptions, kept: bool) -> Result<(File, bool)> {
    let failed = |source: io::Error| match source.raw_os_error() {
        // Where the reason could be what stands there, it isn't told.
        Some(libc::ELOOP | libc::EISDIR | libc::ENXIO | libc::EACCES) if options.confined => not_here(part),
        Some(libc::ELOOP) => Error::new(Kind::Refused, part, "is a symbolic link, which is not followed")
            .hint("remove it, if nobody needs it"),
        _ => Error::io(part, "cannot create", source),
    };
    let deadline = options.patience.map(|patience| Instant::now() + patience.min(PATIENCE_MAX));
    // Between opening and locking, its owner may have renamed or removed it: then the lock is on another file than the name.
    for _ in 0..100 {
        let (file, made) = open_part(part).map_err(failed)?;
        let stat = file.metadata().map_err(failed)?;
        if !stat.is_file() && options.confined {
            return Err(not_here(part));
        }
        if !stat.is_file() {
            return Err(Error::new(Kind::Refused, part, "is there already and is no regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            // Its file is looked at anew when it is free: who held it may have given it its name.
            Err(fs::TryLockError::WouldBlock) if deadline.is_some_and(|end| outlived(&file, end)) => continue,
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Refused, part, "is being written by another receiver"));
            }
            // A file system without locks: the risk of two writers is there, but no other way to write.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(fs::TryLockError::Error(error)) => return Err(Error::io(part, "cannot lock", error)),
        }
        let named = fs::symlink_metadata(part).ok();
        if named.is_none_or(|named| (named.dev(), named.ino()) != (stat.dev(), stat.ino())) {
            continue;
        }
        if made || (kept && is_left(&stat)) || (is_ours(&stat) && stat.len() == 0) {
            return Ok((file, !made && stat.len() > 0));
        }
        // A leftover, with whoever may have it open, or by whatever other name: a new one in its place. Emptying it instead would
        // have ext4 write everything out when it is closed.
        fs::remove_file(part).map_err(|source| match options.confined {
            true => not_here(part),
            false => Error::io(part, "cannot remove the leftover", source),
        })?;
    }
    Err(Error::new(Kind::Refused, part, "is made and removed by others all the time"))
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

impl Sink for Part {
    fn data(&self, at: u64, octets: &[u8]) -> Result<()> {
        self.place.write(at, octets)
    }

    fn bring(&self, at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        self.place.write_row(at, row)
    }

    fn expect(&self, at: u64, len: u64) {
        if self.make_room && len >= ROOM_MIN {
            // Only haste: where there is no room, writing says so.
            let _made = sys::make_room(&self.place.file, at, len);
        }
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.place.splice(at, pipe, len)
    }

    fn data_from_file(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        self.place.copy(at, file, from, len)
    }

    fn share(&self, file: &File) -> io::Result<()> {
        sys::share_all(&self.place.file, file)
    }

    fn hole(&self, at: u64, len: u64) -> Result<()> {
        // A new file is all hole.
        self.place.erase(at, len, self.holds, self.size == Some(at + len))
    }

    fn keep(&self, at: u64, len: u64) -> Result<()> {
        if at + len <= self.holds {
            return Ok(());
        }
        let old = self.old.as_ref();
        let old = old.ok_or_else(|| Error::new(Kind::Refused, &self.dest, "there is nothing to be kept"))?;
        old.kept.store(true, Ordering::Relaxed);
        let failed =
            |source| Error::io(&self.dest, format!("cannot read what is to be kept at disk offset {at}"), source);
        let mut buffer = vec![0; KEEP_COPY];
        let (start, mut at, end) = (at, at, at + len);
        while at < end {
            // Where holes are not to be told, all is data, and its zeros are found. Blocks are counted from where KEEP begins, as
            // `dd conv=sparse` counts them: recv-hole.sh makes the same file, whatever multiple that is.
            let data = sys::seek_data(&old.file, at).unwrap_or(Some(at)).filter(|&data| data < end);
            at = data.map_or(end, |data| data - (data - start) % KEEP_GRAIN as u64);
            let chunk = usize::try_from(end - at).unwrap_or(usize::MAX).min(KEEP_COPY);
            let octets = &mut buffer[..chunk];
            old.file.read_exact_at(octets, at).map_err(failed)?;
            // Neighbours of one kind go together.
            let mut blocks = octets.chunks(KEEP_GRAIN).map(|block| (block.len(), is_zero(block))).peekable();
            let mut from = 0;
            while let Some((mut run, zero)) = blocks.next() {
                while let Some((len, _)) = blocks.next_if(|&(_, other)| other == zero) {
                    run += len;
                }
                if !zero {
                    self.data(at + from as u64, &octets[from..from + run])?;
                }
                from += run;
            }
            at += from as u64;
        }
        Ok(())
    }

    fn give_up(self: Box<Self>) {
        if self.place.is_named() {
            // It is empty: a leftover like any other, if it stays.
            let _left = fs::remove_file(&self.place.path);
        }
    }

    fn remains(&self) -> String {
        format!("kept {}", shown(&self.place.path))
    }

    fn stored(&self, size: u64) -> Result<Chain> {
        self.place.settle()?;
        self.place.set_len(size)?;
        self.place.stored(size)
    }

    fn mark(&self) -> Mark {
        self.place.mark.clone()
    }

    fn finish(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        let mut notes = self.place.settle()?;
        self.place.set_len(size)?;
        let note = self.give_owner_and_mode()?;
        if self.sync {
            self.place.sync()?;
            self.place.mark.set(&self.place.file);
        }
        if let Some(old) = self.old.as_ref().filter(|old| old.kept.load(Ordering::Relaxed)) {
            let now = fs::metadata(&self.dest).map(|stat| Stamp::of(&stat));
            if !now.is_ok_and(|now| now == old.stamp) {
                return Err(Error::new(Kind::Changed, &self.dest, "changed while parts of it were kept"));
            }
        }
        if !self.place.is_named() {
            let what = "was replaced by another file while it was written";
            return Err(Error::new(Kind::Changed, &self.place.path, what));
        }
        // Held until the new file has its name, so that no QEMU begins to use the old one.
        let _old = if self.no_clobber { None } else { self.in_use.check_before_rename(&self.dest)? };
        self.publish().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists if self.no_clobber => {
                Error::new(Kind::Changed, &self.dest, "was made by somebody else meanwhile, and --no-clobber was given")
            }
            _ => Error::io(&self.dest, "cannot rename the new file over it", source),
        })?;
        remove_lines(&self.place.path);
        if self.sync {
            let folder = parent(&self.dest);
            let synced = File::open(folder).and_then(|folder| folder.sync_all()).and_then(|()| self.made.sync());
            synced.map_err(|source| {
                let what = format!("cannot sync the directory, though {} is the new disk", shown(&self.dest));
                Error::io(folder, what, source).published()
            })?;
        }
        notes.extend(note);
        Ok(notes)
    }
}
