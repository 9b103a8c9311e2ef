//! Either side dies at any moment: the old disk stays, the other side says so, and the next run works. Durable comes before done.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rig::{
    Before, Filesystem, Fs, Outcome, Receiver, Running, TestDisk, Tools, assert_same, part_of, pour, requires, run,
    send_to, tools, wait_until,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 128 * MIB;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sender,
    Receiver,
}

/// Starts both, waits until `.part` holds so many bytes, kills one, and tells how both ended (the receiver's second).
fn kill_at(victim: Victim, bytes: u64, image: &Path, receiver: Receiver, dest: &Path) -> (Outcome, Outcome) {
    let tools: Tools = tools!();
    let (read, write) = std::io::pipe().unwrap();
    let part = part_of(dest);
    let _leftover = fs::remove_file(&part);
    let mut receives = Running::between(read, &mut receiver.command(&tools, dest, false, true), Stdio::null());
    let mut sends = Running::between(Stdio::null(), Command::new(&tools.xfer_hole).arg(image), write);
    wait_until("data arrives or all is over", || {
        fs::metadata(&part).is_ok_and(|stat| stat.blocks() * 512 >= bytes) || !receives.lives() || !sends.lives()
    });
    match victim {
        Victim::Sender => {
            let sent = sends.kill();
            (sent, receives.end())
        }
        Victim::Receiver => {
            let received = receives.kill();
            (sends.end(), received)
        }
    }
}

fn kills(victim: Victim, receiver: Receiver) {
    let fs = Filesystem::new(Fs::Tmpfs, 8 * SIZE);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(SIZE + 4096).with(0, SIZE, 1).make(&image);
    fs::write(&dest, "the old disk").unwrap();
    let before = Before::of(&dest);
    let (mut in_time, mut seed) = (0, 12345_u64);
    for round in 0..10 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = (seed >> 33) % (SIZE * 3 / 4) + 1;
        let (sent, received) = kill_at(victim, bytes, &image, receiver, &dest);
        let what = format!("{victim:?} of {receiver:?} killed at {bytes} bytes: {sent:?} {received:?}");
        if received.code == Some(0) {
            // It was faster than the kill.
            assert_same(&image, &dest);
            fs::remove_file(&dest).unwrap();
            fs::write(&dest, before.bytes()).unwrap();
            continue;
        }
        in_time += 1;
        assert_eq!(fs::read(&dest).unwrap(), before.bytes(), "{what}");
        assert!(part_of(&dest).exists(), "{what}");
        match victim {
            Victim::Sender => {
                assert_eq!(sent.code, None, "{what}");
                received.refused(&["cut", "kept ", "out.img.part"]);
            }
            Victim::Receiver => {
                assert_eq!(received.code, None, "{what}");
                sent.refused(&["xfer-hole: ", "broken pipe"]);
            }
        }
        if round % 3 == 0 {
            // Over the leftover.
            let other = fs.join("again.img");
            fs::rename(part_of(&dest), part_of(&other)).unwrap();
            // Where it is marked by a side file.
            let _none = fs::rename(lines_of(&dest), lines_of(&other));
            let (sent, received) = send_to(&tools!(), &[], &image, receiver, &other);
            sent.ok();
            received.ok();
            assert_same(&image, &other);
            assert!(!part_of(&other).exists(), "{what}");
            fs::remove_file(other).unwrap();
        }
    }
    assert!(in_time >= 5, "only {in_time} of 10 kills came before the end");
}

/// What stands beside `.part`.
fn lines_of(dest: &Path) -> PathBuf {
    let mut name = part_of(dest).into_os_string();
    name.push(".lines");
    name.into()
}

#[test]
fn a_killed_sender_leaves_the_old_disk_and_the_receiver_says_cut() {
    kills(Victim::Sender, Receiver::Binary);
    kills(Victim::Sender, Receiver::both()[1]);
}

#[test]
fn a_killed_receiver_leaves_the_old_disk_and_the_sender_says_broken_pipe() {
    kills(Victim::Receiver, Receiver::Binary);
    kills(Victim::Receiver, Receiver::both()[1]);
}

/// The calls that count, in order, of a transfer under strace.
fn calls(receiver: Receiver, stream: &[u8], dest: &Path, no_sync: bool) -> Vec<String> {
    requires(&["strace"]);
    let plain = receiver.command(&tools!(), dest, false, no_sync);
    let log = dest.with_extension("strace");
    let mut traced = Command::new("strace");
    let which = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync,rename,renameat,renameat2,exit_group";
    traced
        .args(["-f", "-y", "-qq", "-s", "4096", "-e", which, "-o"])
        .arg(&log)
        .arg(plain.get_program())
        .args(plain.get_args());
    run(&mut traced, stream).ok();
    let log = fs::read_to_string(log).unwrap();
    log.lines().filter(|line| line.contains('(')).map(str::to_owned).collect()
}

#[test]
fn data_is_synced_before_the_rename_and_the_directory_before_exit_0() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let (image, folder) = (fs.join("disk.img"), fs.join("folder"));
    fs::create_dir(&folder).unwrap();
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    let stream = pour(&tools!(), &[], &image);
    for receiver in Receiver::both() {
        for existing in [false, true] {
            let dest = folder.join("out.img");
            let _gone = fs::remove_file(&dest);
            if existing {
                fs::write(&dest, "old").unwrap();
            }
            let calls = calls(receiver, &stream, &dest, false);
            let last = |what: &dyn Fn(&str) -> bool| calls.iter().rposition(|call| what(call));
            let first = |what: &dyn Fn(&str) -> bool| calls.iter().position(|call| what(call));
            let said = format!("{receiver:?}, existing {existing}: {calls:#?}");
            let data = first(&|call| call.contains("fsync(") && call.contains("out.img.part>")).expect(&said);
            let rename = first(&|call| call.contains("rename") && call.contains("out.img.part")).expect(&said);
            let named = folder.to_str().unwrap();
            let synced = last(&|call| {
                call.contains("fsync(") && (call.contains(&format!("{named}>")) || call.contains(&format!("{named}/>")))
            });
            let synced = synced.expect(&said);
            let exit = last(&|call| call.contains("exit_group(0)")).expect(&said);
            assert!(data < rename && rename < synced && synced < exit, "{said}");
            assert_eq!(exit, calls.len() - 1, "{said}");
        }
    }
}

#[test]
fn nothing_is_synced_where_nobody_asked_for_it() {
    let fs = Filesystem::new(Fs::Ext4, 64 << 20);
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    let stream = pour(&tools!(), &[], &image);
    for receiver in Receiver::both() {
        let calls = calls(receiver, &stream, &fs.join("out.img"), true);
        assert!(!calls.iter().any(|call| call.contains("sync")), "{receiver:?}: {calls:#?}");
        assert_same(&image, &fs.join("out.img"));
    }
}
