//! Signals end a transfer in order, and ask how far it is.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{Before, Filesystem, Fs, LoopDevice, Outcome, Running, TestDisk, part_of, requires, tools, wait_until};

const MIB: u64 = 1 << 20;
const ENDS: [(Signal, i32, &str); 3] =
    [(Signal::SIGINT, 130, "SIGINT"), (Signal::SIGTERM, 143, "SIGTERM"), (Signal::SIGHUP, 129, "SIGHUP")];

fn receiver(args: &[&str], dest: &Path) -> Command {
    let mut command = Command::new(tools!().recv_hole);
    command.args(args).arg(dest);
    command
}

/// A sender that takes long.
fn slow(args: &[&str], image: &Path) -> Command {
    let mut command = Command::new(tools!().xfer_hole);
    command.args(["--bwlimit", "256K"]).args(args).arg(image);
    command
}

#[track_caller]
fn interrupted(outcome: &Outcome, code: i32, line: &str) {
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(code), format!("{line}\n").as_str()));
}

/// A receiver that has got half of a disk of two MiB.
fn half_way(args: &[&str], dest: &Path, written: &Path) -> Running {
    let mut running = Running::start(&mut receiver(args, dest));
    running.say(b"XFER-HOLE 1 2097152\nDATA 2097152\n");
    running.say(&[7; 1 << 20]);
    wait_until("half of it is there", || half_is_there(written));
    running
}

fn half_is_there(written: &Path) -> bool {
    let mut bytes = vec![0; 1 << 20];
    File::open(written).is_ok_and(|mut file| file.read_exact(&mut bytes).is_ok()) && bytes == [7; 1 << 20]
}

#[test]
fn a_receiver_that_is_interrupted_keeps_part_and_leaves_the_old_disk_alone() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    fs::write(&dest, "the old disk").unwrap();
    let before = Before::of(&dest);
    for (signal, code, name) in ENDS {
        let mut running = half_way(&[], &dest, &part_of(&dest));
        running.signal(signal);
        let line = format!("recv-hole: interrupted by {name}; kept {}", part_of(&dest).display());
        interrupted(&running.outlived(), code, &line);
        before.untouched(name);
        fs::remove_file(part_of(&dest)).unwrap();
    }
}

#[test]
fn what_is_overwritten_is_told_of_as_it_is() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let file = fs.join("out.img");
    fs::write(&file, vec![9; 2 << 20]).unwrap();
    let device = LoopDevice::filled(2 * MIB, 9);
    for (dest, args, state) in
        [(file.as_path(), &["--in-place"][..], "updated in part"), (device.path(), &[][..], "overwritten in part")]
    {
        let mut running = Running::start(&mut receiver(args, dest));
        running.say(b"XFER-HOLE 1 2097152\n");
        running.signal(Signal::SIGTERM);
        let said = running.outlived();
        let name = dest.display();
        // It may not have got so far as to open it.
        if said.err != "recv-hole: interrupted by SIGTERM\n" {
            interrupted(&said, 143, &format!("recv-hole: interrupted by SIGTERM; {name} is as it was"));
        }
        let mut running = half_way(args, dest, dest);
        running.signal(Signal::SIGTERM);
        interrupted(&running.outlived(), 143, &format!("recv-hole: interrupted by SIGTERM; {name} is {state}"));
    }
}

#[test]
fn a_sender_that_is_interrupted_says_so_and_its_receiver_finds_the_stream_cut() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(8 * MIB).with(0, 4 * MIB, 1).make(&image);
    for (signal, code, name) in ENDS {
        let (reader, writer) = pipe().unwrap();
        let receiver = Running::between(reader, &mut receiver(&[], &dest), Stdio::null());
        let mut sender = Running::between(Stdio::null(), &mut slow(&[], &image), writer);
        wait_until("the receiver has begun", || part_of(&dest).exists());
        sender.signal(signal);
        interrupted(&sender.outlived(), code, &format!("xfer-hole: interrupted by {name}"));
        receiver.outlived().refused(&["the stream was cut", "kept"]);
        assert!(!dest.exists());
        fs::remove_file(part_of(&dest)).unwrap();
    }
}

#[test]
fn a_receiver_that_is_interrupted_ends_its_sender() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(8 * MIB).with(0, 4 * MIB, 1).make(&image);
    let (reader, writer) = pipe().unwrap();
    let mut receiver = Running::between(reader, &mut receiver(&[], &dest), Stdio::null());
    let sender = Running::between(Stdio::null(), &mut slow(&[], &image), writer);
    wait_until("the receiver has begun", || part_of(&dest).exists());
    receiver.signal(Signal::SIGINT);
    assert_eq!(receiver.outlived().code, Some(130));
    sender.outlived().refused(&["broken pipe"]);
}

