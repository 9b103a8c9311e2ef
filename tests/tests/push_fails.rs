//! What fails at the far end, or on the way to it, is what the user is told; and nothing there is harmed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rig::{
    Account, Before, FarEnd, Filesystem, Fs, HOST, Network, Outcome, Process, Running, Setup, TestDisk, Toolbox,
    assert_same, part_of, run, tool, tools, wait_until,
};

const MIB: u64 = 1 << 20;

fn disk() -> TestDisk {
    TestDisk::empty(64 * MIB).with(MIB, 40 * MIB, 1)
}

/// Calls `each` for both receivers, with an account where `recv-hole` is installed.
fn with_both(each: impl Fn(&FarEnd, &[&str])) {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    for receiver in ["binary", "sh"] {
        each(&far, &["--receiver", receiver]);
    }
}

/// Gives a file or folder to the account.
fn give(path: &Path, far: &FarEnd) {
    chown(path, Some(far.account.uid()), None).unwrap();
}

#[test]
fn a_full_disk_is_the_reason() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let full = Filesystem::new(Fs::Tmpfs, 16 * MIB);
        give(full.path(), far);
        let dest = full.join("out.img");
        fs::write(&dest, "the old disk").unwrap();
        give(&dest, far);
        let before = Before::of(&dest);
        for more in [&[][..], &["--no-hash"]] {
            far.push(&[args, more].concat(), &image, &dest).blamed(HOST, &["no space left on device"]);
            before.untouched("a full disk");
            let _left = fs::remove_file(part_of(&dest));
        }
    });
}

#[test]
fn what_may_not_be_written_is_the_reason() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let before = far.belongings();
        // Root's folder, and a read-only file system.
        let locked = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(locked.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        far.push(args, &image, locked.path().join("out.img")).blamed(HOST, &["permission denied"]);
        let frozen = Filesystem::new(Fs::Tmpfs, MIB);
        give(frozen.path(), far);
        tool("mount", &["-o", "remount,ro", frozen.path().to_str().unwrap()]);
        far.push(args, &image, frozen.join("out.img")).blamed(HOST, &["read-only file system"]);
        far.push(args, &image, "no such folder/out.img").blamed(HOST, &["no such"]);
        fs::write(far.account.home("file"), "").unwrap();
        far.push(args, &image, "file/out.img").blamed(HOST, &["directory"]);
        fs::remove_file(far.account.home("file")).unwrap();
        let long = "x".repeat(255);
        far.push(args, &image, &long).blamed(HOST, &["too long"]);
        assert_eq!(far.account.belongings().changed_since(&before), Vec::<std::path::PathBuf>::new());
        assert_eq!(fs::read_dir(locked.path()).unwrap().count(), 0);
    });
}

