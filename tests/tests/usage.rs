//! Words that can't be meant as they were typed: one line says what is wrong, and a hint what to do.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::process::Command;

use rig::{Outcome, run, tools};

fn called(tool: &str, args: &[&str]) -> Outcome {
    let tool = if tool == "xfer-hole" { tools!().xfer_hole } else { tools!().recv_hole };
    run(Command::new(tool).args(args), b"")
}

#[test]
fn what_was_meant_is_named() {
    for (tool, args, wrong, meant) in [
        ("xfer-hole", &["--progres", "bar", "disk.img"][..], "'--progres'", "'--progress'"),
        ("xfer-hole", &["--has", "disk.img"], "'--has'", "'--hash'"),
        ("xfer-hole", &["--detect-zeros", "on", "disk.img"], "'--detect-zeros'", "'--detect-zeroes'"),
        ("xfer-hole", &["--extents", "fiemaps", "disk.img"], "'fiemaps'", "'fiemap'"),
        ("xfer-hole", &["map", "--backing-fromat", "raw", "disk.img"], "'--backing-fromat'", "'--backing-format'"),
        ("recv-hole", &["--inplace", "disk.img"], "'--inplace'", "'--in-place'"),
        ("recv-hole", &["--requirehash", "disk.img"], "'--requirehash'", "'--require-hash'"),
    ] {
        let outcome = called(tool, args).refused(&[wrong]);
        let hint = outcome.err.lines().last().unwrap();
        assert!(hint.starts_with(&format!("{tool}: hint: ")) && hint.contains(meant), "{args:?}: {}", outcome.err);
    }
}

#[test]
fn every_refusal_of_words_is_one_line_and_has_a_next_step() {
    for (tool, args, words) in [
        ("xfer-hole", &[][..], &["required", "<IMAGE>"][..]),
        ("xfer-hole", &["--frobnicate", "disk.img"], &["'--frobnicate'"]),
        ("xfer-hole", &["map"], &["required", "<IMAGE>"]),
        ("xfer-hole", &["-q", "digest", "disk.img"], &["digest", "there is no image of this name"]),
        ("xfer-hole", &["-v", "fold", "a", "b"], &["fold", "there is no image of this name"]),
        ("xfer-hole", &["--extents", "magic", "disk.img"], &["'magic'", "seek, fiemap, scan"]),
        ("xfer-hole", &["--hash", "--hash", "disk.img"], &["'--hash'", "multiple times"]),
        ("recv-hole", &[], &["required", "<DEST>"]),
        ("recv-hole", &["--max-size", "1Q", "disk.img"], &["'1Q'", "too large"]),
        ("recv-hole", &["--max-size", "12b", "disk.img"], &["'12b'", "KiB", "KB"]),
        ("recv-hole", &["--max-size", "much", "disk.img"], &["'much'", "such as 4096, 64K or 1MiB"]),
        ("recv-hole", &["--classic", "--require-hash", "disk.img"], &["'--classic'", "'--require-hash'"]),
    ] {
        let outcome = called(tool, args).refused(words);
        assert!(outcome.err.contains(": hint: "), "{args:?}: {}", outcome.err);
        assert!(outcome.err.lines().all(|line| line.starts_with(&format!("{tool}: "))), "{args:?}: {}", outcome.err);
    }
}
