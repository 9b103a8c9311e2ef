//! fold and prune on the layouts of longhorn's own test cases (sparse-tools: those of sfold, sprune and ssync), judged as those are: a file
//! made of the layouts has the same bytes and the same extents. All pairs of three blocks on all file systems, random sizes and ranges,
//! allocated space and refusals are in fold.rs and fold_fails.rs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{Before, Filesystem, Fs, Layers, Outcome, TestDisk, extents, run, tool, tools};

const MIB: u64 = 1 << 20;
/// Bytes of a block of theirs.
const BLOCK: u64 = 4096;

/// A layout of theirs: block for block, true where there is data.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout(Vec<bool>);

impl Layout {
    /// `D30 H4 D66`: data, holes, and for how many blocks.
    fn of(words: &str) -> Self {
        let run = |word: &str| vec![word.starts_with('D'); word[1..].parse().unwrap()];
        Self(words.split_whitespace().flat_map(run).collect())
    }

    fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    fn has(&self, block: usize) -> bool {
        self.0.get(block) == Some(&true)
    }

    /// As a disk whose blocks have so many bytes.
    fn disk(&self, block: u64, seed: u8) -> TestDisk {
        made(self.blocks() * block, block, |at| self.has(at).then_some(seed))
    }
}

/// A disk whose blocks have these seeds, neighbours joined.
fn made(size: u64, block: u64, seed: impl Fn(usize) -> Option<u8>) -> TestDisk {
    let mut disk = TestDisk::empty(size);
    for at in 0..size / block {
        let Some(seed) = seed(usize::try_from(at).unwrap()) else { continue };
        match disk.data.last_mut() {
            Some((start, len, before)) if *start + *len == at * block && *before == seed => *len += block,
            _ => disk.data.push((at * block, block, seed)),
        }
    }
    disk
}

/// The two files, and what has become of the parent.
struct Pair {
    child: PathBuf,
    parent: PathBuf,
    expected: PathBuf,
}

const CHILD: u8 = 1;
const PARENT: u8 = 2;

impl Pair {
    fn make(fs: &Filesystem, child: &Layout, parent: &Layout) -> Self {
        let pair = Self { child: fs.join("child"), parent: fs.join("parent"), expected: fs.join("expected") };
        child.disk(BLOCK, CHILD).make(&pair.child);
        parent.disk(BLOCK, PARENT).make(&pair.parent);
        pair
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let files = if args[0] == "fold" { [&self.child, &self.parent] } else { [&self.parent, &self.child] };
        run(Command::new(tools!().xfer_hole).args(args).args(files), b"")
    }

    /// Their criterion: byte by byte and extent by extent the file that is expected.
    #[track_caller]
    fn is(&self, expected: &TestDisk, what: &str) {
        expected.make(&self.expected);
        let same = run(Command::new("cmp").args([&self.expected, &self.parent]), b"");
        assert_eq!(same.code, Some(0), "{what}: {}", String::from_utf8_lossy(&same.out));
        assert_eq!(extents(&self.parent), extents(&self.expected), "{what}");
    }
}

/// What the parent is once it has the child's blocks, too.
fn folded(child: &Layout, parent: &Layout) -> TestDisk {
    let below = |at| parent.has(at).then_some(PARENT);
    made(child.blocks() * BLOCK, BLOCK, |at| if child.has(at) { Some(CHILD) } else { below(at) })
}

/// And once it has lost those that the child has.
fn pruned(child: &Layout, parent: &Layout) -> TestDisk {
    made(child.blocks() * BLOCK, BLOCK, |at| (parent.has(at) && !child.has(at)).then_some(PARENT))
}

/// Both commands on these layouts.
#[track_caller]
fn both(fs: &Filesystem, child: &Layout, parent: &Layout, what: &str) {
    for (command, expected) in [("fold", folded(child, parent)), ("prune", pruned(child, parent))] {
        let pair = Pair::make(fs, child, parent);
        let before = Before::of(&pair.child);
        assert_eq!(pair.call(&[command, "-q"]).ok().err, "", "{command}: {what}");
        pair.is(&expected, &format!("{command}: {what}"));
        before.untouched(what);
    }
}