#[test]
fn an_image_that_cannot_be_read_is_the_reason_and_nothing_is_left_there() {
    with_both(|far, args| {
        let before = far.belongings();
        let missing = far.near("no such image");
        let refused = far.push(args, &missing, "out.img");
        assert_eq!(refused.code, Some(2), "{}", refused.err);
        assert!(refused.err.to_lowercase().contains("no such file"), "{}", refused.err);
        assert_eq!(far.account.belongings().changed_since(&before), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn a_login_shell_that_runs_nothing_is_the_reason() {
    let far = FarEnd::new(tools!(), "nologin");
    let image = far.image("disk.img", &disk());
    far.push(&[], &image, "x").blamed(HOST, &["not available"]);
    // It has nothing to say for itself.
    let far = FarEnd::new(tools!(), "false");
    let image = far.image("disk.img", &disk());
    far.push(&[], &image, "x").blamed(HOST, &[]);
}

#[test]
fn a_far_end_without_sh_or_dd_is_the_reason() {
    for (kept, words) in [(&["cat"][..], "sh"), (&["cat", "sh"], "dd")] {
        let toolbox =
            kept.iter().fold(Toolbox::bare(), |toolbox, name| toolbox.with(name, format!("/usr/bin/{name}").as_ref()));
        let path = toolbox.path();
        let far = FarEnd::with(tools!(), "bash", Setup { path: Some(&path), ..Setup::default() });
        let image = far.image("disk.img", &disk());
        far.push(&[], &image, "x").blamed(HOST, &[words, "not found"]);
        assert!(!far.account.home("x").exists());
    }
}

#[test]
fn what_ssh_says_is_the_reason() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let push = |options: &[&str], host: &str| {
        let options: Vec<_> = options.iter().flat_map(|option| ["-o", option]).collect();
        let to = format!("{}@{host}:x", far.account.name());
        run(far.sender().args(options).arg(&image).arg(to), b"")
    };
    push(&["Port=1"], HOST).blamed_for_now(HOST, &["connection refused"]);
    push(&[], "no-such-host.invalid").blamed("no-such-host.invalid", &["could not resolve hostname"]);
    let nobodys = far.near("key");
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", nobodys.to_str().unwrap()]);
    let nobodys = format!("IdentityFile={}", nobodys.display());
    // The configuration's key is forgotten with the configuration.
    let known = format!("UserKnownHostsFile={}", far.sshd.known_hosts().display());
    let port = format!("Port={}", far.sshd.port());
    let mut bare = Command::new("timeout");
    bare.args(["-s", "KILL", "120"]).arg(tools!().xfer_hole).args(["-F", "/dev/null"]);
    for option in [&nobodys, &known, &port, "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes"] {
        bare.args(["-o", option]);
    }
    let to = format!("{}@127.0.0.1:x", far.account.name());
    run(bare.arg(&image).arg(to), b"").blamed("127.0.0.1", &["permission denied"]);
    push(&["NoSuchOption=yes"], HOST).blamed(HOST, &["nosuchoption"]);
    far.sshd.forge();
    push(&[], HOST).blamed(HOST, &["host key verification failed"]);
    assert!(!far.account.home("x").exists());
}

#[test]
fn a_host_that_cannot_be_reached_is_the_reason() {
    let network = Network::new();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    TestDisk::empty(MIB).make(&image);
    let push = |option: &str, host: &str| -> Outcome {
        let mut sender = Command::new("timeout");
        sender.args(["-s", "KILL", "120"]).arg(tools!().xfer_hole).args(["-F", "/dev/null", "-o", option]).arg(&image);
        run(&mut network.near(sender.arg(format!("{host}:x"))), b"")
    };
    push("Port=22", "198.51.100.1").blamed_for_now("198.51.100.1", &["network is unreachable"]);
    push("Port=22", "192.0.2.77").blamed_for_now("192.0.2.77", &["no route to host"]);
    network.cut();
    push("ConnectTimeout=2", network.address()).blamed_for_now(network.address(), &["timed out"]);
}

/// Starts a push that lasts, and waits until bytes have arrived.
fn under_way(far: &FarEnd, args: &[&str], image: &Path, dest: &Path) -> Running {
    let _leftover = fs::remove_file(part_of(dest));
    let mut sender = far.sender();
    sender.args(args).args(["--bwlimit", "4M"]).arg(image).arg(far.place(dest));
    let mut sends = Running::between(Stdio::null(), &mut sender, Stdio::null());
    wait_until("data arrives or all is over", || {
        fs::metadata(part_of(dest)).is_ok_and(|stat| stat.blocks() > 4096) || !sends.lives()
    });
    sends
}

/// What receives there: `recv-hole`, or the shell that runs the script.
fn receives(process: &Process) -> bool {
    !process.argv.starts_with("sshd") && !process.argv.starts_with("dd ")
}

#[test]
fn a_receiver_or_a_session_that_is_killed_is_noticed_at_once() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("out.img");
        for (what, victim) in
            [("session", (|process| !receives(process)) as fn(&Process) -> bool), ("receiver", receives)]
        {
            fs::write(&dest, "the old disk").unwrap();
            give(&dest, far);
            let before = Before::of(&dest);
            let mut sends = under_way(far, args, &image, &dest);
            assert!(sends.lives(), "{what} {args:?}: {:?}", sends.end());
            let victims: Vec<_> = far.account.processes().into_iter().filter(victim).collect();
            assert!(!victims.is_empty(), "{what} {args:?}");
            victims.iter().for_each(|process| process.signal(Signal::SIGKILL));
            sends.end().blamed_for_now(HOST, &[]);
            wait_until("the far end has ended", || far.account.processes().is_empty());
            before.untouched(what);
            assert!(part_of(&dest).exists(), "{what} {args:?}");
            // And it is no hindrance.
            far.push(args, &image, &dest).ok();
            assert_same(&image, &dest);
            assert!(!part_of(&dest).exists());
        }
    });
}

