//! Disks of 16 TiB with a million records to tell of: what one end tells streams through the other, in little memory.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use bytes::BytesMut;
use nix::fcntl::copy_file_range;
use rig::{Filesystem, Fs, Outcome, TestDisk, part_of, requires, run, tools};
use tokio_util::codec::Encoder;
use xfer_hole_proto::{
    Base, Dialect, Digest, Frame, HashParams, ManifestHeader, ManifestWriter, Record, StreamEncoder, StreamHeader,
    Trailer,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What an end may have at most, in bytes.
const MOST: u64 = 64 * MIB;

/// The most memory that a process had, in bytes.
fn peak(child: &Child) -> u64 {
    // The guard has one child.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{}/status", children.trim())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * KIB
}

/// Digests of intervals of 64 KiB, in grains of so many bytes.
fn sums(grain: u64) -> HashParams {
    HashParams::new(64 * KIB, grain).unwrap()
}

fn started(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap()
}

#[test]
fn a_manifest_of_a_million_records_of_16_tib_goes_through_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    // Without blocks it may be as large as its file system has it: not quite 16 TiB.
    let (image, size) = (folder.path().join("image"), (16 << 40) - 16 * MIB);
    TestDisk::empty(size).with(0, 4096, 1).with(8 << 40, 4096, 1).make(&image);
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "120"]).arg(tools!().xfer_hole).args(["--converse", "--hash", "--delta"]).arg(&image);
    let mut sender = started(&mut command);
    let (mut stdin, mut heard) = (sender.stdin.take().unwrap(), BufReader::new(sender.stdout.take().unwrap()));
    stdin.write_all(b"XFER-HOLE-READY 1 recv-hole delta\n").unwrap();
    let mut want = String::new();
    heard.read_line(&mut want).unwrap();
    assert_eq!(want, format!("WANT {size} sha256 65536 4096\n"));
    let count = 1 << 19;
    let saying = thread::spawn(move || {
        let manifest = ManifestHeader::whole(size, sums(4096));
        let (mut writer, mut lines) = (ManifestWriter::new(manifest), format!("{manifest}\n"));
        for number in 0..count {
            let at = number * 32 * MIB;
            if at + 32 * MIB > size {
                break;
            }
            writer.data(4096, Digest::of(&at.to_le_bytes()), &mut lines).unwrap();
            writer.zeros(32 * MIB - 4096);
            if lines.len() > 1 << 16 {
                stdin.write_all(lines.as_bytes()).unwrap();
                lines.clear();
            }
        }
        writer.zeros(size - writer.at());
        writer.end(&mut lines).unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        stdin
    });
    // What it sends: almost all holes, where the other has data; as many KEEPs, where both have none.
    let (mut lines, mut last) = (0_u64, String::new());
    let mut payload = 0;
    loop {
        let mut line = Vec::new();
        if heard.read_until(b'\n', &mut line).unwrap() == 0 || line.starts_with(b"END ") {
            break;
        }
        lines += 1;
        last = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with(b"DATA ") {
            let mut bytes = vec![0; 4096];
            heard.read_exact(&mut bytes).unwrap();
            payload += 4096;
        }
    }
    let most = peak(&sender);
    drop(saying.join().unwrap());
    assert!(lines > 1_000_000, "{lines} lines, the last {last}");
    assert_eq!(payload, 8192);
    assert!(most > MIB && most <= MOST, "{most} bytes of memory");
    drop(sender.kill());
    drop(sender.wait());
}

/// Makes a file of 16 TiB with four short runs of data in each of 125,000 places. They share one block of their file system.
fn scatter(path: &Path) {
    let (pattern, size) = (path.with_extension("pattern"), 16_u64 << 40);
    let block = (0..4).fold(TestDisk::empty(4096), |disk, run| disk.with(run * 1024, 512, 1));
    block.make(&pattern);
    let (from, to) = (File::open(&pattern).unwrap(), File::create(path).unwrap());
    to.set_len(size).unwrap();
    for place in 0..125_000 {
        let (mut read, mut write) = (0, i64::try_from(place * 128 * MIB).unwrap());
        assert_eq!(copy_file_range(&from, Some(&mut read), &to, Some(&mut write), 4096).unwrap(), 4096);
    }
    to.sync_all().unwrap();
}

