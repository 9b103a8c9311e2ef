//! A new file, written as `DEST.part` and renamed over DEST when it is whole and durable.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, shown, sys};

use crate::acl::ACL;
use crate::attributes::{NewFile, keep_nocow};
use crate::base_requirement::BaseRequirement;
use crate::created_dirs::{CreatedDirs, parent};
use crate::disk_writer::{DiskWriter, StoredFile};
use crate::file_writer::FileWriter;
use crate::fingerprint_store::forget;
use crate::held_target::{CopyOver, HeldTarget};
use crate::in_use::InUse;
use crate::permissions::FilePermissions;
use crate::replaced_file::ReplacedFile;
use crate::target_options::TargetOptions;
use crate::temp_lock::{ClaimedTempFile, TempLock};
use crate::written_stamp::WrittenStamp;
use crate::{origin, publish, temp_mark};

/// Shorter runs are not worth a call to make room for them, in bytes.
const ROOM_MIN: u64 = 128 << 10;

pub(crate) struct TempFile {
    /// `DEST.part`.
    place: FileWriter,
    dest: PathBuf,
    /// Directories that were made for it.
    made: CreatedDirs,
    sync: bool,
    /// DEST must not be there.
    no_clobber: bool,
    /// The caller isn't told of a DEST that is there.
    confined: bool,
    /// What the image is called, if that is known.
    source: Option<OsString>,
    in_use: InUse,
    rights: FilePermissions,
    /// The mode of a DEST that wasn't there before.
    fresh_mode: u32,
    /// Blocks are taken before they are written: on ext4 that saves a third of the time, elsewhere it saves none.
    make_room: bool,
    old: Option<ReplacedFile>,
    /// Bytes from its beginning on that may be others than zeros: of an earlier transfer, or of the old file.
    holds: u64,
    /// The disk's bytes, if it builds on such.
    size: Option<u64>,
}

impl TempFile {
    /// Makes and locks `DEST.part`, of `size` bytes if that is known, all hole. `base`: what the old DEST has to be, which is read for
    /// KEEP.
    pub(crate) fn create(
        dest: PathBuf,
        size: Option<u64>,
        base: Option<&BaseRequirement>,
        fresh_mode: u32,
        options: TargetOptions,
    ) -> Result<Self> {
        let made = if options.mkpath { CreatedDirs::make(parent(&dest))? } else { CreatedDirs::default() };
        let temp = TempLock::new(&dest, &options, fresh_mode);
        let part = temp.path().to_owned();
        let look = || {
            let old = base.map(|_| ReplacedFile::open(&dest)).transpose()?;
            if let (Some(base), Some(old)) = (base, &old) {
                // It must be the same when parts of it have been kept: its stamp is older than what is read here.
                base.check(&old.file, &dest)?;
            }
            Ok(old)
        };
        let ClaimedTempFile { file, seen: old, .. } = temp.claim(false, look).inspect_err(|_| made.remove())?;
        keep_nocow(&file, &dest);
        let rights = FilePermissions { mode: options.mode, owner: options.owner };
        prepare(&file, size, rights, false).map_err(|(what, source)| {
            remove_empty(&part);
            made.remove();
            DiskError::io(&part, what, source)
        })?;
        Self::of(FileWriter::new(file, part), dest, made, fresh_mode, old, &options, size)
    }