#[test]
fn an_interrupted_sender_ends_both_ends_and_says_which_signal() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("out.img");
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
            let mut sends = under_way(far, args, &image, &dest);
            assert!(sends.lives(), "{signal} {args:?}: {:?}", sends.end());
            let sender = tools!().xfer_hole.display().to_string();
            let ours =
                |process: &&Process| process.argv.starts_with(&sender) && process.argv.contains(far.account.name());
            Process::below(std::process::id()).iter().find(ours).unwrap().signal(signal);
            let outcome = sends.end();
            assert_eq!(outcome.code, Some(code), "{signal} {args:?}: {}", outcome.err);
            wait_until("the far end has ended", || far.account.processes().is_empty());
            assert!(!dest.exists() && part_of(&dest).exists(), "{signal} {args:?}");
        }
    });
}

#[test]
fn a_target_that_another_writes_is_refused_and_the_other_goes_on() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("out.img");
        // In short intervals, so that it is seen to write.
        let mut sends = under_way(far, &[args, &["--hash-interval", "1M"]].concat(), &image, &dest);
        assert!(sends.lives(), "{args:?}: {:?}", sends.end());
        for second in ["binary", "sh"] {
            let refused = far.push(&["--receiver", second], &image, &dest);
            assert!(sends.lives(), "too late to tell");
            refused.blamed_for_now(HOST, &["another"]);
        }
        sends.end().ok();
        assert_same(&image, &dest);
        fs::remove_file(&dest).unwrap();
    });
}

#[test]
fn a_dead_predecessor_is_waited_for_and_taken_over_from() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("out.img");
        let mut sends = under_way(far, &[args, &["--timeout", "10"]].concat(), &image, &dest);
        assert!(sends.lives(), "{args:?}: {:?}", sends.end());
        // Nothing more comes from this end, and nobody tells the other.
        let frozen = Process::below(std::process::id());
        let near = format!("{}@{HOST}", far.account.name());
        let frozen = frozen.iter().filter(|process| process.argv.contains(&near));
        frozen.for_each(|process| process.signal(Signal::SIGSTOP));
        // What is on its way still arrives.
        let (mut stamp, mut quiet) = (None, 0);
        wait_until("nothing arrives", || {
            let now = fs::metadata(part_of(&dest)).ok().map(|stat| (stat.blocks(), stat.mtime_nsec()));
            quiet = if now == stamp { quiet + 1 } else { 0 };
            stamp = now;
            quiet > 1000
        });
        far.push(args, &image, &dest).ok();
        assert_same(&image, &dest);
        drop(sends.kill());
        fs::remove_file(&dest).unwrap();
    });
}

#[test]
fn accounts_of_others_are_not_touched() {
    // A home that isn't ours to write in, by an absolute name.
    let far = FarEnd::new(tools!(), "dash");
    let other = Account::new("dash");
    let image = far.image("disk.img", &disk());
    far.push(&[], &image, other.home("x")).blamed(HOST, &["permission denied"]);
    assert!(!other.home("x").exists());
}

#[test]
fn a_write_that_nobody_takes_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let (image, far) = (folder.path().join("disk.img"), folder.path().join("far"));
    TestDisk::empty(8 * MIB).with(0, 8 * MIB, 1).make(&image);
    // Its child keeps the link open, and takes nothing from it.
    for (says, args, code, why) in [
        ("READY 1 sh\\nFAIL it is enough\\n", &[][..], 2, "far-end: it is enough"),
        ("READY 1 sh\\nFAIL (again) not now\\n", &[], 75, "far-end: not now"),
        ("READY 1 sh\\n", &["--timeout", "3"], 75, "far-end: the link is dead"),
    ] {
        fs::write(
            &far,
            format!("#!/bin/sh\nexec 3<&0\nsleep 60 <&3 >/dev/null 2>&1 &\nprintf 'XFER-HOLE-{says}'\nexec sleep 60\n"),
        )
        .unwrap();
        fs::set_permissions(&far, Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("timeout");
        command.arg("40").arg(tools!().xfer_hole).arg("-e").arg(&far).args(args).arg(&image).arg("far-end:/nowhere");
        let outcome = run(&mut command, b"");
        if code == 2 {
            outcome.refused(&[why])
        } else {
            outcome.retryable(&[why])
        };
    }
}

