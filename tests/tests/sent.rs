//! What is sent of a disk: which bytes flow as data, which as holes, and that its canonical form is a function of content alone.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

// What the image crate's own tests hold it against.
#[path = "../../pipeline/tests/canonical/mod.rs"]
mod canonical;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rig::{
    Filesystem, Fs, Outcome, Receiver, TestDisk, Tools, assert_same, extents, holes, items, pour, records, run,
    send_to, tool, tools,
};
use xfer_hole_proto::{Dialect, Digest, Frame, HashParams, Record};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const METHODS: [&str; 3] = ["seek", "fiemap", "scan"];

/// The lengths of the records: data positive, holes negative.
fn lengths(stream: &[u8]) -> Vec<i64> {
    let signed = |record: &Record| {
        let len = i64::try_from(record.len()).unwrap();
        if record.payload_len() > 0 { len } else { -len }
    };
    records(stream).iter().map(signed).collect()
}

/// The canonical records of a file.
fn canonical(image: &Path, sums: HashParams) -> Vec<Record> {
    let record = |(len, digest): (u64, Option<Digest>)| match digest {
        Some(_) => Record::Data { len, digest },
        None => Record::Hole { len },
    };
    canonical::form(&fs::read(image).unwrap(), sums).into_iter().map(record).collect()
}

fn fingerprint(outcome: &Outcome) -> String {
    let printed = outcome.err.lines().find(|line| line.starts_with("sha256:"));
    printed.unwrap_or_else(|| panic!("no fingerprint: {}", outcome.err)).to_owned()
}

/// Bytes of every sort: all data, none, some, at odd places, across intervals, zeros that were written, a ragged end.
fn motley() -> TestDisk {
    TestDisk::empty(5 * M + 321)
        .with(4 * K, 512, 1)
        .with(M - 4 * K, 8 * K, 2)
        .with(2 * M, M, 0)
        .with(2 * M + 64 * K, M, 3)
        .with(4 * M + 100, 9000, 4)
        .with(5 * M + 320, 1, 5)
}

#[test]
fn the_canonical_form_is_the_same_by_seek_fiemap_and_scan_and_on_every_file_system() {
    let tools = tools!();
    for flags in
        [&["--hash"][..], &["--hash", "--hash-interval", "64K"], &["--hash", "--hash-interval=16M", "--min-hole=512"]]
    {
        let mut streams = Vec::new();
        for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs] {
            let fs = Filesystem::new(kind, 512 * M);
            let image = fs.join("disk.img");
            motley().make(&image);
            drop(tool("fallocate", &["-n", "-o", "1500000", "-l", "900000", image.to_str().unwrap()]));
            for method in METHODS {
                streams.push(pour(&tools, &[flags, &["--extents", method]].concat(), &image));
            }
            let Frame::Open(open) = &items(&streams[0], Dialect::V1)[0] else { panic!("no open line") };
            let sums: HashParams = open.sums.unwrap();
            assert_eq!(records(&streams[0]), canonical(&image, sums), "{flags:?} on {kind:?}");
        }
        streams.dedup();
        assert_eq!(streams.len(), 1, "{flags:?}");
    }
}

#[test]
fn both_ends_print_the_same_fingerprint_and_so_do_both_disks() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Ext4, 256 * M));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    motley().make(&image);
    let print =
        |image: &Path| run(Command::new(&tools.xfer_hole).args(["--hash", "--print-digest"]).arg(image), b"").ok();
    let sent = print(&image);
    let mut receiver = Command::new(&tools.recv_hole);
    let received = run(receiver.args(["--print-digest", "--require-hash"]).arg(&dest), &sent.out).ok();
    assert_eq!(fingerprint(&sent), fingerprint(&received));
    assert_eq!(fingerprint(&print(&dest)), fingerprint(&sent), "what arrived has the fingerprint of what was sent");
    let Some(Frame::End(last)) = items(&sent.out, Dialect::V1).pop() else { panic!("no END") };
    let end = format!("sha256:1048576:4096:{}", last.lines.unwrap());
    assert_eq!(fingerprint(&sent), end, "it is END's digest with its parameters");
    let once_more = run(Command::new(&tools.recv_hole).args(["-v"]).arg(&dest), &sent.out).ok();
    assert!(once_more.err.contains(&format!("recv-hole: fingerprint {end}\n")), "{}", once_more.err);
}

