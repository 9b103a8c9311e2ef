//! Decides what a DEST is and how it may be written, so that no data is lost.
//!
//! ```text
//! -                             standard output      Stream
//! fifo, character device        written like -       Stream
//! block device                  in place, exclusive  Device
//! regular file with --in-place  in place, locked     InPlace
//! regular file, or none yet     DEST.part, rename    Part
//! ```

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, StorageId, qemu_lock, shown, sys};
use xfer_hole_proto::Fingerprint;

use crate::DiskWriter;
use crate::base_requirement::{BaseReader, BaseRequirement};
use crate::block_device::{BlockDevice, check_size, open_exclusive};
use crate::discard::Discard;
use crate::file_name::{beside, is_at};
use crate::file_writer::FileWriter;
use crate::fingerprint_store::forget;
use crate::held_target::{CopyOver, HeldTarget};
use crate::in_place::InPlace;
use crate::in_use::InUse;
use crate::refusal::{check_locked, not_here};
use crate::resolve::{check_can_rename_over, check_origin, follow, in_directory, look};
use crate::stream::{PipeWriter, open_for_reader};
use crate::target_options::TargetOptions;
use crate::temp_file::TempFile;
use crate::temp_lock::TempLock;

/// How often a file may be replaced by other programs while it is to be locked.
const LOCK_TRIES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMethod {
    Stdout,
    Stream,
    Device,
    InPlace,
    Part,
}

/// A DEST that was examined and not changed yet.
#[derive(Debug)]
pub struct Target {
    pub(crate) path: PathBuf,
    pub(crate) method: WriteMethod,
    pub(crate) options: TargetOptions,
    pub(crate) fresh_mode: u32,
    /// The fingerprint that the target must have, and the function that computes it.
    expected: Option<(Fingerprint, BaseReader)>,
    /// An opened fifo that has a reader.
    reader: Option<File>,
}

impl Target {
    /// Examines DEST; `-` is standard output. Nothing is changed.
    ///
    /// # Errors
    ///
    /// If DEST can't be written without losing data.
    pub fn find(dest: &Path, options: TargetOptions) -> Result<Self> {
        let found = Self::locate(dest, options)?;
        found.check_unused()?;
        Ok(found)
    }

    /// Examines DEST for a disk that lies in the files `sources`.
    ///
    /// # Errors
    ///
    /// If DEST can't be written without losing data, or is one of `sources`.
    pub fn find_apart(dest: &Path, options: TargetOptions, sources: &[(PathBuf, StorageId)]) -> Result<Self> {
        let found = Self::locate(dest, options)?;
        found.check_apart(sources)?;
        found.check_unused()?;
        Ok(found)
    }

    fn locate(dest: &Path, options: TargetOptions) -> Result<Self> {
        if dest.as_os_str() == "-" {
            return Self::found(Path::new("standard output"), WriteMethod::Stdout, options);
        }
        let (dest, stat) = match &options.name {
            Some(name) => in_directory(dest, name, &options)?,
            None => (dest.to_path_buf(), look(dest, &options)?),
        };
        if options.is_named {
            check_origin(&dest, stat.as_ref(), &options)?;
        }
        let dest = dest.as_path();
        if options.no_clobber && fs::symlink_metadata(dest).is_ok() {
            return Err(DiskError::new(DiskErrorKind::Refused, dest, "is there already, and --no-clobber was given"));
        }
        let kind = stat.as_ref().map(Metadata::file_type);
        match kind {
            Some(kind) if options.confined && !kind.is_file() => return Err(not_here(dest)),
            Some(kind) if kind.is_dir() => {
                return Err(DiskError::new(DiskErrorKind::Refused, dest, "is a directory")
                    .hint("name the file to be made in it"));
            }
            Some(kind) if kind.is_block_device() => return Self::found(dest, WriteMethod::Device, options),
            Some(kind) if kind.is_fifo() || kind.is_char_device() => {
                return Self::found(dest, WriteMethod::Stream, options);
            }
            Some(kind) if !kind.is_file() => {
                return Err(DiskError::new(DiskErrorKind::Refused, dest, "is no file, device or pipe"));
            }
            _ => {}
        }
        let dest = if options.confined { dest.to_path_buf() } else { follow(dest)? };
        match stat {
            // Its other hard links may be in places where the caller may not write.
            Some(stat) if options.in_place && options.confined && stat.nlink() > 1 => Err(not_here(&dest)),
            Some(_) if options.in_place => Self::found(&dest, WriteMethod::InPlace, options),
            stat => {
                check_can_rename_over(&dest, stat.as_ref(), &options)?;
                let target = Self::found(&dest, WriteMethod::Part, options)?;
                target.temp_lock().check_foreign()?;
                Ok(target)
            }
        }
    }

