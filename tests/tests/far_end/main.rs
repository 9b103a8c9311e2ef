//! The far end in sh: the request through login shells, the script under each `sh`, and its answers. No ssh: a pipe is as good.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod account;
mod dd;
mod lock;
mod stuck;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{
    Filesystem, Fs, LoopDevice, Outcome, TestDisk, holes, mode, part_of, pour, preamble, run, tool, tools, wait_until,
};
use tempfile::TempDir;

use crate::account::{Account, names, request};

/// What may be `sh`, and a login shell.
const SHELLS: [&str; 7] = ["dash", "bash", "busybox", "mksh", "ksh93", "yash", "zsh"];
/// Login shells that are no `sh`.
const OTHERS: [&str; 3] = ["fish", "csh", "tcsh"];
const READY: &str = "XFER-HOLE-READY 1 sh\n";
/// What is said as soon as the far end runs.
const HERE: &str = "XFER-HOLE-TEXT 1\nWAIT\n";
/// The first of it.
const TEXT: &str = "XFER-HOLE-TEXT 1\n";
const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
/// The length of `sample`.
const LENGTH: u64 = 3 * M + 5;

/// What follows the first answer, which comes at once. READY's words for the target and for what a transfer before has left are not the
/// question here.
#[track_caller]
fn after_here(said: Vec<u8>) -> String {
    let said = String::from_utf8(said).unwrap();
    let after = said.strip_prefix(HERE).unwrap_or_else(|| panic!("not {HERE:?} but {said:?}"));
    let plain = |line: &str| if line.starts_with(READY.trim_end()) { READY } else { line }.to_owned();
    after.split_inclusive('\n').map(plain).collect()
}

/// Does this for all of them at once: most of the time they wait.
fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, prove: impl Fn(T) + Sync) {
    let prove = &prove;
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || prove(case));
        }
    });
}

/// Waits until the script writes an image of this length, and only data is to come. That `.part` is there proves nothing: so it is
/// when the script tries whether it could be made.
#[track_caller]
fn written(dest: &Path, length: u64) {
    wait_until("the script writes", || fs::metadata(part_of(dest)).is_ok_and(|stat| stat.len() == length));
}

/// A disk, and its stream with digests.
fn sample(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let disk = TestDisk::empty(LENGTH).with(0, 70 * K, 1).with(M + 4 * K, 9 * K, 2).with(3 * M, 5, 3);
    let image = folder.join("sample");
    disk.make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    fs::remove_file(image).unwrap();
    (disk.bytes(), stream)
}

fn said(outcome: &Outcome) -> String {
    assert_eq!(outcome.err, "", "answers are said on standard output alone");
    after_here(outcome.out.clone())
}

/// Fails unless it said READY and DONE and nothing else.
#[track_caller]
fn done(outcome: &Outcome, why: &str) {
    assert_eq!((outcome.code, said(outcome)), (Some(0), format!("{READY}DONE\n")), "{why}");
}

/// Fails unless its last word was FAIL, for this reason, behind READY or instead of it.
#[track_caller]
fn failed(outcome: &Outcome, ready: bool, reason: &str) {
    let said = said(outcome);
    let fail = said.strip_prefix(if ready { READY } else { "" }).unwrap_or_default().strip_prefix("FAIL ");
    assert!(fail.is_some_and(|fail| fail.contains(reason) && fail.lines().count() == 1), "{reason}: {said}");
    assert_eq!(outcome.code, Some(2), "{said}");
}

#[test]
fn every_name_arrives_as_it_is_through_every_login_shell_and_under_every_sh() {
    let long = "x".repeat(250);
    let mut cases: Vec<&[u8]> =
        vec![b"it's \"a\" $HOME!x `id` $(id)\\y;&|<>*?[a]{b}#%^", b"end\n\n", b"-n", b"-", b"~root"];
    cases.extend([&b"tab\there"[..], b"\\0101%s%n", b"(", b"!", b"=", b"\x01\x1b[31m", b"\xff\xc3(", long.as_bytes()]);
    cases.push("ümläut-日本".as_bytes());
    let accounts = SHELLS.map(|sh| (sh, sh)).into_iter().chain(OTHERS.map(|login| (login, "dash")));
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("image");
    let disk = TestDisk::empty(64 * K).with(8 * K, 5 * K, 1);
    disk.make(&image);
    let (bytes, stream) = (disk.bytes(), pour(&tools!(), &["--hash"], &image));
    at_once(accounts, |(login, sh)| {
        let account = Account::new(login, sh);
        for name in &cases {
            // What is no text in any locale is too much for yash.
            if sh == "yash" && *name == b"\xff\xc3(" {
                continue;
            }
            let name = OsStr::from_bytes(name);
            let outcome = account.push(&[], Path::new(name), &stream);
            done(&outcome, &format!("{login} {sh} {name:?}"));
            let dest = account.at("home").join(name);
            assert!(fs::read(&dest).unwrap() == bytes, "{login} {sh} {name:?}");
            fs::remove_file(dest).unwrap();
            account.left_nothing(login);
        }
    });
}

