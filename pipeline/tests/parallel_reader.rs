//! Tests that a parallel reader yields the batches of a serial one, in order and within its memory limit, and that it
//! stops when it is dropped.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod mixed;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mixed::{Content, Location, Mixed};
use proptest::prelude::*;
use xfer_hole_image::{BlockStatus, Disk, Extent, ImageFile};
use xfer_hole_os::Result;
use xfer_hole_pipeline::{ParallelReader, ReadOptions, Segment, SegmentBatch, SerialReader};
use xfer_hole_proto::HashParams;

const MIB: u64 = 1 << 20;

/// Returns all batches of `count` threads, except empty ones.
fn parallel(image: &dyn Disk, options: ReadOptions, count: usize) -> Vec<std::result::Result<SegmentBatch, String>> {
    thread::scope(|scope| {
        let reader = ParallelReader::start(scope, image, options, count).unwrap();
        let batches = reader.filter(|batch| batch.as_ref().map_or(true, |batch| !batch.runs.is_empty()));
        batches.map(|batch| batch.map_err(|error| error.to_string())).collect()
    })
}

/// Returns all batches of a serial reader.
fn serial(image: &dyn Disk, options: ReadOptions) -> Vec<std::result::Result<SegmentBatch, String>> {
    SerialReader::new(image, options).map(|batch| batch.map_err(|error| error.to_string())).collect()
}

fn read_options() -> impl Strategy<Value = ReadOptions> {
    let min_hole = prop_oneof![Just(1), 2..70_000_u64, Just(16 * MIB)];
    prop_oneof![
        (any::<bool>(), min_hole).prop_map(|(detect, min_hole)| ReadOptions::plain(detect, min_hole)),
        (12..25_u32, 9..15_u32, any::<bool>()).prop_map(|(interval, grain, held)| ReadOptions::canonical(
            HashParams::new(1 << interval, 1 << grain.min(interval)).unwrap()
        )
        .held(held)),
    ]
}

fn chunks() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(512), Just(65_536), Just(2 * MIB)]
}

/// A disk of adjacent compressed clusters with a pattern that is cheap to compute.
struct Compressed {
    size: u64,
    cluster: u64,
    /// Duration of a read.
    pause: Duration,
    /// Number of clusters that were decompressed.
    inflated: AtomicU64,
    /// The memory that they were decompressed into: address to end.
    memory_ranges: Mixed,
}

impl Compressed {
    fn new(size: u64, cluster: u64) -> Self {
        let memory_ranges = Mixed::make(&[], 1);
        Self { size, cluster, pause: Duration::ZERO, inflated: AtomicU64::new(0), memory_ranges }
    }

    /// Returns the bytes of all memory that was ever read into.
    fn memory(&self) -> usize {
        let (mut reached, mut bytes) = (0, 0);
        for (&from, &to) in self.memory_ranges.memory_ranges.lock().unwrap().iter() {
            bytes += to.saturating_sub(from.max(reached));
            reached = reached.max(to);
        }
        bytes
    }
}

impl Disk for Compressed {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent(&self, at: u64, max: u64) -> Result<Extent> {
        let len = (self.cluster - at % self.cluster).min(max);
        Ok(Extent { start: at, len, status: BlockStatus::Data, depth: 0, present: true, compressed: true, host: None })
    }

    fn read(&self, extent: &Extent, at: u64, buf: &mut [u8]) -> Result<()> {
        assert!(at >= extent.start && at + buf.len() as u64 <= extent.end());
        self.inflated.fetch_add(1, Ordering::Relaxed);
        thread::sleep(self.pause);
        let from = buf.as_ptr().addr();
        self.memory_ranges.memory_ranges.lock().unwrap().insert(from, from + buf.len());
        buf.fill(u8::try_from(at / self.cluster % 7).unwrap());
        Ok(())
    }

    fn host(&self, _depth: u32) -> Option<&ImageFile> {
        None
    }

    fn chunk(&self) -> u64 {
        self.cluster
    }

    fn check_unchanged(&self, _live: bool) -> Result<()> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_threads_yields_the_serial_batches(
        wishes in mixed::wishes(),
        chunk in chunks(),
        options in read_options(),
    ) {
        let image = Mixed::make(&wishes, chunk);
        let expected = serial(&image, options);
        for count in 1..=5 {
            prop_assert!(parallel(&image, options, count) == expected, "{} workers", count);
        }
    }

