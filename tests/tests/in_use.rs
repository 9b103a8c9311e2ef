//! A destination that a virtual machine, a loop device or another writer uses is refused in every mode, before the first byte and again
//! before the rename, and is written by --force.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{
    Before, FarEnd, Filesystem, Fs, HOST, LoopDevice, Outcome, Running, Setup, TestDisk, Toolbox, assert_same, part_of,
    pour, requires, run, tool, tools, wait_until,
};

const MIB: u64 = 1 << 20;

/// What uses a file, until it is dropped.
#[derive(Debug)]
enum User {
    Qemu { _daemon: Running, _folder: tempfile::TempDir },
    Loop(String),
    Writer { _file: File },
}

/// The kinds of users, and the word that each refusal has to hold.
const USERS: [(&str, &str); 4] =
    [("qemu", "QEMU"), ("loop", "/dev/loop"), ("read-only loop", "read-only"), ("writer", "open for writing")];

impl User {
    fn of(kind: &str, file: &Path) -> Self {
        requires(&["qemu-storage-daemon", "losetup"]);
        let name = file.to_str().unwrap();
        match kind {
            "qemu" => {
                let folder = tempfile::tempdir().unwrap();
                let (ready, socket) = (folder.path().join("pid"), folder.path().join("nbd"));
                let mut daemon = Command::new("qemu-storage-daemon");
                let driver = if fs::metadata(file).unwrap().is_file() { "file" } else { "host_device" };
                daemon.args(["--blockdev", &format!("driver={driver},filename={name},node-name=file,locking=on")]);
                daemon.args(["--blockdev", "driver=raw,file=file,node-name=disk"]);
                daemon.args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())]);
                daemon.args(["--export", "type=nbd,id=export,node-name=disk,writable=on"]);
                let daemon = Running::start(daemon.arg("--pidfile").arg(&ready));
                wait_until("QEMU has the file", || fs::read(&ready).is_ok_and(|pid| pid.ends_with(b"\n")));
                Self::Qemu { _daemon: daemon, _folder: folder }
            }
            "writer" => Self::Writer { _file: File::options().write(true).open(file).unwrap() },
            kind => {
                let flags: &[&str] = if kind == "loop" { &[] } else { &["--read-only"] };
                let out = tool("losetup", &[flags, &["--find", "--show", name]].concat());
                Self::Loop(out.trim().into())
            }
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Self::Loop(device) = self {
            tool("losetup", &["-d", device]);
            wait_until("it is detached", || !Path::new("/sys/block").join(&device[5..]).join("loop").exists());
        }
    }
}

fn disk() -> TestDisk {
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1)
}

fn old(dest: &Path) {
    TestDisk::empty(4 * MIB).with(0, 2 * MIB, 7).make(dest);
}

fn recv_hole(args: &[&str], dest: &Path) -> Command {
    let mut command = Command::new(tools!().recv_hole);
    command.args(args).arg(dest);
    command
}

/// Fails unless it was refused in one line that holds `word`, with a hint at --force.
#[track_caller]
fn refused(outcome: Outcome, word: &str, what: &str) {
    assert_eq!(outcome.code, Some(2), "{what}: {}", outcome.err);
    let outcome = outcome.refused(&[word, "out.img"]);
    assert!(outcome.err.contains(": hint: ") && outcome.err.contains("--force"), "{what}: {}", outcome.err);
}

#[test]
fn what_is_in_use_is_refused_from_a_pipe_and_by_a_copy() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    for (kind, word) in USERS {
        old(&dest);
        let (before, user) = (Before::of(&dest), User::of(kind, &dest));
        for args in [&[][..], &["--in-place"], &["-n"], &["-n", "--in-place"], &["--no-sync"]] {
            let what = format!("{kind} {args:?}");
            refused(run(&mut recv_hole(args, &dest), &stream), word, &what);
            before.untouched(&what);
            let mut copy = Command::new(tools!().xfer_hole);
            refused(run(copy.args(args).arg(&image).arg(&dest), b""), word, &what);
            before.untouched(&what);
            assert!(!part_of(&dest).exists(), "{what}");
        }
        run(&mut recv_hole(&["--in-place", "--force"], &dest), &stream).ok();
        assert_eq!(before.inode(), fs::metadata(&dest).unwrap().ino());
        run(&mut recv_hole(&["-f"], &dest), &stream).ok();
        assert_ne!(before.inode(), fs::metadata(&dest).unwrap().ino());
        drop(user);
        assert_same(&image, &dest);
        run(&mut recv_hole(&[], &dest), &stream).ok();
    }
}

