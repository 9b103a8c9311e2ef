//! Ends of a delta that lie: each is refused with a line that says why, nothing that was there is lost, and nobody waits for ever.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rig::{Before, Filesystem, Fs, Outcome, TestDisk, part_of, run, tool, tools, wait_until};
use tempfile::TempDir;
use tokio_util::codec::Encoder;
use xfer_hole_proto::{
    Base, Dialect, Digest, Frame, HashParams, ManifestHeader, ManifestWriter, Record, StreamEncoder, StreamHeader,
    Trailer,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const INTERVAL: u64 = 64 * KIB;

fn sums() -> HashParams {
    HashParams::new(INTERVAL, 4096).unwrap()
}

/// What a manifest says of bytes that are all data, interval by interval; and the digest of those lines.
fn manifest(bytes: &[u8]) -> (String, Digest) {
    let manifest = ManifestHeader::whole(bytes.len() as u64, sums());
    let (mut writer, mut lines) = (ManifestWriter::new(manifest), format!("{manifest}\n"));
    for piece in bytes.chunks(usize::try_from(INTERVAL).unwrap()) {
        writer.data(piece.len() as u64, Digest::of(piece), &mut lines).unwrap();
    }
    let digest = writer.end(&mut lines).unwrap();
    (lines, digest)
}

/// A stream of these records behind BASE, all of which the encoder has to let pass.
fn stream(size: u64, base: u64, records: &[(Record, &[u8])], result: Digest) -> Vec<u8> {
    let (mut encoder, mut out) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
    encoder.agree();
    encoder.encode(Frame::Open(StreamHeader { size, sums: Some(sums()) }), &mut out).unwrap();
    encoder.encode(Frame::Base(Base { size: base, digest: None }), &mut out).unwrap();
    for (record, payload) in records {
        encoder.encode(Frame::Record(*record), &mut out).unwrap();
        if !payload.is_empty() {
            encoder.encode(Frame::Payload(Bytes::copy_from_slice(payload)), &mut out).unwrap();
        }
    }
    encoder.encode(Frame::End(Trailer { result: Some(result), ..encoder.end() }), &mut out).unwrap();
    out.to_vec()
}

fn data(payload: &[u8]) -> (Record, &[u8]) {
    (Record::Data { len: payload.len() as u64, digest: Some(Digest::of(payload)) }, payload)
}

/// An old disk at the target: four intervals of data.
struct Target {
    _folder: TempDir,
    dest: PathBuf,
    old: Vec<u8>,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("dest");
        let disk = TestDisk::empty(4 * INTERVAL).with(0, 4 * INTERVAL, 1);
        disk.make(&dest);
        Self { _folder: folder, dest, old: disk.bytes() }
    }

    /// An image of the same disk, and what a receiver tells of it: its manifest, and the digest of that.
    fn twin(&self) -> (PathBuf, String, Digest) {
        let image = self.dest.with_file_name("image");
        fs::copy(&self.dest, &image).unwrap();
        let (good, right) = manifest(&self.old);
        (image, good, right)
    }

    fn receiver(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(tools!().recv_hole).args(["--converse", "--timeout", "3"]);
        command.args(args).arg(&self.dest);
        command
    }

    /// What a receiver says to this. What stands behind a good WANT comes when all was told.
    fn hears(&self, args: &[&str], said: &[u8]) -> (Outcome, String) {
        let mut receiver = started(self.receiver(args));
        let (mut stdin, mut heard) = (receiver.stdin.take().unwrap(), BufReader::new(receiver.stdout.take().unwrap()));
        let rest = said.strip_prefix(WANT.as_bytes());
        let mut line = String::new();
        if rest.is_some() {
            stdin.write_all(WANT.as_bytes()).unwrap();
            while !line.starts_with("END ") {
                line.clear();
                assert_ne!(heard.read_line(&mut line).unwrap(), 0, "no manifest");
            }
        }
        let _gone = stdin.write_all(rest.unwrap_or(said));
        drop(stdin);
        let mut answers = String::new();
        heard.read_to_string(&mut answers).unwrap();
        let output = receiver.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer = answers.lines().last().unwrap_or_default().to_owned();
        (Outcome { code: output.status.code(), out: Vec::new(), err }, answer)
    }
}

