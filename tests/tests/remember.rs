//! A fingerprint that was noted spares both ends the reading, and is never believed of a disk that was touched.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::{
    FarEnd, Filesystem, Fill, Fs, LoopDevice, Outcome, Process, Qcow2, Running, Setup, TestDisk, Toolbox, assert_same,
    note_in, note_of, qemu_disk, requires, run, tools, wait_until,
};

const MIB: u64 = 1 << 20;
const FLAGS: [&str; 2] = ["--delta", "--remember"];

fn disk() -> TestDisk {
    TestDisk::empty(24 * MIB + 512).with(0, 3 * MIB, 1).with(10 * MIB, 4 * MIB, 2).with(24 * MIB, 512, 3)
}

/// What was touched just now is not noted when it is read.
fn settle() {
    thread::sleep(Duration::from_millis(2100));
}

/// On a file system that tells of all changes, whatever temporary files lie on.
fn far() -> ((Filesystem, Toolbox), FarEnd) {
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let path = toolbox.path();
    let far = FarEnd::within(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() }, fs.path());
    ((fs, toolbox), far)
}

/// The note of an image of the account's.
fn note_there(far: &FarEnd, image: &Path) -> PathBuf {
    note_in(&far.account.home(".cache"), image)
}

/// Bytes that left, and bytes of the disk's data among them, as the last line tells them in JSON.
#[track_caller]
fn moved(outcome: &Outcome) -> (u64, u64) {
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    let last = outcome.err.lines().rev().find(|line| line.starts_with('{')).unwrap();
    let told: serde_json::Value = serde_json::from_str(last).unwrap();
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("no {name} in {last}"));
    (number("wire"), number("data"))
}

fn push(far: &FarEnd, args: &[&str], image: &Path, dest: &Path) -> Outcome {
    far.push(&[&FLAGS, &["--progress", "json"], args].concat(), image, dest)
}

/// Changes one byte of a file, and puts its modification time back.
fn touch_in_secret(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_disk_that_both_ends_remember_is_named_and_not_read() {
    let (_held, far) = far();
    let image = far.image("disk.img", &disk());
    let dest = far.account.home("out.img");
    settle();
    moved(&push(&far, &[], &image, &dest));
    assert!(note_of(&image).exists() && note_there(&far, &dest).exists());
    // Nothing lies beside them.
    assert_eq!(
        fs::read_dir(dest.parent().unwrap()).unwrap().filter(|it| it.as_ref().unwrap().file_name() != ".cache").count(),
        1
    );
    let before = fs::metadata(&dest).unwrap();
    let (wire, data) = moved(&push(&far, &[], &image, &dest));
    assert!(wire < 1024 && data == 0, "{wire} bytes, {data} of data");
    // Nothing else goes: no text of a receiver, where there is one.
    let tap = far.near("tap");
    fs::create_dir(&tap).unwrap();
    let sent = tap.join("sent");
    fs::write(tap.join("ssh"), format!("#!/bin/sh\nPATH=${{PATH#*:}}\ntee '{}' | ssh \"$@\"\n", sent.display()))
        .unwrap();
    fs::set_permissions(tap.join("ssh"), Permissions::from_mode(0o700)).unwrap();
    let mut tapped = far.sender();
    tapped.env("PATH", format!("{}:{}", tap.display(), std::env::var("PATH").unwrap()));
    tapped.args(FLAGS).args(["--progress", "json"]).arg(&image).arg(far.place(&dest));
    let (wire, _) = moved(&run(&mut tapped, b""));
    assert_eq!(fs::metadata(sent).unwrap().len(), wire);
    let after = fs::metadata(&dest).unwrap();
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()), "nothing was to be touched");
    // The same the other way round, and on one machine.
    let near = far.near("near.img");
    chown(&dest, Some(far.account.uid()), None).unwrap();
    settle();
    let pull = |args: &[&str]| far.pull(&[&FLAGS, &["--progress", "json"], args].concat(), &dest, &near);
    moved(&pull(&[]));
    let (_, data) = moved(&pull(&[]));
    assert_eq!(data, 0);
    assert_same(&image, &near);
    let copy = |args: &[&str]| {
        let mut copy = Command::new(tools!().xfer_hole);
        run(copy.args(FLAGS).args(["--progress", "json"]).args(args).arg(&image).arg(&near), b"")
    };
    moved(&copy(&[]));
    assert_eq!(moved(&copy(&[])).1, 0);
}

