//! A disk held against another's records: equal is what is equal, byte for byte, whatever the two lie in, and long holes cost nothing.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod canonical;
mod mixed;

use std::cell::Cell;
use std::thread;

use mixed::Mixed;
use proptest::prelude::*;
use xfer_hole_image::Disk;
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_pipeline::{
    BaseMatcher, Coalescer, ParallelReader, Piece, ProgressCounters, ReadOptions, Segment, SegmentBatch, SerialReader,
    fingerprint, hash_disk, record_lines,
};
use xfer_hole_proto::{Digest, HashParams, ManifestEntry, ManifestHeader, ManifestReader, Record};

fn sums(interval: u64, grain: u64) -> HashParams {
    HashParams::new(interval, grain).unwrap()
}

/// Records in canonical form, by its letter.
fn canonical(bytes: &[u8], sums: HashParams) -> Vec<Record> {
    let record = |(len, digest): (u64, Option<Digest>)| match digest {
        Some(_) => Record::Data { len, digest },
        None => Record::Hole { len },
    };
    canonical::form(bytes, sums).into_iter().map(record).collect()
}

/// Entries from a list.
fn given<'a>(records: &'a [Record]) -> impl FnMut() -> Result<Option<Record>> + 'a {
    let mut left = records.iter().copied();
    move || Ok(left.next())
}

/// What was offered: each byte's place in a list of runs, joined: start, end, and whether it is kept.
fn judged(blocks: impl Iterator<Item = Result<SegmentBatch>>) -> Vec<(u64, u64, bool)> {
    let (mut at, mut found) = (0, Vec::<(u64, u64, bool)>::new());
    for run in blocks.flat_map(|block| block.unwrap().runs) {
        let kept = matches!(run, Segment::Keep(_));
        match found.last_mut() {
            Some((_, end, before)) if *before == kept => *end += run.len(),
            _ => found.push((at, at + run.len(), kept)),
        }
        at += run.len();
    }
    found
}

