//! An increment lands on the disk that it is for, or nowhere: run twice, with a night skipped, onto another disk.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use rig::{
    Before, FarEnd, Filesystem, Fill, Fs, Op, Outcome, Qcow2, Receiver, SHELLS, Setup, Toolbox, assert_same, gone_back,
    part_of, qemu_disk, requires, run, tools,
};

use crate::{K, M, own};

/// An image with a snapshot for each of three nights, and the disks of these.
fn nights(folder: &Path) -> (PathBuf, [PathBuf; 3]) {
    let image = folder.join("web.qcow2");
    let disk = Qcow2::new(6 * M + 512).write(0, 3 * M, Fill::Noise(1)).snapshot("monday");
    let disk = disk.write(M, 200 * K, Fill::Noise(2)).snapshot("tuesday");
    // What Tuesday changed, and what it left alone.
    disk.ops([Op::Write(2 * M, 100 * K, Fill::Noise(3)), Op::Discard(64 * K, 64 * K)])
        .snapshot("wednesday")
        .make(&image);
    let disks = ["monday", "tuesday", "wednesday"].map(|night| qemu_disk(&gone_back(&image, night)));
    (image, disks)
}

fn place(disk: &Path, dest: &Path) {
    fs::copy(disk, dest).unwrap();
}

const TUESDAY: [&str; 4] = ["--since-snapshot", "monday", "--snapshot", "tuesday"];
const WEDNESDAY: [&str; 4] = ["--since-snapshot", "tuesday", "--snapshot", "wednesday"];

/// Fails unless an increment is taken by the disk that it is for, and by no other: `go` sends one, `put` places a disk.
#[track_caller]
fn assert_lands_right(
    disks: &[PathBuf; 3],
    dest: &Path,
    put: impl Fn(&Path),
    go: impl Fn(&[&str]) -> Outcome,
    already: bool,
) {
    let refused = |args: &[&str], words: &[&str]| {
        let before = Before::of(dest);
        let outcome = go(args);
        assert_eq!(outcome.code, Some(2), "{}", outcome.err);
        for word in words {
            assert!(outcome.err.contains(word), "\"{word}\" is not in: {}", outcome.err);
        }
        before.untouched("another disk than the older one");
        assert!(!part_of(dest).exists());
        outcome
    };
    let [monday, tuesday, wednesday] = disks;
    put(monday);
    // The night of Monday was skipped.
    let skipped = refused(&WEDNESDAY, &["is not the older disk", "sha256:"]);
    assert!(!skipped.err.contains("already"), "{}", skipped.err);
    assert!(skipped.err.contains("send the changes since the disk that it holds"), "{}", skipped.err);
    go(&TUESDAY).ok();
    assert_same(tuesday, dest);
    // Twice.
    refused(&TUESDAY, if already { &["already"] } else { &["is not the older disk"] });
    go(&WEDNESDAY).ok();
    assert_same(wednesday, dest);
    refused(&TUESDAY, &["is not the older disk"]);
}

#[test]
fn a_copy_or_a_pipe_takes_an_increment_for_what_is_there_only() {
    let fs = Filesystem::new(Fs::Ext4, 256 * M);
    let (image, disks) = nights(fs.path());
    let dest = fs.join("out.img");
    let put = |disk: &Path| place(disk, &dest);
    for flags in [&[][..], &["--in-place"], &["--hash", "--in-place"], &["--no-sync"]] {
        let copy = |args: &[&str]| {
            let mut copy = Command::new(tools!().xfer_hole);
            run(copy.arg("-q").args(flags).args(args).arg(&image).arg(&dest), b"")
        };
        assert_lands_right(&disks, &dest, put, copy, true);
    }
    for (send, receive) in [(&[][..], &[][..]), (&["--hash"], &["--in-place"]), (&[], &["--in-place"])] {
        let pipe = |args: &[&str]| {
            let stream = run(Command::new(tools!().xfer_hole).args(send).args(args).arg(&image), b"").ok().out;
            run(Command::new(tools!().recv_hole).args(receive).arg(&dest), &stream)
        };
        assert_lands_right(&disks, &dest, put, pipe, false);
    }
}

