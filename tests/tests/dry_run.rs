//! A dry run finds what the run would find, and changes nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rig::{
    FarEnd, Filesystem, Fill, Fs, HOST, LoopDevice, Outcome, Qcow2, Running, Setup, TestDisk, Toolbox, part_of, pour,
    requires, run, tool, tools, wait_until,
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
    let image = far.image("disk.img", &TestDisk::empty(16 * MIB).with(MIB, MIB, 1));
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
    let image = far.image("disk.img", &TestDisk::empty(1 << 30).with(0, 40 * MIB, 1));
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
        let wanted = far.image("less.img", &TestDisk::empty(1 << 30).with(0, 28 * MIB, 1));
        accepted(by_every_way(&far, &wanted, &dest, &[]), "28 MiB, of which 20 are there");
        fs::write(fs.join("other"), vec![1; 8 << 20]).unwrap();
        refused(by_every_way(&far, &wanted, &dest, &[]), &["free space"], "with 8 MiB less");
        fs::remove_file(fs.join("other")).unwrap();
        fs::remove_file(&part).unwrap();
        let sparse = far.image("sparse.img", &TestDisk::empty(8 << 30).with(3 << 30, MIB, 1));
        accepted(by_every_way(&far, &sparse, &dest, &[]), "holes take no room");
        assert!(!dest.exists() && !part.exists());
        // Not a byte is left.
        let _full = std::io::copy(&mut std::io::repeat(1), &mut File::create(fs.join("filler")).unwrap());
        let words = "has 0 bytes of free space, and the disk has 1048576 bytes of data";
        refused(by_every_way(&far, &sparse, &dest, &[]), &[words], "full");
    }
}

#[test]
fn a_temporary_file_of_another_receiver_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &TestDisk::empty(16 * MIB).with(MIB, MIB, 1));
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
    let image = far.image("disk.img", &TestDisk::empty(16 * MIB).with(MIB, MIB, 1));
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
    TestDisk::empty(17 << 40).with(0, 4096, 1).make(&image);
    let outcomes = by_every_way(&far, &image, &fs.join("out.img"), &[]).into_iter();
    refused(outcomes.filter(|(_, way)| *way != "push to sh").collect(), &["too large"], "17 TiB");
    assert_eq!(
        fs::read_dir(fs.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "lost+found").count(),
        0
    );
}

