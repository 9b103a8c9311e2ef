//! `--read-back`: what was stored is read once more, and only then it is called done.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{
    Before, FarEnd, Filesystem, Fs, HOST, LoopDevice, Outcome, Running, Setup, TestDisk, Toolbox, assert_same, holes,
    part_of, pour, requires, run, tools, wait_until, write_at,
};

const MIB: u64 = 1 << 20;
/// The last byte of the first record: once it is written, those before it stay as they are.
const WRITTEN: u64 = MIB - 1;
/// A byte of a hole.
const HOLE: u64 = 12 * MIB;

fn disk() -> TestDisk {
    TestDisk::empty(24 * MIB + 512).with(0, MIB, 1).with(3 * MIB + 512, 3 * MIB + 7, 2).with(20 * MIB, MIB, 3)
}

fn receiver(args: &[&str], dest: &Path) -> Command {
    let mut command = Command::new(tools!().recv_hole);
    command.arg("--read-back").args(args).arg(dest);
    command
}

fn byte(path: &Path, at: u64) -> u8 {
    let mut byte = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut byte, at));
    if read.is_ok() { byte[0] } else { 0 }
}

/// What stands at [`WRITTEN`].
fn front_byte(disk: &TestDisk) -> u8 {
    disk.bytes()[usize::try_from(WRITTEN).unwrap()]
}

/// Receives, and changes a byte of what is written behind the receiver's back before END comes.
fn disturbed(args: &[&str], dest: &Path, written: &Path, stream: &[u8], at: u64) -> Outcome {
    let (front, end) = stream.split_at(stream.len() - 40);
    assert!(!front.ends_with(b"\n"), "END is on its way");
    let expected = front_byte(&disk());
    let mut running = Running::start(&mut receiver(args, dest));
    running.say(front);
    wait_until("much of it is written", || byte(written, WRITTEN) == expected && byte(written, HOLE) == 0);
    write_at(written, at, &[byte(written, at) ^ 1]);
    running.say(end);
    running.end()
}

#[test]
fn a_good_disk_is_done_on_every_file_system_and_on_a_device() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        disk().make(&image);
        for sums in [&["--hash"][..], &["--hash", "--hash-interval", "4K", "--min-hole", "512"]] {
            let stream = pour(&tools!(), sums, &image);
            for args in [&[][..], &["--direct"], &["--in-place"], &["--in-place", "--direct"]] {
                let done = run(&mut receiver(args, &dest), &stream).ok();
                assert_eq!(done.err, "", "{kind:?} {args:?}");
                assert_same(&image, &dest);
                assert!(!part_of(&dest).exists());
            }
        }
        assert_eq!(holes(&dest), holes(&image), "{kind:?}");
    }
    let fs = Filesystem::new(Fs::Tmpfs, 128 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    for size in [24 * MIB + 512, 25 * MIB] {
        let device = LoopDevice::filled(size, 0xee);
        let done = run(&mut receiver(&[], device.path()), &stream).ok();
        assert_eq!(done.err.contains("left as they were"), size == 25 * MIB, "{}", done.err);
        assert!(fs::read(device.path()).unwrap().starts_with(&disk().bytes()));
    }
    for size in [0, 1, 1 << 40] {
        TestDisk::empty(size).make(&image);
        let dest = fs.join("empty.img");
        run(&mut receiver(&[], &dest), &pour(&tools!(), &["--hash"], &image)).ok();
        assert_eq!(fs::metadata(&dest).unwrap().len(), size);
    }
}

#[test]
fn an_byte_that_changes_in_part_is_found_and_the_old_disk_stays() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        disk().make(&image);
        let stream = pour(&tools!(), &["--hash"], &image);
        fs::write(&dest, "the old disk").unwrap();
        let before = Before::of(&dest);
        // In data, and in a hole.
        for at in [4000, HOLE, 24 * MIB + 511] {
            let part = part_of(&dest);
            let found = disturbed(&[], &dest, &part, &stream, at);
            found.refused(&["out.img.part", "read back", "kept"]);
            before.untouched("it was read back wrong");
            assert!(part.exists(), "{kind:?} {at}");
            fs::remove_file(&part).unwrap();
        }
        // With nothing changed it is done.
        run(&mut receiver(&[], &dest), &stream).ok();
        assert_same(&image, &dest);
    }
}

#[test]
fn an_byte_that_changes_in_place_and_on_a_device_is_found() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    for at in [4000, HOLE] {
        TestDisk::empty(30 * MIB).with(0, 30 * MIB, 9).make(&dest);
        let found = disturbed(&["--in-place"], &dest, &dest, &stream, at);
        found.refused(&["out.img", "read back", "updated in part"]);
        let device = LoopDevice::filled(25 * MIB, 0xee);
        let found = disturbed(&[], device.path(), device.path(), &stream, at);
        found.refused(&[device.path().to_str().unwrap(), "read back", "overwritten in part"]);
    }
    // What a device has behind the disk is nobody's.
    let device = LoopDevice::filled(25 * MIB, 0xee);
    disturbed(&[], device.path(), device.path(), &stream, 25 * MIB - 1).ok();
}

