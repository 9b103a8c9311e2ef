//! Exit 0 means that the disk is there, even if the machine goes down in the next moment.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;

use rig::{Filesystem, Fs, Receiver, TestDisk, assert_same, holes, part_of, pour, requires, run, tool, tools};

const MIB: u64 = 1 << 20;

#[test]
fn after_exit_0_an_xfs_that_goes_down_without_flushing_has_the_whole_disk() {
    requires(&["xfs_io"]);
    let source = Filesystem::new(Fs::Xfs, 512 * MIB);
    let image = source.join("disk.img");
    TestDisk::empty(64 * MIB).with(3 * MIB, 7 * MIB, 1).with(40 * MIB, 12_345, 2).make(&image);
    let stream = pour(&tools!(), &[], &image);
    let mut fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    for receiver in Receiver::both() {
        for old in [None, Some("out.img"), Some("in place")] {
            let dest = fs.join("out.img");
            let _gone = fs::remove_file(&dest);
            if old.is_some() {
                // Larger, so that a size that came back would show.
                TestDisk::empty(80 * MIB).with(0, 20 * MIB, 9).make(&dest);
            }
            let in_place = old == Some("in place");
            run(&mut receiver.command(&tools!(), &dest, in_place, false), &stream).ok();
            tool("xfs_io", &["-x", "-c", "shutdown", fs.path().to_str().unwrap()]);
            fs.unmount();
            fs.mount();
            let what = format!("{receiver:?}, before: {old:?}");
            assert!(dest.exists(), "{what}");
            assert_same(&image, &dest);
            assert_eq!(holes(&image), holes(&dest), "{what}");
            assert!(!part_of(&dest).exists(), "{what}");
        }
    }
}

#[test]
fn without_sync_the_same_fall_loses_the_disk_so_it_is_the_sync_that_saves_it() {
    requires(&["xfs_io"]);
    let mut fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(16 * MIB).with(3 * MIB, 7 * MIB, 1).make(&image);
    tool("sync", &["-f", image.to_str().unwrap()]);
    let stream = pour(&tools!(), &[], &image);
    for receiver in Receiver::both() {
        let dest = fs.join("out.img");
        run(&mut receiver.command(&tools!(), &dest, false, true), &stream).ok();
        tool("xfs_io", &["-x", "-c", "shutdown", fs.path().to_str().unwrap()]);
        fs.unmount();
        fs.mount();
        assert!(!dest.exists() || fs::read(&dest).unwrap() != fs::read(&image).unwrap(), "{receiver:?}");
    }
}
