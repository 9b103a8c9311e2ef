//! The far end in sh holds the lock of what it writes from READY to its end, and looks at DEST anew after it has waited for another receiver.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Child;

use rig::{Before, TestDisk, mode, part_of, wait_until};
use tempfile::TempDir;

use crate::account::{Account, names};
use crate::{M, SHELLS, at_once, failed, sample};

/// True if another has it locked.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Reads on to the line that holds this.
fn heard(answers: &mut impl BufRead, what: &str) -> String {
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        assert_ne!(answers.read_line(&mut line).unwrap(), 0, "{what} was not said");
    }
    line
}

/// The rest of the stream, and how it ended.
fn ended(mut child: Child, answers: &mut impl Read, rest: &[u8]) -> (Option<i32>, String) {
    let _refused = child.stdin.take().unwrap().write_all(rest);
    let mut said = String::new();
    answers.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn it_is_held_from_ready_to_the_end() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (bytes, stream) = sample(target.path());
        let dest = target.path().join("out.img");
        for options in [&[][..], &["in-place"]] {
            let file = if options.is_empty() { part_of(&dest) } else { dest.clone() };
            if options.is_empty() {
                // What a transfer that was cut has left.
                failed(&account.push(&[], &dest, &stream[..stream.len() / 2]), true, "cut");
            }
            let mut child = account.begin(options, &dest, b"");
            let mut answers = BufReader::new(child.stdout.take().unwrap());
            heard(&mut answers, "XFER-HOLE-READY");
            assert!(is_locked(&file), "{sh} {options:?}: at READY");
            child.stdin.as_mut().unwrap().write_all(&stream[..stream.len() - 100]).unwrap();
            wait_until("it writes", || {
                is_locked(&file) && fs::read(&file).is_ok_and(|found| found.starts_with(&bytes[..4096]))
            });
            let (code, said) = ended(child, &mut answers, &stream[stream.len() - 100..]);
            assert_eq!((code, said.lines().last()), (Some(0), Some("DONE")), "{sh} {options:?}");
            assert!(fs::read(&dest).unwrap() == bytes && !is_locked(&dest), "{sh} {options:?}");
            assert_eq!(names(target.path()), ["out.img"], "{sh} {options:?}");
        }
        account.left_nothing(sh);
    });
}

#[test]
fn a_disk_that_another_receiver_has_finished_meanwhile_is_looked_at_anew() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (bytes, stream) = sample(target.path());
        let (dest, part) = (target.path().join("out.img"), part_of(&target.path().join("out.img")));
        fs::write(&part, "another's").unwrap();
        rig::mark_part(&part);
        let other = File::open(&part).unwrap();
        other.lock().unwrap();
        let inode = other.metadata().unwrap().ino();
        let mut child = account.begin(&[], &dest, b"");
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        // It has the file open, and waits.
        wait_until("it waits", || {
            let mut open = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
                let pid: u32 = process.file_name().to_str()?.parse().ok()?;
                (pid != std::process::id()).then(|| fs::metadata(process.path().join("fd/3")).ok())?
            });
            open.any(|stat| stat.ino() == inode)
        });
        fs::set_permissions(&part, fs::Permissions::from_mode(0o640)).unwrap();
        fs::rename(&part, &dest).unwrap();
        drop(other);
        let ready = heard(&mut answers, "XFER-HOLE-READY");
        assert_eq!(ready, "XFER-HOLE-READY 1 sh replaces\n", "{sh}");
        let (code, said) = ended(child, &mut answers, &stream);
        assert_eq!((code, said.lines().last()), (Some(0), Some("DONE")), "{sh}");
        assert!(fs::read(&dest).unwrap() == bytes, "{sh}");
        assert_eq!(mode(&dest), 0o640, "{sh}: the mode of the file that it replaced");
        account.left_nothing(sh);
    });
}

#[test]
fn in_place_a_dest_that_is_replaced_removed_or_moved_is_a_failure() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (bytes, stream) = sample(target.path());
        let [dest, victim, moved] = ["out.img", "victim.img", "moved.img"].map(|name| target.path().join(name));
        for harm in ["replaced", "replaced by a link", "removed", "moved"] {
            TestDisk::empty(5 * M).with(0, 5 * M, 7).make(&dest);
            TestDisk::empty(5 * M).with(0, 5 * M, 8).make(&victim);
            let mut child = account.begin(&["in-place"], &dest, &stream[..stream.len() - 100]);
            let mut answers = BufReader::new(child.stdout.take().unwrap());
            wait_until("it writes", || fs::read(&dest).is_ok_and(|found| found.starts_with(&bytes[..4096])));
            let before = Before::of(&victim);
            match harm {
                "replaced" => fs::rename(&victim, &dest).unwrap(),
                "removed" => fs::remove_file(&dest).unwrap(),
                _ => fs::rename(&dest, &moved).unwrap(),
            }
            if harm == "replaced by a link" {
                std::os::unix::fs::symlink(&victim, &dest).unwrap();
            }
            let (code, said) = ended(child, &mut answers, &stream[stream.len() - 100..]);
            assert_eq!(code, Some(2), "{sh} {harm}: {said}");
            assert!(said.lines().last().is_some_and(|line| line.starts_with("FAIL ")), "{sh} {harm}: {said}");
            assert!(said.contains("replaced or removed"), "{sh} {harm}: {said}");
            let found = if harm == "replaced" { &dest } else { &victim };
            assert!(fs::read(found).unwrap() == before.bytes(), "{sh} {harm}: the other file is not touched");
            assert_eq!(dest.exists(), harm.starts_with("replaced"), "{sh} {harm}");
            for name in names(target.path()) {
                fs::remove_file(target.path().join(name)).unwrap();
            }
        }
        account.left_nothing(sh);
    });
}