#[test]
fn it_is_read_past_the_page_cache_after_the_sync_and_before_the_rename() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let (image, dest, log) = (fs.join("disk.img"), fs.join("out.img"), fs.join("log"));
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-qq", "-e", "trace=openat,pread64,fsync,rename,renameat2", "-o"]).arg(&log);
    let plain = receiver(&[], &dest);
    run(traced.arg(plain.get_program()).args(plain.get_args()), &stream).ok();
    let log = fs::read_to_string(&log).unwrap();
    let place = |what: &[&str]| {
        let found = log.lines().position(|call| what.iter().all(|word| call.contains(word)));
        found.unwrap_or_else(|| panic!("no {what:?} in: {log}"))
    };
    let (synced, opened) = (place(&["fsync(", "out.img.part"]), place(&["openat(", "O_DIRECT"]));
    let (read, renamed) = (place(&["pread64(", "out.img.part"]), place(&["rename", "out.img.part"]));
    assert!(synced < opened && opened < read && read < renamed, "{synced} {opened} {read} {renamed}");
    // Holes are not read. A call that another interrupts is two lines, of which the second has the number.
    let calls = log.lines().filter(|call| call.contains("pread64"));
    let bytes: u64 = calls.filter_map(|call| call.rsplit(" = ").next()?.parse::<u64>().ok()).sum();
    assert!((5 * MIB..7 * MIB).contains(&bytes), "{bytes} bytes were read back");
}

#[test]
fn a_copy_on_this_machine_is_read_back_too() {
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let copy = |args: &[&str]| run(Command::new(tools!().xfer_hole).arg("-q").args(args).arg(&image).arg(&dest), b"");
    copy(&["--read-back"]).refused(&["--read-back needs --hash"]);
    copy(&["--read-back", "--hash", "--no-sync"]).refused(&["--read-back", "--no-sync"]);
    assert!(!dest.exists() && !part_of(&dest).exists());
    for args in [&["--hash"][..], &["--hash", "--in-place"], &["--hash", "--direct", "--min-hole", "64K"]] {
        assert_eq!(copy(&[args, &["--read-back"]].concat()).ok().err, "");
        assert_same(&image, &dest);
    }
    let device = LoopDevice::filled(25 * MIB, 0xee);
    let mut command = Command::new(tools!().xfer_hole);
    run(command.args(["-q", "--hash", "--read-back"]).arg(&image).arg(device.path()), b"").ok();
    assert!(fs::read(device.path()).unwrap().starts_with(&disk().bytes()));
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_touched() {
    let fs = Filesystem::new(Fs::Tmpfs, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    disk().make(&dest);
    let before = Before::of(&dest);
    let plain = pour(&tools!(), &[], &image);
    run(&mut receiver(&[], &dest), &plain).refused(&["no digests", "--read-back"]);
    let keeps = b"XFER-HOLE 1 8192 sha256 4096 4096\nBASE 8192\nKEEP 8192\nEND \n";
    for args in [&[][..], &["--in-place"]] {
        run(&mut receiver(args, &dest), keeps).refused(&["keeps parts of an older image", "--read-back"]);
    }
    run(&mut receiver(&["--classic"], &dest), b"HOLE\n4096\n").complaints().iter().for_each(|line| {
        assert!(line.contains("--read-back"), "{line}");
    });
    let hashed = pour(&tools!(), &["--hash"], &image);
    for name in ["-", "/dev/null"] {
        let refused = run(&mut receiver(&[], Path::new(name)), &hashed).refused(&["--read-back"]);
        assert!(refused.out.is_empty());
    }
    run(&mut receiver(&["--no-sync"], &dest), &hashed).refused(&["--no-sync"]);
    let stream = run(Command::new(tools!().xfer_hole).args(["--hash", "--read-back"]).arg(&image), b"");
    assert!(stream.refused(&["--read-back"]).out.is_empty());
    before.untouched("nothing was begun");
    assert!(!part_of(&dest).exists());
}

#[test]
fn a_push_asks_for_it_and_a_pull_does_it() {
    let toolbox = Toolbox::new().with("xfer-hole", &tools!().xfer_hole).with("recv-hole", &tools!().recv_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &disk());
    let there = far.account.home("out.img");
    for args in [&["--read-back"][..], &["--read-back", "--in-place"], &["--read-back", "--direct"]] {
        far.push(args, &image, "out.img").ok();
        assert_same(&image, &there);
    }
    assert_eq!(far.push(&["--read-back", "--no-hash"], &image, "out.img").refused(&["--read-back"]).out, b"");
    let here = far.near("pulled.img");
    far.pull(&["--read-back"], "out.img", &here).ok();
    assert_same(&image, &here);
    far.pull(&["--read-back", "--no-hash"], "out.img", &here).refused(&["--read-back", "--no-hash"]);
}

#[test]
fn the_script_says_that_it_cannot() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let before = far.belongings();
    let refused = far.push(&["--read-back"], &image, "out.img");
    refused.blamed(HOST, &["recv-hole.sh doesn't read back", "--read-back needs recv-hole"]);
    far.push(&["--read-back", "--receiver", "sh"], &image, "out.img").blamed(HOST, &["doesn't read back"]);
    assert_eq!(far.account.belongings().changed_since(&before), Vec::<PathBuf>::new());
}