#[test]
fn options_are_obeyed_under_every_sh() {
    let folder = TempDir::new().unwrap();
    let (bytes, stream) = sample(folder.path());
    let facts = |path: &Path| {
        let stat = fs::metadata(path).unwrap();
        (mode(path), stat.uid(), stat.gid(), stat.nlink())
    };
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (plain, deep) = (target.path().join("plain"), target.path().join("a/b/"));

        done(&account.push(&["dry-run"], &plain, b""), sh);
        done(&account.push(&["dry-run", "mkpath"], &deep, b""), sh);
        assert_eq!(names(target.path()), [""; 0], "{sh}: a dry run writes nothing");

        done(&account.push(&["mkpath"], &deep, &stream), sh);
        done(&account.push(&[], target.path(), &stream), sh);
        for path in [deep.join("it's.img"), target.path().join("it's.img")] {
            assert!(fs::read(&path).unwrap() == bytes, "{sh}: a directory gets the image under its name");
            assert_eq!(holes(&path)[0].0 % (4 * K), 0, "{sh}");
        }

        done(&account.push(&["chmod=640", "chown=1:2", "no-clobber"], &plain, &stream), sh);
        assert_eq!(facts(&plain), (0o640, 1, 2, 1), "{sh}");
        done(&account.push(&["no-sync", "chown=:3"], &plain, &stream), sh);
        assert_eq!(facts(&plain), (0o640, 1, 3, 1), "{sh}: what isn't asked for is the old file's");
        done(&account.push(&["in-place", "chmod=4", "chown=0"], &plain, &stream), sh);
        assert_eq!(facts(&plain), (0o4, 0, 3, 1), "{sh}");
        let inode = fs::metadata(&plain).unwrap().ino();
        done(&account.push(&["in-place"], &plain, &stream), sh);
        assert_eq!(fs::metadata(&plain).unwrap().ino(), inode, "{sh}");
        failed(&account.push(&["no-clobber"], &plain, &stream), false, "is there already");
        failed(&account.push(&["no-clobber", "dry-run"], &plain, b""), false, "is there already");
        assert_eq!(fs::metadata(&plain).unwrap().ino(), inode, "{sh}");
        account.left_nothing(sh);
    });
}

#[test]
fn no_clobber_also_spares_a_file_that_comes_meanwhile() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (_, stream) = sample(target.path());
        let dest = target.path().join("out.img");
        let (head, tail) = stream.split_at(stream.len() - 20);
        let mut child = account.begin(&["no-clobber"], &dest, head);
        written(&dest, LENGTH);
        fs::write(&dest, "another's").unwrap();
        child.stdin.take().unwrap().write_all(tail).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{sh}");
        assert!(after_here(output.stdout).contains("is there already"), "{sh}");
        assert_eq!(fs::read(&dest).unwrap(), b"another's", "{sh}");
    });
}

#[test]
fn a_link_to_a_file_or_a_device_is_written_through_unless_nothing_may_be_there() {
    let (account, folder, device) =
        (Account::new("dash", "dash"), TempDir::new().unwrap(), LoopDevice::filled(4 * M, 7));
    let (bytes, stream) = sample(folder.path());
    let (old, link, missing) = (folder.path().join("old"), folder.path().join("link"), folder.path().join("missing"));
    fs::write(&old, "old").unwrap();
    for (dest, file) in [(&link, &*old), (&folder.path().join("disk"), device.path()), (&missing, Path::new("no"))] {
        symlink(file, dest).unwrap();
        let refused = account.push(&["no-clobber"], dest, &stream);
        failed(&refused, false, "is there already");
    }
    assert_eq!(fs::read(&old).unwrap(), b"old");
    for (dest, file) in [(&link, &*old), (&folder.path().join("disk"), device.path())] {
        for options in [&["dry-run"][..], &[]] {
            let sent = if options.is_empty() { &stream[..] } else { b"" };
            let outcome = account.push(options, dest, sent);
            assert!(said(&outcome).ends_with("DONE\n"), "{file:?}: {}", said(&outcome));
        }
        assert_eq!(fs::read_link(dest).unwrap(), file);
        assert!(fs::read(file).unwrap()[..bytes.len()] == bytes, "{file:?}");
    }
    account.left_nothing("a link");
}

