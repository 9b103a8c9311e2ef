//! What it costs at most: bytes on the wire, memory, processes. And what hostile streams get for theirs: nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::{
    Filesystem, Fs, Outcome, Receiver, Running, SHELLS, TestDisk, assert_same, part_of, pour, requires, run, tool,
    tools,
};

const MIB: u64 = 1 << 20;
const KIB_A_MIB: u64 = 1024;
/// Longer is a hang, or work that a refusal must not cost.
const GUARD: Duration = Duration::from_secs(20);

/// Under time(1), which writes the peak memory in KiB to this file.
fn measured(command: &Command, report: &Path) -> Command {
    requires(&["time"]);
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(report).arg(command.get_program()).args(command.get_args());
    timed
}

fn peak(report: &Path) -> u64 {
    fs::read_to_string(report).unwrap().lines().last().unwrap().parse().unwrap()
}

/// A transfer by a real pipe: how both ended, and their peak memory in KiB.
fn transfer(args: &[&str], image: &Path, receiver: Receiver, dest: &Path) -> [(Outcome, u64); 2] {
    let folder = tempfile::tempdir().unwrap();
    let reports = ["sender", "receiver"].map(|name| folder.path().join(name));
    let (read, write) = std::io::pipe().unwrap();
    let received = Running::between(
        read,
        &mut measured(&receiver.command(&tools!(), dest, false, true), &reports[1]),
        Stdio::null(),
    );
    let mut sender = Command::new(tools!().xfer_hole);
    let sent = Running::between(Stdio::null(), &mut measured(sender.args(args).arg(image), &reports[0]), write);
    let outcomes = [sent.end(), received.end()];
    let mut peaks = reports.iter().map(|report| peak(report));
    outcomes.map(|outcome| (outcome.ok(), peaks.next().unwrap()))
}

#[test]
fn an_empty_tebibyte_is_128_bytes_on_the_wire_and_32_mib_of_memory() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(1 << 40).make(&image);
    for args in [&[][..], &["--hash"], &["--extents", "fiemap"]] {
        let stream = pour(&tools!(), args, &image);
        assert!(stream.len() <= if args.contains(&"--hash") { 192 } else { 128 }, "{args:?}: {} bytes", stream.len());
        for receiver in Receiver::both() {
            for (outcome, peak) in transfer(args, &image, receiver, &dest) {
                assert!(peak <= 32 * KIB_A_MIB, "{args:?} {receiver:?} {peak} KiB {}", outcome.err);
            }
            let stat = fs::metadata(&dest).unwrap();
            assert_eq!(stat.len(), 1 << 40);
            assert_eq!(rig::holes(&dest), [(0, 1 << 40)]);
        }
    }
}

#[test]
fn fragments_of_4k_cost_at_most_a_hundredth_on_the_wire() {
    let fs = Filesystem::new(Fs::Tmpfs, 1 << 30);
    let image = fs.join("disk.img");
    let mut disk = TestDisk::empty(256 * MIB);
    for at in (0..256 * MIB).step_by(8192) {
        disk = disk.with(at, 4096, 1);
    }
    disk.make(&image);
    for args in [&[][..], &["--extents", "scan"]] {
        let stream = pour(&tools!(), args, &image).len() as u64;
        let data = 128 * MIB;
        assert!(stream > data && stream <= data + data / 100, "{args:?}: {stream} bytes for {data} of data");
    }
}

#[test]
fn a_million_extents_cost_no_more_than_64_mib_of_memory() {
    requires(&["mkfs.ext4", "cmp"]);
    // Blocks of 1 KiB keep the disk small: a million extents of one block each.
    const EXTENTS: u64 = 1_000_000;
    let fs = Filesystem::with_options(Fs::Ext4, 4 << 30, &["-b", "1024"]);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    let file = File::create(&image).unwrap();
    for at in 0..EXTENTS {
        file.write_all_at(&[1; 1024], at * 2048).unwrap();
    }
    file.set_len(EXTENTS * 2048 + 5000).unwrap();
    drop(file);
    let cases: [(&[&str], bool); 3] = [
        (&["--extents", "seek", "--detect-zeroes=off"], true),
        (&["--extents", "fiemap", "--min-hole", "512"], false),
        (&["--hash", "--min-hole", "512", "--hash-interval", "16M"], false),
    ];
    for (args, to_file) in cases {
        let dest = if to_file { dest.as_path() } else { Path::new("/dev/null") };
        for (outcome, peak) in transfer(args, &image, Receiver::Binary, dest) {
            assert!(peak <= 64 * KIB_A_MIB, "{args:?}: {peak} KiB {}", outcome.err);
        }
    }
    // By reading: who compares by extents takes minutes for a million of them.
    tool("cmp", &[image.to_str().unwrap(), dest.to_str().unwrap()]);
}

#[test]
fn long_data_costs_no_more_than_64_mib_of_memory() {
    let fs = Filesystem::new(Fs::Tmpfs, 1 << 30);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(300 * MIB).with(0, 250 * MIB, 1).make(&image);
    for args in
        [&[][..], &["--hash"], &["--hash", "--hash-interval", "16M"], &["--min-hole", "16M"], &["--extents", "scan"]]
    {
        for receiver in [Receiver::Binary, Receiver::Script(SHELLS[0])] {
            for (outcome, peak) in transfer(args, &image, receiver, &dest) {
                assert!(peak <= 64 * KIB_A_MIB, "{args:?} {receiver:?}: {peak} KiB {}", outcome.err);
            }
            assert_same(&image, &dest);
        }
    }
}

