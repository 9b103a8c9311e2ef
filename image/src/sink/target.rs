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
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::sink::device::Device;
use crate::sink::file::InPlace;
use crate::sink::part::{Part, parent};
use crate::sink::place::Place;
use crate::sink::stream::Stream;
use crate::{Error, Kind, Result, Sink, sys};

/// What the user allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetOptions {
    /// Update an existing regular file directly.
    pub in_place: bool,
    /// Success is said without waiting for the disk.
    pub no_sync: bool,
    /// A block device holds zeros already: holes need not be written.
    pub target_is_zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Stdout,
    Stream,
    Device,
    InPlace,
    Part,
}

/// A DEST that has been looked at, and not been touched yet.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    way: Way,
    options: TargetOptions,
    fresh_mode: u32,
}

impl Target {
    /// Looks at DEST; `-` is standard output. Refuses what can't be written without losing something, touches nothing.
    pub fn find(dest: &Path, options: TargetOptions) -> Result<Self> {
        let fresh_mode = 0o666 & !sys::umask();
        let found = |path: &Path, way| Ok(Self { path: path.into(), way, options, fresh_mode });
        if dest.as_os_str() == "-" {
            return found(Path::new("standard output"), Way::Stdout);
        }
        let stat = match fs::metadata(dest) {
            Ok(stat) => Some(stat),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::io(dest, "cannot write there", source)),
        };
        let kind = stat.as_ref().map(Metadata::file_type);
        match kind {
            Some(kind) if kind.is_dir() => {
                return Err(Error::new(Kind::Refused, dest, "is a directory").hint("name the file to be made in it"));
            }
            Some(kind) if kind.is_block_device() => return found(dest, Way::Device),
            Some(kind) if kind.is_fifo() || kind.is_char_device() => return found(dest, Way::Stream),
            Some(kind) if !kind.is_file() => {
                return Err(Error::new(Kind::Refused, dest, "is no file, device or pipe"));
            }
            _ => {}
        }
        let dest = follow(dest)?;
        match stat {
            Some(_) if options.in_place => found(&dest, Way::InPlace),
            stat => {
                check_can_rename_over(&dest, stat.as_ref())?;
                found(&dest, Way::Part)
            }
        }
    }

    /// Makes it ready for a disk of `size` octets (`None`: nobody knows, the 2014 dialect). `base`: the stream has BASE, and
    /// DEST must hold that many octets. Writing begins here.
    pub fn open(self, size: Option<u64>, base: Option<u64>) -> Result<Box<dyn Sink>> {
        let Self { path, way, options, fresh_mode } = self;
        let sync = !options.no_sync;
        if let Some(base) = base {
            check_base(&path, way, base)?;
        }
        if options.target_is_zero && way != Way::Device {
            return Err(Error::new(Kind::Refused, &path, "is no block device, which --target-is-zero is for"));
        }
        Ok(match way {
            Way::Stdout => {
                let failed = |source| Error::io(&path, "cannot write", source);
                let file = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
                Box::new(Stream { file: file.into(), path, sync })
            }
            Way::Stream => {
                let failed = |source| Error::io(&path, "cannot open", source);
                let file = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(&path).map_err(failed)?;
                Box::new(Stream { file, path, sync })
            }
            Way::Device => Box::new(open_device(path, size, options)?),
            Way::InPlace => Box::new(open_in_place(path, size, sync)?),
            Way::Part => Box::new(Part::create(path, size, base.is_some(), sync, fresh_mode)?),
        })
    }
}

