//! Locks on files that a transfer reads or replaces: they detect other users of the file, and keep other programs from
//! writing to it.
//!
//! The receivers of this project, recv-hole.sh included, hold an exclusive flock(2) on a file that they write in place.
//! Readers hold a shared one.
//!
//! QEMU's file-posix driver holds a shared record lock on byte 100 + n for each permission n that it uses, and on byte
//! 200 + n for each permission that it denies to others (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE). The permissions are
//! consistent read 0, write 1, write unchanged 2, resize 3. The programs of this project hold these locks too. Each
//! holds one more lock, which distinguishes it from QEMU.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;
use std::{io, thread};

use crate::listed_locks::ListedLocks;
use crate::{DiskError, DiskErrorKind, Result, sys};

const USES: i64 = 100;
const FORBIDS: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;
/// An upper bound for the number of permissions, with room for later versions of QEMU.
const PERMISSIONS: i64 = 8;
/// The number of permissions from READ to RESIZE.
const READ_TO_RESIZE: i64 = 4;
/// The bytes that this project's programs lock while they read a file, and while they write it in place. They are
/// locked before QEMU's bytes.
const OUR_READER: i64 = 300;
const OUR_WRITER: i64 = 301;
/// The number of attempts to get flock(2), and the pause between them. udev locks a device for a moment whenever a
/// program that wrote to it has closed it.
const TRIES: u32 = 10;
const PACE: Duration = Duration::from_millis(100);

/// The program that uses a file, according to its record locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockHolder {
    /// QEMU or one of its tools.
    Qemu,
    /// A program of this project that reads the file.
    Reader,
    /// A program of this project that writes the file in place.
    Writer,
}

/// Takes the locks of a reader that excludes writers. They are held as long as the file is open. Several readers can
/// hold them.
///
/// # Errors
///
/// [`DiskErrorKind::Busy`] if a receiver updates the file, [`DiskErrorKind::Refused`] if QEMU may write to it.
pub fn lock_for_reading(file: &File, path: &Path) -> Result<()> {
    let error = |kind, what| DiskError::new(kind, path, what);
    let in_use = || match is_locked(file, OUR_WRITER, 1) {
        true => error(DiskErrorKind::Busy, "is being updated by a receiver")
            .hint("wait until it has ended, or read it all the same with --force-share"),
        false => error(DiskErrorKind::Refused, "is in use by another program, as QEMU's locks say")
            .hint("stop it, send a snapshot, or read it all the same with --force-share"),
    };
    // If the file system doesn't support these locks, QEMU has none either.
    let _none_to_be_had = sys::share_record(file, OUR_READER, 1);
    // Locks are taken before those of others are checked, so of two programs that start at once, at least one sees the
    // other.
    for byte in [USES + READ, FORBIDS + WRITE, FORBIDS + RESIZE] {
        match sys::share_record(file, byte, 1) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(in_use()),
            _ => {}
        }
    }
    for byte in [USES + WRITE, USES + RESIZE, FORBIDS + READ] {
        if is_locked(file, byte, 1) {
            return Err(in_use());
        }
    }
    if is_shared(file) {
        return Ok(());
    }
    let what = "is locked by another program, maybe a receiver that updates it";
    Err(error(DiskErrorKind::Busy, what).hint("wait until it has ended, or read it all the same with --force-share"))
}

/// Takes a shared flock(2). False if a writer holds it. If the file system doesn't support flock(2), no writer holds it
/// either.
fn is_shared(file: &File) -> bool {
    (0..TRIES).any(|attempt| {
        if attempt > 0 {
            thread::sleep(PACE);
        }
        !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    })
}

fn is_locked(file: &File, start: i64, len: i64) -> bool {
    sys::is_record_locked(file, start, len).unwrap_or(false)
}

/// The program that uses the file through another file description, if any.
pub fn user_of(file: &File) -> Option<LockHolder> {
    user_by(|start, len| is_locked(file, start, len))
}

/// The program that uses the file with this name, according to /proc/locks. For a file that can't be opened.
pub fn user_at(path: &Path) -> Option<LockHolder> {
    let locks = ListedLocks::at(path).ok()?;
    user_by(|start, len| locks.covers(start, len)).or(locks.is_exclusive.then_some(LockHolder::Writer))
}

