//! Decides what a DEST is and how it may be written: the one owner of "nothing lost".
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

/// How often a file that is to be locked may be replaced by another meanwhile.
const LOCK_TRIES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMethod {
    Stdout,
    Stream,
    Device,
    InPlace,
    Part,
}

/// A DEST that has been looked at, and not been touched yet.
#[derive(Debug)]
pub struct Target {
    pub(crate) path: PathBuf,
    pub(crate) way: WriteMethod,
    pub(crate) options: TargetOptions,
    pub(crate) fresh_mode: u32,
    /// What has to be there.
    expected: Option<(Fingerprint, BaseReader)>,
    /// A fifo that has a reader, opened.
    reader: Option<File>,
}

impl Target {
    /// Looks at DEST; `-` is standard output. Refuses what can't be written without losing something, touches nothing.
    pub fn find(dest: &Path, options: TargetOptions) -> Result<Self> {
        let found = Self::locate(dest, options)?;
        found.check_unused()?;
        Ok(found)
    }

    /// Looks at DEST for a disk to be written there that lies in `sources`: refuses a DEST that is one of those files, too.
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
            // Its other names may stand where the caller may not write.
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

    fn found(path: &Path, way: WriteMethod, options: TargetOptions) -> Result<Self> {
        if !matches!(way, WriteMethod::InPlace | WriteMethod::Part)
            && (options.mode.is_some() || options.owner.is_some())
        {
            return Err(DiskError::new(
                DiskErrorKind::Refused,
                path,
                "is no regular file, which --chmod and --chown are for",
            ));
        }
        for (given, flag) in [(options.target_is_zero, "--target-is-zero"), (options.discard, "--discard")] {
            if given && way != WriteMethod::Device {
                return Err(DiskError::new(
                    DiskErrorKind::Refused,
                    path,
                    format!("is no block device, which {flag} is for"),
                ));
            }
        }
        if matches!(way, WriteMethod::Stdout | WriteMethod::Stream) && options.read_back {
            return Err(DiskError::new(
                DiskErrorKind::Refused,
                path,
                "is no file or device, which --read-back could read",
            ));
        }
        Ok(Self { path: path.into(), way, options, fresh_mode: 0o666 & !sys::umask(), expected: None, reader: None })
    }