const WANT: &str = "WANT 262144 sha256 65536 4096\n";

#[test]
fn a_sender_that_lies_is_refused_and_the_old_disk_stays() {
    let target = Target::new();
    let size = 4 * INTERVAL;
    let (_, right) = manifest(&target.old);
    let keep = |len: u64| (Record::Keep { len }, &[][..]);
    let all = stream(size, size, &[keep(size)], right);
    let want = |stream: &[u8]| [WANT.as_bytes(), stream].concat();
    let text = |stream: &[u8], from: &str, to: &str| {
        let text = String::from_utf8(stream.to_vec()).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        want(text.replace(from, to).as_bytes())
    };
    let (last, kept) = (right.to_string(), Digest::of(b"KEEP 262144\n").to_string());
    let other = Digest::of(b"other").to_string();
    let beyond = stream(size + INTERVAL, size, &[keep(size), data(&target.old[..65536])], right);
    let larger = stream(size, size + INTERVAL, &[keep(size)], right);
    let mut wrong = Vec::new();
    let other_sums = "XFER-HOLE 1 262144 sha256 65536 512\nBASE 262144\n";
    for (what, said, words) in [
        ("another result", text(&all, &last, &other), "what came and what was kept are not the sender's disk"),
        ("no result", text(&all, &format!(" {last}"), ""), "END without the result's digest"),
        ("lines of another digest", text(&all, &kept, &other), "the record lines don't have the digest"),
        ("another size", want(&beyond), "another disk than was asked for"),
        ("another grain", want(other_sums.as_bytes()), "another disk than was asked for"),
        ("no digests", want(b"XFER-HOLE 1 262144\nBASE 262144\nKEEP 262144\nEND\n"), "another disk than was asked for"),
        ("a larger BASE", want(&larger), "BASE is larger than what was told of"),
        ("KEEP without BASE", text(&all, "BASE 262144\n", ""), "KEEP"),
        ("KEEP beyond BASE", text(&all, "BASE 262144", "BASE 196608"), "KEEP"),
        ("KEEP inside an interval", text(&all, "KEEP 262144", "KEEP 4096"), "KEEP"),
        ("WANT twice", [WANT.as_bytes(), WANT.as_bytes(), &all].concat(), "no xfer-hole stream"),
        ("WANT behind the open line", text(&all, "BASE 262144\n", WANT), "WANT"),
        ("WANT without digests", [b"WANT 262144\n", &all[..]].concat(), "where sha256 belongs"),
        ("WANT of much", [b"WANT 9223372036854775808 sha256 65536 4096\n", &all[..]].concat(), "9223372036854775808"),
        ("WANT without an end", [b"WANT ".repeat(100), all.clone()].concat(), "line"),
        ("a manifest", want(manifest(&target.old).0.as_bytes()), "stream"),
        ("nothing behind WANT", WANT.into(), "cut"),
        ("nothing behind the open line", want(&all[..40]), "cut"),
        ("FAIL", text(&all, "KEEP 262144\n", "FAIL it is on fire\n"), "it is on fire"),
    ] {
        for args in [&[][..], &["--in-place"]] {
            let before = Before::of(&target.dest);
            let (outcome, answer) = target.hears(args, &said);
            // A cut link may be there again later.
            let code = if words == "cut" { 75 } else { 2 };
            assert_eq!(outcome.code, Some(code), "{what} {args:?}: {answer}");
            assert_eq!(code == 75, answer.starts_with("FAIL (again left) "), "{what} {args:?}: {answer}");
            let told = answer.starts_with("FAIL ") && answer.contains(words);
            wrong.extend((!told).then(|| format!("{what} {args:?}: {answer}")));
            assert_eq!(outcome.err, "", "{what}");
            before.untouched(what);
            let _left = fs::remove_file(part_of(&target.dest));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let (outcome, answer) = target.hears(&[], &want(&all));
    assert_eq!((outcome.code, answer), (Some(0), format!("DONE {right}")));
}

#[test]
fn a_disk_that_is_larger_than_is_accepted_is_refused_at_want() {
    let target = Target::new();
    let before = Before::of(&target.dest);
    let size = 9_223_372_036_854_775_807_u64;
    let want = format!("WANT {size} sha256 65536 4096\n");
    for args in [&["--max-size", "256M"][..], &["--max-size", "256M", "--in-place"], &[], &["--in-place"]] {
        let (outcome, answer) = target.hears(args, want.as_bytes());
        assert_eq!(outcome.code, Some(2), "{args:?} {answer}");
        assert!(answer.starts_with("FAIL "), "{args:?} {answer}");
        before.untouched("too large");
        assert!(!args.contains(&"--max-size") || answer.contains("--max-size"), "{answer}");
        assert!(!part_of(&target.dest).exists(), "{args:?}");
    }
}

/// A receiver that is spoken to, and isn't listened to unless somebody does.
fn started(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap()
}

#[test]
fn a_sender_that_does_not_listen_gets_no_further_than_it_was_told_and_is_given_up() {
    let target = Target::new();
    let size = 16 * MIB;
    TestDisk::empty(size).with(0, size, 1).make(&target.dest);
    let before = Before::of(&target.dest);
    // 4096 records are more than a pipe holds: not all is told while nobody reads.
    let want = format!("WANT {size} sha256 4096 4096\n");
    let open = format!("XFER-HOLE 1 {size} sha256 4096 4096\nBASE {size}\n");
    for (what, behind) in [("a hole beyond", format!("HOLE {size}\n")), ("nothing more", String::new())] {
        let mut receiver = started(target.receiver(&["--in-place"]));
        let mut stdin = receiver.stdin.take().unwrap();
        stdin.write_all(format!("{want}{open}{behind}").as_bytes()).unwrap();
        // It ends by itself, though its answers are not read, and its input doesn't end.
        wait_until("the receiver gives up", || receiver.try_wait().unwrap().is_some());
        let code = if behind.is_empty() { 75 } else { 2 };
        assert_eq!(receiver.wait().unwrap().code(), Some(code), "{what}");
        drop(stdin);
        before.untouched(what);
    }
}

/// Has the fingerprint of the target noted.
fn note(target: &Target) {
    let (image, _, _) = target.twin();
    let mut copies = Command::new(tools!().xfer_hole);
    run(copies.args(["-q", "--delta", "--remember"]).arg(image).arg(&target.dest), b"").ok();
}

/// A receiver that is asked for the disk that the target is, and its first answer behind READY.
fn asked_for_the_same(target: &Target, args: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let (_, right) = manifest(&target.old);
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(tools!().recv_hole).args(["--converse", "--remember"]);
    command.args(args).arg(&target.dest);
    let mut receiver = started(command);
    let want = format!("{} {right}\n", WANT.trim_end());
    receiver.stdin.as_mut().unwrap().write_all(want.as_bytes()).unwrap();
    let mut heard = BufReader::new(receiver.stdout.take().unwrap());
    let mut line = String::new();
    while line.is_empty() || line.starts_with("XFER-HOLE-READY") || line.starts_with("WAIT") {
        line.clear();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0, "no answer");
    }
    (receiver, heard, line)
}

#[test]
fn same_is_said_of_a_target_that_stays_locked_until_done() {
    let target = Target::new();
    let size = 4 * INTERVAL;
    let (_, right) = manifest(&target.old);
    let all = stream(size, size, &[(Record::Keep { len: size }, &[][..])], right);
    note(&target);
    for args in [&[][..], &["--in-place"]] {
        let (mut receiver, mut heard, line) = asked_for_the_same(&target, args);
        assert_eq!(line, "SAME\n", "{args:?}");
        let before = Before::of(&target.dest);
        // Another receiver is kept from it.
        let mut kinds = vec![vec!["--in-place"]];
        kinds.extend(args.is_empty().then(Vec::new));
        for other in kinds {
            let mut receives = Command::new(tools!().recv_hole);
            run(receives.args(other).arg(&target.dest), b"XFER-HOLE 1 4096\nHOLE 4096\nEND\n").retryable(&["dest"]);
        }
        receiver.stdin.take().unwrap().write_all(&all).unwrap();
        let mut answers = String::new();
        heard.read_to_string(&mut answers).unwrap();
        assert_eq!(answers, format!("DONE {right}\n"), "{args:?}");
        assert!(receiver.wait().unwrap().success());
        before.untouched("it was the same");
        assert!(!part_of(&target.dest).exists(), "{args:?}");
    }
}

#[test]
fn same_is_not_said_of_a_target_that_is_updated_in_place() {
    let target = Target::new();
    note(&target);
    let updated = File::open(&target.dest).unwrap();
    updated.lock().unwrap();
    let (mut receiver, _heard, line) = asked_for_the_same(&target, &[]);
    assert!(line.starts_with("XFER-HOLE-MANIFEST "), "{line}");
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

#[test]
fn records_beyond_what_was_told_are_refused() {
    let target = Target::new();
    let size = 16 * MIB;
    TestDisk::empty(size).with(0, size, 1).make(&target.dest);
    let before = Before::of(&target.dest);
    let said = format!("WANT {size} sha256 4096 4096\nXFER-HOLE 1 {size} sha256 4096 4096\nBASE {size}\nHOLE {size}\n");
    for args in [&[][..], &["--in-place"]] {
        let mut receiver = started(target.receiver(args));
        let mut stdin = receiver.stdin.take().unwrap();
        stdin.write_all(said.as_bytes()).unwrap();
        // Heard later: until then it can't have told all.
        thread::sleep(Duration::from_millis(500));
        let output = thread::spawn(move || receiver.wait_with_output().unwrap()).join().unwrap();
        drop(stdin);
        let heard = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(2));
        let last = heard.lines().last().unwrap();
        assert!(last.starts_with("FAIL ") && last.contains("beyond what the receiver has told of"), "{args:?} {last}");
        before.untouched("it was hasty");
    }
}

#[test]
fn an_old_disk_that_changes_while_parts_of_it_are_kept_is_found_out() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let target = Target { dest: fs.join("dest"), ..Target::new() };
    fs::write(&target.dest, &target.old).unwrap();
    let (_, right) = manifest(&target.old);
    let size = target.old.len() as u64;
    let all = stream(size, size, &[(Record::Keep { len: size }, &[])], right);
    let mut receiver = started(target.receiver(&[]));
    let (mut stdin, mut heard) = (receiver.stdin.take().unwrap(), BufReader::new(receiver.stdout.take().unwrap()));
    stdin.write_all(WANT.as_bytes()).unwrap();
    let mut line = String::new();
    while !line.starts_with("END ") {
        line.clear();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0);
    }
    File::options().write(true).open(&target.dest).unwrap().write_all_at(b"new", 70_000).unwrap();
    let before = Before::of(&target.dest);
    stdin.write_all(&all).unwrap();
    line.clear();
    heard.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("FAIL ") && line.contains("changed while parts of it were kept"), "{line}");
    assert_eq!(receiver.wait().unwrap().code(), Some(2));
    before.untouched("changed");
}

