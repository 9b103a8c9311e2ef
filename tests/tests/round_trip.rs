//! A disk that is sent arrives, byte for byte and hole for hole: every pair of disk, way of finding extents, digests or none,
//! receiver and file system.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rig::{
    Filesystem, Fs, Receiver, SHELLS, TestDisk, assert_holes_within, assert_same, holes, holes_of, holes_within, pairs,
    pairwise, pour, product, records, run, send_to, tool, tools,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// A disk to be sent: what is written, and what is only preallocated (start and length).
struct Case {
    name: &'static str,
    disk: TestDisk,
    preallocated: Vec<(u64, u64)>,
}

fn cases() -> Vec<Case> {
    let fragments =
        |bytes: u64| (0..bytes / (8 * K)).fold(TestDisk::empty(bytes), |disk, at| disk.with(at * 8 * K, 4 * K, 1));
    let plain = [
        ("no bytes", TestDisk::empty(0)),
        ("one byte", TestDisk::empty(1).with(0, 1, 1)),
        ("one byte that is a hole", TestDisk::empty(1)),
        ("all hole", TestDisk::empty(10 * M)),
        ("all data", TestDisk::empty(3 * M).with(0, 3 * M, 2)),
        ("hole in front", TestDisk::empty(3 * M).with(2 * M, M, 3)),
        ("hole at the end", TestDisk::empty(3 * M).with(0, M + 4 * K, 4)),
        ("data that ends off a sector", TestDisk::empty(2 * M + 1234).with(M, M + 1234, 5)),
        ("hole that ends off a sector", TestDisk::empty(2 * M + 777).with(0, M, 6)),
        ("sectors that end off a block", TestDisk::empty(M + 512 * 3).with(0, 512, 7).with(M, 1536, 7)),
        ("data at odd places", TestDisk::empty(M).with(5, 1, 8).with(12 * K + 100, 6 * K, 8).with(M - 9, 3, 8)),
        ("4K of data, 4K of hole", fragments(M)),
        (
            "zeros that are written",
            TestDisk::empty(4 * M).with(0, M, 9).with(M, M, 0).with(2 * M, 512, 9).with(3 * M, M, 0),
        ),
        ("hole of more than 4 GiB", TestDisk::empty(5 * G + 12 * K).with(0, 4 * K, 10).with(5 * G, 8 * K, 10)),
    ];
    let case = |(name, disk)| Case { name, disk, preallocated: Vec::new() };
    let mut cases: Vec<_> = plain.into_iter().map(case).collect();
    let disk = TestDisk::empty(8 * M).with(M, 64 * K, 11).with(6 * M, 4 * K, 11);
    cases.push(Case { name: "preallocated", disk, preallocated: vec![(0, 3 * M), (6 * M, 2 * M)] });
    cases
}

const METHODS: [&str; 3] = ["seek", "fiemap", "scan"];
const DISK: usize = 0;
const METHOD: usize = 1;
const FS: usize = 4;

/// Values of the five choices: disk, way of finding extents, digests or none, receiver, file system.
fn counts() -> [usize; 5] {
    [cases().len(), METHODS.len(), 2, Receiver::all().len(), Fs::ALL.len()]
}

/// FIEMAP is not to be had on tmpfs, which a test of its own shows.
fn may_meet(one: (usize, usize), other: (usize, usize)) -> bool {
    !(one == (METHOD, 1) && other.0 == FS && Fs::ALL[other.1] == Fs::Tmpfs)
}

fn rows() -> Vec<Vec<usize>> {
    let huge: Vec<_> = cases().iter().map(|case| case.disk.size > G).collect();
    // Reading 5 GiB of holes takes its time: once is enough.
    pairwise(&counts(), may_meet, |row| u64::from(huge[row[DISK]]) * u64::from(row[METHOD] == 2))
}

fn make(case: &Case, image: &Path) {
    case.disk.make(image);
    for (start, len) in &case.preallocated {
        let (start, len) = (start.to_string(), len.to_string());
        drop(tool("fallocate", &["-n", "-o", &start, "-l", &len, image.to_str().unwrap()]));
    }
}

