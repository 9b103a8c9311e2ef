//! A full file system fails with its own reason, and leaves the old disk.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;

use rig::{Before, Filesystem, Fs, Receiver, SHELLS, TestDisk, part_of, pour, run, tools};

const MIB: u64 = 1 << 20;

/// What is still to be written, less what is free, is what is said to be missing; the hint says what may be done.
#[track_caller]
fn missing(err: &str, dest: &Path) {
    let (_, rest) = err.split_once(": up to ").expect(err);
    let numbers: Vec<u64> = rest.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [missing, left, free] = numbers[..3] else { panic!("{err}") };
    assert!((18 * MIB..=80 * MIB).contains(&left), "{err}");
    assert_eq!(missing, left - free, "{err}");
    let part = part_of(dest).display().to_string();
    let hint = err.lines().find(|line| line.contains("hint: ")).expect(err);
    assert!(hint.contains("go on") && hint.contains("remove") && hint.contains(&part), "{err}");
}

/// Every way to write: spliced or read, with digests or without, a piece at a time or all at once.
fn fills_up(kind: Fs, size: u64) {
    let source = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let image = source.join("disk.img");
    TestDisk::empty(80 * MIB).with(MIB, 60 * MIB, 1).make(&image);
    let fs = Filesystem::new(kind, size);
    let dest = fs.join("out.img");
    for args in [&[][..], &["--hash"]] {
        let stream = pour(&tools!(), args, &image);
        for receiver in [Receiver::Binary, Receiver::Script(SHELLS[0]), Receiver::Script(SHELLS[2])] {
            for existing in [false, true] {
                let before = existing.then(|| {
                    fs::write(&dest, "the old disk").unwrap();
                    Before::of(&dest)
                });
                let outcome = run(&mut receiver.command(&tools!(), &dest, false, false), &stream);
                let what = format!("{kind:?} {receiver:?} {args:?} existing {existing}: {}", outcome.err);
                let outcome = outcome.refused(&["disk offset", "out.img.part"]);
                assert!(outcome.err.to_lowercase().contains("no space left on device"), "{what}");
                assert!(part_of(&dest).exists(), "{what}");
                if receiver == Receiver::Binary {
                    missing(&outcome.err, &dest);
                }
                fs::remove_file(part_of(&dest)).unwrap();
                match before {
                    Some(before) => before.untouched(&what),
                    None => assert!(!dest.exists(), "{what}"),
                }
                let _was_there = fs::remove_file(&dest);
            }
        }
    }
}

#[test]
fn a_copy_to_a_full_file_system_tells_how_much_of_its_data_is_missing() {
    let source = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let image = source.join("disk.img");
    // Most of the disk is a hole.
    TestDisk::empty(4096 * MIB).with(MIB, 60 * MIB, 1).make(&image);
    for kind in [Fs::Tmpfs, Fs::Ext4] {
        let fs = Filesystem::new(kind, 32 * MIB);
        let mut copies = std::process::Command::new(tools!().xfer_hole);
        let outcome =
            run(copies.arg("-q").arg(&image).arg(fs.join("out.img")), b"").refused(&["disk offset", "about "]);
        let (_, rest) = outcome.err.split_once(": about ").unwrap();
        let missing: u64 = rest.split_once(' ').unwrap().0.parse().unwrap();
        assert!((25 * MIB..60 * MIB).contains(&missing), "{}", outcome.err);
    }
}

#[test]
fn a_full_tmpfs_is_reported_and_the_old_disk_stays() {
    fills_up(Fs::Tmpfs, 16 * MIB);
}

#[test]
fn a_full_ext4_is_reported_and_the_old_disk_stays() {
    fills_up(Fs::Ext4, 32 * MIB);
}

#[test]
fn a_full_disk_in_place_says_that_the_file_is_not_whole() {
    let source = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = source.join("disk.img");
    TestDisk::empty(40 * MIB).with(MIB, 30 * MIB, 1).make(&image);
    let stream = pour(&tools!(), &[], &image);
    let fs = Filesystem::new(Fs::Tmpfs, 16 * MIB);
    let dest = fs.join("out.img");
    for receiver in Receiver::both() {
        fs::write(&dest, "the old disk").unwrap();
        let outcome = run(&mut receiver.command(&tools!(), &dest, true, true), &stream);
        assert!(outcome.err.to_lowercase().contains("no space left on device"), "{receiver:?} {}", outcome.err);
        outcome.refused(&["out.img", if receiver == Receiver::Binary { "updated in part" } else { "not whole" }]);
    }
}

#[test]
fn a_full_place_behind_standard_output_is_a_failure() {
    let source = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = source.join("disk.img");
    TestDisk::empty(4 * MIB).with(MIB, MIB, 1).make(&image);
    let stream = pour(&tools!(), &[], &image);
    for receiver in Receiver::both() {
        let outcome = run(&mut receiver.command(&tools!(), "/dev/full".as_ref(), false, true), &stream);
        assert!(outcome.err.to_lowercase().contains("no space left on device"), "{receiver:?} {}", outcome.err);
        outcome.refused(&["/dev/full"]);
    }
}
