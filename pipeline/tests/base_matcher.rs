//! Property tests: a disk is compared with the records of a copy. Exactly the equal intervals are kept, wherever the
//! bytes lie, and long holes are compared by length.

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

fn params(interval: u64, grain: u64) -> HashParams {
    HashParams::new(interval, grain).unwrap()
}

/// Records in canonical form, made from the specification.
fn canonical(bytes: &[u8], params: HashParams) -> Vec<Record> {
    let record = |(len, digest): (u64, Option<Digest>)| match digest {
        Some(_) => Record::Data { len, digest },
        None => Record::Hole { len },
    };
    canonical::form(bytes, params).into_iter().map(record).collect()
}

/// Returns the records of a list one by one.
fn given<'a>(records: &'a [Record]) -> impl FnMut() -> Result<Option<Record>> + 'a {
    let mut left = records.iter().copied();
    move || Ok(left.next())
}

/// Returns the ranges that a matcher found: start, end, and whether the range is kept. Adjacent ranges of a kind are
/// joined.
fn ranges(batches: impl Iterator<Item = Result<SegmentBatch>>) -> Vec<(u64, u64, bool)> {
    let (mut at, mut found) = (0, Vec::<(u64, u64, bool)>::new());
    for segment in batches.flat_map(|batch| batch.unwrap().runs) {
        let kept = matches!(segment, Segment::Keep(_));
        match found.last_mut() {
            Some((_, end, before)) if *before == kept => *end += segment.len(),
            _ => found.push((at, at + segment.len(), kept)),
        }
        at += segment.len();
    }
    found
}

/// Changes bytes of a disk and its size.
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
    fn exactly_the_equal_intervals_are_kept(
        wishes in mixed::wishes(), chunk in 0..2_u32,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..9000_usize, prop_oneof![Just(0), Just(7_u8)]), 0..12),
        grow in prop_oneof![6 => Just(0), 1 => -200_000..200_000_i64, 1 => Just(4096), 1 => Just(-512)],
        cut in (0..5_u32, 0..6_u32), part in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let params = params(4096 << cut.0, 512 << cut.1.min(cut.0 + 3));
        let image = Mixed::make(&wishes, 1 << (16 * chunk));
        let other = changed(&image.bytes, &changes, grow);
        // A part of a disk consists of whole intervals.
        let offered = part.map_or(other.len(), |index| {
            let interval = usize::try_from(params.interval()).unwrap();
            index.index(other.len() / interval + 1) * interval
        });
        let records = canonical(&other[..offered], params);
        let options = ReadOptions::canonical(params);
        let own = SerialReader::new(&image, options).map(Result::unwrap).collect::<Vec<_>>();
        let matcher = || BaseMatcher::new(own.iter().cloned().map(Ok), given(&records), image.size(), params);
        let found = ranges(matcher());
        prop_assert_eq!(found.last().map_or(0, |last| last.1), image.size(), "all of it, once");
        let interval = usize::try_from(params.interval()).unwrap();
        for start in (0..image.bytes.len()).step_by(interval) {
            let end = (start + interval).min(image.bytes.len());
            let (&(_, to, kept), whole) = (
                found.iter().find(|(_, to, _)| *to > start as u64).unwrap(),
                end <= offered && (end - start == interval || other.len() == image.bytes.len()),
            );
            prop_assert!(to >= end as u64, "an interval is compared as a whole");
            let same = end <= offered && image.bytes[start..end] == other[start..end];
            prop_assert!(!kept || same, "kept what differs, at {}", start);
            prop_assert!(kept || !whole || !same, "did not keep what is equal, at {}", start);
        }
        // What isn't kept has the same segments as the disk.
        let pieces = |batches: &mut dyn Iterator<Item = Result<SegmentBatch>>| {
            Coalescer::new(batches, &options).map(Result::unwrap).filter(|piece| *piece != Piece::Nothing).collect::<Vec<_>>()
        };
        let (mut at, mut left) = (0, pieces(&mut own.iter().cloned().map(Ok)).into_iter().peekable());
        let mut place = 0;
        for piece in pieces(&mut matcher()) {
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
        // Batches of a parallel reader without bytes give the same result.
        let bare = hash_disk(&image, params, |batches| ranges(BaseMatcher::new(batches, given(&records), image.size(), params)));
        prop_assert_eq!(bare, found);
    }

    #[test]
    fn record_lines_are_canonical_and_match_the_fingerprint(
        wishes in mixed::wishes(), chunk in 0..2_u32, cut in (0..12_u32, 0..6_u32),
    ) {
        let params = params(4096 << cut.0, 512 << cut.1.min(cut.0 + 3));
        let image = Mixed::make(&wishes, 1 << (16 * chunk));
        let (mut text, counters) = (String::new(), ProgressCounters::default());
        let returned = record_lines(&image, params, false, &counters, |lines| {
            text += lines;
            Ok::<(), DiskError>(())
        }).unwrap();
        let mut reader = ManifestReader::new(ManifestHeader::whole(image.size(), params));
        let entries = text.lines().map(|line| reader.line(line.as_bytes()).unwrap()).collect::<Vec<_>>();
        let expected = canonical(&image.bytes, params).into_iter().map(ManifestEntry::Record);
        prop_assert_eq!(entries, expected.chain([ManifestEntry::End(returned.digest)]).collect::<Vec<_>>());
        prop_assert_eq!(reader.fingerprint(), Some(returned));
        prop_assert_eq!(fingerprint(&image, params, &ProgressCounters::default()).unwrap(), returned);
        prop_assert_eq!(counters.disk(), image.size());
    }
}

