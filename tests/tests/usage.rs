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
        ("recv-hole", &["--max-size", "much", "disk.img"], &["'much'", "such as 4096, 64K or 1.5M"]),
        ("recv-hole", &["--classic", "--require-hash", "disk.img"], &["'--classic'", "'--require-hash'"]),
        ("recv-hole", &["--max-size", "1.5", "disk.img"], &["'1.5'", "a fraction needs a unit, such as 1.5M"]),
        ("xfer-hole", &["--port", "ssh", "disk.img", "h:"], &["'ssh'", "expected a number from 1 to 65535"]),
        ("xfer-hole", &["--port", "0", "disk.img", "h:"], &["'0'", "expected a number from 1 to 65535"]),
        ("xfer-hole", &["--timeout", "soon", "disk.img", "h:"], &["'soon'", "such as 90 or 90s", "2m"]),
        ("recv-hole", &["--timeout", "1s", "disk.img"], &["'1s'", "expected 3 seconds to 24 hours"]),
        ("xfer-hole", &["--speaks", "x"], &["'x'", "expected a version's number"]),
        ("xfer-hole", &["--bwlimit", "50", "disk.img", "h:"], &["'50'", "say 50K for KiB", "rsync", "50B for bytes"]),
    ] {
        let outcome = called(tool, args).refused(words);
        assert!(outcome.err.contains(": hint: "), "{args:?}: {}", outcome.err);
        assert!(outcome.err.lines().all(|line| line.starts_with(&format!("{tool}: "))), "{args:?}: {}", outcome.err);
    }
}

#[test]
fn a_word_that_is_only_a_little_alike_is_not_suggested() {
    for (tool, args, far) in [
        ("xfer-hole", &["--partial", "disk.img"][..], "--port"),
        ("recv-hole", &["--partial", "disk.img"], "--port"),
        ("xfer-hole", &["--sparse", "disk.img"], "--speaks"),
        ("xfer-hole", &["--archive", "disk.img"], "--receiver"),
        ("xfer-hole", &["--progress", "verbose", "disk.img"], "'none'"),
    ] {
        let refused = called(tool, args).refused(&[]);
        let hints: Vec<_> = refused.err.lines().filter(|line| line.contains(": hint: ")).collect();
        assert!(hints.iter().all(|hint| !hint.contains(far)), "{args:?}: {}", refused.err);
        assert_eq!(hints, [format!("{tool}: hint: see {tool} --help")], "{args:?}");
    }
}

#[test]
fn no_refusal_has_the_words_of_a_parser_of_numbers() {
    for (_, command) in rig::commands() {
        let (name, numbers) = (command.get_name().to_owned(), ["x", "-1x", "0x1", "1e3", "99999999999999999999999"]);
        for arg in command.get_opts().filter(|arg| arg.get_num_args().is_some_and(|most| most.max_values() == 1)) {
            for number in numbers {
                let flag = format!("--{}={number}", arg.get_long().unwrap());
                let tool = if name == "recv-hole" { "recv-hole" } else { "xfer-hole" };
                let mut words = vec![flag.as_str(), "./no such disk", "./no such target"];
                if !["xfer-hole", "recv-hole"].contains(&name.as_str()) {
                    words.insert(0, &name);
                }
                let said = called(tool, &words).err;
                for parser in ["invalid digit", "number too", "parse", "not in 1..", "not in 3.."] {
                    assert!(!said.contains(parser), "{words:?}: {said}");
                }
            }
        }
    }
}

#[test]
fn help_is_a_command_too() {
    for (words, flag) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "map"], &["map", "--help"]),
        (&["help", "verify"], &["verify", "--help"]),
    ] {
        assert_eq!(called("xfer-hole", words).ok(), called("xfer-hole", flag).ok(), "{words:?}");
    }
    called("xfer-hole", &["help", "me"]).refused(&["help"]);
}

#[test]
fn an_image_in_the_place_of_a_manifest_is_met_with_the_line_that_compares() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.img"), folder.path().join("b.img"));
    for image in [&a, &b] {
        rig::TestDisk::empty(1 << 20).with(4096, 8192, 1).make(image);
    }
    let words = ["verify", a.to_str().unwrap(), b.to_str().unwrap()];
    let refused = called("xfer-hole", &words).refused(&["b.img"]);
    let line = format!("xfer-hole manifest {} | xfer-hole verify {} -", b.display(), a.display());
    assert!(refused.err.contains(&line), "{}", refused.err);
}