/// A push to a program that says this instead of a receiver, and takes all that comes.
fn answered_by(says: &str, args: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let (image, far) = (folder.path().join("disk.img"), folder.path().join("far"));
    TestDisk::empty(MIB).with(0, MIB, 1).make(&image);
    fs::write(&far, format!("#!/bin/sh\nprintf '{says}'\nexec cat >/dev/null\n")).unwrap();
    fs::set_permissions(&far, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("timeout");
    command.arg("40").arg(tools!().xfer_hole).arg("-e").arg(&far).args(args).arg(&image).arg("far-end:x");
    run(&mut command, b"")
}

#[test]
fn kinds_of_a_refusal_decide_and_its_words_do_not() {
    let mkpath = "xfer-hole: hint: --mkpath makes the directories that lead to it\n";
    let new = "XFER-HOLE-READY 1 sh new\\n";
    let device = "XFER-HOLE-READY 1 recv-hole in-place\\n";
    let unknown = "XFER-HOLE-READY 1 sh\\n";
    for (says, code, said) in [
        // What words seem to say.
        ("FAIL no such directory: /x; kept x.part\\n".to_owned(), 2, "no such directory: /x; kept x.part\n".to_owned()),
        (format!("{new}FAIL no room; kept x\\n"), 2, "no room; kept x; far-end:x is as it was\n".to_owned()),
        // What kinds say.
        ("FAIL (mkpath) there is none\\n".to_owned(), 2, format!("there is none\n{mkpath}")),
        ("FAIL (again) busy\\n".to_owned(), 75, "busy\n".to_owned()),
        (format!("{new}FAIL (left) no room, kept x\\n"), 2, "no room, kept x\n".to_owned()),
        (format!("{new}FAIL (again left) cut, kept x\\n"), 75, "cut, kept x\n".to_owned()),
        (format!("{new}FAIL (again) cut\\n"), 75, "cut; far-end:x is as it was; run it again to go on\n".to_owned()),
        (format!("{new}FAIL (strange) full\\n"), 2, "full; far-end:x is as it was\n".to_owned()),
        // What the target is.
        (format!("{device}FAIL full\\n"), 2, "full; far-end:x is as it was\n".to_owned()),
        (format!("{device}FAIL (again) busy\\n"), 75, "busy; far-end:x is as it was\n".to_owned()),
        ("XFER-HOLE-READY 1 sh device\\nFAIL too small\\n".to_owned(), 2, "too small\n".to_owned()),
        (
            "XFER-HOLE-READY 1 sh device\\nFAIL (again) cut\\n".to_owned(),
            75,
            "cut; far-end:x may be updated in part; run it again to go on\n".to_owned(),
        ),
        (format!("{unknown}FAIL full\\n"), 2, "full; far-end:x is as it was, unless it is a device there\n".to_owned()),
    ] {
        let outcome = answered_by(&says, &[]);
        assert_eq!((outcome.code, outcome.err), (Some(code), format!("xfer-hole: far-end: {said}")), "{says}");
    }
}

#[test]
fn missing_directories_there_have_the_hint_that_makes_them() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let refused = far.push(args, &image, "no such folder/out.img").blamed(HOST, &["no such directory"]);
        assert!(refused.err.contains("hint: --mkpath makes"), "{args:?}: {}", refused.err);
    });
}

#[test]
fn no_directory_is_made_for_a_mistyped_device() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        for more in [&[][..], &["--mkpath"], &["--mkpath", "-n"]] {
            let dest = "/dev/no-such-group/web";
            let refused = far.push(&[args, more].concat(), &image, dest).blamed(HOST, &["is no device"]);
            assert!(!refused.err.contains("--mkpath"), "{args:?} {more:?}: {}", refused.err);
        }
    });
    assert!(!Path::new("/dev/no-such-group").exists());
}