fn systems() -> [Filesystem; 3] {
    [Fs::Ext4, Fs::Xfs, Fs::Btrfs].map(|kind| Filesystem::new(kind, 512 * MIB))
}

/// The data of a file, as letters.
fn letters(path: &Path, blocks: u64) -> String {
    let data = extents(path);
    let has = |at: u64| data.iter().any(|(start, len)| (*start..start + len).contains(&at));
    (0..blocks).map(|block| if has(block * BLOCK) { 'D' } else { 'H' }).collect()
}

#[test]
fn the_six_cases_of_sfold_and_the_four_of_sprune_come_to_what_they_say() {
    let spread = |letters: &str| letters.chars().map(|letter| format!("{letter}1 ")).collect::<String>();
    for fs in systems() {
        // Child, parent, and what the parent is then.
        for (command, child, parent, becomes) in [
            ("fold", "DHD", "DDH", "DDD"),
            ("fold", "HDH", "DHH", "DDH"),
            ("fold", "HHH", "DHH", "DHH"),
            ("fold", "DDH", "HHH", "DDH"),
            ("fold", "DDD", "DHD", "DDD"),
            ("fold", "HHD", "DDD", "DDD"),
            ("prune", "DDH", "DHD", "HHD"),
            ("prune", "HHH", "HDH", "HDH"),
            ("prune", "HHH", "DHD", "DHD"),
            ("prune", "DDD", "DDD", "HHH"),
        ] {
            let [child, parent] = [child, parent].map(|letters| Layout::of(&spread(letters)));
            let pair = Pair::make(&fs, &child, &parent);
            pair.call(&[command, "-q"]).ok();
            assert_eq!(letters(&pair.parent, 3), becomes, "{command} {child:?} {parent:?}");
            both(&fs, &child, &parent, "three blocks");
        }
    }
}

/// Their pairs of a hundred blocks: a hole, or data, that lies before, over, around, within and behind the other's; all and nothing.
const PAIRS: [(&str, &str); 16] = [
    ("D28 H4 D68", "D30 H4 D66"),
    ("D28 H8 D64", "D30 H4 D66"),
    ("D31 H2 D67", "D30 H4 D66"),
    ("D32 H4 D64", "D30 H4 D66"),
    ("H28 D4 H68", "H30 D4 H66"),
    ("H28 D8 H64", "H30 D4 H66"),
    ("H31 D2 H67", "H30 D4 H66"),
    ("H32 D4 H64", "H30 D4 H66"),
    // Next to each other.
    ("H26 D4 H70", "H30 D4 H66"),
    ("H34 D4 H62", "H30 D4 H66"),
    ("D100", "D30 H4 D66"),
    ("D100", "H30 D70"),
    ("D100", "D34 H66"),
    ("D100", "D100"),
    ("H100", "D30 H4 D66"),
    ("H100", "H100"),
];

#[test]
fn pairs_that_overlap_lie_within_each_other_or_touch_whichever_is_the_child() {
    for fs in systems() {
        for (one, other) in PAIRS {
            let layouts = [one, other].map(Layout::of);
            both(&fs, &layouts[0], &layouts[1], &format!("{one} over {other}"));
            both(&fs, &layouts[1], &layouts[0], &format!("{other} over {one}"));
        }
    }
}

#[test]
fn parents_that_are_shorter_grow() {
    for fs in systems() {
        for (child, parent) in [
            ("D1 H1 D1", "D2"),
            ("H1 D1 H1", "D1 H1"),
            ("H1 D1 H1", "H1 D1"),
            ("H1 D1 H1", "D1"),
            ("H1 D1 H1", "H1"),
            ("D1 H1 D1", ""),
            ("H1 D1 H1", ""),
            ("D1 H1", ""),
            ("D28 H4 D68", "D30 H4"),
            ("H100", "D30 H4 D2"),
        ] {
            both(&fs, &Layout::of(child), &Layout::of(parent), &format!("{child} over {parent}"));
        }
    }
}

