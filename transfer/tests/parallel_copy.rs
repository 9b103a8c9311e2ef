//! What many pour into a sink is what one does, and what the blocks of the disk are, one after the other.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

#[path = "../../pipeline/tests/mixed/mod.rs"]
mod mixed;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use mixed::Mixed;
use proptest::prelude::*;
use xfer_hole_image::{BlockStatus, Disk};
use xfer_hole_os::sys::Spliced;
use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_pipeline::{Coalescer, ProgressCounters, ReadOptions, SerialReader};
use xfer_hole_proto::LEN_MAX;
use xfer_hole_target::DiskWriter;
use xfer_hole_transfer::{ParallelCopy, put};

/// What became of an byte of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Nothing,
    Data(u8),
    Hole,
    Kept,
}

/// Remembers every byte, and bears none twice.
struct Memory {
    fates: Mutex<Vec<Fate>>,
    /// Most bytes that are taken from a file at once; 0: none at all.
    from_file: u64,
    /// Writing this byte fails.
    full: u64,
}

impl Memory {
    fn new(size: u64, from_file: u64) -> Self {
        let fates = vec![Fate::Nothing; usize::try_from(size).unwrap()];
        Self { fates: Mutex::new(fates), from_file, full: LEN_MAX }
    }

    fn fates(self) -> Vec<Fate> {
        self.fates.into_inner().unwrap()
    }

    fn put(&self, at: u64, fates: impl Iterator<Item = Fate>) -> Result<()> {
        let mut all = self.fates.lock().unwrap();
        for (at, fate) in (at..).zip(fates) {
            if at == self.full {
                return Err(DiskError::new(DiskErrorKind::Io, "memory", "is full"));
            }
            let before = std::mem::replace(&mut all[usize::try_from(at).unwrap()], fate);
            assert_eq!(before, Fate::Nothing, "byte {at} came twice");
        }
        Ok(())
    }
}

impl DiskWriter for Memory {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        assert!(!bytes.is_empty());
        self.put(at, bytes.iter().map(|&byte| Fate::Data(byte)))
    }

    fn data_from_file(&self, at: u64, file: &File, from: u64, len: u64) -> Result<Spliced> {
        if self.from_file == 0 {
            return Ok(Spliced::Refused);
        }
        let mut bytes = vec![0; usize::try_from(len.min(self.from_file)).unwrap()];
        let read = file.read_at(&mut bytes, from).unwrap();
        self.write_at(at, &bytes[..read])?;
        Ok(Spliced::Moved(read as u64))
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        assert!(len > 0);
        self.put(at, (0..len).map(|_| Fate::Hole))
    }

    fn keep_existing(&self, at: u64, len: u64) -> Result<()> {
        assert!(len > 0);
        self.put(at, (0..len).map(|_| Fate::Kept))
    }

    fn leftover_message(&self) -> String {
        String::new()
    }

    fn commit(self: Box<Self>, _size: u64) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// One after the other, as a stream would bring it.