    fn found(path: &Path, method: WriteMethod, options: TargetOptions) -> Result<Self> {
        if !matches!(method, WriteMethod::InPlace | WriteMethod::Part)
            && (options.mode.is_some() || options.owner.is_some())
        {
            return Err(DiskError::new(
                DiskErrorKind::Refused,
                path,
                "is no regular file, which --chmod and --chown are for",
            ));
        }
        for (given, flag) in [(options.target_is_zero, "--target-is-zero"), (options.discard, "--discard")] {
            if given && method != WriteMethod::Device {
                return Err(DiskError::new(
                    DiskErrorKind::Refused,
                    path,
                    format!("is no block device, which {flag} is for"),
                ));
            }
        }
        if matches!(method, WriteMethod::Stdout | WriteMethod::Stream) && options.read_back {
            return Err(DiskError::new(
                DiskErrorKind::Refused,
                path,
                "is no file or device, which --read-back could read",
            ));
        }
        Ok(Self { path: path.into(), method, options, fresh_mode: 0o666 & !sys::umask(), expected: None, reader: None })
    }

    /// Returns the path of the file or device that is written, links followed, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true for a block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        matches!(self.method, WriteMethod::Device)
    }

    /// Returns true for a regular file, existing or new; false for devices, pipes and standard output.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.method, WriteMethod::InPlace | WriteMethod::Part)
    }

    /// Returns true if the caller who named DEST may write here and not read.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        self.options.confined
    }

    /// Returns true if the user requested that the target is read back.
    #[must_use]
    pub fn is_read_back(&self) -> bool {
        self.options.read_back
    }

    /// Refuses a DEST that another program uses.
    fn check_unused(&self) -> Result<()> {
        match self.method {
            WriteMethod::Stdout | WriteMethod::Stream => Ok(()),
            WriteMethod::Device | WriteMethod::InPlace | WriteMethod::Part => self.options.in_use().check(&self.path),
        }
    }

    /// Checks that DEST is none of the files `sources` of the disk, by whatever name, and doesn't replace one.
    ///
    /// # Errors
    ///
    /// If it is or does.
    pub fn check_apart(&self, sources: &[(PathBuf, StorageId)]) -> Result<()> {
        if matches!(self.method, WriteMethod::Stdout | WriteMethod::Stream) {
            return Ok(());
        }
        let part = (self.method == WriteMethod::Part).then(|| beside(&self.path));
        for name in [Some(&self.path), part.as_ref()].into_iter().flatten() {
            let Some(storage) = StorageId::at(name) else { continue };
            if let Some((source, _)) = sources.iter().find(|(_, read)| read.is_shared(&storage)) {
                let what = format!("is the same as {}, which is to be read", shown(source));
                return Err(DiskError::new(DiskErrorKind::Refused, name, what).hint("name another file to be made"));
            }
        }
        Ok(())
    }

    /// Returns true if a new file will be written.
    #[must_use]
    pub fn is_new_file(&self) -> bool {
        self.method == WriteMethod::Part
    }

    /// Opens and locks an existing regular file without changing its length.
    ///
    /// # Errors
    ///
    /// If it can't be opened or locked, or another program uses it.
    pub fn open_as_it_is(self) -> Result<InPlace> {
        let Self { path, method, options, .. } = self;
        if method != WriteMethod::InPlace {
            return Err(DiskError::new(DiskErrorKind::Refused, path, "is no regular file"));
        }
        let file = open_locked(&path, &options)?;
        let held = file.metadata().map_err(|source| DiskError::io(&path, "cannot tell the size", source))?.len();
        let (rights, sync) = (options.rights(), !options.no_sync);
        Ok(InPlace { writer: FileWriter::new(file, path), size: None, held, rights, sync, source: None })
    }

    /// Returns true if what it holds can be read: files and devices.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        matches!(self.method, WriteMethod::Device | WriteMethod::InPlace | WriteMethod::Part)
    }

    /// Returns the file whose noted fingerprint decides whether it may stay as it is. Returns `None` if the user did
    /// not request that, or requested anything else that the content doesn't show.
    #[must_use]
    pub fn recallable(&self) -> Option<&Path> {
        let plain = self.options.remember && self.options.mode.is_none() && self.options.owner.is_none();
        self.noted().filter(|_| plain)
    }

    /// Returns the file whose fingerprint is noted once it is complete. Returns `None` for devices and pipes, whose
    /// changes can't be detected, and for callers who may not read here.
    #[must_use]
    pub fn noted(&self) -> Option<&Path> {
        (!self.options.confined && self.is_file()).then_some(self.path.as_path())
    }

    /// Returns true if the user requested that the fingerprint is noted.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        self.options.remember
    }

    /// Returns true if an interrupted transfer seems to have left a `.part` of the new file.
    #[must_use]
    pub fn has_part(&self) -> bool {
        self.method == WriteMethod::Part && self.temp_lock().is_left()
    }

    /// Opens and locks the file if it is updated in place; else returns `None`.
    ///
    /// # Errors
    ///
    /// If it can't be opened or locked, or another program uses it.
    pub fn lock_in_place(&self) -> Result<Option<File>> {
        match self.method {
            WriteMethod::InPlace => open_locked(&self.path, &self.options).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn temp_lock(&self) -> TempLock<'_> {
        TempLock::new(&self.path, &self.options, self.fresh_mode)
    }

    /// Opens the target for a disk of `size` bytes that builds on what is there: the old DEST and, for a new file with
    /// `resume`, the `.part` of an interrupted transfer. Writing begins here.
    ///
    /// # Errors
    ///
    /// Errors of opening, locking and reading.
    pub fn hold(self, size: u64, resume: bool) -> Result<HeldTarget> {
        let Self { path, method, options, fresh_mode, .. } = self;
        Ok(match method {
            WriteMethod::Device => {
                let device = open_device(path, Some(size), &options, None)?;
                let (layers, holds) = (vec![device.writer.opened()?], device.size.min(size));
                // From here on its content is read, not assumed to be zeros.
                let writer = Box::new(BlockDevice { target_is_zero: false, ..device });
                HeldTarget { writer, layers, size: holds, copy_over: CopyOver::Nothing }
            }
            WriteMethod::InPlace => {
                let file = open_in_place(path, Some(size), &options, None)?;
                let (layers, holds) = (vec![file.writer.opened()?], file.held.min(size));
                HeldTarget { writer: Box::new(file), layers, size: holds, copy_over: CopyOver::Nothing }
            }
            WriteMethod::Part => TempFile::hold(path, size, resume, fresh_mode, &options)?,
            WriteMethod::Stdout | WriteMethod::Stream => {
                let what = "takes bytes in order, and holds none to build on";
                return Err(DiskError::new(DiskErrorKind::Refused, &path, what));
            }
        })
    }

    /// Sets that parts of the target are kept, and the fingerprint that it must have, if known. `read` computes the
    /// target's fingerprint before anything is changed.
    ///
    /// # Errors
    ///
    /// If the user requires a check (`check_base`) and `expected` is `None`.
    pub fn builds_on(self, expected: Option<Fingerprint>, read: BaseReader) -> Result<Self> {
        self.check_named_base(expected)?;
        Ok(Self { expected: expected.map(|expected| (expected, read)), ..self })
    }

    pub(crate) fn check_named_base(&self, expected: Option<Fingerprint>) -> Result<()> {
        if self.options.check_base && expected.is_none() {
            let what = "is to be checked before parts of it are kept, and it is not known what it has to be";
            return Err(DiskError::new(DiskErrorKind::Refused, &self.path, what)
                .hint("send without --trust-base, or leave --check-base out"));
        }
        Ok(())
    }

    /// Waits for a reader if the target is a fifo, for at most `patience`, and only until `is_gone` returns true.
    ///
    /// # Errors
    ///
    /// If no reader opened it in time.
    pub fn with_reader(self, patience: Duration, is_gone: impl Fn() -> bool) -> Result<Self> {
        if self.method != WriteMethod::Stream {
            return Ok(self);
        }
        let reader = Some(open_for_reader(&self.path, patience, is_gone)?);
        Ok(Self { reader, ..self })
    }

    /// Opens the target for a disk of `size` bytes; `None` if the size is unknown (2014 dialect). `base` is the size in
    /// bytes in the stream's BASE record: DEST must hold that many bytes. Writing begins here.
    ///
    /// # Errors
    ///
    /// Errors of opening, locking and creating, and a DEST that doesn't hold the required disk.
    pub fn open(self, size: Option<u64>, base: Option<u64>) -> Result<Box<dyn DiskWriter>> {
        let Self { path, method, options, fresh_mode, expected, reader } = self;
        let sync = !options.no_sync;
        let base = base.map(|size| BaseRequirement { size, expected, recalls: !options.confined });
        if let Some(base) = &base {
            let device = method == WriteMethod::Device;
            let keeps = !matches!(method, WriteMethod::Stdout | WriteMethod::Stream);
            base.check_size(&path, keeps.then_some(device))?;
        }
        Ok(match method {
            WriteMethod::Stdout => {
                let failed = |source| DiskError::io(&path, "cannot write", source);
                let file = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
                Box::new(PipeWriter { file: file.into(), path, sync })
            }
            WriteMethod::Stream => Box::new(match reader {
                Some(file) => PipeWriter { file, path, sync },
                None => PipeWriter::open(path, sync, options.patience)?,
            }),
            WriteMethod::Device => Box::new(open_device(path, size, &options, base.as_ref())?),
            WriteMethod::InPlace => Box::new(open_in_place(path, size, &options, base.as_ref())?),
            WriteMethod::Part => Box::new(TempFile::create(path, size, base.as_ref(), fresh_mode, options)?),
        })
    }
}