/// Batches with these segments.
fn batches(batches: Vec<Vec<Segment>>) -> impl Iterator<Item = Result<SegmentBatch>> {
    batches.into_iter().map(|segments| Ok(SegmentBatch { runs: segments }))
}

#[test]
fn holes_of_exbibytes_are_compared_by_their_lengths() {
    let (params, size) = (params(4096, 512), (1 << 62) + 5);
    let hole = |len| Record::Hole { len };
    let data = |len| Record::Data { len, digest: Some(Digest::of(b"x")) };
    for (theirs, expected) in [
        (vec![hole(size)], vec![(0, size, true)]),
        (vec![hole(1 << 61), hole(1 << 61), hole(5)], vec![(0, size, true)]),
        (vec![hole(1 << 62)], vec![(0, 1 << 62, true), (1 << 62, size, false)]),
        (vec![hole(1 << 40)], vec![(0, 1 << 40, true), (1 << 40, size, false)]),
        (vec![], vec![(0, size, false)]),
        // The copy is larger than the disk.
        (vec![hole(1 << 63)], vec![(0, size, true)]),
        (vec![data(512), hole(size - 512)], vec![(0, 4096, false), (4096, size, true)]),
        (
            vec![hole(1 << 40), data(512), hole(size - (1 << 40) - 512)],
            vec![(0, 1 << 40, true), (1 << 40, (1 << 40) + 4096, false), ((1 << 40) + 4096, size, true)],
        ),
    ] {
        let own = batches(vec![vec![Segment::Zero(size)]]);
        assert_eq!(ranges(BaseMatcher::new(own, given(&theirs), size, params)), expected, "{theirs:?}");
        // The same disk in two batches gives the same result.
        let own = batches(vec![vec![Segment::Zero(1 << 50)], vec![], vec![Segment::Zero(size - (1 << 50))]]);
        assert_eq!(ranges(BaseMatcher::new(own, given(&theirs), size, params)), expected, "{theirs:?}");
    }
}

