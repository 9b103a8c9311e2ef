//! The floor moves what it is said to measure: a disk that it has moved is the same disk.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use xfer_hole_bench::floor;
use xfer_hole_bench::line::{Line, Tap};
use xfer_hole_bench::ranges;
use xfer_hole_bench::seeded::Seeded;

const FLOOR: &str = env!("CARGO_BIN_EXE_floor");
const SIZE: u64 = 64 << 20;

/// A disk of 64 MiB with 3 MiB in it, and the file that says where.
fn disk(folder: &Path) -> [String; 2] {
    let [disk, list] = ["disk", "ranges"].map(|name| folder.join(name));
    let file = File::create(&disk).unwrap();
    file.set_len(SIZE).unwrap();
    let mut bytes = vec![0; 1 << 20];
    for at in [0, 5 << 20, SIZE - (1 << 20)] {
        Seeded::new(at).fill(&mut bytes);
        file.write_all_at(&bytes, at).unwrap();
    }
    ranges::write(&ranges::of(&disk).unwrap(), &list).unwrap();
    [disk, list].map(|path| path.to_str().unwrap().to_owned())
}

#[test]
fn every_floor_makes_the_same_disk_with_the_same_holes() {
    let folder = tempfile::tempdir().unwrap();
    let [disk, list] = disk(folder.path());
    let size = SIZE.to_string();
    let sent = || Line::one([FLOOR, "send", &disk, &list]);
    for way in ["receive", "reserve", "copy", "rewrite"] {
        let out = folder.path().join(way);
        let to = out.to_str().unwrap();
        let line = match way {
            "copy" | "rewrite" => Line::one([FLOOR, way, &disk, to, &list, &size]),
            _ => sent().then([FLOOR, way, to, &list, &size]),
        };
        let said = folder.path().join("said");
        line.start(Tap::Closed, &said).unwrap().end(&said).unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(&disk).unwrap(), "{way}");
        let blocks = [&out, Path::new(&disk)].map(|path| fs::metadata(path).unwrap().blocks());
        assert_eq!(blocks[0], blocks[1], "{way}");
    }
}

#[test]
fn a_tap_hands_on_both_ways_counts_and_ends_as_its_shell_does() {
    let folder = tempfile::tempdir().unwrap();
    let counts = folder.path().join("counts");
    let mut command = Command::new(FLOOR);
    command.arg("tap").arg(&counts).args(["sh", "-c", "head -c 300000 /dev/zero; exit 7"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It ends though its input doesn't.
    let input = child.stdin.take();
    let said = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!((said.stdout.len(), said.status.code()), (300_000, Some(7)));
    assert_eq!(floor::counts(&counts).unwrap(), [0, 300_000]);
    let text = "head -c 500000 /dev/zero | \"$0\" tap \"$1\" cat | wc -c";
    let said = Command::new("sh").args(["-c", text, FLOOR]).arg(&counts).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "500000\n");
    assert_eq!(floor::counts(&counts).unwrap(), [500_000; 2]);
    // What the remote shell is called is a word of its own.
    let line = Line::one(["tool", "-e", "ssh -F x", "ssh"]).replacing("ssh -F x", "tap ssh -F x");
    assert_eq!(line.to_string(), "tool -e tap ssh -F x ssh");
}

#[test]
fn a_cut_pipe_fails_it_and_so_does_a_list_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let [disk, list] = disk(folder.path());
    let out = folder.path().join("out");
    let cut = Command::new("sh")
        .args(["-c", "head -c 100000 \"$1\" | \"$0\" receive \"$2\" \"$3\" 67108864", FLOOR, &disk])
        .arg(&out)
        .arg(&list)
        .output()
        .unwrap();
    assert_eq!(cut.status.code(), Some(2));
    assert!(String::from_utf8(cut.stderr).unwrap().starts_with("floor: receive: "));
    assert_eq!(Command::new(FLOOR).args(["sha256", &disk, &disk]).output().unwrap().status.code(), Some(2));
}
