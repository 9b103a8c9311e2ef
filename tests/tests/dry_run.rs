//! A dry run finds what the run would find, and changes nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rig::{
    Disk, FarEnd, Filesystem, Fs, HOST, LoopDevice, Outcome, Running, Setup, Toolbox, part_of, pour, requires, run,
    tool, tools, wait_until,
};

const MIB: u64 = 1 << 20;

fn installed() -> Toolbox {
    Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole)
}

/// The ways by which a disk gets to a DEST of this machine, as root: what each says to `-n`, and the name of the way.
fn by_every_way(far: &FarEnd, image: &Path, dest: &Path, args: &[&str]) -> Vec<(Outcome, &'static str)> {
    let copy = run(Command::new(tools!().xfer_hole).arg("-n").args(args).arg(image).arg(dest), b"");
    let there = |path: &Path| format!("{HOST}:{}", path.display());
    let push =
        |kind: &str| run(far.sender().args(["-n", "--receiver", kind]).args(args).arg(image).arg(there(dest)), b"");
    let pull = run(far.receiver().arg("-n").args(args).arg(there(image)).arg(dest), b"");
    vec![(copy, "copy"), (push("binary"), "push"), (push("sh"), "push to sh"), (pull, "pull")]
}

fn refused(outcomes: Vec<(Outcome, &'static str)>, words: &[&str], what: &str) {
    failed(2, outcomes, words, what);
}

fn failed(code: i32, outcomes: Vec<(Outcome, &'static str)>, words: &[&str], what: &str) {
    for (outcome, way) in outcomes {
        let last = outcome.complaints().last().copied().unwrap_or_default().to_owned();
        assert_eq!(outcome.code, Some(code), "{what}, {way}: {}", outcome.err);
        assert!(words.iter().all(|word| last.contains(word)), "{what}, {way}: {}", outcome.err);
    }
}

fn accepted(outcomes: Vec<(Outcome, &'static str)>, what: &str) {
    for (outcome, way) in outcomes {
        assert_eq!(outcome.code, Some(0), "{what}, {way}: {}", outcome.err);
    }
}

#[test]
fn a_device_that_is_too_small_or_in_use_is_found() {
    requires(&["mkfs.ext4", "blockdev"]);
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &Disk::empty(16 * MIB).with(MIB, MIB, 1));
    let stream = pour(&tools!(), &[], &image);
    let small = LoopDevice::filled(16 * MIB - 512, 7);
    let before = fs::read(small.path()).unwrap();
    refused(by_every_way(&far, &image, small.path(), &[]), &["too small", "16776704", "16777216"], "too small");
    run(Command::new(tools!().recv_hole).arg("-n").arg(small.path()), &stream).refused(&["too small"]);
    assert!(fs::read(small.path()).unwrap() == before);
    let device = LoopDevice::filled(16 * MIB, 0);
    let name = device.path().to_str().unwrap();
    accepted(by_every_way(&far, &image, device.path(), &[]), "large enough");
    tool("blockdev", &["--setro", name]);
    let read_only = by_every_way(&far, &image, device.path(), &[]).into_iter().filter(|(_, way)| *way != "push to sh");
    refused(read_only.collect(), &["read"], "read-only");
    tool("blockdev", &["--setrw", name]);
    let mount = tempfile::tempdir().unwrap();
    tool("mkfs.ext4", &["-q", name]);
    tool("mount", &[name, mount.path().to_str().unwrap()]);
    let outcomes = by_every_way(&far, &image, device.path(), &[]);
    let piped = run(Command::new(tools!().recv_hole).arg("-n").arg(device.path()), &stream);
    tool("umount", &[mount.path().to_str().unwrap()]);
    refused(outcomes, &["in use", name], "mounted");
    piped.refused(&["in use"]);
}

#[test]
fn what_there_is_no_room_for_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &Disk::empty(1 << 30).with(0, 40 * MIB, 1));
    for kind in [Fs::Ext4, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 32 * MIB);
        let (dest, part) = (fs.join("out.img"), fs.join("out.img.part"));
        refused(by_every_way(&far, &image, &dest, &[]), &["free space"], "40 MiB of data");
        let deep = fs.join("a/b/out.img");
        refused(by_every_way(&far, &image, &deep, &["--mkpath"]), &["free space"], "in a directory to be made");
        assert!(!fs.join("a").exists());
        if kind == Fs::Ext4 {
            // How much of it is its own isn't known exactly.
            continue;
        }
        // What an earlier transfer has left is gone on with.
        let left = run(Command::new(tools!().recv_hole).arg(&dest), &pour(&tools!(), &["--hash"], &image)[..20 << 20]);
        left.refused(&[]);
        assert!(part.exists());
        let wanted = far.image("less.img", &Disk::empty(1 << 30).with(0, 28 * MIB, 1));
        accepted(by_every_way(&far, &wanted, &dest, &[]), "28 MiB, of which 20 are there");
        fs::write(fs.join("other"), vec![1; 8 << 20]).unwrap();
        refused(by_every_way(&far, &wanted, &dest, &[]), &["free space"], "with 8 MiB less");
        fs::remove_file(fs.join("other")).unwrap();
        fs::remove_file(&part).unwrap();
        let sparse = far.image("sparse.img", &Disk::empty(8 << 30).with(3 << 30, MIB, 1));
        accepted(by_every_way(&far, &sparse, &dest, &[]), "holes take no room");
        assert!(!dest.exists() && !part.exists());
    }
}