/// How `xfer-hole --delta ARGS IMAGE far-end:x` ends when its WANT is answered so, and its END by the last line if that is DONE; and what
/// it sent.
fn answered(image: &Path, args: &[&str], answer: &str) -> (Outcome, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["said", "answers"] {
        tool("mkfifo", &[at(name).to_str().unwrap()]);
    }
    // The receiver is this test.
    let (said, answers) = (at("said"), at("answers"));
    let text = format!("#!/bin/sh\ncat '{}' &\nexec cat >'{}'\n", answers.display(), said.display());
    fs::write(at("rsh"), text).unwrap();
    tool("chmod", &["755", at("rsh").to_str().unwrap()]);
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(tools!().xfer_hole).args(["-q", "--delta", "--timeout", "3", "-e"]);
    command.arg(at("rsh")).args(args).arg(image).arg("far-end:x");
    let sender = started(command);
    let mut stdin = File::options().write(true).open(answers).unwrap();
    let mut heard = BufReader::new(File::open(said).unwrap());
    stdin.write_all(b"XFER-HOLE-READY 1 recv-hole delta\n").unwrap();
    let mut line = Vec::new();
    while !line.starts_with(b"WANT ") {
        line.clear();
        // What is ahead of it is for sh, and doesn't end in LF.
        heard.read_until(b'\n', &mut line).unwrap();
        let asks = |word: &[u8]| word.starts_with(b"WANT ") && word[5].is_ascii_digit();
        line = line.windows(6).position(asks).map_or(Vec::new(), |at| line[at..].to_vec());
    }
    let (first, last) = answer.split_at(answer.find("DONE").unwrap_or(answer.len()));
    let _gone = stdin.write_all(first.as_bytes());
    let (mut stream, mut buffer) = (Vec::new(), [0; 4096]);
    let mut last = first.contains("\nEND ").then_some(last);
    if last.is_none() {
        // Too soon.
        let _gone = stdin.write_all(&answer.as_bytes()[first.len()..]);
    }
    while let Ok(bytes @ 1..) = heard.read(&mut buffer) {
        stream.extend_from_slice(&buffer[..bytes]);
        // With its two digests.
        let end = stream.len().saturating_sub(134);
        if stream[end..].starts_with(b"END ")
            && let Some(last) = last.take()
        {
            let _gone = stdin.write_all(last.as_bytes());
        }
    }
    let output = sender.wait_with_output().unwrap();
    drop(stdin);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (Outcome { code: output.status.code(), out: Vec::new(), err }, stream)
}

