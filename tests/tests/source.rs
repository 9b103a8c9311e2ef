//! A source that can't be read, changes, or is no disk: the sender says so at both ends, and nothing takes its place.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use rig::{
    Filesystem, Fill, Fs, LoopDevice, Outcome, Qcow2, Receiver, Running, TestDisk, assert_as_qemu, assert_same,
    part_of, requires, run, send_to, tool, tools,
};

const MIB: u64 = 1 << 20;

fn sender(args: &[&str], image: &Path) -> Command {
    let mut command = Command::new(tools!().xfer_hole);
    command.args(args).arg(image);
    command
}

/// Starts the sender into a pipe that nobody reads, does something once it is full, and reads the rest: the stream, and how the
/// sender ended.
fn meanwhile(args: &[&str], image: &Path, something: impl FnOnce()) -> (Vec<u8>, Outcome) {
    let (mut read, write) = std::io::pipe().unwrap();
    let running = Running::between(Stdio::null(), &mut sender(args, image), write);
    // The first byte is there, and the pipe has no room for all of them.
    let mut stream = vec![0];
    read.read_exact(&mut stream).unwrap();
    something();
    read.read_to_end(&mut stream).unwrap();
    (stream, running.end())
}

/// The last line, be it right behind a payload: from its word on.
fn last_line(stream: &[u8]) -> String {
    let tail = String::from_utf8_lossy(&stream[stream.len().saturating_sub(1000)..]).into_owned();
    let at = tail.rfind("FAIL ").or_else(|| tail.rfind("END")).unwrap_or(tail.len());
    tail[at..].to_owned()
}

#[test]
fn a_read_error_is_told_to_the_receiver_and_the_disk_is_not_published() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let dest = fs.join("out.img");
    for (args, said) in
        [(&[][..], true), (&["--hash"], true), (&["--extents", "scan"], true), (&["--detect-zeroes=off"], false)]
    {
        for receiver in Receiver::both() {
            let device = LoopDevice::filled(64 * MIB, 7);
            // What the device can't read any more is an error.
            OpenOptions::new().write(true).open(device.backing()).unwrap().set_len(20 * MIB).unwrap();
            tool("blockdev", &["--flushbufs", device.path().to_str().unwrap()]);
            let (sent, received) = send_to(&tools!(), args, device.path(), receiver, &dest);
            let what = format!("{args:?} {receiver:?}: {sent:?} {received:?}");
            let sent = sent.refused(&["cannot read", "offset", "I/O error", device.path().to_str().unwrap()]);
            assert!(sent.err.starts_with("xfer-hole: "), "{what}");
            if said {
                received.refused(&["sender gave up: ", "I/O error", "out.img.part"]);
            } else {
                // The payload had begun: it just ends.
                let received = received.refused(&["out.img.part"]);
                assert!(received.err.contains("cut") || received.err.contains("sender gave up"), "{what}");
            }
            assert!(!dest.exists(), "{what}");
            fs::remove_file(part_of(&dest)).unwrap();
        }
    }
}

#[test]
fn a_file_whose_bytes_can_not_be_read_is_a_failure_too() {
    let mut fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let dest = tempfile::tempdir().unwrap();
    let dest = dest.path().join("out.img");
    TestDisk::empty(80 * MIB).with(0, 80 * MIB, 3).make(&fs.join("disk.img"));
    tool("sync", &["-f", fs.path().to_str().unwrap()]);
    // Nothing of it is cached after this.
    fs.unmount();
    fs.mount();
    let middle = fs.join("disk.img");
    let start = tool("filefrag", &["-b1", "-v", middle.to_str().unwrap()]);
    let field =
        start.lines().find(|line| line.trim_start().starts_with("0:")).unwrap().split(':').nth(2).unwrap().to_owned();
    let start: u64 = field.trim().split("..").next().unwrap().parse().unwrap();
    OpenOptions::new().write(true).open(fs.backing()).unwrap().set_len(start + 2 * MIB).unwrap();
    for args in [&[][..], &["--detect-zeroes=off"], &["--hash"]] {
        let (sent, received) = send_to(&tools!(), args, &middle, Receiver::Binary, &dest);
        sent.refused(&["cannot read", "I/O error", "disk.img"]);
        received.refused(&["out.img.part"]);
        assert!(!dest.exists());
    }
}

#[test]
fn a_source_that_is_truncated_while_it_is_sent_is_a_failure_at_both_ends() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    for args in [
        &[][..],
        &["--live"],
        &["--hash"],
        &["--extents", "scan"],
        &["--detect-zeroes=off"],
        &["--detect-zeroes=off", "--live"],
    ] {
        TestDisk::empty(64 * MIB).with(0, 64 * MIB, 7).make(&image);
        let cut = || File::options().write(true).open(&image).unwrap().set_len(MIB * 3 / 2).unwrap();
        let (stream, sent) = meanwhile(args, &image, cut);
        let sent = sent.refused(&["truncated", "disk.img"]);
        assert!(!last_line(&stream).starts_with("END"), "{args:?}");
        for receiver in Receiver::both() {
            let received = run(&mut receiver.command(&tools!(), &dest, false, true), &stream);
            let received = received.refused(&["out.img.part"]);
            assert!(
                received.err.contains("cut") || received.err.contains("truncated"),
                "{args:?} {sent:?} {received:?}"
            );
            assert!(!dest.exists(), "{args:?} {receiver:?}");
        }
    }
}