fn open_device(
    path: PathBuf,
    size: Option<u64>,
    options: &TargetOptions,
    base: Option<&BaseRequirement>,
) -> Result<BlockDevice> {
    let file = open_exclusive(&path, true)?;
    lock_in_place(&file, &path, options.in_use())?;
    let holds = check_size(&file, &path, size)?;
    base.map_or(Ok(()), |base| base.check(&file, &path))?;
    let (sync, target_is_zero) = (!options.no_sync, options.target_is_zero);
    let writer = FileWriter::new(file, path);
    let writer = if options.direct { writer.directly()? } else { writer };
    let discard = options.discard.then(|| Discard::of(&writer.file));
    Ok(BlockDevice { writer, size: holds, sync, target_is_zero, discard })
}

/// Opens and locks an existing regular file. It is examined after it was locked: until then, another receiver may
/// replace it.
fn open_locked(path: &Path, options: &TargetOptions) -> Result<File> {
    let failed = |what: &str, source| DiskError::io(path, what, source);
    for _ in 0..LOCK_TRIES {
        let opened =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|source| failed("cannot open", source))?;
        lock_in_place(&file, path, options.in_use())?;
        let stat = file.metadata().map_err(|source| failed("cannot tell the size", source))?;
        if !stat.is_file() || (options.confined && stat.nlink() > 1) {
            return Err(DiskError::new(DiskErrorKind::Changed, path, "is another file than it was"));
        }
        if is_at(path, &stat) {
            options.in_use().check_loop(&stat, path)?;
            return Ok(file);
        }
    }
    Err(DiskError::new(DiskErrorKind::Changed, path, "is replaced by others all the time"))
}