#[test]
fn a_temporary_file_of_another_receiver_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &Disk::empty(16 * MIB).with(MIB, MIB, 1));
    let (stream, dest) = (pour(&tools!(), &[], &image), far.near("out.img"));
    let mut other = Running::start(Command::new(tools!().recv_hole).arg(&dest));
    other.say(&stream[..stream.len() / 2]);
    wait_until("the other has begun", || part_of(&dest).exists());
    failed(75, by_every_way(&far, &image, &dest, &[]), &["out.img.part", "another receiver"], "locked");
    run(Command::new(tools!().recv_hole).arg("-n").arg(&dest), &stream).retryable(&["another receiver"]);
    other.say(&stream[stream.len() / 2..]);
    other.end().ok();
    // In place, the file itself is locked.
    let mut other = Running::start(Command::new(tools!().recv_hole).arg("--in-place").arg(&dest));
    other.say(&stream[..stream.len() / 2]);
    wait_until("the other has the file", || File::open(&dest).unwrap().try_lock_shared().is_err());
    run(Command::new(tools!().recv_hole).args(["-n", "--in-place"]).arg(&dest), &stream)
        .retryable(&["another receiver"]);
    other.say(&stream[stream.len() / 2..]);
    other.end().ok();
    accepted(by_every_way(&far, &image, &dest, &[]), "free again");
}

#[test]
fn an_owner_that_is_not_known_or_not_permitted_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &Disk::empty(16 * MIB).with(MIB, MIB, 1));
    let dest = far.near("out.img");
    for owner in ["no-such-user", ":no-such-group", "root:no-such-group"] {
        let outcomes = by_every_way(&far, &image, &dest, &["--chown", owner]);
        refused(outcomes, &["there is no", "no-such"], owner);
    }
    accepted(by_every_way(&far, &image, &dest, &["--chown", "nobody:daemon"]), "root may give away");
    let before = far.belongings();
    for (args, words) in [(&["--chown", "root"][..], "not permitted"), (&["--chown", ":0"], "not permitted")] {
        let args = [&["-n", "--receiver", "binary"], args].concat();
        far.push(&args, &image, "out.img").blamed(HOST, &[words]);
    }
    far.push(&["-n", "--chown", far.account.name()], &image, "out.img").ok();
    assert_eq!(far.account.belongings().changed_since(&before), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_file_that_would_be_too_large_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    // ext4 has no file of 17 TiB, XFS has.
    let (source, fs) = (Filesystem::new(Fs::Xfs, 512 * MIB), Filesystem::new(Fs::Ext4, 64 * MIB));
    let image = source.join("disk.img");
    Disk::empty(17 << 40).with(0, 4096, 1).make(&image);
    let outcomes = by_every_way(&far, &image, &fs.join("out.img"), &[]).into_iter();
    refused(outcomes.filter(|(_, way)| *way != "push to sh").collect(), &["too large"], "17 TiB");
    assert_eq!(
        fs::read_dir(fs.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "lost+found").count(),
        0
    );
}