    #[test]
    fn error_follows_all_earlier_batches_and_is_the_last(
        wishes in mixed::wishes(),
        chunk in chunks(),
        options in read_options(),
        place in any::<prop::sample::Index>(),
        lost in any::<bool>(),
    ) {
        let mut image = Mixed::make(&wishes, chunk);
        prop_assume!(!image.bytes.is_empty());
        let whole = serial(&image, options);
        let byte = Some(place.index(image.bytes.len()) as u64);
        *if lost { &mut image.lost } else { &mut image.broken } = byte;
        let expected = serial(&image, options);
        let errors = expected.iter().filter(|batch| batch.is_err()).count();
        // Zeros, and bytes that stay in their file, are not read.
        prop_assert!(errors == usize::from(expected.last().is_some_and(std::result::Result::is_err)));
        prop_assert!(errors == 1 || !lost);
        let good = expected.len() - errors;
        prop_assert!(expected[..good] == whole[..good]);
        for count in 1..=5 {
            prop_assert!(parallel(&image, options, count) == expected, "{} workers", count);
        }
    }
}

#[test]
fn memory_is_bounded_for_any_interval_and_thread_count() {
    let digests = |interval| ReadOptions::canonical(HashParams::new(interval, 4096).unwrap());
    for options in
        [ReadOptions::plain(true, 1), ReadOptions::plain(false, 1), digests(4096), digests(MIB), digests(16 * MIB)]
    {
        for cluster in [65_536, 2 * MIB] {
            for count in [1, 6, 64] {
                let image = Compressed::new(200 * MIB, cluster);
                let mut len = 0;
                thread::scope(|scope| {
                    for batch in ParallelReader::start(scope, &image, options, count).unwrap() {
                        len += batch.unwrap().runs.iter().map(bytes).sum::<u64>();
                    }
                });
                assert_eq!(len, image.size);
                let memory = image.memory();
                assert!(memory <= 32 << 20, "{options:?}, {count} threads, {cluster}: {memory} bytes");
                // Each cluster is decompressed once, even if intervals are smaller.
                assert_eq!(image.inflated.load(Ordering::Relaxed), image.size / cluster, "{options:?} {cluster}");
            }
        }
    }
}

fn bytes(segment: &Segment) -> u64 {
    match segment {
        Segment::Zero(len) | Segment::Keep(len) => *len,
        Segment::Data(payload, _) => payload.len(),
    }
}

#[test]
fn dropping_the_reader_stops_its_threads() {
    for taken in [0, 1, 5] {
        let mut image = Compressed::new(1 << 40, 65_536);
        image.pause = Duration::from_millis(2);
        let start = Instant::now();
        thread::scope(|scope| {
            let mut reader = ParallelReader::start(scope, &image, ReadOptions::plain(true, 1), 4).unwrap();
            for _ in 0..taken {
                assert!(reader.next().unwrap().is_ok());
            }
        });
        // A batch takes an eighth of a second, and the threads end within that time.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(image.inflated.load(Ordering::Relaxed) <= (taken + 8) * 64, "more was read than there is room for");
    }
}

#[test]
fn dropping_the_reader_stops_threads_waiting_for_room() {
    let image = Compressed::new(1 << 40, 65_536);
    thread::scope(|scope| {
        let mut reader = ParallelReader::start(scope, &image, ReadOptions::plain(true, 1), 3).unwrap();
        assert!(reader.next().unwrap().is_ok());
        let room = || image.inflated.load(Ordering::Relaxed) == 8 * 64;
        let start = Instant::now();
        while !room() {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", image.inflated);
            thread::sleep(Duration::from_millis(5));
        }
        // No other unit is begun while the consumer holds this batch.
        thread::sleep(Duration::from_millis(50));
        assert!(room());
    });
}

#[test]
fn empty_batch_is_yielded_after_a_second() {
    let mut image = Compressed::new(65_536, 65_536);
    image.pause = Duration::from_millis(1500);
    thread::scope(|scope| {
        let batches: Vec<_> =
            ParallelReader::start(scope, &image, ReadOptions::plain(true, 1), 2).unwrap().map(Result::unwrap).collect();
        assert!(batches.len() >= 2 && batches[0] == SegmentBatch::default(), "{}", batches.len());
        assert_eq!(batches.last().unwrap().runs.iter().map(bytes).sum::<u64>(), 65_536);
    });
}

#[test]
fn units_end_at_memory_and_step_limits_on_chunks() {
    // Compressed, raw and zero parts in turn, with unaligned boundaries.
    let wish = |n: u8| {
        let locations =
            [Location::Compressed, Location::Flat { depth: 0, next: true }, Location::Zero, Location::Compressed];
        (locations[usize::from(n % 4)], Content::Data, u64::from(n) * 3001 + 70_000, n)
    };
    let wishes: Vec<_> = (1..100).map(wish).collect();
    for chunk in [1, 65_536, 2 * MIB] {
        let image = Mixed::make(&wishes, chunk);
        let mut at = 0;
        for batch in SerialReader::new(&image, ReadOptions::plain(true, 1)) {
            let segments = batch.unwrap().runs;
            assert_eq!(at % chunk.max(4096), 0);
            at += segments.iter().map(bytes).sum::<u64>();
        }
        assert_eq!(at, image.size());
    }
}
