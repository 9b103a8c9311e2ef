//! Images with one number changed, or cut short: what we read of them is what QEMU reads, and what we refuse, we refuse for a reason.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{Field, Filesystem, Fill, Fs, Op, Outcome, Qcow2, Tools, assert_as, assert_refused, peek, poke, run, tools};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// Mutants of each image. Each costs four processes.
const MUTANTS: usize = 75;
/// Disks that a mutant makes larger are passed over: qemu-img would write them.
const LARGE: u64 = 1 << 30;

/// What we refuse and QEMU reads, by words of the message, with the reason.
const STRICTER: [(&str, &str); 10] = [
    (
        "compressed cluster at",
        "the end of the file cuts it, and zeros in the place of the rest decode to bytes that nobody wrote",
    ),
    ("reserved bits", "a later version may mean something by them, or they are damaged"),
    (
        "L2 table at 0x",
        "a lost table: QEMU takes it for empty, and zeros come in place of data; or it is taken for another",
    ),
    ("where the", "a table would be taken for the guest's data"),
    ("two L1 entries", "one of both parts of the disk is not what it was"),
    ("L1 table begins past the end", "the whole disk would be zeros"),
    ("L1 table overlaps", "a table would be read as another"),
    ("overlaps the L1 table", "one of both is wrong, and it may be the one that the disk is read by"),
    ("backing_file_offset", "a backing file's name would be read from the header's numbers"),
    ("header extension", "what it says of the backing file may be lost"),
];

/// An image, and where its tables are.
struct Subject {
    fs: Filesystem,
    name: &'static str,
    bytes: Vec<u8>,
    cluster: u64,
    l1: u64,
    l2: Vec<u64>,
    refcounts: u64,
    snapshots: u64,
}