    fn of(
        place: FileWriter,
        dest: PathBuf,
        made: CreatedDirs,
        fresh_mode: u32,
        old: Option<ReplacedFile>,
        options: &TargetOptions,
        size: Option<u64>,
    ) -> Result<Self> {
        let &TargetOptions { no_sync, no_clobber, confined, mode, owner, direct, .. } = options;
        let rights = FilePermissions { mode, owner };
        let make_room = sys::is_ext4(&place.file);
        let place = if direct { place.directly()? } else { place };
        let place = place.of_len(size.unwrap_or_default()).temporary();
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
            source: options.source.clone(),
            in_use: options.in_use(),
            rights,
            fresh_mode,
            old,
            holds: 0,
            size: None,
        })
    }

    /// Locks `DEST.part` for a disk of `size` bytes, and leaves in it what an earlier transfer has left, if that is to be gone on with; a
    /// new one shares the blocks of the old DEST, where that is to be had. What it holds is the disk that all of that is, up to `size`.
    pub(crate) fn hold(
        dest: PathBuf,
        size: u64,
        resume: bool,
        fresh_mode: u32,
        options: &TargetOptions,
    ) -> Result<HeldTarget> {
        let made = if options.mkpath { CreatedDirs::make(parent(&dest))? } else { CreatedDirs::default() };
        let temp = TempLock::new(&dest, options, fresh_mode);
        let part = temp.path().to_owned();
        let claimed = temp.claim(resume, || ReplacedFile::open_if_there(&dest)).inspect_err(|_| made.remove())?;
        let ClaimedTempFile { file, left, seen: old } = claimed;
        let failed = |what: &str, source| DiskError::io(&part, what, source);
        if !left {
            keep_nocow(&file, &dest);
        }
        let shared = !left && old.as_ref().is_some_and(|old| sys::share_all(&file, &old.file).is_ok());
        let held = file.metadata().map_err(|source| failed("cannot tell the size", source))?.len();
        let rights = FilePermissions { mode: options.mode, owner: options.owner };
        prepare(&file, Some(size), rights, left).map_err(|(what, source)| {
            if !left {
                remove_empty(&part);
                made.remove();
            }
            failed(&what, source)
        })?;
        let open = |file: &File, path: &Path| -> Result<StoredFile> {
            let file = file.try_clone().map_err(|source| DiskError::io(path, "cannot open", source))?;
            Ok(StoredFile { file, path: path.to_owned() })
        };
        let mut layers = Vec::new();
        // What it shares is its own.
        let old = old.filter(|_| !shared);
        let mut holds = held;
        if left || old.is_none() {
            layers.push(open(&file, &part)?);
        }
        // A new one has nothing yet, whatever its file system says.
        if let Some(old) = &old {
            let below = open(&old.file, &dest)?;
            let failed = |source| DiskError::io(&dest, "cannot tell the size", source);
            holds = if left { holds } else { 0 }.max(below.file.metadata().map_err(failed)?.len());
            layers.push(below);
            old.keep();
        }
        let copy_over = match (&old, left) {
            (None, _) => CopyOver::Nothing,
            (Some(_), false) => CopyOver::All,
            (Some(_), true) => CopyOver::Kept,
        };
        let holds = holds.min(size);
        let made = Self {
            holds,
            size: Some(size),
            ..Self::of(FileWriter::new(file, part), dest, made, fresh_mode, old, options, Some(size))?
        };
        Ok(HeldTarget { writer: Box::new(made), layers, size: holds, copy_over })
    }

    /// Gives the new file the owner, mode, ACL and labels that were asked for, else those of the old one. Says so where that can't be.
    fn give_attributes(&self) -> Result<Option<String>> {
        let (file, path) = (&self.place.file, self.place.path.as_path());
        origin::note(file, self.source.as_deref());
        let heir = NewFile { file, path, rights: self.rights, confined: self.confined };
        heir.give(&self.dest, self.looked_up()?.as_ref(), self.fresh_mode)
    }

    /// Says so where the old disk stays under other names.
    fn other_names(&self) -> Result<Option<String>> {
        let old = self.looked_up()?.filter(|old| old.is_file() && old.nlink() > 1 && !self.confined);
        Ok(old.map(|old| {
            let (others, names) = (old.nlink() - 1, if old.nlink() == 2 { "name" } else { "names" });
            format!(
                "the old disk had {others} other {names} (hard links), and stays there: only this name is the new disk"
            )
        }))
    }

    /// The file that is to be replaced, if there is one.
    fn looked_up(&self) -> Result<Option<fs::Metadata>> {
        match fs::symlink_metadata(&self.dest) {
            _ if self.no_clobber => Ok(None),
            Ok(old) => Ok(Some(old)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DiskError::io(&self.dest, "cannot look at the old file", source)),
        }
    }
}

/// Makes a locked `.part` ready for bytes. One that an earlier transfer has `left` may have its final owner and mode already.
fn prepare(file: &File, size: Option<u64>, rights: FilePermissions, left: bool) -> Result<(), (String, io::Error)> {
    let private = file.set_permissions(Permissions::from_mode(0o600));
    private.map_err(|source| ("cannot set the mode".to_owned(), source))?;
    if left {
        let stat = file.metadata().map_err(|source| ("cannot look at it".to_owned(), source))?;
        if stat.uid() != sys::effective_user() {
            let taken = fchown(file, Some(sys::effective_user()), None);
            taken.map_err(|source| ("cannot take back its owner".to_owned(), source))?;
        }
        // It may be given with the mode again. Where there is none, nothing is to be removed.
        let _none = sys::remove_xattr(file, ACL);
    }
    rights.try_owner(file).map_err(|(what, source)| (what.to_owned(), source))?;
    // Seeking past a hole in a growing file would get it preallocated on some file systems: sized first.
    let sized = size.map_or(Ok(()), |size| file.set_len(size));
    sized.map_err(|source| (format!("cannot make a file of {} bytes", size.unwrap_or_default()), source))
}