#[test]
fn a_device_that_is_zero_is_not_zeroed_and_keeps_its_owner() {
    let folder = TempDir::new().unwrap();
    let (bytes, stream) = sample(folder.path());
    for sh in SHELLS {
        let account = Account::new("dash", sh);
        let device = LoopDevice::filled(4 * M, 7);
        failed(&account.push(&["chmod=600"], device.path(), &stream), false, "is a device");
        let read = |device: &LoopDevice| {
            let mut now = fs::read(device.path()).unwrap();
            now.truncate(bytes.len());
            now
        };
        let old = read(&device);
        let outcome = account.push(&["target-is-zero"], device.path(), &stream);
        assert!(said(&outcome).ends_with("DONE\n") && said(&outcome).contains("\nNOTE "), "{sh}: {}", said(&outcome));
        let hole = usize::try_from(2 * M).unwrap();
        assert_eq!((read(&device)[0], read(&device)[hole]), (bytes[0], old[hole]), "{sh}: a hole was written");
        assert!(said(&account.push(&[], device.path(), &stream)).ends_with("DONE\n"), "{sh}");
        assert!(read(&device) == bytes, "{sh}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_with_its_reason_before_ready() {
    let (fs_full, nobody) = (Filesystem::new(Fs::Tmpfs, 256 * K), 65534);
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let stream = {
        let image = folder.path().join("data");
        TestDisk::empty(M).with(0, M, 1).make(&image);
        pour(&tools!(), &["--hash"], &image)
    };
    let (mine, theirs) = (folder.path().join("mine"), folder.path().join("theirs"));
    for path in [&mine, &theirs] {
        fs::create_dir(path).unwrap();
    }
    chown(&theirs, Some(nobody), Some(nobody)).unwrap();
    fs::write(theirs.join("root's"), "old").unwrap();
    fs::set_permissions(theirs.join("root's"), fs::Permissions::from_mode(0o600)).unwrap();
    for sh in SHELLS {
        let account = Account::new("dash", sh);
        let push = |options: &[&str], dest: &Path| account.push(options, dest, &stream);
        let outcome = push(&[], &fs_full.join("out.img"));
        failed(&outcome, true, "No space left on device, at most ");
        fs::remove_file(fs_full.join("out.img.part")).unwrap();
        drop(tool("mount", &["-o", "remount,ro", fs_full.path().to_str().unwrap()]));
        failed(&push(&[], &fs_full.join("out.img")), false, "Read-only file system");
        failed(&push(&["dry-run"], &fs_full.join("out.img")), false, "can't write in");
        drop(tool("mount", &["-o", "remount,rw", fs_full.path().to_str().unwrap()]));

        failed(&push(&[], &folder.path().join("no/out.img")), false, "no such directory: ");
        failed(&push(&[], &folder.path().join("no/")), false, "no such directory: ");
        failed(&push(&[], &folder.path().join("data/out.img")), false, "no such directory: ");
        failed(&push(&["mkpath"], &folder.path().join("data/deep/out.img")), false, "Not a directory");
        failed(&push(&[], &folder.path().join("x".repeat(254))), false, "File name too long");
        failed(&push(&["chown=nobody at all"], &folder.path().join("out.img")), false, "can't give ");
        failed(&push(&["frob"], &folder.path().join("out.img")), false, "unknown option in the request: frob");
        failed(&push(&["chmod=9"], &folder.path().join("out.img")), false, "no number");
        failed(&push(&["receiver=binary"], &folder.path().join("out.img")), false, "no recv-hole is installed");

        let as_nobody = |options: &[&str], dest: &Path| {
            let preamble = preamble();
            let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let mut command = account.command(&request(options, dest));
            let words: Vec<_> = command.get_args().map(OsStr::to_owned).collect();
            let mut setpriv = Command::new("setpriv");
            setpriv.args(ids).arg("dash").args(words).env_clear();
            setpriv.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            command = setpriv;
            run(&mut command, &[preamble.as_bytes(), &stream].concat())
        };
        failed(&as_nobody(&[], &mine.join("out.img")), false, "Permission denied");
        failed(&as_nobody(&["dry-run"], &mine.join("out.img")), false, "can't write in");
        failed(&as_nobody(&["mkpath"], &mine.join("deep/out.img")), false, "Permission denied");
        failed(&as_nobody(&["in-place"], &theirs.join("root's")), false, "Permission denied");
        failed(&as_nobody(&["chown=0:0"], &theirs.join("out.img")), false, "Operation not permitted");
        assert_eq!(names(&mine), [""; 0], "{sh}");
        assert_eq!(names(&theirs), ["root's"], "{sh}");
        account.left_nothing(sh);
    }
    let account = Account::new("dash", "dash");
    let outcome = account.push(&[], &folder.path().join("data"), &stream[..stream.len() - 9]);
    failed(&outcome, true, "stream cut");
}

#[test]
fn a_stream_that_is_cut_or_wrong_is_answered_by_fail_and_leaves_the_old_file() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (_, stream) = sample(target.path());
        let dest = target.path().join("out.img");
        fs::write(&dest, "old").unwrap();
        for (bytes, reason) in [
            (&b""[..], "stream cut before END"),
            (b"GET / HTTP/1.1\r\n", "not a stream of xfer-hole"),
            (&stream[..1000], "stream cut in DATA"),
            (&stream[..stream.len() - 1], "stream cut in a line"),
            (b"XFER-HOLE 1 4096\nFAIL the disk is gone\n", "sender gave up: the disk is gone"),
            (b"XFER-HOLE 1 4096\nHOLE 4096\nEND\nx", "bytes after END"),
        ] {
            failed(&account.push(&[], &dest, bytes), true, reason);
            assert_eq!(fs::read(&dest).unwrap(), b"old", "{sh} {reason}");
        }
        account.left_nothing(sh);
    });
}