fn user_by(is_locked: impl Fn(i64, i64) -> bool) -> Option<LockHolder> {
    let is_used = || is_locked(USES, PERMISSIONS) || is_locked(FORBIDS, PERMISSIONS);
    let is_changed = || is_locked(USES + WRITE, READ_TO_RESIZE - WRITE) || is_locked(FORBIDS + READ, 1);
    // Asked up to three times, so that a program of this project that starts or ends between two checks is not taken
    // for QEMU.
    for _ in 0..3 {
        if is_locked(OUR_WRITER, 1) {
            return Some(LockHolder::Writer);
        }
        if is_locked(OUR_READER, 1) && !is_changed() {
            return is_used().then_some(LockHolder::Reader);
        }
        if !is_used() {
            return None;
        }
    }
    Some(LockHolder::Qemu)
}

/// Takes the locks of a writer that excludes all other programs. They are held as long as the file is open. Does
/// nothing if the file system doesn't support them.
pub fn hold_as_writer(file: &File) {
    let _none_to_be_had = sys::share_record(file, OUR_WRITER, 1);
    for bytes in [USES, FORBIDS] {
        let _none_to_be_had = sys::share_record(file, bytes, READ_TO_RESIZE);
    }
}

/// Takes locks that keep QEMU from opening the file for writing. They are held as long as the file is open. Readers are
/// not affected.
pub fn keep_from_writers(file: &File) {
    let _none_to_be_had = sys::share_record(file, FORBIDS + WRITE, READ_TO_RESIZE - WRITE);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A qemu-io process that has the image open.
    struct Qemu(Child);

    impl Qemu {
        fn new(args: &[&str], image: &Path) -> Self {
            let mut child = Command::new("qemu-io")
                .args(args)
                .arg(image)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // Its reply shows that the image is open.
            child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
            let mut answer = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
            assert!(answer.contains("1 MiB"), "{answer}");
            Self(child)
        }
    }

    impl Drop for Qemu {
        fn drop(&mut self) {
            let _ended = (self.0.kill(), self.0.wait());
        }
    }

    fn image(dir: &tempfile::TempDir, format: &str) -> PathBuf {
        let path = dir.path().join(format!("disk.{format}"));
        let created = Command::new("qemu-img").args(["create", "-q", "-f", format]).arg(&path).arg("1M").status();
        assert!(created.unwrap().success());
        path
    }

    fn lock(image: &Path) -> (File, Result<()>) {
        let file = File::open(image).unwrap();
        let locked = lock_for_reading(&file, image);
        (file, locked)
    }

    fn writes(image: &Path) -> bool {
        let out = Command::new("qemu-io").args(["-c", "write 0 512"]).arg(image).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() || text.contains("lock"), "{text}");
        out.status.success()
    }

    #[test]
    fn image_open_for_writing_in_qemu_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw"] {
            let image = image(&dir, format);
            let qemu = Qemu::new(&["-f", format], &image);
            let error = lock(&image).1.unwrap_err();
            assert_eq!(error.kind(), DiskErrorKind::Refused);
            assert!(error.to_string().ends_with(": is in use by another program, as QEMU's locks say"), "{error}");
            assert!(error.hint_text().unwrap().contains("--force-share"));
            drop(qemu);
            lock(&image).1.unwrap();
        }
    }

    #[test]
    fn qemu_can_not_open_for_writing_while_a_reader_holds_locks() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw"] {
            let image = image(&dir, format);
            let (file, locked) = lock(&image);
            locked.unwrap();
            assert!(!writes(&image));
            drop(file);
            assert!(writes(&image));
        }
    }

    #[test]
    fn readers_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw"] {
            let image = image(&dir, format);
            let qemu = Qemu::new(&["-r", "-f", format], &image);
            let (one, two) = (lock(&image), lock(&image));
            one.1.unwrap();
            two.1.unwrap();
            drop(qemu);
            drop(Qemu::new(&["-r", "-f", format], &image));
            drop(Qemu::new(&["-r", "-U", "-f", format], &image));
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-O", "raw"]).arg(&image).arg(dir.path().join("out"));
            assert!(convert.status().unwrap().success());
        }
    }

    #[test]
    fn a_refused_reader_leaves_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let image = image(&dir, "qcow2");
        let qemu = Qemu::new(&[], &image);
        assert!(lock(&image).1.is_err());
        drop(qemu);
        assert!(writes(&image));
    }
}
