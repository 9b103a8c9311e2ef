//! Hints lead on: what they name can be typed, and does what they say.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rig::{Outcome, TestDisk, run, tool, tools};

const MIB: u64 = 1 << 20;

fn called(tool: &str, folder: &Path, args: &[&str]) -> Outcome {
    let program = if tool == "xfer-hole" { tools!().xfer_hole } else { tools!().recv_hole };
    run(Command::new("timeout").arg("60").arg(program).args(args).current_dir(folder), b"")
}

fn hints(outcome: &Outcome) -> Vec<&str> {
    outcome.err.lines().filter_map(|line| line.split_once(": hint: ").map(|(_, hint)| hint)).collect()
}

#[test]
fn a_mistyped_command_is_met_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    for (words, meant) in [
        (&["verfy", "a.img", "b.manifest"][..], "xfer-hole verify ..."),
        (&["manfest", "a.img"], "xfer-hole manifest ..."),
        (&["maps", "a.img"], "xfer-hole map ..."),
        (&["puhs", "a.img", "host:"], "xfer-hole IMAGE HOST:PATH"),
        (&["push", "a.img", "host:"], "xfer-hole IMAGE HOST:PATH"),
        (&["pull", "host:a.img"], "recv-hole HOST:IMAGE DEST"),
    ] {
        let refused =
            called("xfer-hole", folder.path(), words).refused(&[words[0], "no image or command of this name"]);
        assert_eq!(hints(&refused), [format!("did you mean: {meant}")], "{words:?}");
    }
    // A file of that name is an image.
    TestDisk::empty(MIB).with(0, 4096, 1).make(&folder.path().join("maps"));
    called("xfer-hole", folder.path(), &["maps", "a.img"]).ok();
    let missing = called("xfer-hole", folder.path(), &["other.img", "a.img"]).refused(&["other.img"]);
    assert!(!missing.err.contains("did you mean"), "{}", missing.err);
}

#[test]
fn wrong_words_of_a_command_have_the_help_of_that_command() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["map", "info", "manifest", "digest", "verify", "fold", "prune"] {
        let refused = called("xfer-hole", folder.path(), &[command, "--frobnicate", "a", "b"]);
        assert_eq!(refused.code, Some(2));
        assert_eq!(hints(&refused), [format!("see xfer-hole {command} --help")]);
    }
    let help = called("recv-hole", folder.path(), &["--help"]).ok();
    assert_eq!(called("recv-hole", folder.path(), &["help"]).ok(), help);
}

#[test]
fn no_program_is_told_to_use_an_option_that_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["child.img", "parent.img"] {
        TestDisk::empty(4 * MIB).with(MIB, MIB, 1).make(&at(name));
    }
    let manifest = called("xfer-hole", folder.path(), &["manifest", "child.img"]).ok().out;
    fs::write(at("disk.manifest"), &manifest).unwrap();
    for locked in ["child.img", "parent.img", "disk.manifest"] {
        let file = File::options().read(true).write(true).open(at(locked)).unwrap();
        file.lock().unwrap();
        for words in [
            &["fold", "child.img", "parent.img"][..],
            &["prune", "parent.img", "child.img"],
            &["manifest", "-o", "disk.manifest", "parent.img"],
        ] {
            let outcome = called("xfer-hole", folder.path(), words);
            if words.contains(&locked) && !(words[0] == "manifest" && locked == "parent.img") {
                assert_ne!(outcome.code, Some(0), "{words:?} {locked}");
                assert!(!outcome.err.contains("--force"), "{words:?} {locked}: {}", outcome.err);
            }
        }
        if locked == "child.img" {
            let mut verify = Command::new(tools!().recv_hole);
            let verify = run(verify.args(["--verify", "child.img"]).current_dir(folder.path()), &manifest);
            let line = "xfer-hole verify --force-share --format raw child.img -";
            assert!(hints(&verify).iter().any(|hint| hint.contains(line)), "{}", verify.err);
            let again = ["verify", "--force-share", "--format", "raw", "child.img", "-"];
            run(Command::new(tools!().xfer_hole).args(again).current_dir(folder.path()), &manifest).ok();
        }
    }
}

/// A program that holds the link, and runs `xfer-hole` of this machine: with `--restrict`, if that is said.
fn link(folder: &Path, restrict: Option<&str>) -> String {
    let (far, tools) = (folder.join("far"), tools!());
    let run = match restrict {
        None => format!("PATH={}:$PATH exec sh -c \"$2\"", tools.xfer_hole.parent().unwrap().display()),
        Some(dir) => format!("SSH_ORIGINAL_COMMAND=$2 exec {} --restrict {dir}", tools.xfer_hole.display()),
    };
    fs::write(&far, format!("#!/bin/sh\n{run}\n")).unwrap();
    fs::set_permissions(&far, Permissions::from_mode(0o755)).unwrap();
    far.to_str().unwrap().to_owned()
}

#[test]
fn a_pull_s_hints_are_its_own_options_and_its_reason_is_no_hint() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    tool("qemu-img", &["create", "-q", "-f", "raw", &at("base.img"), "1M"]);
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.img", &at("overlay.img")]);
    let far = link(folder.path(), None);
    let pull = |args: &[&str], image: &str| {
        let there = format!("far-end:{}", at(image));
        let words = [&["-e", &far], args, &[&there, "out.img"]].concat();
        called("recv-hole", folder.path(), &words)
    };
    let refused = pull(&[], "overlay.img").refused(&["far-end: ", "qcow2"]);
    assert!(refused.err.contains("-M --format=qcow2") && !refused.err.contains(" --format qcow2"), "{}", refused.err);
    pull(&["-M", "--format=qcow2"], "overlay.img").ok();
    for (option, word) in
        [("--no-such-option", "unexpected argument '--no-such-option'"), ("--reflink=never", "--reflink")]
    {
        let refused = pull(&["-M", option], "base.img").refused(&["far-end: ", word]);
        assert!(refused.complaints()[0].starts_with(&format!("recv-hole: far-end: {}", &word[..5])), "{}", refused.err);
    }
}

#[test]
fn a_push_by_a_key_that_only_reads_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    TestDisk::empty(MIB).with(0, 4096, 1).make(&folder.path().join("disk.img"));
    let far = link(folder.path(), Some(folder.path().to_str().unwrap()));
    let refused = called("xfer-hole", folder.path(), &["-e", &far, "disk.img", "far-end:x"]);
    let refused = refused.refused(&["far-end: the request is refused: this key only reads images"]);
    assert!(!refused.err.contains("login shell"), "{}", refused.err);
}