/// The name behind symbolic links, which need not exist yet.
fn follow(dest: &Path) -> Result<PathBuf> {
    let mut path = dest.to_path_buf();
    for _ in 0..40 {
        if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
            return Err(Error::new(Kind::Refused, dest, "no such directory"));
        }
        match fs::read_link(&path) {
            Ok(link) => path = parent(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(Error::new(Kind::Refused, dest, "too many symbolic links"))
}

/// Refuses a name that a new file can't be renamed to, before anything is sent.
fn check_can_rename_over(dest: &Path, old: Option<&Metadata>) -> Result<()> {
    let hinted = |error: Error| match old {
        Some(_) => error.hint("use --in-place to update the file directly"),
        None => error,
    };
    let folder = parent(dest);
    let folder_stat = fs::metadata(folder).map_err(|source| Error::io(folder, "no such directory", source));
    let folder_stat = folder_stat.map_err(|error| match error.system().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => Error::new(Kind::Refused, folder, "no such directory"),
        _ => error,
    })?;
    if !folder_stat.is_dir() {
        return Err(Error::new(Kind::Refused, folder, "is no directory"));
    }
    sys::can_write_dir(folder)
        .map_err(|source| hinted(Error::io(folder, "cannot make files in this directory", source)))?;
    let Some(old) = old else { return Ok(()) };
    let fixed = sys::fixed(dest);
    let user = sys::effective_user();
    let sticky = folder_stat.mode() & 0o1000 != 0 && user != 0 && ![old.uid(), folder_stat.uid()].contains(&user);
    let why = match fixed {
        _ if fixed.mount_point => "is a mount point",
        _ if fixed.immutable => "is immutable",
        _ if fixed.append_only => "is append-only",
        _ if sticky => "belongs to somebody else, in a directory where only owners rename",
        _ => return Ok(()),
    };
    Err(hinted(Error::new(Kind::Refused, dest, format!("cannot be renamed over: it {why}"))))
}

/// Refuses a DEST that doesn't hold what KEEP will ask for.
fn check_base(path: &Path, way: Way, base: u64) -> Result<()> {
    let refused = |what: String| Err(Error::new(Kind::Refused, path, what));
    let failed = |source| Error::io(path, "cannot tell the size of what is to be kept", source);
    let holds = match way {
        Way::Stdout | Way::Stream => {
            return refused("the stream keeps parts of an older image, which can't be kept here".into());
        }
        Way::Device => File::open(path).and_then(|device| sys::device_size(&device)).map_err(failed)?,
        Way::InPlace | Way::Part => match fs::metadata(path) {
            Ok(old) => old.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return refused(format!(
                    "the stream keeps parts of an older image of {base} octets, but there is none"
                ));
            }
            Err(source) => return Err(failed(source)),
        },
    };
    if holds < base {
        return refused(format!("the stream keeps parts of an older image of {base} octets, but it has {holds}"));
    }
    Ok(())
}

fn open_device(path: PathBuf, size: Option<u64>, options: TargetOptions) -> Result<Device> {
    // O_EXCL without O_CREAT: fails with EBUSY on a block device that is mounted or otherwise held.
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(&path);
    let file = opened.map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => Error::new(Kind::Refused, &path, "is mounted or in use"),
        _ => Error::io(&path, "cannot open", source),
    })?;
    lock_in_place(&file, &path)?;
    let holds = sys::device_size(&file).map_err(|source| Error::io(&path, "cannot tell the size", source))?;
    if let Some(size) = size.filter(|&size| size > holds) {
        let what = format!("the device of {holds} octets is too small for the disk of {size}");
        return Err(Error::new(Kind::Refused, &path, what));
    }
    let (sync, target_is_zero) = (!options.no_sync, options.target_is_zero);
    Ok(Device { place: Place::new(file, path), size: holds, sync, target_is_zero })
}

fn open_in_place(path: PathBuf, size: Option<u64>, sync: bool) -> Result<InPlace> {
    let failed = |what: &str, source| Error::io(&path, what, source);
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let file = opened.map_err(|source| failed("cannot open", source))?;
    lock_in_place(&file, &path)?;
    let holds = file.metadata().map_err(|source| failed("cannot tell the size", source))?.len();
    let grown = size.filter(|&size| size > holds);
    if let Some(size) = grown {
        file.set_len(size).map_err(|source| failed(&format!("cannot make it {size} octets long"), source))?;
    }
    let place = Place::new(file, path);
    if grown.is_some() {
        place.touch();
    }
    Ok(InPlace { place, size, held: holds, sync })
}

/// One writer at a time, and no running QEMU: it holds shared locks of octets 100 and on (what it uses) and 200 and on
/// (what it doesn't want others to use), one for each of its permissions. We hold some too, so that none is started meanwhile.
fn lock_in_place(file: &File, path: &Path) -> Result<()> {
    const QEMU_USES: i64 = 100;
    const QEMU_FORBIDS: i64 = 200;
    const QEMU_PERMISSIONS: i64 = 8;
    const QEMU_READ_WRITE_RESIZE: i64 = 4;
    // udev locks a device for a moment whenever somebody has closed it: ask again for a while.
    let mut locked = file.try_lock();
    for _ in 0..20 {
        if !matches!(locked, Err(fs::TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        locked = file.try_lock();
    }
    match locked {
        Err(fs::TryLockError::WouldBlock) => {
            return Err(Error::new(Kind::Refused, path, "is locked by another program, maybe another receiver"));
        }
        Err(fs::TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
            return Err(Error::io(path, "cannot lock", error));
        }
        _ => {}
    }
    for octets in [QEMU_USES, QEMU_FORBIDS] {
        // Where such locks are not to be had, QEMU has none either.
        if sys::is_record_locked(file, octets, QEMU_PERMISSIONS).unwrap_or(false) {
            return Err(Error::new(Kind::Refused, path, "is in use by a running QEMU"));
        }
        let _none_to_be_had = sys::share_record(file, octets, QEMU_READ_WRITE_RESIZE);
    }
    Ok(())
}