#[test]
fn zeros_that_were_written_are_holes_unless_extents_alone_are_to_be_trusted() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Ext4, 256 * M));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(4 * M).with(0, M, 0).with(M, M, 1).with(3 * M, 64 * K, 0).make(&image);
    assert_eq!(lengths(&pour(&tools, &[], &image)), [-1, 1, -2].map(|mebi| mebi * 1048576));
    assert_eq!(extents(&image), [(0, 2 * M), (3 * M, 64 * K)], "the file system took the zeros for data");
    for method in ["seek", "fiemap"] {
        let args = ["--detect-zeroes=off", "--extents", method];
        assert_eq!(
            lengths(&pour(&tools, &args, &image)),
            [2 << 20, -(1 << 20), 64 << 10, -(1 << 20) + (64 << 10)],
            "{method}"
        );
        for receiver in Receiver::both() {
            let (sent, received) = send_to(&tools, &args, &image, receiver, &dest);
            sent.ok();
            received.ok();
            assert_same(&image, &dest);
            assert_eq!(extents(&dest), extents(&image), "{receiver:?}: data is data, though it is zeros");
        }
    }
    assert_eq!(lengths(&pour(&tools, &["--detect-zeroes=off", "--extents=scan"], &image)), [4 << 20]);
}

#[test]
fn preallocated_extents_are_sent_as_holes_by_seek_and_by_fiemap() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Xfs, 512 * M));
    let image = fs.join("disk.img");
    TestDisk::empty(64 * M).with(8 * M, 64 * K, 1).make(&image);
    drop(tool("fallocate", &["-l", "64M", image.to_str().unwrap()]));
    for method in ["seek", "fiemap"] {
        // Without a look at what format it is: XFS calls unwritten bytes data once somebody has read them.
        let stream = pour(&tools, &["--format=raw", "--detect-zeroes=off", "--extents", method], &image);
        assert_eq!(lengths(&stream), [-(8 << 20), 64 << 10, -(56 << 20) + (64 << 10)], "{method}");
    }
}

#[test]
fn holes_shorter_than_min_hole_travel_as_data_and_with_digests_it_is_the_grain() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Ext4, 256 * M));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    // Holes of 4, 64 and 60 KiB, and one at the end of 4.
    TestDisk::empty(256 * K)
        .with(0, 4 * K, 1)
        .with(8 * K, 56 * K, 2)
        .with(128 * K, 4 * K, 3)
        .with(192 * K, 60 * K, 4)
        .make(&image);
    let kibi = |lengths: &[i64]| lengths.iter().map(|kibi| kibi << 10).collect::<Vec<_>>();
    let plain = |min: &str| lengths(&pour(&tools, &["--min-hole", min], &image));
    assert_eq!(lengths(&pour(&tools, &[], &image)), kibi(&[4, -4, 56, -64, 4, -60, 60, -4]));
    for min in ["4K", "8K", "60K", "61K", "64K", "65K", "1M"] {
        let least = xfer_hole_bytes(min);
        let found = plain(min);
        assert!(found.iter().all(|&len| len > 0 || -len >= least), "{min}: {found:?}");
        let expected = kibi(&[-4, -64, -60, -4]).into_iter().filter(|hole| -hole >= least).collect::<Vec<_>>();
        let kept = found.into_iter().filter(|&len| len < 0).collect::<Vec<_>>();
        assert_eq!(kept, expected, "{min}: and no other hole is filled");
        for receiver in Receiver::both() {
            let (sent, received) = send_to(&tools, &["--min-hole", min], &image, receiver, &dest);
            sent.ok();
            received.ok();
            assert_same(&image, &dest);
        }
    }
    let hashed = pour(&tools, &["--hash", "--min-hole=64K"], &image);
    assert_eq!(lengths(&hashed), kibi(&[64, -64, 128]));
    let (sent, received) = send_to(&tools, &["--hash", "--min-hole=64K"], &image, Receiver::Binary, &dest);
    sent.ok();
    received.ok();
    assert_same(&image, &dest);
    assert_eq!(holes(&dest), [(64 * K, 64 * K)]);
}

/// Bytes of a size with its unit, for the few that stand above.
fn xfer_hole_bytes(size: &str) -> i64 {
    let (number, unit) = size.split_at(size.len() - 1);
    number.parse::<i64>().unwrap() << if unit == "M" { 20 } else { 10 }
}