fn open_in_place(
    path: PathBuf,
    size: Option<u64>,
    options: &TargetOptions,
    base: Option<&BaseRequirement>,
) -> Result<InPlace> {
    let failed = |what: &str, source| DiskError::io(&path, what, source);
    let file = open_locked(&path, options)?;
    base.map_or(Ok(()), |base| base.check(&file, &path))?;
    // Permissions are set before the first byte, so that a failure leaves the file unchanged.
    let rights = options.rights();
    rights.give(&file).map_err(|(what, source)| failed(what, source))?;
    // The noted fingerprint is invalid from here on, however the transfer ends.
    forget(&path);
    let holds = file.metadata().map_err(|source| failed("cannot tell the size", source))?.len();
    let grown = size.filter(|&size| size > holds);
    if let Some(size) = grown {
        file.set_len(size).map_err(|source| failed(&format!("cannot make it {size} bytes long"), source))?;
    }
    let writer = FileWriter::new(file, path);
    let writer = if options.direct { writer.directly()? } else { writer };
    if grown.is_some() {
        writer.touch();
    }
    let writer = writer.of_len(size.unwrap_or_default());
    let source = options.source.clone();
    Ok(InPlace { writer, size, held: holds, rights, sync: !options.no_sync, source })
}

/// Locks a file against other receivers and QEMU. The locks are those of QEMU, so that no virtual machine can start
/// with it meanwhile.
pub(crate) fn lock_in_place(file: &File, path: &Path, in_use: InUse) -> Result<()> {
    // udev briefly locks a device whenever a program closes it: retry for a while.
    let mut locked = file.try_lock();
    for _ in 0..20 {
        if !matches!(locked, Err(fs::TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        locked = file.try_lock();
    }
    if matches!(locked, Err(fs::TryLockError::WouldBlock)) {
        in_use.check_alone(file, path)?;
    }
    let forced = in_use.force && qemu_lock::user_of(file) == Some(qemu_lock::LockHolder::Reader);
    if !forced {
        check_locked(locked, path)?;
    }
    // The lock is taken before the check: of two programs that begin at a time, at least one sees the other.
    qemu_lock::hold_as_writer(file);
    in_use.check_alone(file, path)
}