#[test]
fn an_byte_that_was_changed_in_secret_is_found_at_either_end() {
    let (_held, far) = far();
    let image = far.image("disk.img", &disk());
    let dest = far.account.home("out.img");
    settle();
    moved(&push(&far, &[], &image, &dest));
    for (path, at) in [(&dest, 5), (&image, 11 * MIB), (&dest, 24 * MIB + 500)] {
        touch_in_secret(path, at);
        let (_, data) = moved(&push(&far, &[], &image, &dest));
        assert!(data > 0, "{} was not found to be changed", path.display());
        assert_same(&image, &dest);
    }
    // Nor is a new file with the old one's time, or a size that grew by zeros.
    let times = fs::metadata(&dest).unwrap().modified().unwrap();
    fs::write(far.near("other"), fs::read(&dest).unwrap().iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap();
    fs::copy(far.near("other"), &dest).unwrap();
    File::options().write(true).open(&dest).unwrap().set_modified(times).unwrap();
    assert!(moved(&push(&far, &[], &image, &dest)).1 > 0);
    assert_same(&image, &dest);
}

#[test]
fn a_change_of_a_backing_file_is_a_change() {
    let (_held, far) = far();
    let base = far.near("base.qcow2");
    Qcow2::new(16 * MIB).write(0, 2 * MIB, Fill::Noise(1)).make(&base);
    let image = far.near("top.qcow2");
    Qcow2::over("base.qcow2", "qcow2").write(4 * MIB, MIB, Fill::Noise(2)).make(&image);
    let dest = far.account.home("out.img");
    settle();
    moved(&push(&far, &[], &image, &dest));
    assert_eq!(moved(&push(&far, &[], &image, &dest)).1, 0);
    Qcow2::new(16 * MIB).write(0, 2 * MIB, Fill::Noise(3)).make(&base);
    moved(&push(&far, &[], &image, &dest));
    assert_same(&qemu_disk(&image), &dest);
}

#[test]
fn the_same_files_read_as_another_disk_are_another_disk() {
    let folder = Filesystem::new(Fs::Ext4, 256 * MIB);
    let at = |name: &str| folder.path().join(name);
    Qcow2::new(4 * MIB).write(0, MIB, Fill::Noise(1)).make(&at("base"));
    let image = at("top.qcow2");
    Qcow2::new(4 * MIB).backing("base", None).write(2 * MIB, MIB, Fill::Noise(2)).make(&image);
    settle();
    let copy = |flags: &[&str], format: &str, dest: &Path| {
        let mut copy = Command::new(tools!().xfer_hole);
        copy.args(flags).args(["--backing-format", format, "--progress", "json"]).arg(&image).arg(dest);
        run(&mut copy, b"").ok()
    };
    for format in ["qcow2", "raw", "qcow2"] {
        copy(&FLAGS, format, &at("dest"));
        copy(&[], format, &at("other"));
        assert_same(&at("other"), &at("dest"));
    }
    assert!(note_of(&image).exists());
}

#[test]
fn what_is_to_be_read_back_is_read_though_it_is_known() {
    let folder = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, dest) = (folder.path().join("disk.img"), folder.path().join("out.img"));
    disk().make(&image);
    settle();
    let copy = |args: &[&str]| {
        let mut copy = Command::new("strace");
        copy.args(["-f", "-qq", "-e", "trace=openat,pread64,preadv", "-o"]).arg(folder.path().join("log"));
        copy.arg(tools!().xfer_hole).args(FLAGS).args(["--hash", "-q"]).args(args).arg(&image).arg(&dest);
        run(&mut copy, b"").ok();
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        // And not O_DIRECTORY.
        log.split(|c: char| !c.is_ascii_uppercase() && c != '_').any(|word| word == "O_DIRECT")
    };
    copy(&[]);
    assert!(note_of(&image).exists() && note_of(&dest).exists());
    assert!(copy(&["--read-back"]));
    assert!(!copy(&[]));
}

#[test]
fn a_note_is_gone_before_its_file_is_written() {
    requires(&["strace"]);
    let folder = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, dest) = (folder.path().join("disk.img"), folder.path().join("out.img"));
    disk().make(&image);
    let copy = |args: &[&str]| {
        let mut copy = Command::new("strace");
        copy.args(["-f", "-y", "-qq", "-e", "trace=unlink,unlinkat,pwrite64,ftruncate,copy_file_range", "-o"]);
        copy.arg(folder.path().join("log")).arg(tools!().xfer_hole).arg("-q").args(args).arg(&image).arg(&dest);
        run(&mut copy, b"").ok();
        fs::read_to_string(folder.path().join("log")).unwrap()
    };
    copy(&FLAGS);
    let note = note_of(&dest);
    assert!(note.exists());
    TestDisk::empty(24 * MIB + 512).with(MIB, MIB, 9).make(&image);
    let log = copy(&["--in-place"]);
    let first = |words: &[&str]| log.lines().position(|line| words.iter().all(|word| line.contains(word)));
    let removed = first(&["unlink", note.file_name().unwrap().to_str().unwrap()]).unwrap();
    let written = first(&["write", "out.img>"]).or_else(|| first(&["copy_file_range", "out.img>"])).unwrap();
    assert!(removed < written && !note.exists(), "{log}");
}