/// Removes a `.part` that nothing was written to, with what marks it.
fn remove_empty(part: &Path) {
    // A leftover like any other, if it stays.
    let _left = fs::remove_file(part);
    temp_mark::remove_side_files(part);
}

impl DiskWriter for TempFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.place.write(at, bytes)
    }

    fn bring(&self, at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        self.place.write_row(at, row)
    }

    fn preallocate_hint(&self, at: u64, len: u64) {
        if self.make_room && len >= ROOM_MIN {
            // Only haste: where there is no room, writing says so.
            let _made = sys::make_room(&self.place.file, at, len);
        }
    }

    fn announce(&self, data: u64) {
        self.place.announce(data);
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

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        // A new file is all hole.
        self.place.erase(at, len, self.holds, self.size == Some(at + len))
    }

    fn vacate(&self, at: u64, len: u64) {
        self.place.vacate(at, len, self.holds, self.size == Some(at + len));
    }

    fn keep_existing(&self, at: u64, len: u64) -> Result<()> {
        if at + len <= self.holds {
            return Ok(());
        }
        let old = self.old.as_ref();
        let old =
            old.ok_or_else(|| DiskError::new(DiskErrorKind::Refused, &self.dest, "there is nothing to be kept"))?;
        old.read_data(&self.dest, at, len, |at, bytes| self.write_at(at, bytes))
    }

    fn give_up(self: Box<Self>) {
        if self.place.is_named() {
            remove_empty(&self.place.path);
        }
    }

    fn leftover_message(&self) -> String {
        let part = shown(&self.place.path);
        if self.place.is_named() { format!("kept {part}") } else { format!("nothing is kept in {part}") }
    }

    fn stored(&self, size: u64) -> Result<StoredFile> {
        self.place.settle()?;
        self.place.set_len(size)?;
        self.place.stored()
    }

    fn mark(&self) -> WrittenStamp {
        self.place.mark()
    }

    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        let mut notes = self.place.settle()?;
        self.place.check_len()?;
        self.place.set_len(size)?;
        if self.sync {
            // The data is durable before the file gets its final mode and owner: a `.part` that has them is a whole disk.
            self.place.sync()?;
            if self.holds == 0 {
                self.place.check_blocks()?;
            }
        }
        let written = self.place.stamp()?;
        let given = self.give_attributes()?;
        if self.sync {
            self.place.sync()?;
            self.place.mark.set(&self.place.file);
        }
        self.old.as_ref().map_or(Ok(()), |old| old.check_unchanged(&self.dest))?;
        notes.extend(self.other_names()?);
        // Held until the new file has its name, so that no QEMU begins to use the old one.
        let _old = if self.no_clobber { None } else { self.in_use.check_before_rename(&self.dest)? };
        // As near to the rename as can be.
        self.place.check_untouched(&written, size, self.sync)?;
        let (part, dest) = (&self.place.path, &self.dest);
        let named =
            if self.no_clobber { publish::name_new(part, dest) } else { publish::replace(part, dest, self.sync) };
        named.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists if self.no_clobber => DiskError::new(
                DiskErrorKind::Changed,
                &self.dest,
                "was made by somebody else meanwhile, and --no-clobber was given",
            ),
            _ => DiskError::io(&self.dest, "cannot rename the new file over it", source),
        })?;
        temp_mark::clear(&self.place.file, &self.place.path);
        if self.sync {
            let folder = parent(&self.dest);
            let synced = File::open(folder).and_then(|folder| folder.sync_all()).and_then(|()| self.made.sync());
            synced.map_err(|source| {
                let what = format!("cannot sync the directory, though {} is the new disk", shown(&self.dest));
                DiskError::io(folder, what, source).leaving_nothing()
            })?;
        }
        notes.extend(given);
        Ok(notes)
    }
}
