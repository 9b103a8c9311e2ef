//! A disk goes over a real ssh connection, to the script and to the binary at its far end.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::path::Path;
use std::process::{Command, Stdio};

use rig::{Filesystem, Fs, Outcome, Sshd, TestDisk, assert_same, holes, holes_within, run, script, tools};

const M: u64 = 1 << 20;

/// `xfer-hole ARGS IMAGE | ssh far-end FAR`: how both ended.
fn send_by(sshd: &Sshd, args: &[&str], image: &Path, far: &str) -> (Outcome, Outcome) {
    let mut sender = Command::new(tools!().xfer_hole);
    let sender = sender.args(args).arg(image).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut sender = sender.spawn().unwrap();
    let stream = sender.stdout.take().unwrap();
    let received = sshd.ssh().arg(far).stdin(stream).output().unwrap();
    let sent = sender.wait_with_output().unwrap();
    (outcome(sent), outcome(received))
}

fn outcome(output: std::process::Output) -> Outcome {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Outcome { code: output.status.code(), out: output.stdout, err }
}

/// A word for the far end's shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_str().unwrap().replace('\'', r"'\''"))
}

#[test]
fn a_disk_arrives_over_ssh_at_the_script_and_at_the_binary_with_digests_and_without() {
    let (sshd, fs) = (Sshd::start(), Filesystem::new(Fs::Xfs, 1 << 30));
    let (image, dest) = (fs.join("disk.img"), fs.join("out of it.img"));
    let disk = TestDisk::empty(256 * M + 777).with(0, 12 * M, 1).with(100 * M, 4096, 2);
    disk.with(128 * M, M, 0).with(255 * M, M + 777, 3).make(&image);
    let receivers = [format!("sh {}", quoted(&script())), quoted(&tools!().recv_hole)];
    for receiver in receivers {
        for args in [&[][..], &["--hash"]] {
            let (sent, received) = send_by(&sshd, args, &image, &format!("{receiver} {}", quoted(&dest)));
            assert_eq!((sent.code, sent.err.as_str()), (Some(0), ""), "{receiver} {args:?}");
            assert_eq!((received.code, received.err.as_str()), (Some(0), ""), "{receiver} {args:?}");
            assert_same(&image, &dest);
            assert_eq!(holes(&dest), holes_within(&image, 4096), "{receiver} {args:?}");
            std::fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn the_script_that_the_sender_carries_is_installed_by_ssh_and_receives() {
    let (sshd, fs) = (Sshd::start(), Filesystem::new(Fs::Ext4, 256 * M));
    let (image, dest, carried) = (fs.join("disk.img"), fs.join("out.img"), fs.join("carried.sh"));
    TestDisk::empty(8 * M).with(M, M, 1).make(&image);
    let printed = run(Command::new(tools!().xfer_hole).arg("--print-receiver"), b"").ok();
    run(sshd.ssh().arg(format!("cat > {}", quoted(&carried))), &printed.out).ok();
    let (sent, received) = send_by(&sshd, &["--hash"], &image, &format!("sh {} {}", quoted(&carried), quoted(&dest)));
    sent.ok();
    received.ok();
    assert_same(&image, &dest);
}

#[test]
fn a_failure_at_the_far_end_is_heard_at_this_one() {
    let (sshd, fs) = (Sshd::start(), Filesystem::new(Fs::Tmpfs, 64 * M));
    let image = fs.join("disk.img");
    TestDisk::empty(8 * M).with(0, 8 * M, 1).make(&image);
    for receiver in [format!("sh {}", quoted(&script())), quoted(&tools!().recv_hole)] {
        let nowhere = fs.join("no such folder/out.img");
        let (sent, received) = send_by(&sshd, &[], &image, &format!("{receiver} {}", quoted(&nowhere)));
        sent.refused(&["xfer-hole: broken pipe"]);
        received.refused(&["recv-hole", "no such folder"]);
    }
}