#[test]
fn what_is_used_while_the_disk_comes_is_not_renamed_over() {
    for fs in [Fs::Ext4, Fs::Tmpfs].map(|kind| Filesystem::new(kind, 128 * MIB)) {
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        disk().make(&image);
        let stream = pour(&tools!(), &["--hash"], &image);
        for (kind, word) in USERS {
            for flag in [None, Some("--no-sync"), Some("--force")] {
                old(&dest);
                let before = Before::of(&dest);
                let mut receiver = Running::start(&mut recv_hole(flag.as_slice(), &dest));
                receiver.say(&stream[..stream.len() / 2]);
                wait_until("the disk comes", || part_of(&dest).exists());
                let user = User::of(kind, &dest);
                receiver.say(&stream[stream.len() / 2..]);
                let outcome = receiver.end();
                drop(user);
                if flag == Some("--force") {
                    outcome.ok();
                    assert_same(&image, &dest);
                    continue;
                }
                assert!(outcome.err.contains(&format!("kept {}", part_of(&dest).display())), "{kind} {}", outcome.err);
                refused(outcome, word, kind);
                before.untouched(kind);
                assert_eq!(fs::metadata(part_of(&dest)).unwrap().len(), 8 * MIB, "{kind}");
                run(&mut recv_hole(&[], &dest), &stream).ok();
                assert_same(&image, &dest);
            }
        }
    }
}

#[test]
fn what_is_in_use_is_refused_before_a_push_or_pull_sends_anything() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &disk());
    let there = far.account.home("out.img");
    let theirs = far.account.home("disk.img");
    disk().make(&theirs);
    for (kind, word) in USERS {
        for mode in [&[][..], &["--in-place"], &["-n"]] {
            let what = format!("{kind} {mode:?}");
            let args = [&["--receiver", "binary"], mode].concat();
            old(&there);
            chown(&there, Some(far.account.uid()), None).unwrap();
            let (before, user) = (Before::of(&there), User::of(kind, &there));
            far.push(&args, &image, "out.img").blamed(HOST, &[word, "out.img"]);
            before.untouched(&what);
            assert!(!part_of(&there).exists(), "{what}");
            if mode != ["-n"] {
                far.push(&[&args[..], &["--force"]].concat(), &image, "out.img").ok();
                assert_same(&image, &there);
            }
            drop(user);
            let near: PathBuf = far.near("out.img");
            old(&near);
            let (before, user) = (Before::of(&near), User::of(kind, &near));
            refused(far.pull(mode, "disk.img", &near), word, &what);
            before.untouched(&what);
            if mode != ["-n"] {
                far.pull(&[mode, &["--force"]].concat(), "disk.img", &near).ok();
                assert_same(&image, &near);
            }
            drop(user);
        }
    }
}