#[test]
fn pairs_and_sizes_that_are_aligned_to_nothing() {
    let call = |command: &str, layers: &Layers| {
        let files = if command == "fold" { [&layers.child, &layers.parent] } else { [&layers.parent, &layers.child] };
        run(Command::new(tools!().xfer_hole).args([command, "-q"]).args(files), b"").ok()
    };
    for fs in systems() {
        // The pairs once more, in blocks of no file system.
        let pairs = PAIRS.map(|pair| (Layout::of(pair.0).disk(1000, CHILD), Layout::of(pair.1).disk(1000, PARENT)));
        let dense = |size: u64, seed| TestDisk::empty(size).with(0, size, seed);
        // The sizes of their small files, in bytes.
        let small = [
            (10, 4),
            (10, 10),
            (10, 0),
            (256, 256),
            (512, 512),
            (4096, 4096),
            (7680, 7680),
            (8192, 8192),
            (8704, 8704),
        ];
        let small = small.map(|(child, parent)| (dense(child, CHILD), dense(parent, PARENT)));
        for (child, parent) in pairs.into_iter().chain(small) {
            for command in ["fold", "prune"] {
                let layers = Layers::make(fs.path(), &child, &parent);
                call(command, &layers);
                let what = format!("{command} {child:?} {parent:?}");
                if command == "fold" { layers.folded(&what) } else { layers.pruned(&what) }
            }
        }
    }
}

#[test]
fn a_hundred_mebibytes_of_data_and_hole_in_turn_over_the_same_and_over_the_others() {
    let fs = Filesystem::new(Fs::Tmpfs, 1 << 30);
    let blocks = 100 * MIB / BLOCK;
    let every_other = |first: u64| Layout((0..blocks).map(|block| block % 2 == first).collect());
    for first in [0, 1] {
        let (child, parent) = (every_other(first), every_other(0));
        for (command, expected) in [("fold", folded(&child, &parent)), ("prune", pruned(&child, &parent))] {
            let pair = Pair::make(&fs, &child, &parent);
            let said = pair.call(&[command, "--progress", "json"]).ok().err;
            pair.is(&expected, command);
            // Nor does it ever go back, and all of it is done in the end.
            let done = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["disk_done"].as_u64();
            let done: Vec<u64> = said.lines().filter_map(done).collect();
            assert!(done.is_sorted() && done.last() == Some(&(blocks * BLOCK)), "{command}: {said}");
        }
    }
}

#[test]
fn random_runs_of_up_to_256_blocks() {
    let systems = systems();
    let mut number = 1_u64;
    let mut random = |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    let mut layout = |blocks: u64| {
        let mut layout = Vec::new();
        while (layout.len() as u64) < blocks {
            let (more, data) = (random(256) + 1, random(2) == 0);
            layout.extend((0..more.min(blocks - layout.len() as u64)).map(|_| data));
        }
        Layout(layout)
    };
    for round in 0..4 {
        let (child, parent) = (layout(16 * MIB / BLOCK), layout(16 * MIB / BLOCK));
        for fs in &systems {
            both(fs, &child, &parent, &format!("round {round}"));
        }
    }
}

#[test]
fn a_chain_of_three_is_folded_from_above_and_from_below_to_the_same() {
    // What a storage engine does with a snapshot that is removed: from any side, the volume is what it was.
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let names = ["lower", "middle", "upper"].map(|name| fs.join(name));
    let layouts = ["D30 H4 D66", "H28 D8 H64", "H31 D2 H30 D1 H36"].map(Layout::of);
    let whole = made(100 * BLOCK, BLOCK, |at| (0..3_u8).rev().find(|layer| layouts[usize::from(*layer)].has(at)));
    let whole = TestDisk { data: whole.data.iter().map(|&(at, len, layer)| (at, len, layer + 1)).collect(), ..whole };
    for order in [[(2, 1), (1, 0)], [(1, 0), (2, 0)]] {
        for (layer, name) in (0_u8..).zip(&names) {
            layouts[usize::from(layer)].disk(BLOCK, layer + 1).make(name);
        }
        for (child, parent) in order {
            run(Command::new(tools!().xfer_hole).args(["fold", "-q"]).args([&names[child], &names[parent]]), b"").ok();
        }
        let expected = fs.join("expected");
        whole.make(&expected);
        drop(tool("cmp", &[expected.to_str().unwrap(), names[0].to_str().unwrap()]));
        assert_eq!(extents(&names[0]), extents(&expected), "{order:?}");
    }
}