#[test]
fn fiemap_on_tmpfs_is_refused_if_it_was_asked_for_by_name_and_replaced_if_not() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Tmpfs, 64 * M));
    let image = fs.join("disk.img");
    TestDisk::empty(M).with(0, 4 * K, 1).make(&image);
    let outcome = run(Command::new(&tools.xfer_hole).args(["--extents", "fiemap"]).arg(&image), b"");
    assert_eq!(outcome.out, b"", "nothing was sent");
    let outcome = outcome.refused(&["xfer-hole: ", "disk.img", "extents by fiemap are not to be had"]);
    assert!(outcome.err.contains("xfer-hole: hint: ") && outcome.err.contains("--extents scan"), "{}", outcome.err);
    assert_eq!(lengths(&pour(&tools, &[], &image)), [4096, 4096 - (1 << 20)]);
}

#[test]
fn on_a_block_device_what_has_no_extents_is_refused_by_name_and_read_otherwise() {
    let tools = tools!();
    let device = rig::LoopDevice::filled(M, 0);
    let outcome = run(Command::new(&tools.xfer_hole).args(["--extents", "fiemap"]).arg(device.path()), b"");
    outcome.refused(&["extents by fiemap are not to be had"]);
    assert_eq!(lengths(&pour(&tools, &[], device.path())), [-(1 << 20)]);
    assert_eq!(lengths(&pour(&tools, &["--extents=scan"], device.path())), [-(1 << 20)]);
}

#[test]
fn the_dialect_of_2014_is_spoken_and_understood_if_both_are_told() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Ext4, 256 * M));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(3 * M + 5).with(M, 3, 1).with(2 * M, 4 * K, 2).make(&image);
    let stream = pour(&tools, &["--classic"], &image);
    assert!(stream.starts_with(b"HOLE\n1048576\nDATA\n4096\n"), "{:?}", String::from_utf8_lossy(&stream[..40]));
    let receive = |args: &[&str]| run(Command::new(&tools.recv_hole).args(args).arg(&dest), &stream);
    receive(&["--classic"]).ok();
    assert_same(&image, &dest);
    let kept = [(0, M), (M + 4 * K, M - 4 * K), (2 * M + 4 * K, M - 4 * K + 5)];
    assert_eq!(holes(&dest), kept, "a hole at the end is not lost");
    fs::remove_file(&dest).unwrap();
    receive(&[]).refused(&["open line"]);
    assert!(!dest.exists());
    run(&mut Receiver::Script(rig::SHELLS[0]).command(&tools, &dest, false, true), &stream).refused(&["record 0"]);
    assert!(!dest.exists());
    let plain = pour(&tools, &[], &image);
    run(Command::new(&tools.recv_hole).arg("--classic").arg(&dest), &plain).refused(&["record 1 at disk offset 0"]);
    assert!(!dest.exists());
}

#[test]
fn the_original_script_of_2014_would_understand_what_is_sent() {
    // Its loop, in essence: a word, a length, a payload.
    const LOOP: &str = r#"while read -r word && read -r len; do
        case $word in
        DATA) dd bs=65536 iflag=fullblock,count_bytes count="$len" status=none ;;
        HOLE) dd if=/dev/zero bs=65536 iflag=fullblock,count_bytes count="$len" status=none ;;
        *) exit 1 ;;
        esac
    done"#;
    let (tools, fs): (Tools, _) = (tools!(), Filesystem::new(Fs::Ext4, 256 * M));
    let image = fs.join("disk.img");
    motley().make(&image);
    let rebuilt = run(Command::new("dash").args(["-c", LOOP]), &pour(&tools, &["--classic"], &image)).ok();
    assert!(rebuilt.out == fs::read(&image).unwrap());
}

#[test]
fn in_the_dialect_of_2014_a_source_that_is_cut_short_ends_the_stream_inside_a_payload() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Ext4, 256 * M));
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(16 * M).with(0, 16 * M, 1).make(&image);
    let mut command = Command::new(&tools.xfer_hole);
    let command = command.arg("--classic").arg(&image).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut sender = command.spawn().unwrap();
    let mut out = sender.stdout.take().unwrap();
    let mut stream = vec![0; 100];
    out.read_exact(&mut stream).unwrap();
    // Most of the disk doesn't fit in the pipe, so it is still to be read.
    File::options().write(true).open(&image).unwrap().set_len(4 * M).unwrap();
    out.read_to_end(&mut stream).unwrap();
    let ended = sender.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && said.contains("truncated while it was read"), "{said}");
    assert!((stream.len() as u64) < 16 * M, "nothing is made up for what is missing: {} bytes", stream.len());
    let outcome = run(Command::new(&tools.recv_hole).arg("--classic").arg(&dest), &stream);
    outcome.refused(&["record 1 at disk offset 0"]);
    assert!(!dest.exists());
}