#[test]
fn signals_that_were_ignored_from_the_start_stay_so() {
    requires(&["nohup"]);
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    for (n, (begin, signal)) in
        [("exec nohup \"$@\"", Signal::SIGHUP), ("trap '' INT; exec \"$@\"", Signal::SIGINT)].into_iter().enumerate()
    {
        let dest = fs.join(&format!("out{n}.img"));
        let mut command = Command::new("sh");
        command.args(["-c", begin, "sh"]).arg(tools!().recv_hole).arg(&dest);
        let mut running = Running::start(&mut command);
        running.say(b"XFER-HOLE 1 4096\nDATA 4096\n");
        wait_until("it has begun", || part_of(&dest).exists());
        kill(running.pid(), signal).unwrap();
        running.say(&[3; 4096]);
        running.say(b"END\n");
        running.end().ok();
        assert!(fs::read(&dest).unwrap() == [3; 4096]);
    }
}

#[test]
fn sigusr1_prints_how_far_it_is_and_the_transfer_goes_on() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    let said = fs.join("said");
    let mut command = receiver(&[], &dest);
    let mut child = command.stdin(Stdio::piped()).stderr(File::create(&said).unwrap()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"XFER-HOLE 1 2097152\nDATA 2097152\n").unwrap();
    stdin.write_all(&[7; 1 << 20]).unwrap();
    wait_until("half of it is there", || half_is_there(&part_of(&dest)));
    for lines in 1..=3 {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR1).unwrap();
        wait_until("it says how far it is", || fs::read_to_string(&said).unwrap().lines().count() == lines);
    }
    stdin.write_all(&[7; 1 << 20]).unwrap();
    stdin.write_all(b"END\n").unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = fs::read_to_string(&said).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
    for line in said.lines() {
        // What was written may not have been counted yet.
        assert!(line.starts_with("recv-hole: receiving: ") && line.contains(" of 2 MiB ("), "{line}");
    }
    assert!(fs::read(&dest).unwrap() == [7; 2 << 20]);
}

#[test]
fn sigusr1_does_no_harm_however_often_it_comes() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(64 * MIB).with(0, 3 * MIB, 1).with(30 * MIB, 3 * MIB, 2).make(&image);
    let (reader, writer) = pipe().unwrap();
    let mut receiver = Running::between(reader, &mut receiver(&["--no-sync"], &dest), Stdio::null());
    let mut command = Command::new(tools!().xfer_hole);
    command.args(["--hash", "--bwlimit", "6M"]).arg(&image);
    let mut sender = Running::between(Stdio::null(), &mut command, writer);
    sender.signal(Signal::SIGUSR1);
    receiver.signal(Signal::SIGUSR1);
    while sender.lives() && receiver.lives() {
        let _gone = kill(sender.pid(), Signal::SIGUSR1);
        let _gone = kill(receiver.pid(), Signal::SIGUSR1);
        thread::sleep(std::time::Duration::from_millis(1));
    }
    let (sent, received) = (sender.outlived().ok(), receiver.outlived().ok());
    for (outcome, word) in [(sent, "xfer-hole: sending: "), (received, "recv-hole: receiving: ")] {
        assert!(outcome.err.contains(word), "{}", outcome.err);
    }
    rig::assert_same(&image, &dest);
}

#[test]
fn a_signal_ends_it_though_nobody_reads_what_it_says() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    let (_unread, mut full) = pipe().unwrap();
    // Filled to the last byte, and blocking again.
    let flags = OFlag::from_bits_truncate(fcntl(&full, FcntlArg::F_GETFL).unwrap());
    fcntl(&full, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    while full.write(b"x").is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(flags)).unwrap();
    let mut command = receiver(&["--progress=bar"], &dest);
    let mut child = command.stdin(Stdio::piped()).stderr(full).process_group(0).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"XFER-HOLE 1 4096\nDATA 4096\n").unwrap();
    wait_until("it has begun", || part_of(&dest).exists());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_flood_of_questions_does_not_slow_a_limited_stream() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    TestDisk::empty(4 * MIB).with(0, 4 * MIB, 1).make(&image);
    let (mut stream, out) = pipe().unwrap();
    let mut sender = Command::new(tools!().xfer_hole);
    let mut sends = Running::between(Stdio::null(), sender.args(["--bwlimit", "2M"]).arg(&image), out);
    let reads = thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()).unwrap());
    sends.signal(Signal::SIGUSR1);
    let begun = Instant::now();
    while sends.lives() {
        assert!(begun.elapsed() < Duration::from_secs(20), "two seconds of pauses take more than twenty");
        let _ended = kill(sends.pid(), Signal::SIGUSR1);
    }
    assert!(reads.join().unwrap() > 4 * MIB);
}
