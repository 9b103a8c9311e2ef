//! Over any pair of small disks and any cut: delta and resume give the source, and what flows is what differs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use rig::{Cut, Filesystem, Fs, converse, differing, held, part_of, run, tools};

const GRAIN: usize = 512;
const INTERVAL: usize = 4096;
const ARGS: [&str; 4] = ["--hash-interval", "4096", "--min-hole", "512"];

/// Blocks of half a kilobyte, each one of few contents, so that neighbours and other disks have the same; 0 is zeros.
fn blocks() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0..4_u8, 1..24_usize), 0..24)
}

fn bytes(blocks: &[(u8, usize)], tail: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = blocks.iter().flat_map(|&(kind, count)| vec![kind; count * GRAIN]).collect();
    bytes.truncate(bytes.len().saturating_sub(tail));
    bytes
}

/// How one disk came to be another: pieces written over, and another size.
fn changes() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    prop::collection::vec((0..200_000_usize, 1..9000_usize, 0..4_u8), 0..6)
}

#[derive(Clone, Debug)]
struct Pair {
    old: Option<Vec<u8>>,
    new: Vec<u8>,
}

fn pairs() -> impl Strategy<Value = Pair> {
    let tail = prop_oneof![Just(0), 0..GRAIN];
    let changed = (blocks(), changes(), tail.clone(), prop::option::of(0..120_000_usize)).prop_map(
        |(blocks, changes, tail, size)| {
            let old = bytes(&blocks, tail);
            let mut new = old.clone();
            size.into_iter().for_each(|size| new.resize(size, 0));
            for (at, len, kind) in changes {
                let end = (at + len).min(new.len());
                if at < end {
                    new[at..end].fill(kind);
                }
            }
            Pair { old: Some(old), new }
        },
    );
    let others = (prop::option::of(blocks()), blocks(), tail)
        .prop_map(|(old, new, tail)| Pair { old: old.map(|old| bytes(&old, tail)), new: bytes(&new, 0) });
    prop_oneof![3 => changed, 1 => others]
}

/// Writes what isn't zeros.
fn make(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let _not_there = fs::remove_file(path);
    let file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, number as u64 * 4096).unwrap();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Link,
    Sender,
    Receiver,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_source_arrives_by_what_differs_whatever_was_there_and_wherever_it_was_cut(
        pair in pairs(),
        cuts in prop::collection::vec((0..1000_usize, prop_oneof![Just(Who::Link), Just(Who::Sender), Just(Who::Receiver)]), 0..3),
        in_place in any::<bool>(),
        delta in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (image, dest) = (folder.path().join("image"), folder.path().join("dest"));
        let part = part_of(&dest);
        make(&image, &pair.new);
        pair.old.iter().for_each(|old| make(&dest, old));
        let receive: &[&str] = if in_place { &["--in-place", "--no-sync"] } else { &["--no-sync"] };
        let with: Vec<&str> = ARGS.into_iter().chain(delta.then_some("--delta")).collect();
        let mut whole = false;
        for (share, who) in cuts {
            let at = 150 + share * pair.new.len() / 1000;
            let cut = match who {
                Who::Link => Cut::Link(at),
                Who::Sender => Cut::Sender(at),
                Who::Receiver => Cut::Receiver(at),
            };
            let (sent, _, _) = converse(&tools!(), &with, &image, receive, &dest, cut);
            whole |= sent.code == Some(0);
            if !in_place && !whole && pair.old.as_ref() != Some(&pair.new) {
                // Until it is whole, the old one stays.
                prop_assert!(fs::read(&dest).ok() == pair.old || fs::read(&dest).ok().as_ref() == Some(&pair.new));
            }
        }
        let holds = if in_place && dest.exists() { fs::read(&dest).unwrap() } else { held(&part, &dest) };
        let with: Vec<&str> = ARGS.into_iter().chain(["--delta"]).collect();
        let (sent, received, flowed) = converse(&tools!(), &with, &image, receive, &dest, Cut::Never);
        prop_assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
        prop_assert!(fs::read(&dest).unwrap() == pair.new);
        prop_assert!(!part.exists() || in_place);
        prop_assert_eq!(flowed.payload(), differing(&holds, &pair.new, INTERVAL, GRAIN));
    }

    #[test]
    fn a_copy_by_delta_is_the_source_whatever_was_there(pair in pairs(), in_place in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (image, dest) = (folder.path().join("image"), folder.path().join("dest"));
        make(&image, &pair.new);
        pair.old.iter().for_each(|old| make(&dest, old));
        let mut copies = Command::new(tools!().xfer_hole);
        copies.args(["--delta", "-q", "--no-sync"]).args(ARGS).args(in_place.then_some("--in-place"));
        let copied = run(copies.arg(&image).arg(&dest), b"");
        prop_assert_eq!((copied.code, copied.err.as_str()), (Some(0), ""));
        prop_assert!(fs::read(&dest).unwrap() == pair.new);
        prop_assert!(!part_of(&dest).exists());
    }
}

#[test]
fn where_blocks_are_shared_the_same_holds() {
    let fs = Filesystem::new(Fs::Xfs, 512 << 20);
    let (image, dest) = (fs.join("image"), fs.join("dest"));
    let old = bytes(&[(1, 40), (0, 30), (2, 77), (3, 8), (0, 64)], 100);
    let mut new = old.clone();
    new[9000..9010].fill(3);
    new[30_000..50_000].fill(0);
    new.truncate(90_000);
    for (before, after) in [(&old, &new), (&new, &old), (&old, &old)] {
        make(&image, after);
        make(&dest, before);
        let with: Vec<&str> = ARGS.into_iter().chain(["--delta"]).collect();
        for at in [300, 2000, 6000] {
            let _cut = converse(&tools!(), &with, &image, &[], &dest, Cut::Link(at));
        }
        let holds = held(&part_of(&dest), &dest);
        let (sent, received, flowed) = converse(&tools!(), &with, &image, &[], &dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
        assert!(fs::read(&dest).unwrap() == *after);
        assert_eq!(flowed.payload(), differing(&holds, after, INTERVAL, GRAIN));
    }
}
