//! Checks whether a destination is in use. After a rename over its name, a virtual machine or loop device would
//! continue to write to the old file, and these writes would be lost.

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use xfer_hole_os::qemu_lock::{self, LockHolder};
use xfer_hole_os::{DiskError, DiskErrorKind, Result, StorageId, shown, sys};

use crate::refusal::not_here;

/// Number of times to wait for a program that has the file open for writing.
const PATIENCE: u32 = 20;
/// Duration of each wait.
const PACE: Duration = Duration::from_millis(50);

/// Refuses a destination that another program uses, unless `force` is set. If `confined` is set, the error doesn't tell
/// the reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InUse {
    pub force: bool,
    pub confined: bool,
}

impl InUse {
    /// Checks the file or device at this path, if there is one.
    pub(crate) fn check(self, path: &Path) -> Result<()> {
        self.look(path, false).map(drop)
    }

    /// Checks again immediately before a rename over the path. While the returned file is open, QEMU can't begin to
    /// write to it.
    pub(crate) fn check_before_rename(self, path: &Path) -> Result<Option<File>> {
        self.look(path, true)
    }

    fn look(self, path: &Path, hold: bool) -> Result<Option<File>> {
        if self.force {
            return Ok(None);
        }
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let Ok(file) = opened else {
            // A file that can't be read may still be replaced by a rename.
            let mut user = qemu_lock::user_at(path);
            for _ in 0..PATIENCE {
                // A receiver releases its lock soon after its rename.
                if user != Some(LockHolder::Writer) {
                    break;
                }
                thread::sleep(PACE);
                user = qemu_lock::user_at(path);
            }
            self.check_user(user, path)?;
            return fs::symlink_metadata(path).map_or(Ok(()), |stat| self.check_loop(&stat, path)).map(|()| None);
        };
        if hold {
            qemu_lock::keep_from_writers(&file);
        }
        self.check_user(qemu_lock::user_of(&file), path)?;
        if let Ok(stat) = file.metadata() {
            self.check_loop(&stat, path)?;
        }
        self.check_writers(&file, path)?;
        Ok(Some(file))
    }

    fn check_user(self, user: Option<LockHolder>, path: &Path) -> Result<()> {
        match user {
            Some(LockHolder::Qemu) => Err(self.held_by_qemu(path)),
            Some(LockHolder::Writer) => Err(self.held_by_receiver(path)),
            // A reader continues to read the old file.
            Some(LockHolder::Reader) | None => Ok(()),
        }
    }

    /// Refuses a file or device that is to be changed in place and that another program uses, even for reading.
    pub(crate) fn check_alone(self, file: &File, path: &Path) -> Result<()> {
        match qemu_lock::user_of(file).filter(|_| !self.force) {
            Some(LockHolder::Qemu) => Err(self.held_by_qemu(path)),
            Some(LockHolder::Writer) => Err(self.held_by_receiver(path)),
            Some(LockHolder::Reader) => {
                Err(self.refused(path, "is being read by xfer-hole".into(), "wait until it has ended"))
            }
            None => Ok(()),
        }
    }

    /// Refuses a file or device that is attached to a loop device.
    pub(crate) fn check_loop(self, stat: &Metadata, path: &Path) -> Result<()> {
        let Some(found) = LoopDevice::over(stat).filter(|_| !self.force) else { return Ok(()) };
        let device = shown(&found.device);
        let readers = if found.read_only { ", read-only: its readers would keep the old disk" } else { "" };
        let what = format!("is attached to the loop device {device}{readers}");
        Err(self.refused(path, what, &format!("detach it (losetup -d {device}) first")))
    }

    /// Refuses a regular file that another program has open for writing, if the system tells.
    fn check_writers(self, file: &File, path: &Path) -> Result<()> {
        // A forked child briefly shares this process's open files, and another receiver closes its file soon after its
        // rename.
        for _ in 0..PATIENCE {
            if !sys::is_open_for_writing(file) {
                return Ok(());
            }
            thread::sleep(PACE);
        }
        Err(self.refused(path, "is open for writing in another program".into(), "end that program first"))
    }

    fn held_by_qemu(self, path: &Path) -> DiskError {
        self.refused(path, "is in use by a running QEMU".into(), "stop the virtual machine first")
    }

    fn held_by_receiver(self, path: &Path) -> DiskError {
        self.error(DiskErrorKind::Busy, path, "is in use by another receiver".into(), "wait until it has ended")
    }

    fn refused(self, path: &Path, what: String, first: &str) -> DiskError {
        self.error(DiskErrorKind::Refused, path, what, first)
    }

    fn error(self, kind: DiskErrorKind, path: &Path, what: String, first: &str) -> DiskError {
        if self.confined {
            return not_here(path);
        }
        DiskError::new(kind, path, what).hint(format!("{first}, or write it all the same with --force"))
    }
}

/// A loop device attached to a file.
struct LoopDevice {
    device: PathBuf,
    read_only: bool,
}

impl LoopDevice {
    /// Returns the first loop device whose backing file or device is the given one.
    fn over(stat: &Metadata) -> Option<Self> {
        if !stat.is_file() && !stat.file_type().is_block_device() {
            return None;
        }
        let names = fs::read_dir("/sys/block").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("loop")).collect();
        names.sort();
        names.into_iter().find_map(|name| Self::named(&name, stat))
    }

    fn named(name: &str, stat: &Metadata) -> Option<Self> {
        let folder = Path::new("/sys/block").join(name);
        let backing = fs::read_to_string(folder.join("loop/backing_file")).ok()?;
        let backing = PathBuf::from(backing.strip_suffix('\n').unwrap_or(&backing));
        let device = Path::new("/dev").join(name);
        // The backing file's path may name another file here, because of other mounts or a rename. The device tells the
        // inode, but only to privileged processes.
        let is_over = || {
            let info = sys::loop_backing(&File::open(&device).ok()?).ok()?;
            Some(if stat.file_type().is_block_device() {
                info.own == stat.rdev()
            } else {
                info.file == (stat.dev(), stat.ino())
            })
        };
        let by_name = || StorageId::at(&backing).is_some_and(|storage| storage.is_same(&StorageId::of(stat)));
        let read_only = fs::read_to_string(folder.join("ro")).is_ok_and(|text| text.trim() == "1");
        is_over().unwrap_or_else(by_name).then_some(Self { device, read_only })
    }
}

/// Returns true for a swap file or device in use. A rename over a swap file fails.
pub(crate) fn is_swap(stat: &Metadata) -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let names = swaps.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    let here = StorageId::of(stat);
    names.filter_map(|name| StorageId::at(&unescaped(name))).any(|swap| swap.is_same(&here))
}

/// Decodes a path from /proc, in which spaces and some other characters are a backslash and three octal digits.
fn unescaped(name: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind.get(..3).filter(|_| first == b'\\').and_then(|code| str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