/// All rows of the table that are on this file system.
fn arrive_on(kind: Fs) {
    let (tools, fs) = (tools!(), Filesystem::new(kind, G));
    let dest = fs.join("out.img");
    for (number, case) in cases().iter().enumerate() {
        let image = fs.join("disk.img");
        make(case, &image);
        for row in rows().into_iter().filter(|row| row[DISK] == number && Fs::ALL[row[FS]] == kind) {
            let receiver = Receiver::all()[row[3]];
            let mut args = vec!["--extents", METHODS[row[METHOD]]];
            args.extend((row[2] == 1).then_some("--hash"));
            let what = format!("{} by {args:?} to {receiver:?} on {kind:?}", case.name);
            let _not_there = fs::remove_file(&dest);
            let (sent, received) = send_to(&tools, &args, &image, receiver, &dest);
            assert_eq!((sent.code, sent.err.as_str()), (Some(0), ""), "{what}");
            assert_eq!((received.code, received.err.as_str()), (Some(0), ""), "{what}");
            assert_eq!(fs::metadata(&dest).unwrap().len(), case.disk.size, "{what}");
            assert_same(&image, &dest);
            assert_holes_within(&holes_within(&image, 4 * K), &holes(&dest), &what);
            // What was a hole on the wire is a hole in the file, and nothing else is.
            assert_eq!(holes(&dest), holes_of(&records(&pour(&tools, &args, &image)), 4 * K), "{what}");
        }
    }
}

#[test]
fn on_ext4_disks_arrive_whole_with_their_holes() {
    arrive_on(Fs::Ext4);
}

#[test]
fn on_xfs_disks_arrive_whole_with_their_holes() {
    arrive_on(Fs::Xfs);
}

#[test]
fn on_btrfs_disks_arrive_whole_with_their_holes() {
    arrive_on(Fs::Btrfs);
}

#[test]
fn on_tmpfs_disks_arrive_whole_with_their_holes() {
    arrive_on(Fs::Tmpfs);
}

#[test]
fn the_rows_hold_every_two_values_that_can_meet() {
    let rows = rows();
    let met: BTreeSet<_> = rows.iter().flat_map(|row| pairs(row)).collect();
    let all: BTreeSet<_> = product(&counts()).iter().flat_map(|row| pairs(row)).collect();
    let missing: Vec<_> = all.difference(&met).collect();
    assert_eq!(missing, [&(METHOD, 1, FS, 3)], "only FIEMAP and tmpfs don't meet");
    assert!(rows.len() < product(&counts()).len() / 10, "{} rows", rows.len());
}

#[test]
fn one_record_and_one_extent_of_more_than_2_gib_arrive() {
    const SIZE: u64 = 2 * G + 100 * M + 5;
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Tmpfs, 4 * G));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    let places = [0, 0x7fff_f000 - 7, 2 * G - 7, SIZE - 99];
    places.iter().zip(1..).fold(TestDisk::empty(SIZE), |disk, (&at, seed)| disk.with(at, 99, seed)).make(&image);
    for receiver in Receiver::both() {
        let mut command = receiver.command(&tools, &dest, false, true);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stream = child.stdin.take().unwrap();
        let image_file = File::open(&image).unwrap();
        let writer = thread::spawn(move || {
            write!(stream, "XFER-HOLE 1 {SIZE}\nDATA {SIZE}\n").unwrap();
            io::copy(&mut &image_file, &mut stream).unwrap();
            stream.write_all(b"END\n").unwrap();
        });
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{receiver:?}: {}", String::from_utf8_lossy(&output.stderr));
        writer.join().unwrap();
        assert_same(&image, &dest);
        assert_eq!(holes(&dest), [], "{receiver:?}: all of it was data");
        fs::remove_file(&dest).unwrap();
    }
    let args = ["--extents", "scan", "--detect-zeroes=off"];
    let (sent, received) = send_to(&tools, &args, &image, Receiver::Binary, &dest);
    sent.ok();
    received.ok();
    assert_same(&image, &dest);
}