#[test]
fn sh_text_that_is_cut_does_nothing() {
    let (account, target) = (Account::new("dash", "dash"), TempDir::new().unwrap());
    let (preamble, dest) = (preamble(), target.path().join("out.img"));
    let command = request(&[], &dest);
    let last = preamble.len() - 30..preamble.len() - 1;
    for cut in (0..preamble.len()).step_by(499).chain(last) {
        let outcome = run(&mut account.command(&command), &preamble.as_bytes()[..cut]);
        let said = String::from_utf8(outcome.out).unwrap();
        let said = said.strip_prefix(HERE).or(said.strip_prefix(TEXT)).unwrap();
        assert!(said.is_empty() || said.starts_with("FAIL "), "cut at {cut}: {said}");
        assert_eq!(names(target.path()), [""; 0], "cut at {cut}");
    }
    // The timer that ends a silent link doesn't outlive it.
    account.left_nothing("cut");
}

#[test]
fn silence_ends_the_far_end_wherever_it_waits() {
    let folder = TempDir::new().unwrap();
    let (_, stream) = sample(folder.path());
    let open = stream.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let cuts = [[0, open - 1], [open, 1000], [stream.len() - 1, stream.len()]];
    at_once(SHELLS.iter().flat_map(|sh| cuts.map(|cuts| (sh, cuts))), |(sh, cuts)| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let dest = target.path().join("out.img");
        for bytes in cuts {
            let mut child = account.begin(&["max-wait=3"], &dest, &stream[..bytes]);
            let _held = child.stdin.take();
            let output = child.wait_with_output().unwrap();
            let said = after_here(output.stdout).replace("WAIT\n", "");
            assert_eq!(
                (output.status.code(), said.as_str()),
                (Some(2), &*format!("{READY}FAIL (again) nothing came for 3 seconds: the link is taken for dead\n")),
                "{sh}, silent after {bytes} bytes"
            );
            assert!(!dest.exists(), "{sh}");
            account.left_nothing(sh);
        }
    });
}

#[test]
fn a_killed_far_end_leaves_no_process_behind() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (_, stream) = sample(target.path());
        let dest = target.path().join("out.img");
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            let mut child = account.begin(&[], &dest, &stream[..1000]);
            written(&dest, LENGTH);
            kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
            let _held = child.stdin.take();
            let output = child.wait_with_output().unwrap();
            let said = after_here(output.stdout);
            let fail = if signal == Signal::SIGKILL { "" } else { "FAIL (again) ended by a signal\n" };
            assert_eq!(said, format!("{READY}{fail}"), "{sh} {signal}");
            account.left_nothing(sh);
            // It may have been killed before its first line was there.
            let left = names(target.path());
            assert!(
                left == ["out.img.part"] || left == ["out.img.part", "out.img.part.lines"],
                "{sh} {signal}: {left:?}"
            );
            fs::remove_file(part_of(&dest)).unwrap();
        }
    });
}

