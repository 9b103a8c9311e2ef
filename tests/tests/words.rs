//! What a word of the command line is taken for, and what is refused with the line that does it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{Before, Outcome, TestDisk, assert_same, run, tools};

const MIB: u64 = 1 << 20;

/// Runs a tool in a folder, killed after a minute: nothing here takes any time.
fn in_folder(folder: &Path, tool: &Path, words: &[&str]) -> Outcome {
    let mut guarded = Command::new("timeout");
    // Whoever goes to another machine nevertheless is found out.
    run(guarded.args(["-s", "KILL", "60"]).arg(tool).args(words).current_dir(folder), b"")
}

fn xfer_hole(folder: &Path, words: &[&str]) -> Outcome {
    in_folder(folder, &tools!().xfer_hole, words)
}

fn recv_hole(folder: &Path, words: &[&str]) -> Outcome {
    in_folder(folder, &tools!().recv_hole, words)
}

fn hints(outcome: &Outcome) -> Vec<&str> {
    outcome.err.lines().filter_map(|line| line.split_once(": hint: ").map(|(_, hint)| hint)).collect()
}

/// Fails unless it was refused in one line, with a hint that holds the line which does it.
#[track_caller]
fn sent_elsewhere(outcome: Outcome, line: &str) {
    let outcome = outcome.refused(&[]);
    let hints = hints(&outcome);
    assert!(hints.iter().any(|hint| hint.contains(line)), "no hint with \"{line}\": {}", outcome.err);
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1).make(&folder.path().join("disk.img"));
    folder
}

#[test]
fn a_pull_is_asked_of_the_receiver_a_push_of_the_sender() {
    let folder = folder();
    let folder = folder.path();
    sent_elsewhere(xfer_hole(folder, &["host:disk.img", "copy.img"]), "recv-hole host:disk.img copy.img");
    sent_elsewhere(xfer_hole(folder, &["me@host:disk.img", "copy.img"]), "recv-hole me@host:disk.img copy.img");
    sent_elsewhere(xfer_hole(folder, &["ssh://host/disk.img", "copy.img"]), "recv-hole ssh://host/disk.img copy.img");
    // The line can be given to a shell as it stands.
    sent_elsewhere(xfer_hole(folder, &["host:a b.img", "it's.img"]), r"recv-hole 'host:a b.img' 'it'\''s.img'");
    sent_elsewhere(recv_hole(folder, &["disk.img", "host:copy.img"]), "xfer-hole disk.img host:copy.img");
    recv_hole(folder, &["host:copy.img"]).refused(&["host:copy.img"]);
    xfer_hole(folder, &["host:disk.img"]).refused(&["host:disk.img"]);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing was made");
}

#[test]
fn from_host_to_host_and_several_images_are_refused() {
    let folder = folder();
    let folder = folder.path();
    xfer_hole(folder, &["a:disk.img", "b:copy.img"]).refused(&[]);
    recv_hole(folder, &["a:disk.img", "b:copy.img"]).refused(&[]);
    for words in [&["disk.img", "other.img", "host:"][..], &["disk.img", "disk.img", "copy.img"]] {
        let refused = xfer_hole(folder, words);
        assert_eq!(refused.code, Some(2), "{words:?} {}", refused.err);
        assert!(refused.complaints()[0].starts_with("xfer-hole: "), "{}", refused.err);
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing was made");
}

#[test]
fn a_colon_before_any_slash_makes_a_word_remote_and_no_other_does() {
    let folder = folder();
    let folder = folder.path();
    xfer_hole(folder, &["disk.img", "./a:b"]).ok();
    assert_same(&folder.join("disk.img"), &folder.join("a:b"));
    fs::create_dir(folder.join("sub")).unwrap();
    xfer_hole(folder, &["./a:b", "sub/c:d"]).ok();
    assert_same(&folder.join("disk.img"), &folder.join("sub/c:d"));
    let absolute = folder.join("e:f");
    xfer_hole(folder, &["sub/c:d", absolute.to_str().unwrap()]).ok();
    assert_same(&folder.join("disk.img"), &absolute);
    // It is called a host, and asked for as one.
    for word in ["a:b", "me@no-such-host.invalid:b", "[::1]:b"] {
        let refused = xfer_hole(folder, &["-e", "/no/such/program", "disk.img", word]);
        refused.refused(&["/no/such/program"]);
    }
    for word in ["-oProxyCommand=touch hacked:x", "ssh://-oProxyCommand=touch hacked/x", "ssh://host:0/x", "@host:x"] {
        let refused = xfer_hole(folder, &["disk.img", "--", word]);
        assert_eq!(refused.code, Some(2), "{word} {}", refused.err);
    }
    assert!(!folder.join("hacked").exists());
}

#[test]
fn a_word_that_names_a_command_is_the_command() {
    let folder = folder();
    let folder = folder.path();
    fs::rename(folder.join("disk.img"), folder.join("map")).unwrap();
    let mapped = xfer_hole(folder, &["map", "./map"]).ok();
    assert!(!mapped.out.is_empty());
    let alone = xfer_hole(folder, &["map"]);
    assert_eq!(alone.code, Some(2), "{}", alone.err);
    xfer_hole(folder, &["./map", "copy"]).ok();
    assert_same(&folder.join("map"), &folder.join("copy"));
}

#[test]
fn a_dash_or_nothing_is_the_stream() {
    let folder = folder();
    let folder = folder.path();
    let stream = xfer_hole(folder, &["disk.img"]).ok();
    assert_eq!(xfer_hole(folder, &["disk.img", "-"]).ok(), stream);
    assert!(stream.out.starts_with(b"XFER-HOLE 1 ") && stream.err.is_empty());
}

#[test]
fn flags_for_another_machine_are_refused_where_there_is_none() {
    let folder = folder();
    let folder = folder.path();
    for flag in [&["-P", "22"][..], &["-J", "x"], &["-i", "key"], &["-o", "x=y"], &["-e", "ssh"], &["-C"], &["-4"]] {
        for dest in ["copy.img", "-"] {
            let refused = xfer_hole(folder, &[flag, &["disk.img", dest]].concat());
            assert_eq!(refused.code, Some(2), "{flag:?} {dest} {}", refused.err);
        }
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing was made");
}

#[test]
fn source_and_target_that_are_one_file_are_refused() {
    let folder = folder();
    let folder = folder.path();
    fs::hard_link(folder.join("disk.img"), folder.join("hard.img")).unwrap();
    let before = Before::of(&folder.join("disk.img"));
    std::os::unix::fs::symlink("disk.img", folder.join("soft.img")).unwrap();
    for dest in ["disk.img", "./disk.img", "hard.img", "soft.img", "."] {
        let refused = xfer_hole(folder, &["disk.img", dest]);
        assert_eq!(refused.code, Some(2), "{dest} {}", refused.err);
        before.untouched(dest);
    }
}
