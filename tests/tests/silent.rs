//! Silence before the first answer, silence while a manifest is written, and a fifo without a reader: each ends in time.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, Permissions};
use std::io::{Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::{Outcome, Running, TestDisk, run, tool, tools, wait_until};

const MIB: u64 = 1 << 20;
/// Three seconds of patience are over by then, however busy the machine is.
const SOON: Duration = Duration::from_secs(60);

fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Runs it without a terminal, and without a program that asks for passwords.
fn unattended(command: &mut Command) -> Outcome {
    let mut alone = Command::new("timeout");
    alone.args(["100", "setsid", "--wait"]).arg(command.get_program()).args(command.get_args());
    run(alone.env_remove("SSH_ASKPASS").env_remove("DISPLAY"), b"")
}

#[test]
fn an_ssh_that_is_stopped_before_its_first_answer_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (ssh, image) = (folder.path().join("ssh"), folder.path().join("disk.img"));
    // What the configuration says is asked for by -G.
    program(&ssh, "case \" $* \" in *' -G '*) exit ;; esac\nkill -STOP $$");
    TestDisk::empty(MIB).with(0, MIB, 1).make(&image);
    let begun = Instant::now();
    for options in [&[][..], &["-o", "BatchMode=yes"]] {
        let args = [&["--timeout", "3", "-e", ssh.to_str().unwrap()], options].concat();
        let mut push = Command::new(tools!().xfer_hole);
        unattended(push.args(&args).arg(&image).arg("far-end:x")).retryable(&["far-end: the link is dead"]);
        let mut pull = Command::new(tools!().recv_hole);
        let dest = folder.path().join("out.img");
        unattended(pull.args(&args).arg("far-end:x").arg(&dest)).retryable(&["far-end: nothing came for 3 seconds"]);
        assert!(!dest.exists());
    }
    assert!(begun.elapsed() < 4 * SOON);
}

#[test]
fn a_silent_sender_is_given_up_while_a_manifest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out.img");
    // So many records that their lines don't fit into a pipe.
    (0..4096).fold(TestDisk::empty(64 * MIB), |disk, n| disk.with(n * 16384, 4096, 1)).make(&dest);
    let mut receiver = Command::new(tools!().recv_hole);
    let mut receiver = receiver.args(["--converse", "--timeout", "3"]).arg(&dest);
    receiver = receiver.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = receiver.spawn().unwrap();
    let begun = Instant::now();
    let want = format!("WANT {} sha256 65536 4096\n", 64 * MIB);
    child.stdin.as_ref().unwrap().write_all(want.as_bytes()).unwrap();
    // Nothing is read of what it says, and nothing more is said to it.
    wait_until("it gives the sender up", || child.try_wait().unwrap().is_some());
    let taken = begun.elapsed();
    assert!((Duration::from_secs(3)..SOON).contains(&taken), "{taken:?}");
    assert_eq!(child.wait().unwrap().code(), Some(75));
}

#[test]
fn a_fifo_without_a_reader_is_not_waited_for_longer_than_the_link_or_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    TestDisk::empty(MIB).with(0, MIB, 1).make(&at("disk.img"));
    tool("mkfifo", &[at("fifo").to_str().unwrap()]);
    let stream = rig::pour(&tools!(), &["--hash"], &at("disk.img"));
    // A plain stream, and one whose sender is still there.
    let mut receiver = Command::new(tools!().recv_hole);
    run(receiver.args(["--timeout", "3"]).arg(at("fifo")), &stream).refused(&["fifo", "for 3 seconds"]);
    let path = tools!().xfer_hole.parent().unwrap().display().to_string();
    program(&at("far"), &format!("PATH={path}:$PATH exec sh -c \"$2\""));
    let pull = |args: &[&str]| {
        let mut receiver = Command::new(tools!().recv_hole);
        receiver.args(args).arg("-e").arg(at("far")).arg(format!("far-end:{}", at("disk.img").display()));
        receiver.arg(at("fifo"));
        receiver
    };
    run(&mut pull(&["--timeout", "3"]), b"").refused(&["fifo", "for 3 seconds"]);
    // A link that is gone meanwhile.
    let path = at("pid");
    program(
        &at("far"),
        &format!(
            "echo $$ >{0}.new; mv {0}.new {0}; {1}",
            path.display(),
            "printf 'XFER-HOLE 1 1048576\\nHOLE 1048576\\n'; exec sleep 1000"
        ),
    );
    let mut pulls = Running::between(Stdio::null(), &mut pull(&["--timeout", "10m"]), Stdio::null());
    wait_until("the link is there", || path.exists());
    assert!(pulls.lives());
    tool("kill", &["-KILL", fs::read_to_string(&path).unwrap().trim()]);
    wait_until("it ends", || !pulls.lives());
    let outcome = pulls.end();
    assert_eq!(outcome.code, Some(75), "{}", outcome.err);
    // A reader that comes late gets the disk.
    program(&at("far"), &format!("PATH={}:$PATH exec sh -c \"$2\"", tools!().xfer_hole.parent().unwrap().display()));
    let mut pulls = Running::between(Stdio::null(), &mut pull(&["--timeout", "60"]), Stdio::null());
    let (mut copy, out) = pipe().unwrap();
    let mut reader = Command::new("sh");
    let reader = Running::between(Stdio::null(), reader.arg("-c").arg("sleep 1; cat \"$0\"").arg(at("fifo")), out);
    let mut disk = Vec::new();
    std::io::Read::read_to_end(&mut copy, &mut disk).unwrap();
    reader.end().ok();
    wait_until("it is done", || !pulls.lives());
    pulls.end().ok();
    assert!(disk == fs::read(at("disk.img")).unwrap());
}
