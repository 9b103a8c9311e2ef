//! Property tests of [`CoverageChecker`]: it accepts the lists of records that cover a disk exactly once, and no
//! others.

use proptest::prelude::*;
use xfer_hole_proto::{Base, CoverageChecker, Frame, HashParams, LEN_MAX, Record, StreamHeader};

use super::{any_hash_params, cases, good_ending, some_hash_params, stream_inputs};

/// A second implementation of the coverage rules: paints every byte of the disk, then checks the whole.
fn covers_once(size: u64, hash_params: Option<HashParams>, base: Option<u64>, records: &[Record]) -> bool {
    let mut starts = Vec::new();
    let mut total: u128 = 0;
    for record in records {
        starts.push(total);
        total += u128::from(record.len());
    }
    let whole = total == u128::from(size) && records.iter().all(|record| !record.is_empty());
    if !whole {
        return false;
    }
    let mut paint = vec![0_u8; usize::try_from(size).unwrap()];
    for (record, &start) in records.iter().zip(&starts) {
        let start = usize::try_from(start).unwrap();
        paint[start..start + usize::try_from(record.len()).unwrap()].iter_mut().for_each(|byte| *byte += 1);
        if let Record::Keep { len } = record
            && !(start as u64..start as u64 + len).all(|byte| base.is_some_and(|base| byte < base))
        {
            return false;
        }
    }
    let canonical = |params: HashParams| {
        let cuts: Vec<u64> = (0..=size).filter(|at| at % params.interval() == 0).collect();
        let in_form = |(index, record): (usize, &Record)| {
            let start = u64::try_from(starts[index]).unwrap();
            let end = start + record.len();
            let after_same = index > 0 && std::mem::discriminant(&records[index - 1]) == std::mem::discriminant(record);
            let on_grain = (start / params.grain()) * params.grain() == start;
            on_grain
                && match record {
                    Record::Data { .. } => {
                        !cuts.iter().any(|cut| start < *cut && *cut < end) && (!after_same || cuts.contains(&start))
                    }
                    Record::Hole { .. } => !after_same,
                    Record::Keep { .. } => !after_same && cuts.contains(&start) && (end == size || cuts.contains(&end)),
                }
        };
        records.iter().enumerate().all(in_form)
    };
    paint.iter().all(|&times| times == 1) && hash_params.is_none_or(canonical)
}

fn any_records(unit: u64) -> impl Strategy<Value = Vec<Record>> {
    let len = prop_oneof![6 => (1..9_u64).prop_map(move |units| units * unit), 1 => 0..unit + 2, 1 => Just(LEN_MAX)];
    let record = (0..3, len).prop_map(|(kind, len)| match kind {
        0 => Record::Data { len, digest: None },
        1 => Record::Hole { len },
        _ => Record::Keep { len },
    });
    prop::collection::vec(record, 0..6)
}

fn checker_accepts(size: u64, hash_params: Option<HashParams>, base: Option<u64>, records: &[Record]) -> bool {
    let base = base.map(|size| Base { size, digest: None });
    let mut checker = CoverageChecker::new(&StreamHeader { size, sums: hash_params }, base.as_ref());
    records.iter().all(|record| checker.step(record).is_ok()) && checker.finish().is_ok()
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn checker_accepts_exactly_the_complete_coverings(
        records in any_records(3), off in -2..3_i64, base in proptest::option::of(0..40_u64),
    ) {
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.len()));
        let size = total.min(200).saturating_add_signed(off);
        prop_assert_eq!(checker_accepts(size, None, base, &records), covers_once(size, None, base, &records));
    }

    #[test]
    fn checker_requires_canonical_form_with_digests(
        records in any_records(1024), hash_params in some_hash_params(), base in proptest::option::of(0..40_u64), short in 0..3_u64,
    ) {
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.len()));
        let (size, base) = (total.min(64 << 10).saturating_sub(short / 2), base.map(|base| base * 1024));
        prop_assert_eq!(checker_accepts(size, hash_params, base, &records), covers_once(size, hash_params, base, &records));
    }

    #[test]
    fn generated_streams_cover_their_disk(input in stream_inputs(any_hash_params(), good_ending())) {
        let frames = input.frames();
        let records: Vec<Record> = frames.iter().filter_map(|it| if let Frame::Record(it) = it { Some(*it) } else { None }).collect();
        let Frame::Open(open) = frames[0] else { panic!("no open line") };
        let base = if let Frame::Base(base) = frames[1] { Some(base.size) } else { None };
        prop_assert!(covers_once(open.size, open.sums, base, &records));
    }
}
