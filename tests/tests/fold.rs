//! Two sparse raw files of a chain: what the child has goes into its parent, or is punched out of it, and what is read through both
//! stays the same.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rig::{Before, Filesystem, Fs, Layers, Outcome, TestDisk, extents, requires, run, tool, tools};

const MIB: u64 = 1 << 20;

fn fold(args: &[&str], layers: &Layers) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg("fold").args(args).args([&layers.child, &layers.parent]), b"")
}

fn prune(args: &[&str], layers: &Layers) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg("prune").args(args).args([&layers.parent, &layers.child]), b"")
}

/// Both, each on files made anew, twice: as what was interrupted at its very end is run again.
#[track_caller]
fn both(make: impl Fn() -> Layers, what: &str) {
    let layers = make();
    let child = Before::of(&layers.child);
    for round in ["first", "again"] {
        assert_eq!(fold(&["-q"], &layers).ok().err, "", "{what}");
        layers.folded(&format!("fold, {round}: {what}"));
    }
    child.untouched(what);
    let layers = make();
    for round in ["first", "again"] {
        assert_eq!(prune(&["-q"], &layers).ok().err, "", "{what}");
        layers.pruned(&format!("prune, {round}: {what}"));
    }
}

/// Every three letters over every three: overlapping, nested, adjacent, apart, nothing and all.
#[test]
fn every_pair_of_layouts_of_three_blocks_is_folded_and_pruned_on_every_file_system() {
    let layouts = ["HHH", "HHD", "HDH", "HDD", "DHH", "DHD", "DDH", "DDD"];
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        for child in layouts {
            for parent in layouts {
                both(|| Layers::of_letters(fs.path(), child, parent), &format!("{kind:?} {child} over {parent}"));
            }
        }
    }
}

#[test]
fn sizes_and_ranges_that_are_aligned_to_nothing_and_parents_that_grow() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let full = |size: u64| TestDisk::empty(size).with(0, size, 9);
        let some = TestDisk::empty(3 * MIB + 1000).with(0, 1, 1).with(5000, 200, 1).with(MIB - 7, MIB + 14, 2);
        for (child, parent) in [
            (some.clone(), full(3 * MIB + 1000)),
            (some.clone(), full(MIB + 3)),
            (some.clone(), TestDisk::empty(3 * MIB)),
            (some.clone().with(3 * MIB + 990, 10, 3), full(3 * MIB + 995)),
            (some.clone().with(3 * MIB + 990, 10, 3), full(3 * MIB + 1000)),
            (full(3 * MIB + 1), full(4095)),
            (full(4095), full(4095)),
            // Zeros that were written hide what lies below them.
            (TestDisk::empty(MIB).with(8192, 40_000, 0).with(MIB / 2, 4096, 0), full(MIB)),
            (TestDisk::empty(5 * MIB + 12), full(MIB)),
            (TestDisk::empty(MIB).with(0, 4096, 1), TestDisk::empty(0)),
            (full(777), TestDisk::empty(0)),
            (TestDisk::empty(0), TestDisk::empty(0)),
        ] {
            both(|| Layers::make(fs.path(), &child, &parent), &format!("{kind:?} {child:?} over {parent:?}"));
        }
    }
}

#[test]
fn space_that_is_only_allocated_is_a_hole_even_if_it_was_read() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let child = TestDisk::empty(4 * MIB + 10).with(MIB, 100_000, 1).with(3 * MIB, 20_000, 2);
        let parent = TestDisk::empty(4 * MIB + 10).with(0, 4 * MIB + 10, 3);
        let make = || {
            let layers = Layers::make(fs.path(), &child, &parent);
            layers.preallocate(MIB / 2, 3 * MIB);
            layers
        };
        both(make, &format!("{kind:?}"));
    }
}

#[test]
fn what_was_written_a_moment_ago_and_is_on_no_disk_yet_is_not_missed() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let child = TestDisk::empty(8 * MIB).with(100, 300_000, 1).with(5 * MIB, 2 * MIB, 2).with(4 * MIB, 4096, 0);
        let parent = TestDisk::empty(8 * MIB).with(0, 8 * MIB, 3);
        // The same layers, but for a child whose bytes are only in memory; some in space that was allocated before.
        let make = || {
            let layers = Layers::make(fs.path(), &child, &parent);
            let file = File::options().write(true).open(&layers.child).unwrap();
            file.set_len(0).unwrap();
            file.set_len(8 * MIB).unwrap();
            layers.preallocate(4 * MIB, 2 * MIB);
            child.write(&file);
            layers
        };
        both(make, &format!("{kind:?}"));
    }
}

#[test]
fn files_on_two_file_systems_with_blocks_of_other_sizes() {
    let small = Filesystem::with_options(Fs::Ext4, 128 * MIB, &["-b", "1024"]);
    let large = Filesystem::new(Fs::Xfs, 512 * MIB);
    let child = TestDisk::empty(2 * MIB + 700)
        .with(1024, 1024, 1)
        .with(10_240, 7000, 2)
        .with(MIB - 1024, 50 * 1024, 3)
        .with(2 * MIB + 600, 50, 4);
    let parent = TestDisk::empty(2 * MIB + 700).with(0, 2 * MIB + 700, 9);
    for folders in [[small.path(), large.path()], [large.path(), small.path()]] {
        both(|| Layers::apart(folders, &child, &parent), &format!("{folders:?}"));
    }
}