/// A tool under time(1), and what the most memory was that it had, in bytes, once it has ended.
struct Measured(tempfile::NamedTempFile);

impl Measured {
    fn new() -> Self {
        requires(&["time"]);
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/usr/bin/time");
        // Ten minutes are a hang.
        command.args(["-f", "%M", "-o"]).arg(self.0.path()).args(["timeout", "-s", "KILL", "600"]).arg(program);
        command
    }

    #[track_caller]
    fn is_modest(&self, what: &str) {
        let report = fs::read_to_string(self.0.path()).unwrap();
        let most = report.lines().last().unwrap().parse::<u64>().unwrap() * KIB;
        assert!(most > MIB && most <= MOST, "{what}: {most} bytes of memory");
    }
}

/// A stream that keeps all of a disk: nothing but its size and the digest of its record lines.
fn keeping(size: u64, grain: u64, result: Digest) -> BytesMut {
    let (mut encoder, mut out) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
    encoder.agree();
    encoder.encode(Frame::Open(StreamHeader { size, sums: Some(sums(grain)) }), &mut out).unwrap();
    encoder.encode(Frame::Base(Base { size, digest: None }), &mut out).unwrap();
    encoder.encode(Frame::Record(Record::Keep { len: size }), &mut out).unwrap();
    encoder.encode(Frame::End(Trailer { result: Some(result), ..encoder.end() }), &mut out).unwrap();
    out
}

#[test]
fn a_receiver_that_holds_a_million_records_of_16_tib_tells_keeps_and_compares_them_in_little_memory() {
    let fs = Filesystem::new(Fs::Xfs, 4 << 30);
    let (dest, size) = (fs.join("dest"), 16_u64 << 40);
    scatter(&dest);
    let measured = Measured::new();
    let mut command = measured.command(&tools!().recv_hole);
    let mut receiver = started(command.args(["--converse", "--timeout", "600"]).arg(&dest));
    let (mut stdin, mut heard) = (receiver.stdin.take().unwrap(), BufReader::new(receiver.stdout.take().unwrap()));
    stdin.write_all(format!("WANT {size} sha256 65536 512\n").as_bytes()).unwrap();
    // Nothing is sent as long as it tells: all its records wait.
    let (mut manifest, mut records, mut line) = (String::new(), 0, String::new());
    while !line.starts_with("END ") {
        line.clear();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0, "it ended behind {records} records");
        records += u32::from(line.starts_with("DATA ") || line.starts_with("HOLE "));
        if !line.starts_with("XFER-HOLE-READY ") && line != "WAIT\n" {
            manifest += &line;
        }
    }
    assert_eq!(records, 1_000_000);
    let result = Digest::parse(line.trim_start_matches("END ").trim().as_bytes()).unwrap();
    stdin.write_all(&keeping(size, 512, result)).unwrap();
    let mut answers = String::new();
    heard.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.lines().last(), Some(&*format!("DONE {result}")));
    drop(stdin);
    let output = receiver.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    measured.is_modest("told and kept");
    assert!(!part_of(&dest).exists());

    // The manifest is the disk's, whoever reads it, and one byte is found by it.
    let compare = |program: &Path, args: &[&str], before: &[&Path]| -> Outcome {
        run(measured.command(program).args(args).args(before), manifest.as_bytes())
    };
    let verified = |what: &str, code: i32, said: &str| {
        for outcome in [
            compare(&tools!().recv_hole, &["--verify"], &[&dest]),
            compare(&tools!().xfer_hole, &["verify"], &[&dest, Path::new("-")]),
        ] {
            let out = String::from_utf8_lossy(&outcome.out).into_owned();
            assert_eq!((outcome.code, out.contains(said)), (Some(code), true), "{what}: {out}{}", outcome.err);
            measured.is_modest(what);
        }
    };
    verified("the same", 0, "");
    let at = 100_000 * 128 * MIB;
    File::options().write(true).open(&dest).unwrap().write_all_at(&[0], at + 100).unwrap();
    verified("another byte", 1, &format!("1 interval of 65536 bytes differs, at offset {at}"));
}
