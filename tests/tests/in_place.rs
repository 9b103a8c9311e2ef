//! An existing file updated directly: same inode, right bytes, punched holes, and nobody else's file written under them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rig::{
    Filesystem, Fs, Outcome, Receiver, Running, SHELLS, TestDisk, assert_holes_within, assert_same, holes,
    holes_within, part_of, pour, requires, run, tools, wait_until,
};

const MIB: u64 = 1 << 20;

fn receive(receiver: Receiver, dest: &Path, stream: &[u8]) -> Outcome {
    run(&mut receiver.command(&tools!(), dest, true, true), stream)
}

/// Sizes of the disk that end on a block's border, and within a block.
const SIZES: [u64; 3] = [4 * MIB, 4 * MIB + 1000, 3 * MIB + 4095];

#[test]
fn a_smaller_equal_or_larger_old_file_becomes_the_disk_with_its_holes_punched() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        for (n, size) in SIZES.into_iter().enumerate() {
            TestDisk::empty(size).with(4096, 8192, 1).with(MIB + 100, 70_000, 2).make(&image);
            for hash in [false, true] {
                let stream = pour(&tools!(), if hash { &["--hash"] } else { &[] }, &image);
                for old in [100, size, size + 10 * MIB] {
                    let mut receivers = vec![Receiver::Binary, Receiver::Script(SHELLS[0])];
                    if hash == (n == 0) && old == size {
                        receivers.push(Receiver::Script(SHELLS[1 + n * 2]));
                        receivers.push(Receiver::Script(SHELLS[2 + n * 2]));
                    }
                    for receiver in receivers {
                        let what = format!("{kind:?} {receiver:?} {old} bytes become {size}, hash {hash}");
                        TestDisk::empty(old).with(0, old, 7).make(&dest);
                        let inode = fs::metadata(&dest).unwrap().ino();
                        assert_eq!(receive(receiver, &dest, &stream).code, Some(0), "{what}");
                        assert_eq!(fs::metadata(&dest).unwrap().ino(), inode, "{what}");
                        assert!(!part_of(&dest).exists(), "{what}");
                        assert_same(&image, &dest);
                        assert_holes_within(&holes_within(&image, 4096), &holes(&dest), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn a_dest_that_is_not_there_yet_is_made_by_part_and_rename() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    let stream = pour(&tools!(), &[], &image);
    for receiver in Receiver::both() {
        receive(receiver, &dest, &stream[..stream.len() - 2]).refused(&["out.img.part"]);
        assert!(!dest.exists(), "{receiver:?}");
        receive(receiver, &dest, &stream).ok();
        assert_same(&image, &dest);
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn what_is_kept_is_not_touched_and_the_rest_is_made_right() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let (dest, expected) = (fs.join("out.img"), fs.join("expected.img"));
    let old = TestDisk::empty(4 * MIB).with(0, 3 * MIB, 7);
    let fresh = vec![0x55; 4096];
    // Kept data, fresh data, a hole over old data, kept data, and a kept hole.
    let text = format!("XFER-HOLE 1 {}\nBASE {}\nKEEP {MIB}\nDATA 4096\n", 4 * MIB, 4 * MIB);
    let rest = format!("HOLE {}\nKEEP {MIB}\nWAIT\nKEEP {MIB}\nEND\n", MIB - 4096);
    let stream = [text.as_bytes(), &fresh, rest.as_bytes()].concat();
    TestDisk::empty(4 * MIB).with(0, MIB, 7).with(2 * MIB, MIB, 7).make(&expected);
    std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(&expected).unwrap(), &fresh, MIB)
        .unwrap();
    for in_place in [true, false] {
        for receiver in Receiver::all() {
            old.make(&dest);
            let inode = fs::metadata(&dest).unwrap().ino();
            run(&mut receiver.command(&tools!(), &dest, in_place, true), &stream).ok();
            assert_same(&expected, &dest);
            assert_eq!(fs::metadata(&dest).unwrap().ino() == inode, in_place, "{receiver:?}");
            assert_holes_within(
                &holes_within(&expected, 4096),
                &holes(&dest),
                &format!("{receiver:?} in place {in_place}"),
            );
        }
    }
}

#[test]
fn base_refuses_a_file_that_is_missing_or_too_short_before_it_is_written() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    let stream = b"XFER-HOLE 1 8192\nBASE 8192\nKEEP 8192\nEND\n";
    for receiver in Receiver::all() {
        for in_place in [false, true] {
            run(&mut receiver.command(&tools!(), &dest, in_place, true), stream).refused(&["out.img"]);
            assert!(!dest.exists(), "{receiver:?}");
            fs::write(&dest, "old").unwrap();
            let before = rig::Before::of(&dest);
            run(&mut receiver.command(&tools!(), &dest, in_place, true), stream).refused(&["out.img"]);
            before.untouched(&format!("{receiver:?} in place {in_place}"));
            let _leftover = fs::remove_file(part_of(&dest));
            fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn a_hashed_payload_is_never_written_in_place_before_it_is_verified() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(16384).with(0, 16384, 1).make(&image);
    let mut stream = pour(&tools!(), &["--hash", "--hash-interval", "4096"], &image);
    // A byte of the third payload, of which the first two are right.
    let third = stream.len() - 72 - 4096 - 80 - 2000;
    stream[third] ^= 1;
    for receiver in Receiver::all() {
        let old = vec![0xee; 16384];
        fs::write(&dest, &old).unwrap();
        let outcome = receive(receiver, &dest, &stream).refused(&["record 3", "disk offset 8192", "digest", "out.img"]);
        let (found, image) = (fs::read(&dest).unwrap(), fs::read(&image).unwrap());
        assert!(found[..8192] == image[..8192] && found[8192..] == old[8192..], "{receiver:?} {}", outcome.err);
    }
}

/// How /proc/locks calls a file: by the device of its file system, and its inode, of which others have the same number.
fn as_locked(mount: &Path, file: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let device = fields.rev().find(|fields| Path::new(fields[4]) == mount).unwrap()[2].to_owned();
    let (major, minor) = device.split_once(':').unwrap();
    let [major, minor] = [major, minor].map(|number| number.parse::<u32>().unwrap());
    format!(" {major:02x}:{minor:02x}:{} ", fs::metadata(file).unwrap().ino())
}

#[test]
fn a_file_held_by_a_running_qemu_is_refused_in_place() {
    requires(&["qemu-io"]);
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
        TestDisk::empty(MIB).with(0, MIB, 7).make(&dest);
        let stream = pour(&tools!(), &[], &image);
        let before = rig::Before::of(&dest);
        let mut qemu = Running::start(Command::new("qemu-io").args(["-f", "raw"]).arg(&dest));
        let locked = as_locked(fs.path(), &dest);
        wait_until("QEMU holds its locks", || fs::read_to_string("/proc/locks").unwrap().contains(&locked));
        for receiver in
            [Receiver::Binary, Receiver::Script(SHELLS[0]), Receiver::Script(SHELLS[2]), Receiver::Script(SHELLS[6])]
        {
            receive(receiver, &dest, &stream).refused(&["QEMU"]);
            before.untouched(&format!("{kind:?} {receiver:?}"));
        }
        assert!(qemu.lives());
        qemu.say(b"quit\n");
        qemu.end().ok();
        for receiver in Receiver::both() {
            receive(receiver, &dest, &stream).ok();
            assert_same(&image, &dest);
        }
    }
}

#[test]
fn qemu_does_not_open_what_recv_hole_writes_in_place() {
    requires(&["qemu-io"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(MIB).with(0, MIB, 1).make(&image);
    TestDisk::empty(MIB).with(0, MIB, 7).make(&dest);
    let stream = pour(&tools!(), &[], &image);
    let mut holds = Running::start(&mut Receiver::Binary.command(&tools!(), &dest, true, true));
    holds.say(&stream[..stream.len() / 2]);
    wait_until("writing has begun", || fs::read(&dest).unwrap()[0] == fs::read(&image).unwrap()[0]);
    let mut qemu = Command::new("qemu-io");
    let outcome = run(qemu.args(["-f", "raw", "-c", "write 0 512"]).arg(&dest), b"");
    assert!(outcome.code != Some(0) && outcome.err.contains("lock"), "{outcome:?}");
    receive(Receiver::Binary, &dest, &stream).retryable(&["another receiver"]);
    receive(Receiver::both()[1], &dest, &stream).refused(&["out.img"]);
    holds.say(&stream[stream.len() / 2..]);
    holds.end().ok();
    assert_same(&image, &dest);
}

#[test]
fn a_refused_open_line_leaves_the_file_in_place_as_it_was() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    TestDisk::empty(2 * MIB).with(0, 2 * MIB, 7).make(&dest);
    let before = rig::Before::of(&dest);
    let stream = pour(&tools!(), &[], &image);
    let binary = |flags: &[&str]| {
        let mut command = Command::new(tools!().recv_hole);
        run(command.arg("--in-place").args(flags).arg(&dest), &stream)
    };
    binary(&["--require-hash"]).refused(&["no digests"]);
    before.untouched("--require-hash");
    binary(&["--max-size", "1048575"]).refused(&["1048576", "1048575", "--max-size"]);
    before.untouched("--max-size");
    for bad in [&b""[..], b"XFER-HOLE 2 4096\n", b"QFI\xfb", b"XFER-HOLE 1 4096\nBASE 4194304\nKEEP 4096\nEND\n"] {
        for receiver in Receiver::all() {
            receive(receiver, &dest, bad).refused(&[]);
            before.untouched(&format!("{receiver:?} {bad:?}"));
        }
    }
    binary(&["--max-size", "1M"]).ok();
    assert_same(&image, &dest);
}