#[test]
fn a_receiver_that_lies_is_found_out() {
    let target = Target::new();
    let (image, good, right) = target.twin();
    let lines: Vec<_> = good.lines().collect();
    let (first, end) = (lines[0], lines[5]);
    let other = Digest::of(b"other");
    // It says that it has what it hasn't: then nothing of it is kept, and what it says in the end is not believed.
    let (lie, _) = manifest(&vec![1; target.old.len()]);
    let mut wrong = Vec::new();
    let (two, three) = (lines[1], [lines[1], lines[2], lines[3]].join("\n"));
    for (what, answer, words) in [
        ("another disk in the end", format!("{good}DONE {other}\n"), &["another disk than was sent"][..]),
        ("no disk in the end", format!("{good}DONE\n"), &["another disk than was sent"]),
        ("another disk at all", format!("{lie}DONE {other}\n"), &["another disk than was sent"]),
        ("DONE before END", format!("{first}\n{two}\nDONE {right}\n"), &["said that it was done before it was"]),
        ("DONE at once", format!("DONE {right}\n"), &["said that it was done before it was"]),
        ("SAME though nothing was named", "SAME\n".into(), &["it answers what nobody has asked"]),
        ("more than was asked for", good.replace("1 262144", "1 262145"), &["more than was asked for"]),
        ("records beyond the end", good.replace(end, two), &["are left of the disk"]),
        ("END too soon", format!("{first}\n{two}\n{end}\n"), &["END"]),
        ("a wrong END", good.replace(end, &format!("END {other}")), &["the digest that END gives"]),
        (
            "a digest that isn't the line's",
            good.replace(two, &two.replace("DATA 65536 ", "DATA 65536 0")),
            &["is not a digest"],
        ),
        ("DATA without a digest", good.replace(two, "DATA 65536"), &["digest"]),
        ("KEEP", good.replace(two, "KEEP 65536"), &["answer"]),
        ("off the interval", good.replace(two, &two.replace("65536", "131072")), &["interval"]),
        ("HOLE after HOLE", good.replace(two, "HOLE 4096\nHOLE 61440"), &["HOLE"]),
        ("two manifests", format!("{good}{good}"), &["answer"]),
        ("a manifest in a manifest", format!("{first}\n{two}\n{good}"), &["answer"]),
        ("records behind END", format!("{good}{three}\n"), &["answer"]),
        ("another version", good.replace("MANIFEST 1", "MANIFEST 2"), &["version", "2"]),
        ("a strange interval", good.replace("sha256 65536 4096", "sha256 65537 4096"), &["65537"]),
        ("too large an interval", good.replace("sha256 65536 4096", "sha256 33554432 4096"), &["33554432"]),
        ("FAIL", format!("{first}\n{two}\nFAIL no more\n"), &[]),
        ("an endless line", format!("{first}\n{}", "x".repeat(3000)), &[]),
        ("nothing more", format!("{first}\n{two}\n"), &["nothing was heard for 3 seconds"]),
        ("nothing", String::new(), &["nothing was heard for 3 seconds"]),
    ] {
        let (outcome, _) = answered(&image, &[], &answer);
        let code = if outcome.err.contains("nothing was heard") { 75 } else { 2 };
        assert_eq!(outcome.code, Some(code), "{what}: {}", outcome.err);
        let said = outcome.err.to_lowercase();
        let one = words.is_empty() || words.iter().any(|word| said.contains(&word.to_lowercase()));
        wrong.extend((!one).then(|| format!("{what}: {}", outcome.err)));
        assert!(outcome.err.lines().count() <= 1 && !said.contains("broken pipe"), "{what}: {}", outcome.err);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let (outcome, sent) = answered(&image, &[], &format!("{good}NOTE well\nDONE {right}\n"));
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), "xfer-hole: warning: far-end: well\n"));
    assert!(String::from_utf8(sent).unwrap().contains("\nKEEP 262144\nEND "));
}

