//! The binary and the script make the same file of the same stream: bytes, holes, size, and whether it is refused.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use rig::{Filesystem, Fs, Receiver, SHELLS, TestDisk, holes, run, tools};
use xfer_hole_proto::{Digest, Hasher};

/// A lawful stream, and the old file that it needs.
#[derive(Clone)]
struct Stream {
    bytes: Vec<u8>,
    old: Option<TestDisk>,
}

/// The lines only: payloads are no pleasure to read.
impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<_> = line_bytes(&self.bytes).into_iter().map(|at| self.bytes[at]).collect();
        write!(f, "{} (old: {:?})", String::from_utf8_lossy(&lines), self.old)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Data,
    Hole,
    Keep,
    Wait,
}

/// What a stream is made from: wishes, which are bent until they are lawful.
#[derive(Clone, Debug)]
struct Wishes {
    /// Interval and grain.
    sums: Option<(u64, u64)>,
    /// Words, lengths in units, and seeds of payloads (0 for zeros).
    records: Vec<(Word, u64, u8)>,
    /// What is added to a length, without digests; what the last record lacks, with them.
    odd: u64,
    /// Bytes of the old file behind BASE; none: no old file, and no KEEP.
    base: Option<u64>,
    /// END's digest twice, where that is lawful.
    twice: bool,
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let sums = prop::option::of(prop_oneof![Just((4096, 512)), Just((16384, 4096)), Just((8192, 8192))]);
    let word = prop_oneof![4 => Just(Word::Data), 3 => Just(Word::Hole), 2 => Just(Word::Keep), 1 => Just(Word::Wait)];
    let records = prop::collection::vec((word, 1..9_u64, prop_oneof![4 => 1..=255_u8, 1 => Just(0)]), 0..10);
    let base = prop::option::weighted(0.6, prop_oneof![Just(0), 1..9000_u64]);
    (sums, records, 0..511_u64, base, any::<bool>()).prop_map(|(sums, records, odd, base, twice)| Wishes {
        sums,
        records,
        odd,
        base,
        twice,
    })
}

/// The records of the wishes: word, length, seed.
fn lawful(wishes: &Wishes) -> Vec<(Word, u64, u8)> {
    let mut made: Vec<(Word, u64, u8)> = Vec::new();
    let (mut at, mut before) = (0, None);
    let last = wishes.records.iter().rposition(|(word, ..)| *word != Word::Wait);
    for (index, &(wish, units, seed)) in wishes.records.iter().enumerate() {
        let word = if wish == Word::Keep && wishes.base.is_none() { Word::Hole } else { wish };
        if word == Word::Wait {
            made.push((word, 0, 0));
            continue;
        }
        let len = match wishes.sums {
            None => units * 3001 + wishes.odd,
            Some((interval, grain)) => {
                let to_next = interval - at % interval;
                let lawful = match (word, before) {
                    (Word::Data, Some(Word::Data)) => at % interval == 0,
                    (Word::Keep, _) => at % interval == 0 && before != Some(Word::Keep),
                    (word, before) => Some(word) != before,
                };
                if !lawful {
                    continue;
                }
                let len = match word {
                    Word::Data => (units * grain).min(to_next),
                    Word::Keep => units * interval,
                    _ => units * grain * 3,
                };
                // The disk may end inside a grain.
                if Some(index) == last { len - wishes.odd.min(grain - 1) } else { len }
            }
        };
        made.push((word, len, seed));
        at += len;
        before = Some(word);
    }
    made
}

fn stream(wishes: &Wishes) -> Stream {
    let records = lawful(wishes);
    let size: u64 = records.iter().map(|(_, len, _)| len).sum();
    let mut bytes = format!("XFER-HOLE 1 {size}").into_bytes();
    if let Some((interval, grain)) = wishes.sums {
        bytes.extend(format!(" sha256 {interval} {grain}").bytes());
    }
    bytes.push(b'\n');
    let kept = records.iter().rposition(|(word, ..)| *word == Word::Keep);
    let ends = kept.map_or(0, |kept| records[..=kept].iter().map(|(_, len, _)| len).sum());
    let old = wishes.base.map(|more| {
        bytes.extend(format!("BASE {}\n", ends + more / 2).bytes());
        // Data and holes in turns, at places of no particular roundness, and longer than BASE says.
        let size = ends + more;
        let parts = (0..size / 10_000).map(|part| (part * 10_000, (size - part * 10_000).min(4500)));
        parts.fold(TestDisk::empty(size), |disk, (at, len)| disk.with(at, len, 77))
    });
    let mut lines = Hasher::default();
    for (word, len, seed) in records {
        let payload = TestDisk::empty(len).with(0, if word == Word::Data { len } else { 0 }, seed).bytes();
        let digest = wishes.sums.map_or(String::new(), |_| format!(" {}", Digest::of(&payload)));
        let line = match word {
            Word::Data => format!("DATA {len}{digest}\n"),
            Word::Hole => format!("HOLE {len}\n"),
            Word::Keep => format!("KEEP {len}\n"),
            Word::Wait => "WAIT\n".to_owned(),
        };
        bytes.extend(line.bytes());
        match word {
            Word::Data => bytes.extend(payload),
            Word::Wait => continue,
            _ => {}
        }
        lines.update(line.as_bytes());
    }
    let mut end = "END".to_owned();
    if wishes.sums.is_some() {
        let digest = lines.digest();
        for _ in 0..if wishes.twice && kept.is_none() { 2 } else { 1 } {
            write!(end, " {digest}").unwrap();
        }
    }
    bytes.extend(format!("{end}\n").bytes());
    Stream { bytes, old }
}

