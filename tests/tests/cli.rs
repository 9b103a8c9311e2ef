//! What the tools say of themselves and of how they are called; and that a script cut off on its way does nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use rig::{
    Before, Filesystem, Fs, Outcome, Receiver, SHELLS, TestDisk, part_of, pour, requires, run, script, tool, tools,
};

const MIB: u64 = 1 << 20;

fn xfer_hole(args: &[&str]) -> Outcome {
    run(Command::new(tools!().xfer_hole).args(args), b"")
}

fn recv_hole(args: &[&str], stream: &[u8]) -> Outcome {
    run(Command::new(tools!().recv_hole).args(args), stream)
}

#[test]
fn help_and_version_are_answers_on_standard_output() {
    for run in [&xfer_hole as &dyn Fn(&[&str]) -> Outcome, &|args| recv_hole(args, b"")] {
        for args in ["--help", "-h", "--version", "-V"] {
            let outcome = run(&[args]).ok();
            assert!(!outcome.out.is_empty() && outcome.err.is_empty(), "{args}");
        }
    }
    for shell in SHELLS {
        for args in ["--help", "-h", "-nh"] {
            let outcome = run(Command::new(shell[0]).args(&shell[1..]).arg(script()).arg(args), b"").ok();
            let text = String::from_utf8(outcome.out).unwrap();
            assert!(text.starts_with("usage: recv-hole.sh") && text.contains("--in-place"), "{shell:?} {text}");
            assert_eq!(outcome.err, "", "{shell:?}");
        }
    }
}

#[test]
fn every_flag_is_there_and_explained() {
    let help = |outcome: Outcome| String::from_utf8(outcome.ok().out).unwrap();
    let sender = help(xfer_hole(&["--help"]));
    let flags = [
        "--hash",
        "--hash-interval",
        "--min-hole",
        "--classic",
        "--extents",
        "seek",
        "fiemap",
        "scan",
        "--detect-zeroes",
        "--format",
        "--backing-format",
        "--snapshot",
        "--allow",
        "--no-backing",
        "--force-share",
        "--live",
        "--bwlimit",
        "--progress",
        "json",
        "--quiet",
        "--print-digest",
        "--verbose",
        "--print-receiver",
        "--version",
    ];
    for flag in flags {
        assert!(sender.contains(flag), "{flag}");
    }
    for command in ["map", "info"] {
        let said = help(xfer_hole(&[command, "--help"]));
        for flag in
            ["--output", "--format", "--backing-format", "--snapshot", "--allow", "--no-backing", "--force-share"]
        {
            assert!(said.contains(flag), "{command} {flag}");
        }
    }
    for command in ["manifest", "digest", "verify"] {
        let said = help(xfer_hole(&[command, "--help"]));
        for flag in ["--direct", "--format", "--snapshot", "--allow", "--force-share", "--progress", "--quiet"] {
            assert!(said.contains(flag), "{command} {flag}");
        }
        assert_eq!(said.contains("--hash-interval"), command != "verify");
    }
    let receiver = help(recv_hole(&["--help"], b""));
    let flags = [
        "--in-place",
        "--read-back",
        "--verify",
        "--list",
        "--target-is-zero",
        "--no-sync",
        "--require-hash",
        "--max-size",
        "--classic",
        "--progress",
        "json",
        "--quiet",
        "--print-digest",
        "--verbose",
        "--version",
    ];
    for flag in flags {
        assert!(receiver.contains(flag), "{flag}");
    }
}