#[test]
fn our_own_reader_is_not_called_qemu_and_does_not_mind_a_rename() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    old(&dest);
    let (stream, expected) = (pour(&tools!(), &[], &image), pour(&tools!(), &[], &dest));
    let (mut reads, writes) = std::io::pipe().unwrap();
    // It waits until its stream is taken, and has the file open.
    let reader = Running::between(
        std::process::Stdio::null(),
        Command::new(tools!().xfer_hole).arg("--live").arg(&dest),
        writes,
    );
    let mut first = [0];
    std::io::Read::read_exact(&mut reads, &mut first).unwrap();
    let outcome =
        run(&mut recv_hole(&["--in-place"], &dest), &stream).refused(&["out.img", "is being read by xfer-hole"]);
    assert!(!outcome.err.contains("QEMU"), "{}", outcome.err);
    run(&mut recv_hole(&[], &dest), &stream).ok();
    assert_same(&image, &dest);
    let mut rest = first.to_vec();
    std::io::Read::read_to_end(&mut reads, &mut rest).unwrap();
    assert!(rest == expected, "the old disk is sent");
    reader.end().ok();
    // Who writes in place is not called QEMU, either.
    old(&dest);
    let mut writer = Running::start(&mut recv_hole(&["--in-place"], &dest));
    writer.say(&stream[..stream.len() / 2]);
    let bytes = fs::read(&image).unwrap();
    wait_until("writing has begun", || fs::read(&dest).unwrap()[..4096] == bytes[..4096]);
    for args in [&["--in-place"][..], &[]] {
        run(&mut recv_hole(args, &dest), &stream).retryable(&["is in use by another receiver"]);
    }
    let read = run(Command::new(tools!().xfer_hole).arg(&dest), b"").retryable(&["is being updated by a receiver"]);
    assert!(read.err.contains("--force-share"), "{}", read.err);
    writer.say(&stream[stream.len() / 2..]);
    writer.end().ok();
    assert_same(&image, &dest);
}

#[test]
fn a_device_under_a_loop_device_or_a_running_qemu_is_refused() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    for (kind, word) in &USERS[..3] {
        let device = LoopDevice::filled(8 * MIB, 7);
        let user = User::of(kind, device.path());
        for args in [&[][..], &["-n"]] {
            let outcome =
                run(&mut recv_hole(args, device.path()), &stream).refused(&[word, device.path().to_str().unwrap()]);
            assert!(outcome.err.contains("--force"), "{}", outcome.err);
        }
        assert!(fs::read(device.path()).unwrap().iter().all(|&byte| byte == 7));
        run(&mut recv_hole(&["--force"], device.path()), &stream).ok();
        drop(user);
        assert!(fs::read(&image).unwrap() == fs::read(device.path()).unwrap(), "{kind}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_refused_by_its_locks() {
    requires(&["setpriv"]);
    for kind in [Fs::Ext4, Fs::Btrfs] {
        let fs = Filesystem::new(kind, 256 * MIB);
        let (image, folder) = (fs.join("disk.img"), fs.join("folder"));
        let dest = folder.join("out.img");
        disk().make(&image);
        let stream = pour(&tools!(), &["--hash"], &image);
        let outer = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let binary = outer.path().join("recv-hole");
        fs::copy(tools!().recv_hole, &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        for way in [fs.path().parent().unwrap(), fs.path()] {
            fs::set_permissions(way, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(65534), Some(65534)).unwrap();
        let receive = |args: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
            run(command.arg(&binary).args(args).arg(&dest), &stream)
        };
        old(&dest);
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o600)).unwrap();
        let before = Before::of(&dest);
        let user = User::of("qemu", &dest);
        for args in [&[][..], &["-n"], &["--no-sync"]] {
            refused(receive(args), "QEMU", &format!("{kind:?} {args:?}"));
            before.untouched(&format!("{kind:?} {args:?}"));
        }
        drop(user);
        let locked = File::open(&dest).unwrap();
        locked.lock().unwrap();
        receive(&[]).retryable(&["out.img", "is in use by another receiver"]);
        before.untouched("flock");
        receive(&["--force"]).ok();
        assert_ne!(before.inode(), fs::metadata(&dest).unwrap().ino());
    }
}

#[test]
fn a_swap_file_is_refused_before_anything_is_sent() {
    requires(&["mkswap", "swapon", "swapoff"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let dest = fs.join("a swap file.img");
    fs::write(&dest, vec![0; 16 << 20]).unwrap();
    std::fs::set_permissions(&dest, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tool("mkswap", &[dest.to_str().unwrap()]);
    tool("swapon", &[dest.to_str().unwrap()]);
    let outcomes = [&["-n"][..], &["--force"]].map(|args| run(&mut recv_hole(args, &dest), b"XFER-HOLE 1 0\nEND\n"));
    tool("swapoff", &[dest.to_str().unwrap()]);
    for outcome in outcomes {
        outcome.refused(&["in use as swap"]);
    }
    assert!(!part_of(&dest).exists());
}
