//! Property tests: several copying threads write what one thread writes, and what the pieces of the disk give in order.

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

/// What was done with a byte of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Nothing,
    Data(u8),
    Hole,
    Kept,
}

/// Records every byte, and fails if a byte is written twice.
struct Memory {
    fates: Mutex<Vec<Fate>>,
    /// Maximum bytes per call that are taken from a file; 0 to refuse.
    from_file: u64,
    /// Disk offset of a byte that can't be written.
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

/// Writes the pieces in order, as a receiver would.
fn in_order(image: &Mixed, options: ReadOptions) -> Result<Vec<Fate>, String> {
    let (writer, mut at, mut buffer) = (Memory::new(image.size(), 0), 0, Vec::new());
    for piece in Coalescer::new(SerialReader::new(image, options), &options) {
        let piece = piece.map_err(|error| error.to_string())?;
        match &piece {
            xfer_hole_pipeline::Piece::Data(payload, _) => put(image, payload, &writer, at, &mut buffer).unwrap(),
            xfer_hole_pipeline::Piece::Hole(len) => writer.zero_range(at, *len).unwrap(),
            xfer_hole_pipeline::Piece::Keep(_) | xfer_hole_pipeline::Piece::Nothing => {}
        }
        at += piece.record().map_or(0, |record| record.len());
    }
    Ok(writer.fates())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_threads_writes_the_same_bytes(
        wishes in mixed::wishes(),
        chunk in prop_oneof![Just(1), Just(65_536), Just(2_u64 << 20)],
        detect in any::<bool>(),
        from_file in prop_oneof![Just(0), 1000..100_000_u64],
        count in 1..5_usize,
    ) {
        let image = Mixed::make(&wishes, chunk);
        let options = ReadOptions::plain(detect, 1);
        let expected = in_order(&image, options).unwrap();
        let (writer, counters) = (Memory::new(image.size(), from_file), ProgressCounters::default());
        ParallelCopy { image: &image, shape: options, sink: &writer, share: from_file > 0, counters: &counters }.all(count).unwrap();
        let fates = writer.fates();
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
    fn bytes_that_no_layer_has_are_kept(
        wishes in mixed::wishes(),
        from_file in prop_oneof![Just(0), 1000..100_000_u64],
        count in 1..5_usize,
    ) {
        let image = Mixed::make(&wishes, 1);
        let (writer, counters) = (Memory::new(image.size(), from_file), ProgressCounters::default());
        let options = ReadOptions::plain(false, 1);
        ParallelCopy { image: &image, shape: options, sink: &writer, share: from_file > 0, counters: &counters }.over(count).unwrap();
        let (fates, mut at) = (writer.fates(), 0);
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
    fn error_is_the_one_of_a_single_thread(
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
        let options = ReadOptions::plain(true, 1);
        let copy = |count| {
            let (writer, counters) = (Memory::new(image.size(), 0), ProgressCounters::default());
            let copy = ParallelCopy { image: &image, shape: options, sink: &writer, share: false, counters: &counters };
            copy.all(count).map_err(|error| error.to_string())
        };
        prop_assert_eq!(copy(count), copy(1));
        if which == 0 {
            prop_assert_eq!(copy(count), in_order(&image, options).map(drop));
        }
    }
}

#[test]
fn full_writer_ends_the_copy() {
    let wishes: Vec<_> =
        (0..40).map(|_| (mixed::Location::Flat { depth: 0, next: false }, mixed::Content::Data, 1 << 20, 7)).collect();
    let image = Mixed::make(&wishes, 1);
    for count in 1..4 {
        let writer = Memory { full: 20 << 20, ..Memory::new(image.size(), 0) };
        let counters = ProgressCounters::default();
        let copy = ParallelCopy {
            image: &image,
            shape: ReadOptions::plain(true, 1),
            sink: &writer,
            share: false,
            counters: &counters,
        };
        assert_eq!(copy.all(count).unwrap_err().to_string(), "memory: is full");
        assert!(writer.fates().contains(&Fate::Nothing));
    }
}