/// Changes to a disk: bytes, and its end.
fn changed(bytes: &[u8], changes: &[(prop::sample::Index, usize, u8)], grow: i64) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let size = usize::try_from(i64::try_from(bytes.len()).unwrap().saturating_add(grow).max(0)).unwrap();
    changed.resize(size, u8::from(grow % 2 == 0));
    for (index, len, value) in changes {
        if !changed.is_empty() {
            let at = index.index(changed.len());
            let end = (at + len).min(changed.len());
            changed[at..end].fill(*value);
        }
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_the_other_has_and_the_rest_is_ours(
        wishes in mixed::wishes(), chunk in 0..2_u32,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..9000_usize, prop_oneof![Just(0), Just(7_u8)]), 0..12),
        grow in prop_oneof![6 => Just(0), 1 => -200_000..200_000_i64, 1 => Just(4096), 1 => Just(-512)],
        cut in (0..5_u32, 0..6_u32), part in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let sums = sums(4096 << cut.0, 512 << cut.1.min(cut.0 + 3));
        let image = Mixed::make(&wishes, 1 << (16 * chunk));
        let other = changed(&image.bytes, &changes, grow);
        // A part is whole intervals.
        let offered = part.map_or(other.len(), |index| {
            let interval = usize::try_from(sums.interval()).unwrap();
            index.index(other.len() / interval + 1) * interval
        });
        let records = canonical(&other[..offered], sums);
        let shape = ReadOptions::canonical(sums);
        let own = SerialReader::new(&image, shape).map(Result::unwrap).collect::<Vec<_>>();
        let offer = || BaseMatcher::new(own.iter().cloned().map(Ok), given(&records), image.size(), sums);
        let found = judged(offer());
        prop_assert_eq!(found.last().map_or(0, |last| last.1), image.size(), "all of it, once");
        let interval = usize::try_from(sums.interval()).unwrap();
        for start in (0..image.bytes.len()).step_by(interval) {
            let end = (start + interval).min(image.bytes.len());
            let (&(_, to, kept), whole) = (
                found.iter().find(|(_, to, _)| *to > start as u64).unwrap(),
                end <= offered && (end - start == interval || other.len() == image.bytes.len()),
            );
            prop_assert!(to >= end as u64, "an interval is judged as a whole");
            let same = end <= offered && image.bytes[start..end] == other[start..end];
            prop_assert!(!kept || same, "kept what differs, at {}", start);
            prop_assert!(kept || !whole || !same, "did not keep what is equal, at {}", start);
        }
        // What isn't kept is ours, in the same runs.
        let pieces = |blocks: &mut dyn Iterator<Item = Result<SegmentBatch>>| {
            Coalescer::new(blocks, &shape).map(Result::unwrap).filter(|piece| *piece != Piece::Nothing).collect::<Vec<_>>()
        };
        let (mut at, mut left) = (0, pieces(&mut own.iter().cloned().map(Ok)).into_iter().peekable());
        let mut place = 0;
        for piece in pieces(&mut offer()) {
            let record = piece.record().unwrap();
            if let Piece::Data(..) = piece {
                while let Some(own) = left.next_if(|own| place + own.record().unwrap().len() <= at) {
                    place += own.record().unwrap().len();
                }
                prop_assert_eq!(place, at);
                prop_assert_eq!(left.peek(), Some(&piece));
            }
            at += record.len();
        }
        // The parallel, bare one judges the same.
        let bare = hash_disk(&image, sums, |blocks| judged(BaseMatcher::new(blocks, given(&records), image.size(), sums)));
        prop_assert_eq!(bare, found);
    }

    #[test]
    fn record_lines_are_the_canonical_form_and_the_fingerprint_is_theirs(
        wishes in mixed::wishes(), chunk in 0..2_u32, cut in (0..12_u32, 0..6_u32),
    ) {
        let sums = sums(4096 << cut.0, 512 << cut.1.min(cut.0 + 3));
        let image = Mixed::make(&wishes, 1 << (16 * chunk));
        let (mut text, counters) = (String::new(), ProgressCounters::default());
        let told = record_lines(&image, sums, false, &counters, |lines| {
            text += lines;
            Ok::<(), DiskError>(())
        }).unwrap();
        let mut reader = ManifestReader::new(ManifestHeader::whole(image.size(), sums));
        let entries = text.lines().map(|line| reader.line(line.as_bytes()).unwrap()).collect::<Vec<_>>();
        let expected = canonical(&image.bytes, sums).into_iter().map(ManifestEntry::Record);
        prop_assert_eq!(entries, expected.chain([ManifestEntry::End(told.digest)]).collect::<Vec<_>>());
        prop_assert_eq!(reader.fingerprint(), Some(told));
        prop_assert_eq!(fingerprint(&image, sums, &ProgressCounters::default()).unwrap(), told);
        prop_assert_eq!(counters.disk(), image.size());
    }
}

/// Blocks from lists of runs.
fn blocks(blocks: Vec<Vec<Segment>>) -> impl Iterator<Item = Result<SegmentBatch>> {
    blocks.into_iter().map(|runs| Ok(SegmentBatch { runs }))
}

#[test]
fn holes_of_exbibytes_are_compared_by_their_lengths() {
    let (sums, size) = (sums(4096, 512), (1 << 62) + 5);
    let hole = |len| Record::Hole { len };
    let data = |len| Record::Data { len, digest: Some(Digest::of(b"x")) };
    for (theirs, expected) in [
        (vec![hole(size)], vec![(0, size, true)]),
        (vec![hole(1 << 61), hole(1 << 61), hole(5)], vec![(0, size, true)]),
        (vec![hole(1 << 62)], vec![(0, 1 << 62, true), (1 << 62, size, false)]),
        (vec![hole(1 << 40)], vec![(0, 1 << 40, true), (1 << 40, size, false)]),
        (vec![], vec![(0, size, false)]),
        // Larger than ours.
        (vec![hole(1 << 63)], vec![(0, size, true)]),
        (vec![data(512), hole(size - 512)], vec![(0, 4096, false), (4096, size, true)]),
        (
            vec![hole(1 << 40), data(512), hole(size - (1 << 40) - 512)],
            vec![(0, 1 << 40, true), (1 << 40, (1 << 40) + 4096, false), ((1 << 40) + 4096, size, true)],
        ),
    ] {
        let own = blocks(vec![vec![Segment::Zero(size)]]);
        assert_eq!(judged(BaseMatcher::new(own, given(&theirs), size, sums)), expected, "{theirs:?}");
        // The same in two blocks.
        let own = blocks(vec![vec![Segment::Zero(1 << 50)], vec![], vec![Segment::Zero(size - (1 << 50))]]);
        assert_eq!(judged(BaseMatcher::new(own, given(&theirs), size, sums)), expected, "{theirs:?}");
    }
}