#[test]
fn a_source_that_changes_while_it_is_sent_is_a_failure_unless_live_accepts_it() {
    requires(&["touch"]);
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    let write = || File::options().write(true).open(&image).unwrap().write_all_at(b"changed", 60 * MIB).unwrap();
    let write_and_hide = || {
        let before = tool("stat", &["-c", "%y", image.to_str().unwrap()]);
        write();
        tool("touch", &["-d", before.trim(), image.to_str().unwrap()]);
    };
    let grow = || File::options().write(true).open(&image).unwrap().set_len(65 * MIB).unwrap();
    let changes: [(&str, &dyn Fn()); 3] =
        [("written", &write), ("written, its time set back", &write_and_hide), ("grown", &grow)];
    for (what, change) in changes {
        for args in [&[][..], &["--hash"], &["--live"], &["--live", "--hash"]] {
            TestDisk::empty(64 * MIB).with(0, 64 * MIB, 7).make(&image);
            let (stream, sent) = meanwhile(args, &image, change);
            if args.contains(&"--live") {
                sent.ok();
                run(&mut Receiver::Binary.command(&tools!(), &dest, false, true), &stream).ok();
                assert_eq!(fs::metadata(&dest).unwrap().len(), 64 * MIB, "{what} {args:?}");
                fs::remove_file(&dest).unwrap();
                continue;
            }
            let sent = sent.refused(&["changed", "disk.img"]);
            assert!(sent.err.contains("--live"), "{what} {args:?}: {}", sent.err);
            assert!(last_line(&stream).starts_with("FAIL "), "{what} {args:?}: {}", last_line(&stream));
            for receiver in Receiver::both() {
                let received = run(&mut receiver.command(&tools!(), &dest, false, true), &stream);
                received.refused(&["sender gave up: ", "changed", "out.img.part"]);
                assert!(!dest.exists(), "{what} {args:?} {receiver:?}");
            }
        }
    }
}

#[test]
fn reading_a_source_is_not_a_change() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(64 * MIB).with(0, 64 * MIB, 7).make(&image);
    let (_, sent) = meanwhile(&[], &image, || drop(fs::read(&image).unwrap()));
    sent.ok();
}

#[test]
fn a_receiver_that_is_gone_is_a_failure_of_its_own() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(40 * MIB).with(0, 40 * MIB, 7).make(&image);
    for args in [&[][..], &["--hash"], &["--classic"], &["--detect-zeroes=off"], &["--progress=bar"]] {
        let (read, write) = std::io::pipe().unwrap();
        let running = Running::between(Stdio::null(), &mut sender(args, &image), write);
        drop(read);
        let outcome = running.end();
        assert_eq!(outcome.code, Some(2), "{args:?} {}", outcome.err);
        assert!(outcome.err.lines().last().unwrap().contains("xfer-hole: broken pipe"), "{args:?} {}", outcome.err);
    }
    let full = Running::between(Stdio::null(), &mut sender(&[], &image), File::create("/dev/full").unwrap()).end();
    full.refused(&["standard output", "no space left on device"]);
}

#[test]
fn a_terminal_gets_no_disk_and_gives_none() {
    requires(&["script"]);
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).with(0, 4096, 7).make(&image);
    let on_terminal = |line: String| run(Command::new("script").args(["-qec", &line, "/dev/null"]), b"");
    let tools = tools!();
    let sent = on_terminal(format!("'{}' '{}'", tools.xfer_hole.display(), image.display()));
    assert_eq!(sent.code, Some(2));
    let said = String::from_utf8_lossy(&sent.out).into_owned();
    assert!(said.contains("xfer-hole: standard output is a terminal") && !said.contains("XFER-HOLE 1"), "{said}");
    let received = on_terminal(format!("'{}' '{}'", tools.recv_hole.display(), fs.join("out.img").display()));
    assert_eq!(received.code, Some(2));
    assert!(String::from_utf8_lossy(&received.out).contains("recv-hole: standard input is a terminal"), "{received:?}");
    assert!(!fs.join("out.img").exists() && !fs.join("out.img.part").exists());
}

#[test]
fn what_is_no_disk_is_refused_at_once() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    fs::create_dir(fs.join("folder")).unwrap();
    nix::unistd::mkfifo(&fs.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    let cases = [("folder", "directory"), ("fifo", "neither"), ("missing", "no such file"), ("/dev/zero", "neither")];
    for (name, word) in cases {
        let outcome = run(&mut sender(&[], &fs.join(name)), b"").refused(&[word, name]);
        assert!(outcome.out.is_empty(), "{name}");
    }
}

#[test]
fn a_qcow2_image_is_sent_as_the_disk_in_it_unless_it_is_asked_for_as_it_is() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (image, dest) = (fs.join("disk.qcow2"), fs.join("out.img"));
    Qcow2::new(MIB).write(0, 65_536, Fill::Noise(1)).make(&image);
    assert_as_qemu(&tools!(), &image, &[]);
    let (sent, received) = send_to(&tools!(), &["--format", "raw"], &image, Receiver::Binary, &dest);
    sent.ok();
    received.ok();
    assert_same(&image, &dest);
}