#[test]
fn a_push_or_a_pull_takes_an_increment_for_what_is_there_only() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let path = toolbox.path();
    let fs = Filesystem::new(Fs::Ext4, 512 * M);
    let far = FarEnd::within(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() }, fs.path());
    let (image, disks) = nights(fs.path());
    let dest = far.account.home("x.img");
    let put = |disk: &Path| {
        fs::copy(disk, &dest).unwrap();
        own(&far, &dest);
    };
    for flags in [&["-q"][..], &["-q", "--in-place", "--no-hash"]] {
        let push = |args: &[&str]| far.push(&[flags, args].concat(), &image, "x.img");
        assert_lands_right(&disks, &dest, put, push, true);
    }
    let near = fs.join("near.img");
    let pull = |args: &[&str]| {
        let options: Vec<_> =
            args.chunks(2).flat_map(|pair| ["-M".to_owned(), format!("{}={}", pair[0], pair[1])]).collect();
        far.pull(&[&["-q"], &options.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat(), &image, &near)
    };
    assert_lands_right(&disks, &near, |disk| place(disk, &near), pull, false);
}

#[test]
fn an_image_that_is_in_use_gives_an_increment_between_its_snapshots() {
    let fs = Filesystem::new(Fs::Ext4, 256 * M);
    let (image, [monday, tuesday, _]) = nights(fs.path());
    let dest = fs.join("out.img");
    place(&monday, &dest);
    // Somebody goes on writing, and no snapshot changes by it.
    let over = AtomicBool::new(false);
    let end = fs::metadata(&image).unwrap().len();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                rig::write_at(&image, end, b"more");
            }
        });
        let mut copy = Command::new(tools!().xfer_hole);
        let copied = run(copy.args(["-q", "--live"]).args(TUESDAY).arg(&image).arg(&dest), b"");
        over.store(true, Ordering::Relaxed);
        copied.ok();
    });
    assert_same(&tuesday, &dest);
}

#[test]
fn a_shell_takes_an_increment_on_trust_only() {
    let far = FarEnd::new(tools!(), "dash");
    let folder = tempfile::tempdir().unwrap();
    let (image, [monday, tuesday, _]) = nights(folder.path());
    let dest = far.account.home("x.img");
    fs::copy(&monday, &dest).unwrap();
    own(&far, &dest);
    let before = Before::of(&dest);
    let outcome = far.push(&TUESDAY, &image, "x.img");
    assert_eq!(outcome.code, Some(2), "{}", outcome.err);
    assert!(outcome.err.contains("recv-hole.sh") && outcome.err.contains("hint: --trust-base"), "{}", outcome.err);
    before.untouched("nobody has checked");
    assert!(!part_of(&dest).exists());
    far.push(&[&TUESDAY[..], &["--trust-base"]].concat(), &image, "x.img").ok();
    assert_same(&tuesday, &dest);
    // By a pipe it hears of it when the stream comes.
    let local = folder.path().join("out.img");
    fs::copy(&monday, &local).unwrap();
    let stream =
        |more: &[&str]| run(Command::new(tools!().xfer_hole).args(TUESDAY).args(more).arg(&image), b"").ok().out;
    let script = Receiver::Script(SHELLS[0]);
    let before = Before::of(&local);
    run(&mut script.command(&tools!(), &local, false, true), &stream(&[])).refused(&["out.img", "--trust-base"]);
    before.untouched("nobody has checked");
    run(&mut script.command(&tools!(), &local, false, true), &stream(&["--trust-base"])).ok();
    assert_same(&tuesday, &local);
}