#[test]
fn notes_are_for_files_that_tell_of_changes_and_not_for_devices_or_files_in_memory() {
    let (_held, far) = far();
    let image = far.image("disk.img", &disk());
    settle();
    let copy = |from: &Path, to: &Path| {
        let mut copy = Command::new(tools!().xfer_hole);
        let copied = run(copy.args(["-q", "--hash"]).arg(from).arg(to), b"").ok();
        assert_eq!(copied.err, "");
    };
    // Each transfer with digests notes both, and nobody has to ask for it.
    let near = far.near("near.img");
    copy(&image, &near);
    assert!(note_of(&image).exists() && note_of(&near).exists());
    let device = LoopDevice::filled(24 * MIB + 512, 7);
    copy(&image, device.path());
    assert!(!note_of(device.path()).exists());
    let memory = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let there = memory.join("out.img");
    copy(&image, &there);
    settle();
    copy(&there, &near);
    assert!(!note_of(&there).exists());
    // Where no note can be written, nobody misses it who hasn't asked for it.
    let mut homeless = Command::new(tools!().xfer_hole);
    homeless.env("XDG_CACHE_HOME", "/proc/nowhere").args(["-q", "--hash"]).args([&image, &near]);
    assert_eq!(run(&mut homeless, b"").ok().err, "");
    homeless.args(FLAGS);
    let outcome = run(&mut homeless, b"").ok();
    assert!(outcome.err.contains("cannot note its fingerprint"), "{}", outcome.err);
}

/// Holds a file mapped, and stores to it.
const MAPPER: &str = r#"
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(file, 0)
for line in sys.stdin:
    place, value = map(int, line.split())
    memory[place] = value
    print("stored", flush=True)
"#;

/// A program that has a file mapped.
struct Mapper {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Mapper {
    fn of(file: &Path) -> Self {
        requires(&["python3"]);
        let mut command = Command::new("python3");
        command.args(["-c", MAPPER]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Stores one byte, and nothing else: no time need change by it.
    fn store(&mut self, at: u64, value: u8) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{at} {value}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line, "stored\n");
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn what_is_stored_in_a_mapped_page_again_and_again_is_found_each_time() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 400 * MIB);
        let [image, base, dest] = ["disk.img", "base.img", "out.img"].map(|name| fs.join(name));
        disk().make(&image);
        let copy = |flags: &[&str]| {
            let mut copy = Command::new(tools!().xfer_hole);
            let copied = run(copy.args(FLAGS).args(flags).args(["--progress", "json"]).arg(&image).arg(&dest), b"");
            moved(&copied);
            assert_same(&image, &dest);
        };
        // The page stays mapped and dirty from the first store on.
        let mut source = Mapper::of(&image);
        source.store(5, 1);
        settle();
        copy(&[]);
        let told = note_of(&image).exists() && note_of(&dest).exists();
        assert_eq!(told, kind != Fs::Tmpfs, "{kind:?}");
        for value in 2..5 {
            source.store(5, value);
            copy(&[]);
            settle();
            copy(&["--in-place"]);
        }
        // The same at the other end.
        let mut target = Mapper::of(&dest);
        for value in 11..14 {
            target.store(11 * MIB, value);
            copy(&["--in-place", "--force"]);
            target.store(11 * MIB, value + 100);
            copy(&["--in-place", "--force"]);
        }
        drop(target);
        // And of a disk that an increment is for: its fingerprint is not what was noted.
        fs::copy(&image, &base).unwrap();
        let top = fs.join("top.qcow2");
        Qcow2::over("base.img", "raw").write(2 * MIB, MIB, Fill::Noise(2)).make(&top);
        let mut below = Mapper::of(&base);
        below.store(12 * MIB, 1);
        settle();
        let send = |args: &[&str], image: &Path, dest: &Path| {
            let mut copy = Command::new(tools!().xfer_hole);
            run(copy.args(["-q", "--hash"]).args(args).arg(image).arg(dest), b"")
        };
        send(&[], &base, &dest).ok();
        below.store(12 * MIB, 2);
        let since = ["--since-base", base.to_str().unwrap(), "--in-place"];
        send(&since, &top, &dest).refused(&["is not the older disk"]);
        send(&[], &base, &dest).ok();
        send(&since, &top, &dest).ok();
        assert_same(&qemu_disk(&top), &dest);
    }
}