#[test]
fn hole_against_a_million_records_gives_short_batches() {
    const RECORDS: u64 = 1_000_000;
    let (params, size, returned) = (params(4096, 4096), RECORDS * 8192, Cell::new(0));
    let entries = || {
        let number = returned.replace(returned.get() + 1);
        let data = Record::Data { len: 4096, digest: Some(Digest::of(b"x")) };
        Ok::<_, DiskError>((number < 2 * RECORDS).then_some(if number % 2 == 0 {
            data
        } else {
            Record::Hole { len: 4096 }
        }))
    };
    let (mut kept, mut other, mut longest) = (0, 0, 0);
    for batch in BaseMatcher::new(batches(vec![vec![Segment::Zero(size)]]), entries, size, params) {
        let batch = batch.unwrap();
        longest = longest.max(batch.runs.len());
        for segment in batch.runs {
            *(if matches!(segment, Segment::Keep(_)) { &mut kept } else { &mut other }) += segment.len();
        }
    }
    assert_eq!((kept, other), (RECORDS * 4096, RECORDS * 4096));
    assert!(longest < 10_000, "{longest}");
}

#[test]
fn records_are_requested_lazily_and_batches_not_held_back() {
    let (params, asked) = (params(4096, 4096), Cell::new(0));
    let entries = || {
        asked.set(asked.get() + 1);
        Ok::<_, DiskError>(Some(Record::Data { len: 4096, digest: Some(Digest::of(b"x")) }))
    };
    let own = batches(vec![vec![], vec![Segment::Zero(4096)], vec![], vec![Segment::Zero(8192)]]);
    let mut matcher = BaseMatcher::new(own, entries, 3 * 4096, params);
    for (segments, so_far) in [(0, 0), (1, 1), (0, 1), (2, 3)] {
        let batch = matcher.next().unwrap().unwrap();
        assert_eq!((batch.runs.len(), asked.get()), (segments, so_far));
    }
    assert!(matcher.next().is_none());
}

#[test]
fn errors_of_disk_and_records_are_returned() {
    let params = params(4096, 4096);
    let broken = || DiskError::new(DiskErrorKind::Io, "disk", "cannot be read");
    let own = [Err(broken())].into_iter();
    let mut matcher = BaseMatcher::new(own, || Ok::<_, DiskError>(None), 4096, params);
    assert!(matcher.next().unwrap().is_err());
    let mut matcher = BaseMatcher::new(batches(vec![vec![Segment::Zero(4096)]]), || Err(broken()), 4096, params);
    assert!(matcher.next().unwrap().is_err());
}

#[test]
fn bare_batches_hold_no_bytes() {
    let wishes = [
        (mixed::Location::Compressed, mixed::Content::Data, 9 << 20, 1),
        (mixed::Location::Zero, mixed::Content::Data, 4096, 1),
    ];
    let image = Mixed::make(&wishes, 1);
    let options = ReadOptions::canonical(HashParams::default()).bare();
    let alone = SerialReader::new(&image, options).map(Result::unwrap).collect::<Vec<_>>();
    let segments = || alone.iter().flat_map(|batch| &batch.runs);
    assert_eq!(segments().map(Segment::len).sum::<u64>(), (9 << 20) + 4096);
    for segment in segments() {
        if let Segment::Data(payload, digest) = segment {
            assert!(payload.parts().is_empty() && !payload.is_empty() && digest.is_some());
        }
    }
    let many = thread::scope(|scope| {
        ParallelReader::start(scope, &image, options, 4).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(many, alone);
    // No more memory was used than the threads need.
    let memory_ranges = image.memory_ranges.lock().unwrap();
    let memory: usize = memory_ranges.iter().map(|(from, to)| to - from).sum();
    assert!(memory <= 5 * (2 << 20), "{memory}");
}

#[test]
fn error_of_tell_ends_record_lines() {
    let image = Mixed::make(&[(mixed::Location::Zero, mixed::Content::Data, 4096, 1)], 1);
    let returned = record_lines(&image, HashParams::default(), false, &ProgressCounters::default(), |_| {
        Err(DiskError::new(DiskErrorKind::Io, "out", "is full"))
    });
    assert!(returned.is_err());
}