#[test]
fn a_hole_against_a_million_records_is_handed_on_in_pieces() {
    const RECORDS: u64 = 1_000_000;
    let (sums, size, told) = (sums(4096, 4096), RECORDS * 8192, Cell::new(0));
    let entries = || {
        let number = told.replace(told.get() + 1);
        let data = Record::Data { len: 4096, digest: Some(Digest::of(b"x")) };
        Ok::<_, DiskError>((number < 2 * RECORDS).then_some(if number % 2 == 0 {
            data
        } else {
            Record::Hole { len: 4096 }
        }))
    };
    let (mut kept, mut other, mut longest) = (0, 0, 0);
    for block in BaseMatcher::new(blocks(vec![vec![Segment::Zero(size)]]), entries, size, sums) {
        let block = block.unwrap();
        longest = longest.max(block.runs.len());
        for run in block.runs {
            *(if matches!(run, Segment::Keep(_)) { &mut kept } else { &mut other }) += run.len();
        }
    }
    assert_eq!((kept, other), (RECORDS * 4096, RECORDS * 4096));
    assert!(longest < 10_000, "{longest}");
}

#[test]
fn no_entry_is_asked_for_before_its_place_is_reached_and_each_block_goes_on_at_once() {
    let (sums, asked) = (sums(4096, 4096), Cell::new(0));
    let entries = || {
        asked.set(asked.get() + 1);
        Ok::<_, DiskError>(Some(Record::Data { len: 4096, digest: Some(Digest::of(b"x")) }))
    };
    let own = blocks(vec![vec![], vec![Segment::Zero(4096)], vec![], vec![Segment::Zero(8192)]]);
    let mut offer = BaseMatcher::new(own, entries, 3 * 4096, sums);
    for (runs, so_far) in [(0, 0), (1, 1), (0, 1), (2, 3)] {
        let block = offer.next().unwrap().unwrap();
        assert_eq!((block.runs.len(), asked.get()), (runs, so_far));
    }
    assert!(offer.next().is_none());
}

#[test]
fn errors_of_either_side_come_out() {
    let sums = sums(4096, 4096);
    let broken = || DiskError::new(DiskErrorKind::Io, "disk", "cannot be read");
    let own = [Err(broken())].into_iter();
    let mut offer = BaseMatcher::new(own, || Ok::<_, DiskError>(None), 4096, sums);
    assert!(offer.next().unwrap().is_err());
    let mut offer = BaseMatcher::new(blocks(vec![vec![Segment::Zero(4096)]]), || Err(broken()), 4096, sums);
    assert!(offer.next().unwrap().is_err());
}

#[test]
fn bare_blocks_hold_no_bytes() {
    let wishes =
        [(mixed::Lies::Compressed, mixed::Stuff::Data, 9 << 20, 1), (mixed::Lies::Zero, mixed::Stuff::Data, 4096, 1)];
    let image = Mixed::make(&wishes, 1);
    let shape = ReadOptions::canonical(HashParams::default()).bare();
    let alone = SerialReader::new(&image, shape).map(Result::unwrap).collect::<Vec<_>>();
    let runs = || alone.iter().flat_map(|block| &block.runs);
    assert_eq!(runs().map(Segment::len).sum::<u64>(), (9 << 20) + 4096);
    for run in runs() {
        if let Segment::Data(payload, digest) = run {
            assert!(payload.parts().is_empty() && !payload.is_empty() && digest.is_some());
        }
    }
    let many = thread::scope(|scope| {
        ParallelReader::start(scope, &image, shape, 4).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(many, alone);
    // They were read into no more memory than the threads need.
    let places = image.places.lock().unwrap();
    let memory: usize = places.iter().map(|(from, to)| to - from).sum();
    assert!(memory <= 5 * (2 << 20), "{memory}");
}

#[test]
fn what_tell_refuses_ends_it() {
    let image = Mixed::make(&[(mixed::Lies::Zero, mixed::Stuff::Data, 4096, 1)], 1);
    let told = record_lines(&image, HashParams::default(), false, &ProgressCounters::default(), |_| {
        Err(DiskError::new(DiskErrorKind::Io, "out", "is full"))
    });
    assert!(told.is_err());
}