#[test]
fn a_receiver_that_cuts_otherwise_is_taken_at_its_own() {
    let target = Target::new();
    let (image, good, right) = target.twin();
    // Asked for 4 KiB, it tells 64.
    let (outcome, sent) = answered(&image, &["--hash-interval", "4096"], &format!("{good}DONE {right}\n"));
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""));
    assert!(sent.starts_with(b"XFER-HOLE 1 262144 sha256 65536 4096\nBASE 262144\nKEEP 262144\nEND "));
}

#[test]
fn waits_between_the_lines_of_a_manifest_are_passed_over() {
    let target = Target::new();
    let (image, good, right) = target.twin();
    let (outcome, sent) = answered(&image, &[], &format!("WAIT\n{}DONE {right}\n", good.replace('\n', "\nWAIT\n")));
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""));
    assert!(String::from_utf8(sent).unwrap().contains("\nKEEP 262144\nEND "));
}

#[test]
fn an_image_that_changes_while_it_is_held_against_the_other_is_a_failure() {
    let target = Target::new();
    let (image, good, right) = target.twin();
    let (first, rest) = good.split_once('\n').unwrap();
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(tools!().xfer_hole).args(["--converse", "--hash", "--delta"]).arg(&image);
    let mut sender = started(command);
    let (mut stdin, mut heard) = (sender.stdin.take().unwrap(), BufReader::new(sender.stdout.take().unwrap()));
    stdin.write_all(format!("XFER-HOLE-READY 1 recv-hole delta\n{}", "").as_bytes()).unwrap();
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    stdin.write_all(format!("{first}\n").as_bytes()).unwrap();
    while !line.starts_with("BASE") {
        line.clear();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0);
    }
    File::options().write(true).open(&image).unwrap().write_all_at(b"new", 70_000).unwrap();
    stdin.write_all(format!("{rest}DONE {right}\n").as_bytes()).unwrap();
    let mut stream = Vec::new();
    heard.read_to_end(&mut stream).unwrap();
    drop(stdin);
    let outcome = sender.wait_with_output().unwrap();
    assert_eq!(outcome.status.code(), Some(2), "{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(
        String::from_utf8_lossy(&stream).contains("FAIL ")
            || String::from_utf8_lossy(&outcome.stderr).contains("changed")
    );
}
