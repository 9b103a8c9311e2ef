//! A far end that hangs is given up, whatever the two ends are doing at that time; and what holds the link is ended.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use rig::{Outcome, TestDisk, run, tools, wait_until};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// An image, and a program that holds the link to a far end of which this is all.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new(size: u64, script: &str) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        // More data than a pipe takes.
        TestDisk::empty(size).with(0, 8 * MIB, 1).make(&scene.at("disk.img"));
        let text = format!("#!/bin/sh\necho $$ >'{}'\n{script}\n", scene.at("pid").display());
        fs::write(scene.at("far"), text).unwrap();
        fs::set_permissions(scene.at("far"), Permissions::from_mode(0o755)).unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn push(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new("timeout");
        command.arg("100").arg(tools!().xfer_hole).args(["--timeout", "3", "-e"]).arg(self.at("far"));
        run(command.args(args).arg(self.at("disk.img")).arg("far-end:x"), b"")
    }

    /// The program that held the link.
    fn pid(&self) -> i32 {
        fs::read_to_string(self.at("pid")).unwrap().trim().parse().unwrap()
    }
}

fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_err() || !Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[test]
fn millions_of_records_from_one_who_reads_nothing_end_the_push() {
    // More pairs of lines than the sender keeps.
    let pairs = 2_400_000;
    let size = pairs * 8 * KIB;
    let script = format!(
        "echo XFER-HOLE-READY 1 recv-hole delta\nread -r want\necho XFER-HOLE-MANIFEST 1 {size} sha256 4096 4096\n\
         yes \"$(printf 'DATA 4096 %064d\\nHOLE 4096' 1)\" | head -n {}\nexec sleep 1000",
        2 * pairs
    );
    let scene = Scene::new(size, &script);
    let args = ["--delta", "--hash-interval", "4096"];
    let outcome = scene.push(&args);
    outcome.retryable(&["far-end: the link is dead: nothing was heard for 3 seconds"]);
    assert!(is_gone(scene.pid()));
}

#[test]
fn what_holds_the_link_is_killed_where_it_does_not_end_by_itself() {
    for says in ["", "echo XFER-HOLE-READY 1 sh", "echo XFER-HOLE-READY 1 sh; echo FAIL it is enough"] {
        let scene = Scene::new(64 * MIB, &format!("trap '' TERM\n{says}\nexec sleep 1000"));
        let outcome = scene.push(&[]);
        let code = if says.contains("FAIL") { 2 } else { 75 };
        assert_eq!(outcome.code, Some(code), "{says}: {}", outcome.err);
        wait_until("it is killed", || is_gone(scene.pid()));
    }
}