#[test]
fn what_is_refused_or_only_planned_leaves_the_note_and_what_writes_takes_it_away() {
    let (_held, far) = far();
    let image = far.image("disk.img", &disk());
    let near = far.near("near.img");
    let copy = |args: &[&str]| {
        let mut copy = Command::new(tools!().xfer_hole);
        run(copy.args(args).arg(&image).arg(&near), b"")
    };
    let there = || fs::read(note_of(&near)).ok();
    let pair = |args: &[&str]| {
        let mut pair = Command::new(tools!().xfer_hole);
        // A fold names the child first, and a prune the parent.
        let files = if args[0] == "fold" { [&image, &near] } else { [&near, &image] };
        run(pair.args(args).args(files), b"")
    };
    copy(&FLAGS).ok();
    // The image itself had been touched just before.
    assert!(there().is_some() && !note_of(&image).exists());
    let noted = there();
    pair(&["fold", "-n"]).ok();
    copy(&["--delta", "--dry-run"]).ok();
    assert_eq!(there(), noted);
    let locked = File::open(&near).unwrap();
    locked.lock().unwrap();
    for args in [&["--in-place"][..], &["--in-place", "--delta"]] {
        assert_eq!(copy(args).code, Some(75));
    }
    assert_eq!(pair(&["fold"]).code, Some(75));
    assert_eq!(there(), noted);
    drop(locked);
    let part = far.near("near.img.part");
    fs::create_dir(&part).unwrap();
    for args in [&[][..], &["--delta"]] {
        assert_eq!(copy(args).code, Some(2));
    }
    assert_eq!(there(), noted);
    fs::remove_dir(&part).unwrap();
    // What is begun ends it, by whatever way.
    let ways: [&[&str]; 4] = [&[], &["--delta"], &["--in-place"], &["--in-place", "--delta"]];
    for way in ways {
        fs::write(note_of(&near), noted.as_ref().unwrap()).unwrap();
        copy(way).ok();
        // What has digests is noted anew.
        assert_eq!(there().is_some(), way.contains(&"--delta"), "{way:?}");
        assert_ne!(there(), noted, "{way:?}");
    }
    for work in ["fold", "prune"] {
        fs::write(note_of(&near), noted.as_ref().unwrap()).unwrap();
        pair(&[work, "-n"]).ok();
        assert!(there().is_some());
        pair(&[work]).ok();
        assert_eq!(there(), None, "{work}");
    }
}

/// `XFER_HOLE_KILLS` says how many times.
#[test]
fn no_note_survives_a_run_that_failed() {
    let (_held, far) = far();
    let dest = far.account.home("out.img");
    let images = [1, 2].map(|seed| {
        let disk = TestDisk::empty(24 * MIB).with(0, 12 * MIB, 9).with(14 * MIB, 6 * MIB, seed);
        far.image(&format!("disk{seed}.img"), &disk)
    });
    moved(&push(&far, &[], &images[0], &dest));
    let rounds = std::env::var("XFER_HOLE_KILLS").map_or(10_u64, |rounds| rounds.parse().unwrap());
    let mut number = 12345_u64;
    let mut random = |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    let involved = || {
        let mut all = far.account.processes();
        all.extend(Process::all().into_iter().filter(|process| process.argv.contains(far.account.name())));
        all
    };
    for round in 0..rounds {
        let image = &images[usize::from(round % 2 == 0)];
        let mut sender = far.sender();
        sender.args(FLAGS).args(if round % 3 == 0 { &["--in-place"][..] } else { &[] });
        sender.arg(image).arg(far.place(&dest));
        let mut sends = Running::between(Stdio::null(), &mut sender, Stdio::null());
        thread::sleep(Duration::from_millis(random(400)));
        let victims = involved();
        if !victims.is_empty() {
            victims[usize::try_from(random(victims.len() as u64)).unwrap()].signal(Signal::SIGKILL);
        }
        wait_until("the near end has ended", || !sends.lives());
        let start = Instant::now();
        while !involved().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "round {round}: {:#?}", involved());
            thread::sleep(Duration::from_millis(2));
        }
        let sent = sends.end();
        let note = note_there(&far, &dest);
        if note.exists() {
            // Then it tells the truth: what it is of is the disk that is there.
            let mut digest = Command::new(tools!().xfer_hole);
            digest.args(["--hash", "--hash-interval", "64K", "--print-digest"]).arg(&dest);
            let told = run(&mut digest, b"").ok().fingerprint().2;
            let noted = fs::read_to_string(note).unwrap();
            assert!(noted.contains(&told), "round {round}: {noted}, and the disk is {told}");
        } else {
            assert_ne!(sent.code, Some(0), "round {round}");
        }
        if round % 5 == 4 || round + 1 == rounds {
            moved(&push(&far, &[], image, &dest));
            assert_same(image, &dest);
        }
    }
}