#[test]
fn a_disk_of_8_eib_is_refused_by_a_file_system_that_has_no_such_files_and_taken_by_one_that_has() {
    let size = i64::MAX;
    let stream = format!("XFER-HOLE 1 {size}\nHOLE {size}\nEND\n");
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, G);
        let (dest, part) = (fs.join("out.img"), fs.join("out.img.part"));
        // What the system itself says to such a size.
        let can = File::create(fs.join("probe")).unwrap().set_len(size.unsigned_abs()).is_ok();
        assert!(!can || kind != Fs::Ext4);
        for receiver in Receiver::both() {
            fs::write(&dest, "old").unwrap();
            let outcome = run(&mut receiver.command(&tools!(), &dest, false, true), stream.as_bytes());
            if can {
                outcome.ok();
                assert_eq!(fs::metadata(&dest).unwrap().len(), size.unsigned_abs(), "{kind:?} {receiver:?}");
            } else {
                outcome.refused(&[&size.to_string(), "ile too large"]);
                assert_eq!(fs::read(&dest).unwrap(), b"old", "{kind:?} {receiver:?}");
                assert!(!part.exists() || fs::metadata(&part).unwrap().len() == 0, "{kind:?} {receiver:?}");
            }
        }
    }
}

#[test]
fn the_last_bytes_of_the_largest_disk_there_is_arrive_at_all_receivers() {
    let size = i64::MAX.unsigned_abs();
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Xfs, G));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    // One block short of what the system can address at all.
    let data = (size - 9000, 9000 - 4095);
    TestDisk::empty(size).with(4 * K, 4 * K, 1).with(data.0, data.1, 2).make(&image);
    for receiver in Receiver::all() {
        for args in [&[][..], &["--hash"]] {
            let _not_there = fs::remove_file(&dest);
            let (sent, received) = send_to(&tools, args, &image, receiver, &dest);
            assert_eq!((sent.code, sent.err.as_str()), (Some(0), ""), "{receiver:?} {args:?}");
            assert_eq!((received.code, received.err.as_str()), (Some(0), ""), "{receiver:?} {args:?}");
            assert_eq!(fs::metadata(&dest).unwrap().len(), size);
            for (at, len) in [(4 * K, 4 * K), data] {
                let read = |path: &Path| {
                    let mut bytes = vec![0; usize::try_from(len).unwrap()];
                    File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
                    bytes
                };
                assert!(read(&image) == read(&dest), "{receiver:?} {args:?} at {at}");
            }
            assert_eq!(holes(&dest), holes(&image), "{receiver:?} {args:?}");
        }
    }
}

#[test]
fn a_block_device_is_sent_as_a_file_of_its_bytes_is() {
    let tools = tools!();
    let (device, fs) = (rig::LoopDevice::filled(4 * M, 0), Filesystem::new(Fs::Ext4, 64 * M));
    let disk = TestDisk::empty(4 * M).with(0, 4 * K, 1).with(2 * M + 512, M, 2);
    disk.write(&File::options().write(true).open(device.path()).unwrap());
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk.make(&image);
    assert_eq!(pour(&tools, &["--hash"], device.path()), pour(&tools, &["--hash"], &image));
    for receiver in Receiver::both() {
        let (sent, received) = send_to(&tools, &[], device.path(), receiver, &dest);
        sent.ok();
        received.ok();
        assert_same(&image, &dest);
        assert_eq!(holes(&dest), holes_within(&image, 4 * K), "{receiver:?}");
    }
}

#[test]
fn the_script_is_run_by_seven_shells_that_are_what_they_are_called() {
    let says = |shell: &[&str], script: &str| {
        let output = Command::new(shell[0]).args(&shell[1..]).args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let versions = SHELLS
        .map(|shell| says(shell, "echo ${BASH_VERSION+bash}${KSH_VERSION+ksh}${YASH_VERSION+yash}${ZSH_VERSION+zsh}"));
    assert_eq!(versions, ["", "bash", "", "ksh", "ksh", "yash", "zsh"]);
}