#[test]
fn a_dead_predecessor_is_waited_for_and_a_live_one_is_not() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (bytes, stream) = sample(target.path());
        let dest = target.path().join("out.img");
        // Its link is dead, which it finds out in a moment.
        let mut dead = account.begin(&["max-wait=3"], &dest, &stream[..1000]);
        let held = dead.stdin.take();
        written(&dest, LENGTH);
        done(&account.push(&[], &dest, &stream), sh);
        assert!(fs::read(&dest).unwrap() == bytes, "{sh}");
        assert_eq!(dead.wait().unwrap().code(), Some(2), "{sh}");
        drop(held);

        let image = target.path().join("long");
        TestDisk::empty(16 * M).with(0, 16 * M, 1).make(&image);
        let long = pour(&tools!(), &[], &image);
        let mut live = account.begin(&[], &dest, &long[..1000]);
        written(&dest, 16 * M);
        let (mut stdin, refused) = (live.stdin.take().unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                for part in long[1000..].chunks(600 << 10) {
                    stdin.write_all(part).unwrap();
                    if !refused.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(500));
                    }
                }
                drop(stdin);
            });
            let outcome = account.push(&[], &dest, &stream);
            refused.store(true, Ordering::Relaxed);
            failed(&outcome, false, "is being written by another receiver");
        });
        let output = live.wait_with_output().unwrap();
        assert_eq!(after_here(output.stdout), format!("{READY}DONE\n"), "{sh}");
        account.left_nothing(sh);
    });
}

#[test]
fn a_far_end_that_has_nothing_to_say_says_wait() {
    let (account, target) = (Account::new("dash", "dash"), TempDir::new().unwrap());
    let (_, stream) = sample(target.path());
    let mut child = account.begin(&[], &target.path().join("out.img"), &stream[..1000]);
    let (mut answers, start) = (child.stdout.take().unwrap(), Instant::now());
    let expected = format!("{HERE}XFER-HOLE-READY 1 sh new\nWAIT\n");
    let mut lines = vec![0; expected.len()];
    answers.read_exact(&mut lines).unwrap();
    assert_eq!(lines, expected.as_bytes());
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(30), "too late for a sender's patience of a minute");
    assert!(taken >= Duration::from_secs(10), "it has been silent for {taken:?} only");
    child.stdin.take().unwrap().write_all(&stream[1000..]).unwrap();
    let mut last = String::new();
    answers.read_to_string(&mut last).unwrap();
    assert_eq!(last, "DONE\n");
    let mut blamed = String::new();
    child.stderr.take().unwrap().read_to_string(&mut blamed).unwrap();
    assert_eq!(blamed, "");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_recv_hole_that_is_installed_gets_the_stream_unless_sh_is_asked_for() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (bytes, stream) = sample(target.path());
        symlink(tools!().recv_hole, account.at("bin/recv-hole")).unwrap();
        for (receiver, word) in [("auto", "recv-hole"), ("binary", "recv-hole"), ("sh", "sh")] {
            let dest = target.path().join(receiver);
            let receiver = format!("receiver={receiver}");
            let options = [&receiver, "chmod=604", "chown=1:2", "no-clobber", "mkpath", "no-sync", "max-wait=9"];
            // The text is for sh alone.
            let outcome = match word {
                "sh" => account.push(&options, &dest, &stream),
                _ => run(&mut account.command(&request(&options, &dest)), &stream),
            };
            let said = if word == "sh" { said(&outcome) } else { String::from_utf8(outcome.out).unwrap() };
            assert!(said.starts_with(&format!("XFER-HOLE-READY 1 {word}")), "{sh} {receiver}: {said}");
            assert!(said.lines().last().unwrap().starts_with("DONE"), "{sh} {receiver}: {said}");
            assert!(fs::read(&dest).unwrap() == bytes, "{sh} {receiver}");
            assert_eq!((mode(&dest), fs::metadata(&dest).unwrap().uid()), (0o604, 1), "{sh} {receiver}");
        }
        account.left_nothing(sh);
    });
}