fn in_order(image: &Mixed, shape: ReadOptions) -> Result<Vec<Fate>, String> {
    let (sink, mut at, mut buffer) = (Memory::new(image.size(), 0), 0, Vec::new());
    for piece in Coalescer::new(SerialReader::new(image, shape), &shape) {
        let piece = piece.map_err(|error| error.to_string())?;
        match &piece {
            xfer_hole_pipeline::Piece::Data(payload, _) => put(image, payload, &sink, at, &mut buffer).unwrap(),
            xfer_hole_pipeline::Piece::Hole(len) => sink.zero_range(at, *len).unwrap(),
            xfer_hole_pipeline::Piece::Keep(_) | xfer_hole_pipeline::Piece::Nothing => {}
        }
        at += piece.record().map_or(0, |record| record.len());
    }
    Ok(sink.fates())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_number_who_pour_give_the_disk_that_its_pieces_give_in_order(
        wishes in mixed::wishes(),
        chunk in prop_oneof![Just(1), Just(65_536), Just(2_u64 << 20)],
        detect in any::<bool>(),
        from_file in prop_oneof![Just(0), 1000..100_000_u64],
        count in 1..5_usize,
    ) {
        let image = Mixed::make(&wishes, chunk);
        let shape = ReadOptions::plain(detect, 1);
        let expected = in_order(&image, shape).unwrap();
        let (sink, counters) = (Memory::new(image.size(), from_file), ProgressCounters::default());
        ParallelCopy { image: &image, shape, sink: &sink, share: from_file > 0, counters: &counters }.all(count).unwrap();
        let fates = sink.fates();
        prop_assert!(fates == expected);
        let right = |(fate, &byte): (&Fate, &u8)| match fate {
            Fate::Data(found) => *found == byte,
            Fate::Hole => byte == 0,
            Fate::Nothing | Fate::Kept => false,
        };
        prop_assert!(fates.iter().zip(&image.bytes).all(right));
        let data = fates.iter().filter(|fate| matches!(fate, Fate::Data(_))).count();
        prop_assert_eq!((counters.disk(), counters.data()), (image.size(), data as u64));
    }

    #[test]
    fn what_no_layer_has_is_kept_and_all_else_comes_over_it(
        wishes in mixed::wishes(),
        from_file in prop_oneof![Just(0), 1000..100_000_u64],
        count in 1..5_usize,
    ) {
        let image = Mixed::make(&wishes, 1);
        let (sink, counters) = (Memory::new(image.size(), from_file), ProgressCounters::default());
        let shape = ReadOptions::plain(false, 1);
        ParallelCopy { image: &image, shape, sink: &sink, share: from_file > 0, counters: &counters }.over(count).unwrap();
        let (fates, mut at) = (sink.fates(), 0);
        while at < image.size() {
            let extent = image.extent(at, image.size() - at).unwrap();
            let right = |(fate, &byte): (&Fate, &u8)| match (extent.status, extent.present) {
                (BlockStatus::Data, _) => *fate == Fate::Data(byte),
                (_, true) => *fate == Fate::Hole,
                (_, false) => *fate == Fate::Kept,
            };
            let there = usize::try_from(at).unwrap()..usize::try_from(extent.end()).unwrap();
            prop_assert!(fates[there.clone()].iter().zip(&image.bytes[there]).all(right), "{:?}", extent);
            at = extent.end();
        }
        prop_assert_eq!(counters.disk(), image.size());
    }

    #[test]
    fn what_fails_is_told_as_one_alone_would_tell_it(
        wishes in mixed::wishes(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 2),
        which in 0..3_u8,
        count in 1..5_usize,
    ) {
        let mut image = Mixed::make(&wishes, 1);
        prop_assume!(image.size() > 0);
        let size = usize::try_from(image.size()).unwrap();
        let place = |index: usize| places[index].index(size) as u64;
        image.broken = (which != 1).then(|| place(0));
        image.lost = (which != 0).then(|| place(1));
        let shape = ReadOptions::plain(true, 1);
        let pour = |count| {
            let (sink, counters) = (Memory::new(image.size(), 0), ProgressCounters::default());
            let pour = ParallelCopy { image: &image, shape, sink: &sink, share: false, counters: &counters };
            pour.all(count).map_err(|error| error.to_string())
        };
        prop_assert_eq!(pour(count), pour(1));
        if which == 0 {
            prop_assert_eq!(pour(count), in_order(&image, shape).map(drop));
        }
    }
}

#[test]
fn a_sink_that_is_full_ends_it() {
    let wishes: Vec<_> =
        (0..40).map(|_| (mixed::Lies::Flat { depth: 0, next: false }, mixed::Stuff::Data, 1 << 20, 7)).collect();
    let image = Mixed::make(&wishes, 1);
    for count in 1..4 {
        let sink = Memory { full: 20 << 20, ..Memory::new(image.size(), 0) };
        let counters = ProgressCounters::default();
        let pour = ParallelCopy {
            image: &image,
            shape: ReadOptions::plain(true, 1),
            sink: &sink,
            share: false,
            counters: &counters,
        };
        assert_eq!(pour.all(count).unwrap_err().to_string(), "memory: is full");
        assert!(sink.fates().contains(&Fate::Nothing));
    }
}