/// Sizes below and above, and what was written into each, as parts of the child's size.
type Written = Vec<(u32, u32, u8)>;

fn disk(size: u64, written: &Written) -> TestDisk {
    let mut disk = TestDisk::empty(size);
    for &(at, len, seed) in written {
        let at = u64::from(at) % size.max(1);
        // Short ones, and ones that end a block or begin it.
        let len = u64::from(len) % [64, 4097, 40_000][usize::from(seed % 3)] + 1;
        let at = if seed % 2 == 0 { at / 4096 * 4096 } else { at };
        if at < size {
            disk = disk.with(at, len.min(size - at), seed % 5);
        }
    }
    disk
}

#[test]
fn random_pairs_are_what_was_read_through_them() {
    let systems = Fs::ALL.map(|kind| (kind, Filesystem::new(kind, 512 * MIB)));
    let written = || vec((any::<u32>(), any::<u32>(), any::<u8>()), 0..12);
    let strategy = (0_u64..300_000, 0_u64..=100, written(), written(), any::<(u32, u32)>());
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&strategy, |(size, percent, above, below, (from, len))| {
            let (child, parent) = (disk(size, &above), disk(size * percent / 100, &below));
            for (kind, fs) in &systems {
                let make = || {
                    let layers = Layers::make(fs.path(), &child, &parent);
                    if size > 0 {
                        let from = u64::from(from) % size;
                        layers.preallocate(from, u64::from(len) % (size - from) + 1);
                    }
                    layers
                };
                both(make, &format!("{kind:?} {child:?} over {parent:?}"));
            }
            Ok(())
        })
        .unwrap();
}

/// Every other block of 4 KiB has data.
fn fragmented(blocks: u64, first: u64, seed: u8) -> TestDisk {
    let disk = TestDisk::empty(blocks * 4096);
    (first..blocks).step_by(2).fold(disk, |disk, block| disk.with(block * 4096, 4096, seed))
}

#[test]
fn every_other_block_over_the_same_the_others_and_all_of_them() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let blocks = 4096;
        let all = TestDisk::empty(blocks * 4096).with(0, blocks * 4096, 7);
        for parent in [fragmented(blocks, 0, 2), fragmented(blocks, 1, 2), all] {
            both(|| Layers::make(fs.path(), &fragmented(blocks, 0, 1), &parent), &format!("{kind:?}"));
        }
    }
}

/// How often each system call was made.
fn calls(log: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(log).unwrap();
    let words = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let lines = words.filter(|words| words.len() >= 5 && words[0].parse::<f64>().is_ok());
    lines.map(|words| ((*words.last().unwrap()).to_owned(), words[3].parse().unwrap())).collect()
}

#[test]
fn short_ranges_cost_two_calls_each_to_fold_and_one_to_prune() {
    requires(&["strace"]);
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (log, ranges) = (fs.join("strace"), 4096);
        let layers = Layers::make(fs.path(), &fragmented(2 * ranges, 0, 1), &TestDisk::empty(8192 * ranges));
        // The event loop waits for its clock, as often as time passes.
        let traced = |words: &[&str], files: [&Path; 2]| {
            let mut command = Command::new("strace");
            command.args(["-f", "-c", "-o"]).arg(&log).arg(tools!().xfer_hole).args(words).args(files);
            run(&mut command, b"").ok();
            calls(&log)
                .into_iter()
                .filter(|(name, _)| name != "total" && name != "epoll_wait")
                .collect::<BTreeMap<_, _>>()
        };
        // SEEK_DATA and SEEK_HOLE, where there is no FIEMAP.
        let asked = if kind == Fs::Tmpfs { 2 * ranges } else { ranges / 100 };
        for (words, files, each) in [
            (["fold", "-q"], [layers.child.as_path(), layers.parent.as_path()], 2),
            (["prune", "-q"], [layers.parent.as_path(), layers.child.as_path()], 1),
        ] {
            let made = traced(&words, files);
            let all: u64 = made.values().sum();
            assert!(
                all <= each * ranges + asked + 1000,
                "{kind:?} {words:?}: {all} calls for {ranges} ranges: {made:?}"
            );
        }
    }
}

#[test]
fn long_ranges_share_their_blocks_where_the_file_system_can() {
    requires(&["filefrag"]);
    for kind in [Fs::Xfs, Fs::Btrfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let child = TestDisk::empty(40 * MIB + 5).with(MIB, 30 * MIB, 1).with(40 * MIB, 5, 1);
        let layers = Layers::make(fs.path(), &child, &TestDisk::empty(40 * MIB + 5).with(0, 2 * MIB, 2));
        fold(&["-q"], &layers).ok();
        layers.folded(&format!("{kind:?}"));
        let said = tool("filefrag", &["-v", layers.parent.to_str().unwrap()]);
        assert!(said.contains("shared"), "{kind:?}: {said}");
        // And are the child's own again once somebody writes.
        prune(&["-q"], &layers).ok();
        assert!(fs::read(&layers.child).unwrap() == child.bytes(), "{kind:?}");
    }
}

