//! A new file, written as `DEST.part` and renamed over DEST once it is complete and durable.

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

/// Minimum length in bytes of data for which space is allocated in advance.
const PREALLOCATE_MIN: u64 = 128 << 10;

pub(crate) struct TempFile {
    /// `DEST.part`.
    writer: FileWriter,
    dest: PathBuf,
    /// Directories that were created for the file.
    made: CreatedDirs,
    sync: bool,
    /// True if DEST must not exist.
    no_clobber: bool,
    /// True if the caller may not learn whether DEST exists.
    confined: bool,
    /// Name of the source image, if it is known.
    source: Option<OsString>,
    in_use: InUse,
    rights: FilePermissions,
    /// Mode of a DEST that didn't exist.
    fresh_mode: u32,
    /// True if space is allocated before it is written. On ext4 that saves a third of the time; on other file systems
    /// it saves none.
    preallocates: bool,
    old: Option<ReplacedFile>,
    /// Number of bytes from the beginning that may not be zeros: they are of an earlier transfer or of the old file.
    holds: u64,
    /// Size of the disk in bytes, if it builds on existing bytes.
    size: Option<u64>,
}

impl TempFile {
    /// Creates and locks `DEST.part`, as one hole of `size` bytes if the size is known. `base` is what the old DEST has
    /// to hold; the old DEST is read for kept bytes.
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
                // The stamp of the old file was taken before this read, so a change after it is detected.
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
        writer: FileWriter,
        dest: PathBuf,
        made: CreatedDirs,
        fresh_mode: u32,
        old: Option<ReplacedFile>,
        options: &TargetOptions,
        size: Option<u64>,
    ) -> Result<Self> {
        let &TargetOptions { no_sync, no_clobber, confined, mode, owner, direct, .. } = options;
        let rights = FilePermissions { mode, owner };
        let preallocates = sys::is_ext4(&writer.file);
        let writer = if direct { writer.directly()? } else { writer };
        let writer = writer.of_len(size.unwrap_or_default()).temporary();
        // The noted fingerprint of DEST is invalid from here on, however the transfer ends.
        forget(&dest);
        Ok(Self {
            preallocates,
            writer,
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

    /// Opens and locks `DEST.part` for a disk of `size` bytes that builds on the old DEST.
    ///
    /// With `resume`, the bytes of an interrupted transfer are kept. A new file shares the blocks of the old DEST if
    /// the file system supports that. The layers of the returned target are the current disk.
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
        let mut layers = Vec::new();
        // Shared blocks belong to the new file: the old one is no longer needed as a layer.
        let old = old.filter(|_| !shared);
        let mut holds = held;
        if left || old.is_none() {
            layers.push(StoredFile::of(&file, &part)?);
        }
        // A new file holds nothing yet, so it is no layer.
        if let Some(old) = &old {
            let below = StoredFile::of(&old.file, &dest)?;
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

    /// Sets owner, mode, ACL and labels: those that the user requested, else those of the old file. Returns a message
    /// if that is not possible.
    fn give_attributes(&self) -> Result<Option<String>> {
        let (file, path) = (&self.writer.file, self.writer.path.as_path());
        origin::note(file, self.source.as_deref());
        let new_file = NewFile { file, path, rights: self.rights, confined: self.confined };
        new_file.give(&self.dest, self.looked_up()?.as_ref(), self.fresh_mode)
    }

    /// Returns a message if the old disk remains under other names.
    fn other_names(&self) -> Result<Option<String>> {
        let old = self.looked_up()?.filter(|old| old.is_file() && old.nlink() > 1 && !self.confined);
        Ok(old.map(|old| {
            let (others, names) = (old.nlink() - 1, if old.nlink() == 2 { "name" } else { "names" });
            format!(
                "the old disk had {others} other {names} (hard links), and stays there: only this name is the new disk"
            )
        }))
    }

    /// Returns the attributes of the file that is to be replaced, if there is one.
    fn looked_up(&self) -> Result<Option<fs::Metadata>> {
        match fs::symlink_metadata(&self.dest) {
            _ if self.no_clobber => Ok(None),
            Ok(old) => Ok(Some(old)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DiskError::io(&self.dest, "cannot look at the old file", source)),
        }
    }
}

/// Prepares a locked `.part` for writing. If `left` is true, it was left by an earlier transfer and may have its final
/// owner and mode already.
fn prepare(file: &File, size: Option<u64>, rights: FilePermissions, left: bool) -> Result<(), (String, io::Error)> {
    let private = file.set_permissions(Permissions::from_mode(0o600));
    private.map_err(|source| ("cannot set the mode".to_owned(), source))?;
    if left {
        let stat = file.metadata().map_err(|source| ("cannot look at it".to_owned(), source))?;
        if stat.uid() != sys::effective_user() {
            let taken = fchown(file, Some(sys::effective_user()), None);
            taken.map_err(|source| ("cannot take back its owner".to_owned(), source))?;
        }
        // The leftover may have got an ACL with its mode. Failing to remove a missing one is no error.
        let _none = sys::remove_xattr(file, ACL);
    }
    rights.try_owner(file).map_err(|(what, source)| (what.to_owned(), source))?;
    // The size is set first: on some file systems, a growing file is preallocated across holes.
    let sized = size.map_or(Ok(()), |size| file.set_len(size));
    sized.map_err(|source| (format!("cannot make a file of {} bytes", size.unwrap_or_default()), source))
}

/// Removes a `.part` that was not written to, and its side files.
fn remove_empty(part: &Path) {
    // While its lock holds: later, the side files may be the next receiver's.
    temp_mark::remove_side_files(part);
    // If it can't be removed, it is a leftover.
    let _left = fs::remove_file(part);
}

impl DiskWriter for TempFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.writer.write(at, bytes)
    }

    fn bring(&self, at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        self.writer.write_row(at, row)
    }

    fn preallocate_hint(&self, at: u64, len: u64) {
        if self.preallocates && len >= PREALLOCATE_MIN {
            // An optimization: if there is no space, the write itself fails.
            let _made = sys::make_room(&self.writer.file, at, len);
        }
    }

    fn announce(&self, data: u64) {
        self.writer.announce(data);
    }

    fn data_from_pipe(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        self.writer.splice(at, pipe, len)
    }

    fn data_from_file(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        self.writer.copy(at, file, from, len)
    }

    fn share(&self, file: &File) -> io::Result<()> {
        sys::share_all(&self.writer.file, file)
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        // A new file is one hole, so only old bytes are erased.
        self.writer.erase(at, len, self.holds, self.size == Some(at + len))
    }

    fn vacate(&self, at: u64, len: u64) {
        self.writer.vacate(at, len, self.holds, self.size == Some(at + len));
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
        if self.writer.is_named() {
            remove_empty(&self.writer.path);
        }
    }

    fn leftover_message(&self) -> String {
        let part = shown(&self.writer.path);
        if self.writer.is_named() { format!("kept {part}") } else { format!("nothing is kept in {part}") }
    }

    fn stored(&self, size: u64) -> Result<StoredFile> {
        self.writer.flush()?;
        self.writer.set_len(size)?;
        self.writer.stored()
    }

    fn mark(&self) -> WrittenStamp {
        self.writer.mark()
    }

    fn commit(self: Box<Self>, size: u64) -> Result<Vec<String>> {
        let mut notes = self.writer.flush()?;
        self.writer.check_len()?;
        self.writer.set_len(size)?;
        if self.sync {
            // The data has to be durable before the file gets its final mode and owner: a `.part` that has them is a
            // complete disk.
            self.writer.sync()?;
            if self.holds == 0 {
                self.writer.check_blocks()?;
            }
        }
        let written = self.writer.stamp()?;
        let given = self.give_attributes()?;
        if self.sync {
            self.writer.sync()?;
            self.writer.mark.set(&self.writer.file);
        }
        self.old.as_ref().map_or(Ok(()), |old| old.check_unchanged(&self.dest))?;
        notes.extend(self.other_names()?);
        // Kept open until the rename, so that QEMU can't begin to use the old file.
        let _old = if self.no_clobber { None } else { self.in_use.check_before_rename(&self.dest)? };
        // Checked as late as possible before the rename.
        self.writer.check_untouched(&written, size, self.sync)?;
        let (part, dest) = (&self.writer.path, &self.dest);
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
        temp_mark::clear(&self.writer.file, &self.writer.path);
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
