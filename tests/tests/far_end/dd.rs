//! A far end whose dd is none that recv-hole.sh can use: another is taken, or it is said before anything is sent.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rig::{Outcome, preamble, requires, run, tool};
use tempfile::TempDir;

use crate::account::{Account, names, request};
use crate::{SHELLS, at_once, done, failed, sample};

/// What recv-hole.sh calls besides dd.
const TOOLS: [&str; 18] = [
    "dash",
    "ls",
    "mkdir",
    "mkfifo",
    "rm",
    "mv",
    "chmod",
    "chown",
    "wc",
    "sync",
    "sleep",
    "sha256sum",
    "id",
    "flock",
    "tr",
    "rmdir",
    "cat",
    "stat",
];

/// Where Debian puts the tools of uutils.
const UUTILS: &str = "/usr/lib/cargo/bin/coreutils/dd";

/// Puts a program into a folder of PATH.
fn link(name: &str, program: &Path, bin: &Path) {
    symlink(program, bin.join(name)).unwrap();
}

/// Where the system has it.
fn system(name: &str) -> String {
    tool("sh", &["-c", &format!("command -v {name}")]).trim().to_owned()
}

/// Puts all tools but dd there.
fn furnish(bin: &Path) {
    for tool in TOOLS {
        link(tool, Path::new(&system(tool)), bin);
    }
    // Built into some shells only.
    for tool in ["printf", "kill", "echo", "[", "true"] {
        link(tool, &Path::new("/usr/bin").join(tool), bin);
    }
}

/// A push as senders do it: the stream comes when the far end is ready. A dd that reads too much finds nothing behind the text.
fn converse(command: &mut Command, stream: &[u8]) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(preamble().as_bytes()).unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut out = Vec::new();
    while answers.read_until(b'\n', &mut out).unwrap() > 0 && !out.windows(6).any(|words| words == b"-READY") {}
    let _refused = stdin.write_all(stream);
    drop(stdin);
    answers.read_to_end(&mut out).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Outcome { code: output.status.code(), out, err }
}

/// A program that does as `dd` does, but for this.
fn broken_dd(bin: &Path, text: &str) {
    let path = bin.join("dd");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn busybox_or_gnudd_stands_in_for_the_dd_of_uutils() {
    requires(&["busybox"]);
    assert!(Path::new(UUTILS).exists(), "rust-coreutils is required; ./check installs it");
    let folder = TempDir::new().unwrap();
    let (bytes, stream) = sample(folder.path());
    at_once(SHELLS, |sh| {
        for other in ["busybox", "gnudd"] {
            let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
            let bin = account.at("bin");
            furnish(&bin);
            link("dd", Path::new(UUTILS), &bin);
            let program = system(if other == "gnudd" { "dd" } else { other });
            link(other, Path::new(&program), &bin);
            let dest = target.path().join("out.img");
            for options in [&[][..], &["in-place"]] {
                let mut command = account.command(&request(options, &dest));
                command.env("PATH", &bin);
                let outcome = converse(&mut command, &stream);
                done(&outcome, &format!("{sh} with {other}"));
                assert!(fs::read(&dest).unwrap() == bytes, "{sh} with {other}");
            }
            account.left_nothing(sh);
        }
    });
}

#[test]
fn a_dd_that_reads_on_or_seeks_from_the_start_is_named_first() {
    let gnu = system("dd");
    at_once(SHELLS, |sh| {
        for (what, text) in [
            ("uutils", format!("exec {UUTILS} \"$@\"")),
            ("reads on", format!("{gnu} \"$@\"; x=$?; cat >/dev/null; exit $x")),
            // As others have it: /proc/self/fd/1 is opened anew, and stands at its start.
            (
                "seeks from the start",
                format!("case $* in *seek=4*) exec {gnu} \"$@\" >/dev/null ;; esac; exec {gnu} \"$@\""),
            ),
        ] {
            let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
            let bin = account.at("bin");
            furnish(&bin);
            broken_dd(&bin, &text);
            if sh == "busybox" {
                // Its own applet comes first there, and is right.
                continue;
            }
            let mut command = account.command(&request(&[], &target.path().join("out.img")));
            command.env("PATH", &bin);
            let outcome = run(&mut command, preamble().as_bytes());
            failed(&outcome, false, "needs a dd");
            assert_eq!(names(target.path()), [""; 0], "{sh} {what}");
            account.left_nothing(sh);
        }
    });
}

#[test]
fn a_dd_in_a_later_directory_of_path_is_found() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (bytes, stream) = sample(target.path());
        let (bin, other, dest) = (account.at("bin"), account.at("other"), target.path().join("out.img"));
        furnish(&bin);
        link("dd", Path::new(UUTILS), &bin);
        fs::create_dir(&other).unwrap();
        link("dd", Path::new(&system("dd")), &other);
        let mut command = account.command(&request(&[], &dest));
        command.env("PATH", format!("{}:relative:/no such:{}", bin.display(), other.display()));
        done(&converse(&mut command, &stream), sh);
        assert!(fs::read(&dest).unwrap() == bytes, "{sh}");
    });
}
