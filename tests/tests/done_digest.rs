//! DONE names the disk that was written: a digest other than that of END is a failure, and so is none where one belongs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rig::{Outcome, TestDisk, run, tools};
use xfer_hole_proto::Digest;

const MIB: u64 = 1 << 20;

/// What a receiver says it has written.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// The disk that END names.
    Sent,
    /// Another one.
    Other,
    /// It gives no digest.
    Unknown,
}

/// By a push: the program that is given to `-e` answers when the stream has ended.
fn pushed(image: &Path, args: &[&str], word: &str, written: Written) -> Outcome {
    let far = image.with_file_name("far");
    let done = match written {
        Written::Sent => "printf 'DONE %s\\n' \"$(tail -c 65)\"".to_owned(),
        Written::Other => format!("cat >/dev/null; echo DONE {}", Digest::of(b"other")),
        Written::Unknown => "cat >/dev/null; echo DONE".to_owned(),
    };
    fs::write(&far, format!("#!/bin/sh\necho XFER-HOLE-READY 1 {word}\n{done}\n")).unwrap();
    fs::set_permissions(&far, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("timeout");
    run(command.arg("60").arg(tools!().xfer_hole).arg("-e").arg(&far).args(args).arg(image).arg("far-end:x"), b"")
}

/// By standard input and output.
fn conversed(image: &Path, args: &[&str], word: &str, written: Written) -> Outcome {
    let mut command = Command::new("timeout");
    command.arg("60").arg(tools!().xfer_hole).arg("--converse").args(args).arg(image);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut sender = command.spawn().unwrap();
    let (mut answers, mut stream) = (sender.stdin.take().unwrap(), sender.stdout.take().unwrap());
    writeln!(answers, "XFER-HOLE-READY 1 {word}").unwrap();
    // The disk ends in a hole, whose line stands ahead of END.
    let (mut sent, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        let text = String::from_utf8_lossy(&sent);
        if let Some((_, end)) = text.rsplit_once("\nEND").filter(|(_, end)| end.ends_with('\n')) {
            break end.trim().to_owned();
        }
        match stream.read(&mut buffer).unwrap() {
            0 => panic!("no END: {text}"),
            bytes => sent.extend_from_slice(&buffer[..bytes]),
        }
    };
    let done = match written {
        Written::Sent => format!("DONE {end}"),
        Written::Other => format!("DONE {}", Digest::of(b"other")),
        Written::Unknown => "DONE".to_owned(),
    };
    writeln!(answers, "{done}").unwrap();
    let output = sender.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Outcome { code: output.status.code(), out: Vec::new(), err }
}

#[test]
fn done_with_another_digest_than_that_of_end_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    TestDisk::empty(MIB).with(0, 64 << 10, 1).make(&image);
    for (how, send) in [("push", pushed as fn(&Path, &[&str], &str, Written) -> Outcome), ("converse", conversed)] {
        let hash: &[&str] = if how == "converse" { &["--hash"] } else { &[] };
        for (word, written, good) in [
            ("recv-hole", Written::Sent, true),
            ("recv-hole", Written::Other, false),
            ("recv-hole", Written::Unknown, false),
            ("another-receiver", Written::Other, false),
            ("another-receiver", Written::Unknown, false),
            ("sh", Written::Sent, true),
            ("sh", Written::Other, false),
            // A shell needs not compute it.
            ("sh", Written::Unknown, true),
        ] {
            let outcome = send(&image, hash, word, written);
            let what = format!("{how} to {word}, {written:?}: {}", outcome.err);
            assert_eq!(outcome.code, Some(if good { 0 } else { 2 }), "{what}");
            let said = outcome.err.contains("says that it has written another disk than was sent");
            assert_eq!(said, !good, "{what}");
        }
        // Nothing was hashed: nothing is compared.
        send(&image, &["--no-hash"], "recv-hole", Written::Unknown).ok();
    }
}