#[test]
fn a_base_that_is_not_there_or_another_disk_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.near("disk.qcow2");
    Qcow2::new(8 * MIB)
        .write(MIB, MIB, Fill::Noise(1))
        .snapshot("one")
        .write(3 * MIB, 4096, Fill::Noise(2))
        .make(&image);
    let (dest, older) = (far.near("out.img"), rig::qemu_disk(&rig::gone_back(&image, "one")));
    let place = format!("{HOST}:{}", dest.display());
    let since = ["--since-snapshot", "one"];
    let stream = pour(&tools!(), &[&["--hash"], &since[..]].concat(), &image);
    // What the run says, and what -n says.
    let both = |trust: bool, what: &str| {
        let trusted: &[&str] = if trust { &["--trust-base"] } else { &[] };
        let passed: Vec<String> = since.iter().chain(trusted).map(ToString::to_string).collect();
        let passed = [format!("{}={}", passed[0], passed[1])].into_iter().chain(passed[2..].to_vec());
        let passed: Vec<_> = passed.flat_map(|word| ["-M".to_owned(), word]).collect();
        for way in ["copy", "push", "push to sh", "pull", "pipe"] {
            let run_it = |dry: &[&str]| {
                let mut sender = if way == "copy" { Command::new(tools!().xfer_hole) } else { far.sender() };
                sender.args(dry).args(since).args(trusted);
                match way {
                    "copy" => run(sender.arg(&image).arg(&dest), b""),
                    "push" => run(sender.args(["--receiver", "binary"]).arg(&image).arg(&place), b""),
                    "push to sh" => run(sender.args(["--receiver", "sh"]).arg(&image).arg(&place), b""),
                    "pull" => {
                        let there = format!("{HOST}:{}", image.display());
                        run(far.receiver().args(dry).args(&passed).arg(there).arg(&dest), b"")
                    }
                    _ => run(Command::new(tools!().recv_hole).args(dry).arg(&dest), &stream),
                }
            };
            let kept = fs::read(&dest).ok();
            let (found, real) = (run_it(&["-n"]), run_it(&[]));
            assert_eq!(found.code, real.code, "{what}, {way}: {} but {}", found.err, real.err);
            match kept {
                Some(bytes) => fs::write(&dest, bytes).unwrap(),
                None => drop(fs::remove_file(&dest)),
            }
            let expected = match what {
                "the older disk" if way == "push to sh" && !trust => 2,
                "the older disk" => 0,
                "another disk" if trust && way != "pipe" => 0,
                _ => 2,
            };
            assert_eq!(real.code, Some(expected), "{what}, {way}, trusted {trust}: {}", real.err);
        }
    };
    for trust in [false, true] {
        both(trust, "nothing there");
        fs::write(&dest, vec![7; 4 << 20]).unwrap();
        both(trust, "too small");
        fs::write(&dest, vec![7; 8 << 20]).unwrap();
        both(trust, "another disk");
        fs::copy(&older, &dest).unwrap();
        both(trust, "the older disk");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn a_disk_that_a_key_or_the_user_does_not_accept_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    TestDisk::empty(16 * MIB).with(MIB, MIB, 1).make(&at("disk.img"));
    let (recv, sender) = (tools!().recv_hole, tools!().xfer_hole);
    let far = |name: &str, text: String| {
        fs::write(at(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        at(name)
    };
    let restrict =
        format!("SSH_ORIGINAL_COMMAND=$2 exec {} --restrict {} --max-size", recv.display(), folder.path().display());
    for (limit, code) in [("8M", 2), ("16M", 0)] {
        let key = far("key", format!("{restrict} {limit}"));
        let push =
            run(Command::new(&sender).arg("-n").arg("-e").arg(key).arg(at("disk.img")).arg("far-end:new.img"), b"");
        assert_eq!(push.code, Some(code), "{limit}: {}", push.err);
        let path = sender.parent().unwrap().display().to_string();
        let open = far("open", format!("PATH={path}:$PATH exec sh -c \"$2\""));
        let there = format!("far-end:{}", at("disk.img").display());
        let pull =
            run(Command::new(&recv).args(["-n", "--max-size", limit, "-e"]).arg(open).arg(there).arg(at("o")), b"");
        assert_eq!(pull.code, Some(code), "{limit}: {}", pull.err);
        let stream = pour(&tools!(), &[], &at("disk.img"));
        let piped = run(Command::new(&recv).args(["-n", "--max-size", limit]).arg(at("o")), &stream);
        assert_eq!(piped.code, Some(code), "{limit}: {}", piped.err);
        run(Command::new(&recv).args(["-n", "--require-hash"]).arg(at("o")), &stream).refused(&["no digests"]);
    }
}

#[test]
fn a_delta_that_finds_no_room_or_no_partner_is_found() {
    let toolbox = installed();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let disk = TestDisk::empty(64 * MIB).with(0, 20 * MIB, 1);
    let image = far.image("disk.img", &disk);
    let fs = Filesystem::new(Fs::Tmpfs, 32 * MIB);
    let dest = fs.join("out.img");
    // The new file can't share the blocks of the old one, and there is room for one of them.
    disk.make(&dest);
    let ways = by_every_way(&far, &image, &dest, &["--delta"]);
    refused(ways, &["free space"], "a delta on a full file system");
    fs::remove_file(&dest).unwrap();
    for (outcome, way) in by_every_way(&far, &image, &dest, &["--delta"]) {
        assert_eq!(outcome.code, Some(0), "{way}: {}", outcome.err);
        let warned = outcome.err.contains("warning: the receiver can't tell what it has");
        assert_eq!(warned, way == "push to sh", "{way}: {}", outcome.err);
    }
}