fn number(bytes: &[u8], at: u64, width: u64) -> u64 {
    let (at, width) = (at as usize, width as usize);
    bytes.get(at..at + width).map_or(0, |number| number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

impl Subject {
    fn new(name: &'static str, options: &[&str], compressed: u64) -> Self {
        let fs = Filesystem::new(Fs::Tmpfs, 128 * M);
        let disk = options.iter().fold(Qcow2::new(4 * M), |disk, option| disk.option(option));
        let disk = disk.write(0, 40 * K, Fill::Noise(1)).write(M, 20 * K, Fill::Noise(2)).snapshot("first");
        let ops = [
            Op::Write(8 * K, 20 * K, Fill::Noise(3)),
            Op::Compressed(2 * M, compressed, Fill::Text(1)),
            Op::Compressed(2 * M + 2 * compressed, compressed, Fill::Text(2)),
        ];
        let image = fs.join("disk.qcow2");
        disk.ops(ops).make(&image);
        let bytes = fs::read(&image).unwrap();
        let l1 = number(&bytes, 40, 8);
        let tables = (0..number(&bytes, 36, 4)).map(|index| number(&bytes, l1 + 8 * index, 8) & 0x00ff_ffff_ffff_fe00);
        Self {
            fs,
            name,
            cluster: 1 << number(&bytes, 20, 4),
            l2: tables.filter(|&table| table > 0).collect(),
            refcounts: number(&bytes, 48, 8),
            snapshots: number(&bytes, 64, 8),
            l1,
            bytes,
        }
    }

    fn image(&self) -> PathBuf {
        self.fs.join("disk.qcow2")
    }

    /// Makes a mutant; gives what was done to it.
    fn mutate(&self, random: &mut Random) -> String {
        const HEADER: [(u64, u64); 17] = [
            (4, 4),
            (8, 8),
            (16, 4),
            (20, 4),
            (24, 8),
            (32, 4),
            (36, 4),
            (40, 8),
            (48, 8),
            (56, 4),
            (60, 4),
            (64, 8),
            (72, 8),
            (80, 8),
            (88, 8),
            (96, 4),
            (100, 4),
        ];
        let mut bytes = self.bytes.clone();
        let (at, width) = match random.below(10) {
            0..3 => HEADER[random.below(17) as usize],
            3 => (self.l1 + 8 * random.below(number(&bytes, 36, 4)), 8),
            4..6 => {
                let table = self.l2[random.below(self.l2.len() as u64) as usize];
                let used: Vec<_> =
                    (table..table + self.cluster).step_by(8).filter(|&at| number(&bytes, at, 8) != 0).collect();
                (used[random.below(used.len() as u64) as usize], 8)
            }
            6 => (self.refcounts + 8 * random.below(4), 8),
            7 => (self.snapshots + 4 * random.below(20), 4 + 4 * random.below(2)),
            8 => (104 + 4 * random.below(12), 4),
            _ => {
                let len = random.below(bytes.len() as u64) / 512 * 512;
                bytes.truncate(len as usize);
                fs::write(self.image(), bytes).unwrap();
                return format!("{} cut to {len:#x}", self.name);
            }
        };
        let (old, len) = (number(&bytes, at, width), bytes.len() as u64);
        let values = [
            0,
            1,
            old ^ 1 << random.below(8 * width),
            old ^ 1 << random.below(8 * width),
            old.wrapping_add(1),
            old.wrapping_add(self.cluster),
            old.wrapping_sub(self.cluster),
            len.next_multiple_of(self.cluster) + 16 * self.cluster,
            len,
            1 << 40,
            1 << 63 | self.cluster,
            self.l1,
            self.refcounts,
            self.l2[0],
            u64::MAX,
            random.next(),
        ];
        let new = values[random.below(16) as usize] & (u64::MAX >> (64 - 8 * width));
        bytes[at as usize..(at + width) as usize].copy_from_slice(&new.to_be_bytes()[8 - width as usize..]);
        fs::write(self.image(), bytes).unwrap();
        format!("{} {at:#x}/{width}: {old:#x} -> {new:#x}", self.name)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// How both end for this mutant, and what is wrong with that.
fn judged(tools: &Tools, subject: &Subject, what: &str) -> Option<String> {
    let (ours, theirs) = (subject.fs.join("ours"), subject.fs.join("theirs"));
    for made in [&ours, &theirs] {
        let _not_there = fs::remove_file(made);
    }
    let within = |command: &[&str], more: &[&Path]| -> Outcome {
        run(Command::new("timeout").args(["-s", "KILL", "30"]).args(command).args(more), b"")
    };
    let image = subject.image();
    let judge = within(&["qemu-img", "convert", "-f", "qcow2", "-O", "raw"], &[&image, &theirs]);
    let program = tools.xfer_hole.to_str().unwrap();
    let sent = within(&[program, "--format", "qcow2", "--no-sync"], &[&image, &ours]);
    match (judge.code, sent.code) {
        (Some(0), Some(0)) if fs::read(&ours).unwrap() == fs::read(&theirs).unwrap() => None,
        (Some(0), Some(0)) => Some(format!("WRONG BYTES: {what}")),
        (Some(1), Some(0)) => Some(format!("QEMU refuses what we read: {what}: {}", judge.err)),
        (Some(0), Some(2)) => {
            let known = STRICTER.iter().any(|(words, _)| sent.err.contains(words));
            (!known).then(|| format!("we refuse what QEMU reads: {what}: {}", sent.err))
        }
        (Some(1), Some(2)) => None,
        (theirs, ours) => Some(format!("{what}: {theirs:?} {ours:?}: {}", sent.err)),
    }
}

#[test]
fn mutants_are_read_as_qemu_reads_them_or_refused_for_a_reason() {
    let tools = tools!();
    let subjects = [
        Subject::new("plain", &["cluster_size=4k"], 4 * K),
        Subject::new("zstd", &["cluster_size=4k", "compression_type=zstd"], 4 * K),
        Subject::new("extended", &["cluster_size=16k", "extended_l2=on"], 16 * K),
        Subject::new("old", &["cluster_size=4k", "compat=0.10"], 4 * K),
    ];
    let mut random = Random(16);
    let mut wrong = Vec::new();
    for subject in &subjects {
        for _ in 0..MUTANTS {
            let what = subject.mutate(&mut random);
            if number(&fs::read(subject.image()).unwrap(), 24, 8) < LARGE {
                wrong.extend(judged(&tools, subject, &what));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An image with a snapshot.
fn with_snapshot(image: &Path) {
    let disk = Qcow2::new(4 * M).option("cluster_size=4k").write(0, 40 * K, Fill::Noise(1)).snapshot("first");
    disk.write(M, 20 * K, Fill::Noise(2)).make(image);
}

#[test]
fn tables_that_reading_does_not_need_are_warned_of() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Tmpfs, 128 * M));
    let image = fs.join("disk.qcow2");
    for (field, word) in [(Field::REFCOUNT_OFFSET, "refcount"), (Field::SNAPSHOTS_OFFSET, "snapshot")] {
        for place in [1 << 30, 1 << 40, 1 << 56, 0] {
            with_snapshot(&image);
            poke(&image, field, place);
            let said = assert_as(&tools, &image, &[], &image);
            let warned = said.lines().filter(|line| line.contains("warning: ") && line.contains(word)).count();
            assert_eq!((warned, said.lines().count()), (1, 1), "{word} {place:#x}: {said}");
            let info = run(Command::new(&tools.xfer_hole).arg("info").arg(&image), b"").ok();
            assert!(info.err.contains(word), "{}", info.err);
            if word == "snapshot" {
                assert_refused(&tools, &image, &["--snapshot", "1"], &["snapshots_offset"]);
                assert!(!String::from_utf8(info.out).unwrap().contains("snapshots:"));
            }
        }
    }
    // An entry that runs past the end of the file, and one of a disk that can't be.
    for (at, value, words) in [(12, u64::from(u32::MAX), "past the end"), (48, 1 << 31, "more bytes than a disk")] {
        with_snapshot(&image);
        poke(&image, Field(peek(&image, Field::SNAPSHOTS_OFFSET) + at, 4), value);
        let said = assert_as(&tools, &image, &[], &image);
        assert!(said.contains("warning: ") && said.contains(words), "{said}");
        assert_refused(&tools, &image, &["--snapshot", "1"], &[words]);
    }
}

#[test]
fn offsets_of_no_snapshots_are_judged_as_qemu_judges_them() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Tmpfs, 128 * M));
    let image = fs.join("disk.qcow2");
    for (place, is_read) in [(1 << 40, true), (4096, true), (0, true), (8, false), (1 << 63, false), (!4095, false)] {
        Qcow2::new(4 * M).option("cluster_size=4k").write(0, 40 * K, Fill::Noise(1)).make(&image);
        assert_eq!(peek(&image, Field::SNAPSHOTS), 0);
        poke(&image, Field::SNAPSHOTS_OFFSET, place);
        if is_read {
            assert_eq!(assert_as(&tools, &image, &[], &image), "", "{place:#x}");
        } else {
            let judge = run(Command::new("qemu-img").args(["info", "-f", "qcow2"]).arg(&image), b"");
            assert_eq!(judge.code, Some(1), "{place:#x}");
            assert_refused(&tools, &image, &[], &["snapshots_offset"]);
        }
    }
}
