//! QEMU's image locks: whether somebody may be writing to a file that we are about to read, and that nobody begins to.
//!
//! QEMU's file-posix driver holds a shared lock of octet 100 + n for each permission n that it uses, and of 200 + n for each
//! that it doesn't want others to use (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE). Permissions are consistent reading 0,
//! writing 1, writing what is there already 2, resizing 3.

use std::io;

use crate::{Host, Kind, Result, sys};

const USES: i64 = 100;
const FORBIDS: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Takes the locks of a reader that bears no writer beside it, for as long as the file is open, and refuses a file that has one.
/// Readers don't disturb each other.
pub(crate) fn guard(host: &Host) -> Result<()> {
    let in_use = || {
        host.error(Kind::Refused, "is in use by another program, as QEMU's locks say")
            .hint("stop it, send a snapshot, or read it all the same with --force-share")
    };
    // First held, then looked: of two that begin at a time, at least one sees the other.
    for octet in [USES + READ, FORBIDS + WRITE, FORBIDS + RESIZE] {
        match sys::share_record(host.file(), octet, 1) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(in_use()),
            // Where such locks are not to be had, QEMU has none either.
            _ => {}
        }
    }
    for octet in [USES + WRITE, USES + RESIZE, FORBIDS + READ] {
        if sys::is_record_locked(host.file(), octet, 1).unwrap_or(false) {
            return Err(in_use());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A qemu-io that has the image open.
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
            // Its answer says that the image is open.
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

    fn writes(image: &Path) -> bool {
        let out = Command::new("qemu-io").args(["-c", "write 0 512"]).arg(image).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() || text.contains("lock"), "{text}");
        out.status.success()
    }

    #[test]
    fn an_image_that_qemu_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw"] {
            let image = image(&dir, format);
            let qemu = Qemu::new(&["-f", format], &image);
            let error = guard(&Host::open(&image).unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.to_string().ends_with(": is in use by another program, as QEMU's locks say"), "{error}");
            assert!(error.hint_text().unwrap().contains("--force-share"));
            drop(qemu);
            guard(&Host::open(&image).unwrap()).unwrap();
        }
    }

    #[test]
    fn qemu_does_not_begin_to_write_while_we_read() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw"] {
            let image = image(&dir, format);
            let host = Host::open(&image).unwrap();
            guard(&host).unwrap();
            assert!(!writes(&image));
            drop(host);
            assert!(writes(&image));
        }
    }

    #[test]
    fn readers_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["qcow2", "raw"] {
            let image = image(&dir, format);
            let qemu = Qemu::new(&["-r", "-f", format], &image);
            let (one, two) = (Host::open(&image).unwrap(), Host::open(&image).unwrap());
            guard(&one).unwrap();
            guard(&two).unwrap();
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
        assert!(guard(&Host::open(&image).unwrap()).is_err());
        drop(qemu);
        assert!(writes(&image));
    }
}
