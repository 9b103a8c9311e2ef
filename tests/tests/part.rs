//! `.part`: one writer at a time, leftovers are started anew, and nothing else that bears the name is harmed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use rig::{
    Before, Cut, Filesystem, Fs, Outcome, Receiver, Running, SHELLS, TestDisk, converse, mark_part, part_of, pour, run,
    tools, wait_until,
};

fn disk(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let image = folder.join("disk.img");
    TestDisk::empty(40_000).with(8192, 9000, 1).make(&image);
    (fs::read(&image).unwrap(), pour(&tools!(), &[], &image))
}

fn receive(receiver: Receiver, dest: &Path, stream: &[u8]) -> Outcome {
    run(&mut receiver.command(&tools!(), dest, false, true), stream)
}

#[test]
fn a_leftover_is_started_anew_and_none_of_its_bytes_stay() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (bytes, stream) = disk(fs.path());
    let dest = fs.join("out.img");
    for receiver in Receiver::all() {
        for len in [0, 10, 40_000, 100_000] {
            fs::write(part_of(&dest), vec![0xee; len]).unwrap();
            mark_part(&part_of(&dest));
            receive(receiver, &dest, &stream).ok();
            assert!(fs::read(&dest).unwrap() == bytes, "{receiver:?} over {len} bytes");
            assert!(!part_of(&dest).exists(), "{receiver:?}");
            fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn a_link_by_the_name_of_part_is_not_followed() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (_, stream) = disk(fs.path());
    let (dest, precious) = (fs.join("out.img"), fs.join("precious"));
    for receiver in Receiver::all() {
        fs::write(&precious, "precious").unwrap();
        let before = Before::of(&precious);
        symlink("precious", part_of(&dest)).unwrap();
        receive(receiver, &dest, &stream).refused(&["out.img.part"]);
        before.untouched(&format!("{receiver:?}"));
        assert!(fs::symlink_metadata(part_of(&dest)).unwrap().is_symlink(), "{receiver:?}");
        assert!(!dest.exists(), "{receiver:?}");
        // Nor is one that leads to nothing made.
        fs::remove_file(&precious).unwrap();
        receive(receiver, &dest, &stream).refused(&["out.img.part"]);
        assert!(!precious.exists() && !dest.exists(), "{receiver:?}");
        fs::remove_file(part_of(&dest)).unwrap();
    }
}

#[test]
fn a_file_that_has_part_as_its_other_name_keeps_its_bytes() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (_, stream) = disk(fs.path());
    let (dest, precious) = (fs.join("out.img"), fs.join("precious"));
    fs::write(&precious, "precious").unwrap();
    for receiver in Receiver::all() {
        fs::hard_link(&precious, part_of(&dest)).unwrap();
        let outcome = receive(receiver, &dest, &stream);
        assert_eq!(fs::read(&precious).unwrap(), b"precious", "{receiver:?} {}", outcome.err);
        outcome.refused(&["out.img.part"]);
        fs::remove_file(part_of(&dest)).unwrap();
        assert!(!dest.exists() && !part_of(&dest).exists());
    }
}

#[test]
fn a_fifo_or_directory_by_the_name_of_part_is_refused_without_waiting() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (_, stream) = disk(fs.path());
    let dest = fs.join("out.img");
    fs::write(&dest, "the old disk").unwrap();
    let before = Before::of(&dest);
    for receiver in Receiver::all() {
        nix::unistd::mkfifo(&part_of(&dest), Mode::from_bits_truncate(0o600)).unwrap();
        receive(receiver, &dest, &stream).refused(&["out.img.part"]);
        fs::remove_file(part_of(&dest)).unwrap();
        fs::create_dir(part_of(&dest)).unwrap();
        receive(receiver, &dest, &stream).refused(&["out.img.part"]);
        fs::remove_dir(part_of(&dest)).unwrap();
        before.untouched(&format!("{receiver:?}"));
    }
}

#[test]
fn a_second_receiver_is_refused_while_the_first_lives_and_the_first_goes_on() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (bytes, stream) = disk(fs.path());
    let half = stream.len() / 2;
    let all = [Receiver::Binary, Receiver::Script(SHELLS[0]), Receiver::Script(SHELLS[2])];
    for first in all {
        for second in all {
            for leftover in [false, true] {
                let what = format!("{first:?}, then {second:?}");
                let dest = fs.join("out.img");
                if leftover {
                    fs::write(part_of(&dest), vec![1; 70_000]).unwrap();
                    mark_part(&part_of(&dest));
                }
                let mut holds = Running::start(&mut first.command(&tools!(), &dest, false, true));
                holds.say(&stream[..half]);
                wait_until("the first has locked", || {
                    fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.len() == bytes.len() as u64)
                });
                let (outcome, words) = (receive(second, &dest, &stream), ["out.img.part", "another receiver"]);
                match second {
                    Receiver::Binary => outcome.retryable(&words),
                    Receiver::Script(_) => outcome.refused(&words),
                };
                assert!(holds.lives() && part_of(&dest).exists() && !dest.exists(), "{what}");
                holds.say(&stream[half..]);
                holds.end().ok();
                assert!(fs::read(&dest).unwrap() == bytes, "{what}");
                fs::remove_file(&dest).unwrap();
            }
        }
    }
}