#[test]
fn a_parent_behind_links_is_updated_itself_and_stays_the_file_it_was() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let layers = Layers::of_letters(fs.path(), "DHDH", "DDH");
    let (one, two) = (fs.join("one"), fs.join("two"));
    symlink("parent.img", &one).unwrap();
    symlink(&one, &two).unwrap();
    let stat = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap();
        (stat.ino(), stat.mode(), stat.uid())
    };
    let before = stat(&layers.parent);
    run(Command::new(tools!().xfer_hole).args(["fold", "-q"]).args([&layers.child, &two]), b"").ok();
    layers.folded("by a link");
    assert_eq!(stat(&layers.parent), before);
    assert!(fs::symlink_metadata(&two).unwrap().is_symlink());
}

#[test]
fn a_dry_run_says_how_much_and_changes_nothing() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let child = TestDisk::empty(MIB).with(0, 8192, 1).with(20_480, 4096, 0).with(MIB - 4096, 4096, 1);
    let layers = Layers::make(fs.path(), &child, &TestDisk::empty(MIB / 2).with(0, 65_536, 2));
    let all = || [Before::of(&layers.child), Before::of(&layers.parent)];
    let stamps = || [&layers.child, &layers.parent].map(|path| fs::metadata(path).unwrap().modified().unwrap());
    let (before, modified, held) = (all(), stamps(), extents(&layers.parent));
    let (child, parent) = (layers.child.display(), layers.parent.display());
    for flag in ["-n", "--dry-run"] {
        assert_eq!(
            fold(&[flag], &layers).ok().err,
            format!(
                "xfer-hole: would put 16384 bytes in 3 ranges of {child} into {parent}, \
                 which would grow from 524288 to 1048576 bytes\n"
            )
        );
        assert_eq!(
            prune(&[flag], &layers).ok().err,
            format!(
                "xfer-hole: would punch 12288 bytes in 2 ranges, which {child} has, out of {parent}, \
                 a file of 524288 bytes\n"
            )
        );
    }
    before.iter().for_each(|file| file.untouched("a dry run"));
    assert_eq!((stamps(), extents(&layers.parent)), (modified, held));
}

#[test]
fn people_and_programs_are_told_what_was_done() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    for command in ["fold", "prune"] {
        let layers = Layers::make(fs.path(), &TestDisk::empty(MIB).with(0, 8192, 1), &TestDisk::empty(MIB));
        let call = |args: &[&str]| if command == "fold" { fold(args, &layers) } else { prune(args, &layers) };
        let said = call(&[]).ok();
        assert!(said.err.starts_with("xfer-hole: disk 1 MiB, data 8 KiB in "), "{}", said.err);
        assert_eq!((said.err.lines().count(), said.out.len()), (1, 0));
        assert!(call(&["-v"]).ok().err.starts_with("xfer-hole: extents by seek\n"));
        let said = call(&["--progress", "json"]).ok().err;
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!((last["event"].as_str(), last["outcome"].as_str()), (Some("end"), Some("done")), "{said}");
        assert_eq!((last["disk_done"].as_u64(), last["data"].as_u64()), (Some(MIB), Some(8192)), "{said}");
    }
}

#[test]
fn what_is_punched_is_durable_in_the_child_first_and_all_is_synced_at_the_end() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let log = fs.join("strace");
    for (command, no_sync) in [("fold", false), ("fold", true), ("prune", false), ("prune", true)] {
        let layers = Layers::of_letters(fs.path(), "DHD", "DD");
        let mut files = [&layers.child, &layers.parent];
        if command == "prune" {
            files.reverse();
        }
        let mut traced = Command::new("strace");
        traced.args(["-f", "-y", "-e", "trace=fsync,fallocate,pwrite64", "-o"]).arg(&log).arg(tools!().xfer_hole);
        traced.args([command, "-q"]).args(no_sync.then_some("--no-sync")).args(files);
        run(&mut traced, b"").ok();
        let text = fs::read_to_string(&log).unwrap();
        let called = text.lines().filter_map(|line| {
            let name =
                ["fsync", "fallocate", "pwrite64"].into_iter().find(|name| line.contains(&format!("{name}(")))?;
            let file = ["child.img", "parent.img"].into_iter().find(|file| line.contains(file))?;
            Some(format!("{name} {file}"))
        });
        let called: Vec<_> = called.collect();
        let work = if command == "prune" { "fallocate parent.img" } else { "pwrite64 parent.img" };
        let mut expected = vec![work; if command == "prune" { 1 } else { 2 }];
        if !no_sync {
            expected.push("fsync parent.img");
            if command == "prune" {
                expected.insert(0, "fsync child.img");
            }
        }
        assert_eq!(called, expected, "{command}, no sync {no_sync}: {text}");
    }
}