#[test]
fn wrong_usage_is_exit_2_and_touches_nothing() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(MIB).make(&image);
    fs::write(&dest, "the old disk").unwrap();
    let before = Before::of(&dest);
    let (name, stream) = (image.to_str().unwrap(), pour(&tools!(), &[], &image));
    let wrong: [&[&str]; 28] = [
        &[],
        &["--no-such-flag", name],
        &[name, "-", "more"],
        &["--hash-interval", "1M", name],
        &["--hash", "--hash-interval", "1000000", name],
        &["--hash", "--hash-interval", "2K", name],
        &["--hash", "--hash-interval", "32M", name],
        &["--hash", "--min-hole", "256", name],
        &["--hash", "--min-hole", "2M", name],
        &["--hash", "--min-hole", "5000", name],
        &["--min-hole", "-1", name],
        &["--min-hole", "1X", name],
        &["--min-hole", "1T", name],
        &["--hash", "--classic", name],
        &["--hash", "--detect-zeroes=off", name],
        &["--extents", "magic", name],
        &["--format", "vmdk", name],
        &["--backing-format", "auto", name],
        &["map"],
        &["info"],
        &["map", "--output", "xml", name],
        &["map", "--hash", name],
        &["--print-digest", name],
        &["--print-receiver", name],
        &["--progress=loud", name],
        &["--progress", name],
        &["--quiet", "--verbose", name],
        &["--bwlimit", "fast", name],
    ];
    for args in wrong {
        let outcome = xfer_hole(args);
        assert_eq!(outcome.code, Some(2), "{args:?} {}", outcome.err);
        assert!(
            outcome.out.is_empty() && !outcome.err.is_empty() && !outcome.err.contains("panick"),
            "{args:?} {}",
            outcome.err
        );
    }
    let dest_name = dest.to_str().unwrap();
    let wrong: [&[&str]; 7] = [
        &[],
        &["--no-such-flag", dest_name],
        &[dest_name, dest_name],
        &["--max-size", dest_name],
        &["--max-size", "16E", dest_name],
        &["--classic", "--require-hash", dest_name],
        &[""],
    ];
    for args in wrong {
        let outcome = recv_hole(args, &stream);
        assert_eq!(outcome.code, Some(2), "{args:?} {}", outcome.err);
        assert!(!outcome.err.is_empty() && !outcome.err.contains("panick"), "{args:?} {}", outcome.err);
        before.untouched(&format!("{args:?}"));
    }
    for shell in SHELLS {
        let wrong: [&[&str]; 9] = [
            &[],
            &[""],
            &["-x", dest_name],
            &[dest_name, dest_name],
            &["--force"],
            // Letters of recv-hole, and those of earlier scripts, mean nothing else here.
            &["-i", dest_name],
            &["-fs", dest_name],
            &["-v", dest_name],
            &["--no-hash", dest_name],
        ];
        for args in wrong {
            let outcome = run(Command::new(shell[0]).args(&shell[1..]).arg(script()).args(args), &stream);
            assert_eq!(outcome.code, Some(2), "{shell:?} {args:?} {}", outcome.err);
            assert!(outcome.err.starts_with("usage: recv-hole.sh"), "{shell:?} {args:?} {}", outcome.err);
            assert!(outcome.err.lines().last().unwrap().starts_with("recv-hole.sh: "), "{shell:?} {args:?}");
            before.untouched(&format!("{shell:?} {args:?}"));
        }
    }
    assert!(!part_of(&dest).exists());
}

#[test]
fn sizes_are_read_with_their_units() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(2_000_000).make(&image);
    let (stream, name) = (pour(&tools!(), &[], &image), dest.to_str().unwrap().to_owned());
    for (size, fits) in [
        ("2000000", true),
        ("1999999", false),
        ("2MB", true),
        ("2M", true),
        ("1M", false),
        ("1953K", false),
        ("1954K", true),
        ("2000KB", true),
        ("1G", true),
        ("1GB", true),
        ("1T", true),
    ] {
        let outcome = recv_hole(&["--max-size", size, &name], &stream);
        assert_eq!(outcome.code, Some(if fits { 0 } else { 2 }), "{size}: {}", outcome.err);
        assert_eq!(dest.exists(), fits, "{size}");
        let _made = fs::remove_file(&dest);
    }
}