#[test]
fn a_dead_receiver_does_not_hold_its_lock() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (bytes, stream) = disk(fs.path());
    let dest = fs.join("out.img");
    for first in Receiver::both() {
        for second in Receiver::both() {
            let mut holds = Running::start(&mut first.command(&tools!(), &dest, false, true));
            holds.say(&stream[..stream.len() / 2]);
            wait_until("the first has begun", || part_of(&dest).exists());
            assert_eq!(holds.kill().code, None);
            receive(second, &dest, &stream).ok();
            assert!(fs::read(&dest).unwrap() == bytes, "{first:?}, then {second:?}");
        }
    }
}

#[test]
fn receivers_that_race_leave_a_whole_disk_of_one_of_them() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let dest = fs.join("out.img");
    let disks = [1, 2, 3, 4].map(|seed| {
        let image = fs.join("disk.img");
        TestDisk::empty(3 << 20).with(0, 1 << 20, seed).with(2 << 20, 4096, seed).make(&image);
        (fs::read(&image).unwrap(), pour(&tools!(), &[], &image))
    });
    for round in 0..10 {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let run = |n: usize| receive(Receiver::both()[(n + round) / 2 % 2], &dest, &disks[n].1);
            let threads: Vec<_> = (0..disks.len()).map(|n| scope.spawn(move || run(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let found = fs::read(&dest).unwrap();
        let winner = disks.iter().position(|(bytes, _)| *bytes == found);
        let winner = winner.unwrap_or_else(|| panic!("the disk is nobody's, round {round}: {outcomes:#?}"));
        assert_eq!(outcomes[winner].code, Some(0), "round {round}: {outcomes:#?}");
        for outcome in outcomes.iter().filter(|outcome| outcome.code != Some(0)) {
            let busy = outcome.code == Some(75);
            let one = outcome.clone();
            if busy {
                one.retryable(&["out.img"])
            } else {
                one.refused(&["out.img"])
            };
        }
        let names: Vec<_> = fs::read_dir(fs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().any(|name| name == "out.img"), "{names:?}");
        let _failed_one = fs::remove_file(part_of(&dest));
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn a_file_that_no_transfer_has_left_is_refused_before_anything_comes() {
    for kind in [Fs::Ext4, Fs::Ramfs] {
        let fs = Filesystem::new(kind, 64 << 20);
        let (bytes, stream) = disk(fs.path());
        let dest = fs.join("out.img");
        fs::write(part_of(&dest), "a user's file").unwrap();
        fs::set_permissions(part_of(&dest), fs::Permissions::from_mode(0o600)).unwrap();
        let before = Before::of(&part_of(&dest));
        let command = |args: &[&str]| {
            let mut command = Command::new(tools!().recv_hole);
            command.args(args).arg(&dest);
            command
        };
        for args in [&[][..], &["--no-sync"], &["--dry-run"]] {
            // Nothing is read before that.
            let refused =
                Running::start(&mut command(args)).outlived().refused(&["out.img.part", "no transfer has left"]);
            assert!(refused.err.contains("hint: ") && refused.err.contains("--force"), "{}", refused.err);
        }
        // A side file of an earlier one doesn't make it ours.
        let lines = dest.with_extension("img.part.lines");
        fs::write(&lines, "XFER-HOLE-PART 1 inode 1\n").unwrap();
        run(&mut command(&[]), &stream).refused(&["out.img.part", "no transfer has left"]);
        before.untouched("a user's file");
        run(&mut command(&["--force"]), &stream).ok();
        assert!(fs::read(&dest).unwrap() == bytes);
        assert!(!part_of(&dest).exists() && !lines.exists());
    }
}

#[test]
fn a_user_s_file_of_the_side_file_s_name_is_left_alone() {
    for kind in [Fs::Ext4, Fs::Ramfs] {
        let fs = Filesystem::new(kind, 64 << 20);
        let (bytes, stream) = disk(fs.path());
        let dest = fs.join("out.img");
        let lines = dest.with_extension("img.part.lines");
        fs::write(&lines, "a user's file").unwrap();
        receive(Receiver::Binary, &dest, &stream).ok();
        assert!(fs::read(&dest).unwrap() == bytes);
        assert_eq!(fs::read(&lines).unwrap(), b"a user's file");
    }
}

#[test]
fn what_is_left_where_there_are_no_attributes_is_known_by_its_side_file() {
    let fs = Filesystem::new(Fs::Ramfs, 64 << 20);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(8 << 20).with(0, 7 << 20, 1).make(&image);
    let lines = dest.with_extension("img.part.lines");
    let (sent, received, _) = converse(&tools!(), &[], &image, &[], &dest, Cut::Receiver(6 << 20));
    assert!(sent.code != Some(0) && received.code != Some(0));
    assert!(fs::read_to_string(&lines).unwrap().starts_with("XFER-HOLE"));
    let (sent, received, flowed) = converse(&tools!(), &[], &image, &[], &dest, Cut::Never);
    assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
    assert!(flowed.want().is_some() && flowed.payload() < 7 << 20, "{}", flowed.payload());
    assert!(fs::read(&dest).unwrap() == fs::read(&image).unwrap());
    assert!(!lines.exists() && !part_of(&dest).exists());
}