/// A stream without end: how the receiver ended, and its peak memory in KiB.
fn flood(receiver: Receiver, dest: &Path, begin: &[u8], endless: &[u8]) -> (Outcome, u64) {
    let report = dest.with_extension("report");
    let start = Instant::now();
    let mut command = measured(&receiver.command(&tools!(), dest, false, true), &report);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut written = stdin.write_all(begin);
    let piece = endless.repeat(65_536 / endless.len().max(1));
    while written.is_ok() && !piece.is_empty() {
        written = stdin.write_all(&piece);
        assert!(start.elapsed() < GUARD, "it goes on reading");
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < GUARD, "{receiver:?}");
    let err: String = String::from_utf8_lossy(&output.stderr).into_owned();
    let err = err
        .lines()
        .filter(|line| !line.starts_with("Command exited"))
        .fold(String::new(), |all, line| all + line + "\n");
    (Outcome { code: output.status.code(), out: Vec::new(), err }, peak(&report))
}

#[test]
fn hostile_streams_are_refused_without_memory_and_without_a_panic() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    let begin = b"XFER-HOLE 1 65536\n";
    let after = |text: &str| [begin, text.as_bytes()].concat();
    // What it begins with, what follows without end, and whether a shell's `read` sees it.
    let cases: Vec<(&str, Vec<u8>, &[u8], bool)> = vec![
        ("endless first line", b"".to_vec(), b"X", false),
        ("endless line", after(""), b"D", false),
        ("endless number", after("DATA "), b"1", false),
        ("endless FAIL", after("FAIL "), b"x", false),
        ("endless NULs", after(""), b"\0", false),
        ("NUL in a line", after("HOLE\0 65536\nEND\n"), b"", false),
        ("endless newlines", after(""), b"\n", true),
        ("size of 10^30", b"XFER-HOLE 1 1000000000000000000000000000000\n".to_vec(), b"", true),
        ("length of 10^30", after("HOLE 1000000000000000000000000000000\nEND\n"), b"", true),
        ("length of 2^64", after("HOLE 18446744073709551616\nEND\n"), b"", true),
        ("length of 2^64 + 65536", after("HOLE 18446744073709617152\nEND\n"), b"", true),
        ("largest disk", b"XFER-HOLE 1 9223372036854775807\nDATA 9223372036854775807\n".to_vec(), b"", true),
        ("octal", after("HOLE 0200000\nEND\n"), b"", true),
        ("arithmetic", after("HOLE x[$(touch harmed)]\nEND\n"), b"", true),
        ("expansion", after("HOLE $(touch harmed)\nEND\n"), b"", true),
        ("pattern", after("*\nEND\n"), b"", true),
        ("CRLF", b"XFER-HOLE 1 65536\r\nHOLE 65536\r\nEND\r\n".to_vec(), b"", true),
        ("overlap", after("HOLE 65536\nHOLE 1\nEND\n"), b"", true),
        ("past the end", after("DATA 65537\n"), b"x", true),
        ("too short", after("HOLE 65535\nEND\n"), b"", true),
        ("garbage after END", after("HOLE 65536\nEND\n"), b"x", true),
        ("a raw disk", vec![0x55; 1024], b"\x55", false),
        ("nothing", Vec::new(), b"", true),
        ("control bytes", after("FAIL \x1b[2J\nEND\n"), b"", true),
        ("escapes in a line", after("\x1b]0;title\x07\n"), b"", true),
    ];
    for (name, begin, endless, shell_sees) in cases {
        let all: &[Receiver] = &Receiver::all();
        for &receiver in if shell_sees { all } else { &all[..1] } {
            fs::write(&dest, "the old disk").unwrap();
            let (outcome, peak) = flood(receiver, &dest, &begin, endless);
            let what = format!("{name}, {receiver:?}: {} KiB, {:?} {}", peak, outcome.code, outcome.err);
            assert_eq!(outcome.code, Some(2), "{what}");
            assert_eq!(outcome.err.lines().filter(|line| !line.contains(": hint: ")).count(), 1, "{what}");
            assert!(outcome.err.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{what}");
            assert!(!outcome.err.contains("panick"), "{what}");
            assert!(peak <= 32 * KIB_A_MIB, "{what}");
            assert_eq!(fs::read(&dest).unwrap(), b"the old disk", "{what}");
            assert!(!fs.join("harmed").exists() && !Path::new("harmed").exists(), "{what}");
            let _left = fs::remove_file(part_of(&dest));
        }
    }
}

/// How many processes (and forks) the script starts for this stream.
fn processes(dest: &Path, stream: &[u8]) -> usize {
    requires(&["strace"]);
    let log = dest.with_extension("strace");
    let plain = Receiver::Script(SHELLS[0]).command(&tools!(), dest, false, true);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "-o"]).arg(&log);
    run(traced.arg(plain.get_program()).args(plain.get_args()), stream).ok();
    let log = fs::read_to_string(log).unwrap();
    // A call in two halves is one.
    log.lines()
        .filter(|line| !line.contains("resumed>") && ["clone", "fork"].iter().any(|name| line.contains(name)))
        .count()
}

#[test]
fn a_record_costs_the_script_one_process_and_a_hashed_one_four() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    for (args, most) in [(&[][..], 1), (&["--hash", "--hash-interval", "16K"], 4)] {
        let [few, many] = [10, 60].map(|records| {
            let mut disk = TestDisk::empty(4 * MIB);
            for n in 0..records {
                disk = disk.with(n * 32768, 8192, 1);
            }
            disk.make(&image);
            let _gone = fs::remove_file(&dest);
            let started = processes(&dest, &pour(&tools!(), args, &image));
            assert_same(&image, &dest);
            started
        });
        // Fifty records of data more, and as many holes.
        assert!(many - few <= 50 * most, "{args:?}: {few} processes for 10, {many} for 60");
        assert!(many > few, "{args:?}: {few} processes for 10, {many} for 60");
    }
}