#[test]
fn both_ends_tell_the_same_fingerprint() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(3 * MIB).with(4096, 70_000, 1).make(&image);
    let name = (image.to_str().unwrap(), dest.to_str().unwrap());
    for (flag, begin) in [("-v", "fingerprint sha256:1048576:4096:"), ("--print-digest", "sha256:1048576:4096:")] {
        let sent = xfer_hole(&["--hash", flag, name.0]).ok();
        let received = recv_hole(&[flag, name.1], &sent.out).ok();
        let found = [sent.err, received.err].map(|err| {
            let line = err.lines().find_map(|line| line.find(begin).map(|at| line[at..].to_owned()));
            line.unwrap_or_else(|| panic!("{flag}: {err}"))
        });
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0].len(), begin.len() + 64);
    }
    let sent = xfer_hole(&["--hash", name.0]).ok();
    assert_eq!(
        (sent.err.as_str(), recv_hole(&[name.1], &sent.out).ok().err.as_str()),
        ("", ""),
        "nothing is said of a success"
    );
}

#[test]
fn messages_begin_with_the_name_of_who_says_them() {
    let missing = "/no such directory/x";
    let outcomes = [(xfer_hole(&[missing]), "xfer-hole: "), (recv_hole(&[missing], b""), "recv-hole: ")];
    for (outcome, name) in outcomes {
        assert!(outcome.err.lines().all(|line| line.starts_with(name)), "{}", outcome.err);
        outcome.refused(&["no such"]);
    }
    for shell in SHELLS {
        let outcome = run(Command::new(shell[0]).args(&shell[1..]).arg(script()).arg(missing), b"XFER-HOLE 1 0\nEND\n");
        assert!(outcome.err.lines().all(|line| line.starts_with("recv-hole.sh: ")), "{shell:?} {}", outcome.err);
        outcome.refused(&["no such directory"]);
    }
}

#[test]
fn the_script_that_the_sender_carries_is_the_script_and_keeps_its_limits() {
    requires(&["shellcheck"]);
    let own = fs::read(script()).unwrap();
    assert!(xfer_hole(&["--print-receiver"]).ok().out == own);
    assert!(own.len() <= 32_768, "{} bytes", own.len());
    tool("shellcheck", &["-s", "sh", "-o", "all", script().to_str().unwrap()]);
}

/// Runs copies of the script cut at these places over an existing DEST.
fn cut_off(shell: &[&str], places: &[usize], folder: &Path, stream: &[u8]) {
    fs::create_dir(folder).unwrap();
    let (copy, dest, own) = (folder.join("cut.sh"), folder.join("out.img"), fs::read(script()).unwrap());
    fs::write(&dest, "the old disk").unwrap();
    let before = Before::of(&dest);
    for &at in places {
        fs::write(&copy, &own[..at]).unwrap();
        let mut command = Command::new(shell[0]);
        let outcome = run(command.args(&shell[1..]).arg(&copy).arg(&dest).current_dir(folder), stream);
        let what = format!("{shell:?}, cut at {at} of {}", own.len());
        let names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        if at + 1 >= own.len() {
            // Only its last newline is missing: it is whole.
            outcome.ok();
            continue;
        }
        assert_eq!(names.len(), 2, "{what}: {names:?}");
        before.untouched(&what);
        // Where the comments end is the first command.
        assert!(outcome.code != Some(0) || !own[..at].windows(5).any(|word| word == b"trap "), "{what}: exit 0");
    }
}

#[test]
fn a_script_cut_off_on_its_way_does_nothing() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).with(4096, 5000, 1).make(&image);
    let stream = pour(&tools!(), &[], &image);
    let len = fs::read(script()).unwrap().len();
    let last = || len - 60..len;
    let every = |step| (0..len - 60).step_by(step).chain(last()).collect::<Vec<_>>();
    thread::scope(|scope| {
        let (fs, stream) = (&fs, &stream);
        let dash = every(16);
        scope.spawn(move || cut_off(SHELLS[0], &dash, &fs.join("dash"), stream));
        let others = every(512);
        scope.spawn(move || {
            for (n, shell) in SHELLS.iter().enumerate().skip(1) {
                cut_off(shell, &others, &fs.join(&format!("shell{n}")), stream);
            }
        });
    });
}

#[test]
fn a_script_that_ends_early_on_a_pipe_does_nothing_either() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    for receiver in Receiver::all() {
        // A sender that says nothing at all: no DEST, no `.part`.
        run(&mut receiver.command(&tools!(), &dest, false, true), b"").refused(&[]);
        assert!(!dest.exists() && !part_of(&dest).exists(), "{receiver:?}");
    }
}