    /// The file or device that is written, links followed; as it stands in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if it is a block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        matches!(self.way, WriteMethod::Device)
    }

    /// True if it is a regular file, or becomes one; false for devices, pipes and standard output.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.way, WriteMethod::InPlace | WriteMethod::Part)
    }

    /// True if it is named by somebody who may write here, and not read.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        self.options.confined
    }

    /// True if it is to be read back.
    #[must_use]
    pub fn is_read_back(&self) -> bool {
        self.options.read_back
    }

    /// Refuses a DEST that another program uses.
    fn check_unused(&self) -> Result<()> {
        match self.way {
            WriteMethod::Stdout | WriteMethod::Stream => Ok(()),
            WriteMethod::Device | WriteMethod::InPlace | WriteMethod::Part => self.options.in_use().check(&self.path),
        }
    }

    /// Refuses a DEST that is a file of the disk to be written there, by whatever name, or would take its place.
    pub fn check_apart(&self, sources: &[(PathBuf, StorageId)]) -> Result<()> {
        if matches!(self.way, WriteMethod::Stdout | WriteMethod::Stream) {
            return Ok(());
        }
        let part = (self.way == WriteMethod::Part).then(|| beside(&self.path));
        for name in [Some(&self.path), part.as_ref()].into_iter().flatten() {
            let Some(storage) = StorageId::at(name) else { continue };
            if let Some((host, _)) = sources.iter().find(|(_, read)| read.is_shared(&storage)) {
                let what = format!("is the same as {}, which is to be read", shown(host));
                return Err(DiskError::new(DiskErrorKind::Refused, name, what).hint("name another file to be made"));
            }
        }
        Ok(())
    }

    /// True if it will be a new file.
    #[must_use]
    pub fn is_new_file(&self) -> bool {
        self.way == WriteMethod::Part
    }

    /// Opens a regular file that is there, and locks it; it is as long as it was.
    pub fn open_as_it_is(self) -> Result<InPlace> {
        let Self { path, way, options, .. } = self;
        if way != WriteMethod::InPlace {
            return Err(DiskError::new(DiskErrorKind::Refused, path, "is no regular file"));
        }
        let file = open_locked(&path, &options)?;
        let held = file.metadata().map_err(|source| DiskError::io(&path, "cannot tell the size", source))?.len();
        let (rights, sync) = (options.rights(), !options.no_sync);
        Ok(InPlace { place: FileWriter::new(file, path), size: None, held, rights, sync, source: None })
    }

    /// True if what it holds can be read back: files and devices.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        matches!(self.way, WriteMethod::Device | WriteMethod::InPlace | WriteMethod::Part)
    }

    /// The file whose noted fingerprint says whether it may stay as it is: that was asked for, and nothing else is that its content
    /// doesn't tell.
    #[must_use]
    pub fn recallable(&self) -> Option<&Path> {
        let plain = self.options.remember && self.options.mode.is_none() && self.options.owner.is_none();
        self.noted().filter(|_| plain)
    }

    /// The file whose fingerprint is noted once it is whole: of devices and pipes nobody tells the changes, and who may not read here
    /// has nothing to note.
    #[must_use]
    pub fn noted(&self) -> Option<&Path> {
        (!self.options.confined && self.is_file()).then_some(self.path.as_path())
    }

    /// True if the user counts on the note.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        self.options.remember
    }

    /// True if an earlier transfer seems to have left a part of a new file.
    #[must_use]
    pub fn has_part(&self) -> bool {
        self.way == WriteMethod::Part && self.temp_lock().is_left()
    }

    /// The file, opened and locked, if it is one that is updated in place.
    pub fn lock_in_place(&self) -> Result<Option<File>> {
        match self.way {
            WriteMethod::InPlace => open_locked(&self.path, &self.options).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn temp_lock(&self) -> TempLock<'_> {
        TempLock::new(&self.path, &self.options, self.fresh_mode)
    }

    /// Makes it ready for a disk of `size` bytes that may build on what is there: for a new file, what an earlier transfer has left
    /// in its `.part`, if that is to be `resume`d, and the old DEST. Writing begins here.
    pub fn hold(self, size: u64, resume: bool) -> Result<HeldTarget> {
        let Self { path, way, options, fresh_mode, .. } = self;
        Ok(match way {
            WriteMethod::Device => {
                let device = open_device(path, Some(size), &options, None)?;
                let (layers, holds) = (vec![device.place.opened()?], device.size.min(size));
                // What it holds is known from here on.
                let writer = Box::new(BlockDevice { target_is_zero: false, ..device });
                HeldTarget { writer, layers, size: holds, copy_over: CopyOver::Nothing }
            }
            WriteMethod::InPlace => {
                let file = open_in_place(path, Some(size), &options, None)?;
                let (layers, holds) = (vec![file.place.opened()?], file.held.min(size));
                HeldTarget { writer: Box::new(file), layers, size: holds, copy_over: CopyOver::Nothing }
            }
            WriteMethod::Part => TempFile::hold(path, size, resume, fresh_mode, &options)?,
            WriteMethod::Stdout | WriteMethod::Stream => {
                let what = "takes bytes in order, and holds none to build on";
                return Err(DiskError::new(DiskErrorKind::Refused, &path, what));
            }
        })
    }

    /// Parts of what is there are to be kept, and this is what has to be there, if that is known: `read` reads it before anything is
    /// changed. Refuses to do without, if that was asked for.
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

    /// Waits for a reader, if it is a fifo: for `patience` at most, and no longer than the sender is there.
    pub fn with_reader(self, patience: Duration, is_gone: impl Fn() -> bool) -> Result<Self> {
        if self.way != WriteMethod::Stream {
            return Ok(self);
        }
        let reader = Some(open_for_reader(&self.path, patience, is_gone)?);
        Ok(Self { reader, ..self })
    }

    /// Makes it ready for a disk of `size` bytes (`None`: nobody knows, the 2014 dialect). `base`: the stream has BASE, and
    /// DEST must hold that many bytes. Writing begins here.
    pub fn open(self, size: Option<u64>, base: Option<u64>) -> Result<Box<dyn DiskWriter>> {
        let Self { path, way, options, fresh_mode, expected, reader } = self;
        let sync = !options.no_sync;
        let base = base.map(|size| BaseRequirement { size, expected, recalls: !options.confined });
        if let Some(base) = &base {
            let device = way == WriteMethod::Device;
            let keeps = !matches!(way, WriteMethod::Stdout | WriteMethod::Stream);
            base.check_size(&path, keeps.then_some(device))?;
        }
        Ok(match way {
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
    let place = FileWriter::new(file, path);
    let place = if options.direct { place.directly()? } else { place };
    let discard = options.discard.then(|| Discard::of(&place.file));
    Ok(BlockDevice { place, size: holds, sync, target_is_zero, discard })
}

/// A regular file that is there, locked. It is judged once it is: until then, another receiver may have put a new file in its place.
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
    // Before the first byte: what isn't permitted is to be known while the file is as it was.
    let rights = options.rights();
    rights.give(&file).map_err(|(what, source)| failed(what, source))?;
    // What was noted of it is over, however what begins now ends.
    forget(&path);
    let holds = file.metadata().map_err(|source| failed("cannot tell the size", source))?.len();
    let grown = size.filter(|&size| size > holds);
    if let Some(size) = grown {
        file.set_len(size).map_err(|source| failed(&format!("cannot make it {size} bytes long"), source))?;
    }
    let place = FileWriter::new(file, path);
    let place = if options.direct { place.directly()? } else { place };
    if grown.is_some() {
        place.touch();
    }
    let place = place.of_len(size.unwrap_or_default());
    let source = options.source.clone();
    Ok(InPlace { place, size, held: holds, rights, sync: !options.no_sync, source })
}

/// One writer at a time, and no running QEMU: we hold locks as it does, so that none is started meanwhile.
pub(crate) fn lock_in_place(file: &File, path: &Path, in_use: InUse) -> Result<()> {
    // udev locks a device for a moment whenever somebody has closed it: ask again for a while.
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
    // First held, then looked: of two that begin at a time, at least one sees the other.
    qemu_lock::hold_as_writer(file);
    in_use.check_alone(file, path)
}
