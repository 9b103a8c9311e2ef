//! Zeros that a target holds as data, or that are allocated for it, are holes of the new file that is built on it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rig::{
    Cut, Filesystem, Fs, TestDisk, assert_same, converse, holes, holes_within, mark_part, part_of, run, tool, tools,
};

const MIB: u64 = 1 << 20;

fn disk() -> TestDisk {
    TestDisk::empty(32 * MIB + 512).with(0, 2 * MIB, 1).with(20 * MIB, MIB, 2).with(32 * MIB, 512, 3)
}

/// The disk with one block of other data, with zeros written from 4 MiB on, and space allocated from 10 MiB on and before its end.
fn make_old(path: &Path) {
    disk().with(MIB, 4096, 9).make(path);
    File::options().write(true).open(path).unwrap().write_all_at(&vec![0; 5 << 20], 4 * MIB + 100).unwrap();
    for at in [10 * MIB, 28 * MIB] {
        let (at, len) = (at.to_string(), (4 * MIB).to_string());
        tool("fallocate", &["--offset", &at, "--length", &len, path.to_str().unwrap()]);
    }
    tool("sync", &[path.to_str().unwrap()]);
}

#[track_caller]
fn is_sparse(image: &Path, dest: &Path, what: &str) {
    assert_same(image, dest);
    tool("sync", &[dest.to_str().unwrap()]);
    assert_eq!(holes(dest), holes_within(image, 4096), "{what}");
    let allocated = fs::metadata(dest).unwrap().blocks() * 512;
    assert!(allocated <= 3 * MIB + 256 * 1024, "{what}: {allocated} bytes are allocated for 3 MiB of data");
    fs::remove_file(dest).unwrap();
}

#[test]
fn zeros_that_a_target_holds_become_holes_of_a_new_file() {
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("image"), fs.join("dest"));
        disk().make(&image);
        for direct in [&[][..], &["--direct"]] {
            let what = format!("{kind:?} {direct:?}");
            make_old(&dest);
            let mut copies = Command::new(tools!().xfer_hole);
            run(copies.args(["-q", "--delta"]).args(direct).arg(&image).arg(&dest), b"").ok();
            is_sparse(&image, &dest, &format!("copy, {what}"));
            make_old(&dest);
            let (sent, received, _) = converse(&tools!(), &["--delta"], &image, direct, &dest, Cut::Never);
            assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
            is_sparse(&image, &dest, &format!("delta, {what}"));
            // What an earlier transfer has left, with an old file and without.
            for existing in [false, true] {
                if existing {
                    make_old(&dest);
                }
                make_old(&part_of(&dest));
                mark_part(&part_of(&dest));
                let (sent, received, flowed) = converse(&tools!(), &[], &image, direct, &dest, Cut::Never);
                assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
                assert!(flowed.want().is_some(), "{what}");
                is_sparse(&image, &dest, &format!("resume, old file {existing}, {what}"));
            }
        }
    }
}