#[test]
fn a_receiver_waits_while_the_older_disk_is_read() {
    requires(&["strace", "timeout"]);
    let fs = Filesystem::new(Fs::Ext4, 256 * M);
    let (base, top) = (fs.join("base.qcow2"), fs.join("top.qcow2"));
    Qcow2::new(64 * M).write(0, 64 * M, Fill::Noise(1)).make(&base);
    Qcow2::over("base.qcow2", "qcow2").write(M, 64 * K, Fill::Noise(2)).make(&top);
    // Each read takes its time. One who bears three seconds of silence is told each second that there is somebody.
    let mut sender = Command::new("timeout");
    sender.args(["-s", "KILL", "120", "strace", "-f", "-qq", "-e", "trace=pread64", "-e"]);
    sender.args(["inject=pread64:delay_enter=300000", "-o", "/dev/null"]).arg(tools!().xfer_hole);
    sender.args(["--converse", "--hash", "--timeout", "3", "--since-base"]).args([&base, &top]);
    let mut sender = sender.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut answers, mut stream) = (sender.stdin.take().unwrap(), sender.stdout.take().unwrap());
    answers.write_all(b"XFER-HOLE-READY 1 recv-hole base\n").unwrap();
    let mut waits = [0; 10];
    thread::scope(|scope| {
        // A receiver that waits says so, too.
        let waiting = scope.spawn(|| {
            stream.read_exact(&mut waits).unwrap();
            waits
        });
        while !waiting.is_finished() {
            let _gone = answers.write_all(b"WAIT\n");
            thread::sleep(std::time::Duration::from_millis(500));
        }
        assert_eq!(&waiting.join().unwrap(), b"WAIT\nWAIT\n");
    });
    // One that has given up isn't waited for until all is read.
    answers.write_all(b"FAIL enough\n").unwrap();
    assert_eq!(sender.wait().unwrap().code(), Some(2));
    // What comes ahead of the stream is passed over by whoever answers, and by nobody else.
    let dest = fs.join("out.img");
    let receive = |args: &[&str], stream: &[u8]| run(Command::new(tools!().recv_hole).args(args).arg(&dest), stream);
    receive(&["--converse"], b"WAIT\nWAIT\nXFER-HOLE 1 4096\nHOLE 4096\nEND\n").ok();
    assert_eq!(fs::metadata(&dest).unwrap().len(), 4096);
    receive(&[], b"WAIT\nXFER-HOLE 1 4096\nHOLE 4096\nEND\n").refused(&["no xfer-hole stream"]);
}

#[test]
fn a_note_spares_the_reading_of_the_older_disk_at_both_ends() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 512 * M);
    let [base, top, dest, log] = ["base.qcow2", "top.qcow2", "out.img", "log"].map(|name| fs.join(name));
    Qcow2::new(64 * M).write(0, 48 * M, Fill::Noise(1)).make(&base);
    // What was touched within two seconds is not noted.
    thread::sleep(std::time::Duration::from_millis(2100));
    // A whole disk with digests, which nobody has asked to be remembered.
    let first = run(Command::new(tools!().xfer_hole).args(["-q", "--hash"]).args([&base, &dest]), b"").ok();
    assert_eq!(first.err, "");
    Qcow2::over("base.qcow2", "qcow2").write(M, 64 * K, Fill::Noise(2)).make(&top);
    let mut copy = Command::new("strace");
    copy.args(["-f", "-y", "-qq", "-e", "trace=read,pread64,preadv,splice,sendfile,copy_file_range", "-o"]).arg(&log);
    copy.arg(tools!().xfer_hole).args(["-q", "--hash", "--in-place", "--since-base"]).args([&base, &top, &dest]);
    run(&mut copy, b"").ok();
    let calls = fs::read_to_string(&log).unwrap();
    let read = |name: &str| -> u64 {
        let calls = calls.lines().filter(|line| line.contains(name));
        calls.filter_map(|line| line.rsplit("= ").next()?.split(' ').next()?.parse::<u64>().ok()).sum()
    };
    // Tables, what tells a format by its beginning, and the interval that changed: the one of the note, which is 1 MiB long.
    assert!(read("base.qcow2") < 2 * M && read("out.img") < M, "{calls}");
    assert_same(&qemu_disk(&top), &dest);
    // What was noted of it is over, and the wrong base is found by reading.
    let mut again = Command::new(tools!().xfer_hole);
    run(again.args(["-q", "--hash", "--in-place", "--since-base"]).args([&base, &top, &dest]), b"")
        .refused(&["already"]);
}
