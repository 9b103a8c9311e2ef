//! Which lists of records cover a disk, each part once.

use proptest::prelude::*;
use xfer_hole_proto::{Base, CoverageChecker, Frame, HashParams, LEN_MAX, Record, StreamHeader};

use super::{any_sums, cases, good_ending, some_sums, wishes};

/// The law, told in another way: paint every byte, then look at the whole.
fn covers_once(size: u64, sums: Option<HashParams>, base: Option<u64>, records: &[Record]) -> bool {
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
    let canonical = |sums: HashParams| {
        let cuts: Vec<u64> = (0..=size).filter(|at| at % sums.interval() == 0).collect();
        let in_form = |(index, record): (usize, &Record)| {
            let start = u64::try_from(starts[index]).unwrap();
            let end = start + record.len();
            let after_same = index > 0 && std::mem::discriminant(&records[index - 1]) == std::mem::discriminant(record);
            let on_grain = (start / sums.grain()) * sums.grain() == start;
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
    paint.iter().all(|&times| times == 1) && sums.is_none_or(canonical)
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

fn cursor_accepts(size: u64, sums: Option<HashParams>, base: Option<u64>, records: &[Record]) -> bool {
    let base = base.map(|size| Base { size, digest: None });
    let mut cursor = CoverageChecker::new(&StreamHeader { size, sums }, base.as_ref());
    records.iter().all(|record| cursor.step(record).is_ok()) && cursor.finish().is_ok()
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn the_cursor_accepts_a_list_if_and_only_if_it_covers_the_disk_once(
        records in any_records(3), off in -2..3_i64, base in proptest::option::of(0..40_u64),
    ) {
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.len()));
        let size = total.min(200).saturating_add_signed(off);
        prop_assert_eq!(cursor_accepts(size, None, base, &records), covers_once(size, None, base, &records));
    }

    #[test]
    fn with_digests_it_must_be_in_canonical_form_too(
        records in any_records(1024), sums in some_sums(), base in proptest::option::of(0..40_u64), short in 0..3_u64,
    ) {
        let total = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.len()));
        let (size, base) = (total.min(64 << 10).saturating_sub(short / 2), base.map(|base| base * 1024));
        prop_assert_eq!(cursor_accepts(size, sums, base, &records), covers_once(size, sums, base, &records));
    }

    #[test]
    fn generated_streams_cover_their_disk(wishes in wishes(any_sums(), good_ending())) {
        let items = wishes.items();
        let records: Vec<Record> = items.iter().filter_map(|it| if let Frame::Record(it) = it { Some(*it) } else { None }).collect();
        let Frame::Open(open) = items[0] else { panic!("no open line") };
        let base = if let Frame::Base(base) = items[1] { Some(base.size) } else { None };
        prop_assert!(covers_once(open.size, open.sums, base, &records));
    }
}