/// What a receiver makes of it: its exit code, and the file with its holes.
fn made(
    receiver: Receiver,
    stream: &Stream,
    in_place: bool,
    folder: &Path,
) -> (Option<i32>, String, Vec<u8>, Vec<rig::Hole>) {
    let dest = folder.join("out.img");
    let _not_there = fs::remove_file(&dest);
    if let Some(old) = &stream.old {
        old.make(&dest);
    }
    let outcome = run(&mut receiver.command(&tools!(), &dest, in_place, true), &stream.bytes);
    let bytes = fs::read(&dest).unwrap_or_default();
    let found = if dest.exists() { holes(&dest) } else { Vec::new() };
    (outcome.code, outcome.err, bytes, found)
}

fn receivers() -> [Receiver; 3] {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let other = 1 + TURN.fetch_add(1, Ordering::Relaxed) % (SHELLS.len() - 1);
    [Receiver::Binary, Receiver::Script(SHELLS[0]), Receiver::Script(SHELLS[other])]
}

/// Tries each stream on this file system with all three.
fn try_all(kind: Fs, in_place: bool) {
    let fs = Filesystem::new(kind, 1 << 30);
    // Failures are printed, not kept in a file: one worth keeping becomes a vector.
    let config =
        ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    proptest!(config, |(stream in wishes().prop_map(|wishes| stream(&wishes)))| {
        let [one, others @ ..] = receivers();
        let expected = made(one, &stream, in_place, fs.path());
        prop_assert_eq!((expected.0, expected.1.as_str()), (Some(0), ""));
        for other in others {
            let found = made(other, &stream, in_place, fs.path());
            prop_assert_eq!((found.0, found.1.as_str()), (Some(0), ""), "{:?}", other);
            prop_assert!(found.2 == expected.2, "{:?}: other bytes: {} / {}", other, found.2.len(), expected.2.len());
            prop_assert_eq!(&found.3, &expected.3, "{:?}: other holes", other);
        }
    });
}

#[test]
fn new_files_are_equal_in_bytes_and_in_holes() {
    try_all(Fs::Tmpfs, false);
}

#[test]
fn new_files_are_equal_on_xfs_too() {
    try_all(Fs::Xfs, false);
}

#[test]
fn files_that_are_updated_in_place_are_equal_in_bytes_and_in_holes() {
    try_all(Fs::Ext4, true);
}

#[test]
fn what_is_kept_from_an_odd_place_has_the_same_holes_at_all_receivers() {
    let fs = Filesystem::new(Fs::Xfs, 1 << 30);
    // KEEP begins in a hole, inside a block, and goes on over the beginning of data.
    let bytes = b"XFER-HOLE 1 60582\nBASE 60000\nHOLE 27438\nKEEP 3144\nHOLE 7\nKEEP 20001\nHOLE 9992\nEND\n".to_vec();
    let old = (0..6).fold(TestDisk::empty(60_000), |disk, part| disk.with(part * 10_000, 4500, 7));
    let stream = Stream { bytes, old: Some(old) };
    let expected = made(Receiver::Binary, &stream, false, fs.path());
    assert_eq!((expected.0, expected.1.as_str()), (Some(0), ""));
    for shell in SHELLS {
        assert_eq!(made(Receiver::Script(shell), &stream, false, fs.path()), expected, "{shell:?}");
    }
}

#[test]
fn a_stream_with_one_byte_changed_is_taken_by_all_or_by_none_with_the_same_result() {
    let fs = Filesystem::new(Fs::Tmpfs, 1 << 30);
    let config =
        ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    // NULs are what a shell is excused from.
    let changed = (wishes(), any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(wishes, index, byte)| {
        let mut stream = stream(&wishes);
        let lines: Vec<_> = line_bytes(&stream.bytes);
        stream.bytes[lines[index.index(lines.len())]] = byte;
        stream
    });
    proptest!(config, |(stream in changed)| {
        let [one, others @ ..] = receivers();
        let expected = made(one, &stream, false, fs.path());
        for other in others {
            let found = made(other, &stream, false, fs.path());
            prop_assert_eq!(found.0, expected.0, "{:?}: {} / {}", other, found.1, expected.1);
            prop_assert!(found.2 == expected.2 && found.3 == expected.3, "{:?}: another file", other);
        }
    });
}

/// Where the bytes of lines stand, among the payloads.
fn line_bytes(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(len) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        found.extend(at..=at + len);
        let line = String::from_utf8_lossy(&bytes[at..at + len]).into_owned();
        at += len + 1;
        let mut words = line.split(' ');
        if words.next() == Some("DATA") {
            // A length that was changed leads nowhere.
            at = bytes
                .len()
                .min(at.saturating_add(words.next().and_then(|len| len.parse().ok()).unwrap_or(bytes.len())));
        }
    }
    found
}
