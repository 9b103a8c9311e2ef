//! Property tests of changes since an older state, on generated disks: everything unchanged is kept, and none of it is
//! read.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

#[path = "../../pipeline/tests/canonical/mod.rs"]
mod canonical;
#[path = "../../pipeline/tests/mixed/mod.rs"]
mod mixed;

use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use mixed::Mixed;
use proptest::prelude::*;
use xfer_hole_image::{ChangeTracker, Comparison, Disk, Extent, ImageFile};
use xfer_hole_os::Result;
use xfer_hole_pipeline::{
    Action, Coalescer, ParallelReader, PayloadPart, Piece, Plan, ProgressCounters, ReadOptions, SerialReader,
};
use xfer_hole_proto::{Base, CoverageChecker, HashParams, StreamHeader};
use xfer_hole_target::DiskWriter;
use xfer_hole_transfer::ParallelCopy;

/// A disk, and which parts of it are unchanged.
struct Compare {
    disk: Mixed,
    older: Old,
    /// Ranges that must not be read.
    kept: Vec<Range<u64>>,
}

/// Ends of parts of the disk, and whether each part is unchanged. The last end is the size of the older state.
#[derive(Debug)]
struct Old {
    ends: Vec<(u64, bool)>,
    size: u64,
}

impl ChangeTracker for Old {
    fn size(&self) -> u64 {
        self.size
    }

    fn compare(&self, at: u64, max: u64) -> Result<Comparison> {
        assert!(max > 0 && at + max <= self.size, "{at} and {max} bytes are not in {self:?}");
        let (end, same) = self.ends[self.ends.partition_point(|&(end, _)| end <= at)];
        Ok(Comparison { len: (end - at).min(max), same })
    }
}

impl Disk for Compare {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn extent(&self, at: u64, max: u64) -> Result<Extent> {
        assert!(self.kept.iter().all(|kept| at + max <= kept.start || at >= kept.end), "{at} is kept, and looked up");
        self.disk.extent(at, max)
    }

    fn read(&self, extent: &Extent, at: u64, buf: &mut [u8]) -> Result<()> {
        let end = at + buf.len() as u64;
        assert!(self.kept.iter().all(|kept| end <= kept.start || at >= kept.end), "{at}..{end} is kept, and read");
        self.disk.read(extent, at, buf)
    }

    fn host(&self, depth: u32) -> Option<&ImageFile> {
        self.disk.host(depth)
    }

    fn chunk(&self) -> u64 {
        self.disk.chunk()
    }

    fn older(&self) -> Option<&dyn ChangeTracker> {
        Some(&self.older)
    }

    fn check_unchanged(&self, live: bool) -> Result<()> {
        self.disk.check_unchanged(live)
    }
}

/// Parts: their length in bytes, and whether they are unchanged.
fn parts() -> impl Strategy<Value = Vec<(u64, bool)>> {
    let len = prop_oneof![
        3 => (1..40_u64).prop_map(|blocks| blocks * 4096),
        2 => (1..200_u64).prop_map(|sectors| sectors * 512),
        1 => 1..3_000_000_u64,
    ];
    prop::collection::vec((len, any::<bool>()), 0..24)
}

fn compare(wishes: &[mixed::Wish], parts: &[(u64, bool)], chunk: u64, align: u64) -> Compare {
    let disk = Mixed::make(wishes, chunk);
    let mut ends = Vec::new();
    let size = parts.iter().fold(0, |at, &(len, same)| {
        ends.push((at + len, same));
        at + len
    });
    let kept = kept(&ends, size, disk.size(), align);
    Compare { disk, older: Old { ends, size }, kept }
}

/// Computes the ranges that are kept: unchanged ranges cut to multiples of `align` bytes or the end of the disk, and
/// joined.
fn kept(ends: &[(u64, bool)], older: u64, size: u64, align: u64) -> Vec<Range<u64>> {
    let mut same: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    for &(end, alike) in ends {
        match same.last_mut() {
            Some(last) if alike && last.end == at => last.end = end,
            _ if alike => same.push(at..end),
            _ => {}
        }
        at = end;
    }
    let both = older.min(size);
    let whole = same.into_iter().map(|part| {
        let end = part.end.min(both);
        part.start.next_multiple_of(align)..if end == size { end } else { end / align * align }
    });
    whole.filter(|part| part.start < part.end).collect()
}

/// Returns what the pieces do: the kept ranges, and the bytes of all others.
fn outcome(image: &Compare, pieces: impl Iterator<Item = Result<Piece>>) -> (Vec<Range<u64>>, Vec<Option<u8>>) {
    let (mut kept, mut bytes) = (Vec::<Range<u64>>::new(), Vec::new());
    for piece in pieces {
        let at = bytes.len() as u64;
        match piece.unwrap() {
            Piece::Nothing => {}
            Piece::Keep(len) => {
                kept.push(at..at + len);
                bytes.resize(bytes.len() + usize::try_from(len).unwrap(), None);
            }
            Piece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap(), Some(0)),
            Piece::Data(payload, _) => {
                for part in payload.parts() {
                    let mut read = vec![0; usize::try_from(part.len()).unwrap()];
                    match part {
                        PayloadPart::Bytes(part) => read.copy_from_slice(part),
                        PayloadPart::Range { depth, at, .. } => {
                            image.host(*depth).unwrap().read_at(*at, &mut read).unwrap();
                        }
                    }
                    bytes.extend(read.into_iter().map(Some));
                }
            }
        }
    }
    (kept, bytes)
}

/// Result of a check of a generated disk.
type Verdict = std::result::Result<(), TestCaseError>;

fn is_right(image: &Compare, options: ReadOptions) -> Verdict {
    let (kept, bytes) = outcome(image, Coalescer::new(SerialReader::new(image, options), &options));
    prop_assert_eq!(&kept, &image.kept);
    prop_assert_eq!(bytes.len(), image.disk.bytes.len());
    let differs =
        bytes.iter().zip(&image.disk.bytes).position(|(outcome, real)| outcome.is_some_and(|outcome| outcome != *real));
    prop_assert_eq!(differs, None);
    let parallel = thread::scope(|scope| {
        outcome(image, Coalescer::new(ParallelReader::start(scope, image, options, 3).unwrap(), &options))
    });
    prop_assert!(parallel == (kept, bytes));
    Ok(())
}

/// Records what was kept, and fails if a byte is written twice.
struct Memory(Mutex<Vec<Option<Option<u8>>>>);

impl Memory {
    fn put(&self, at: u64, fates: impl Iterator<Item = Option<u8>>) {
        let mut all = self.0.lock().unwrap();
        for (at, fate) in (usize::try_from(at).unwrap()..).zip(fates) {
            assert_eq!(all[at].replace(fate), None, "byte {at} came twice");
        }
    }
}

impl DiskWriter for Memory {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.put(at, bytes.iter().map(|&byte| Some(byte)));
        Ok(())
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        self.put(at, (0..len).map(|_| Some(0)));
        Ok(())
    }

    fn keep_existing(&self, at: u64, len: u64) -> Result<()> {
        self.put(at, (0..len).map(|_| None));
        Ok(())
    }

    fn leftover_message(&self) -> String {
        String::new()
    }

    fn commit(self: Box<Self>, _size: u64) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plan_covers_the_disk_once_and_keeps_everything_unchanged(
        wishes in mixed::wishes(),
        parts in parts(),
        align in prop_oneof![Just(0), 12..22_u32],
    ) {
        let align = 1 << align;
        let image = compare(&wishes, &parts, 1, align);
        let (mut at, mut kept) = (0, Vec::<Range<u64>>::new());
        for step in Plan::changed(&image, align) {
            let step = step.unwrap();
            prop_assert!(step.extent.start == at && step.extent.len > 0);
            at = step.extent.end();
            match kept.last_mut() {
                _ if step.want != Action::Keep => {}
                Some(last) if last.end == step.extent.start => last.end = at,
                _ => kept.push(step.extent.start..at),
            }
        }
        prop_assert_eq!(at, image.size());
        prop_assert_eq!(kept, image.kept);
    }

    #[test]
    fn without_digests_everything_unchanged_is_kept(
        wishes in mixed::wishes(),
        parts in parts(),
        chunk in prop_oneof![Just(1_u64), Just(65_536)],
        detect in any::<bool>(),
        min_hole in prop_oneof![Just(1), 2..70_000_u64, Just(16 << 20)],
    ) {
        let options = ReadOptions::plain(detect, min_hole);
        is_right(&compare(&wishes, &parts, chunk, 1), options)?;
    }

    #[test]
    fn with_digests_unchanged_intervals_are_kept(
        wishes in mixed::wishes(),
        parts in parts(),
        chunk in prop_oneof![Just(1_u64), Just(65_536), Just(2 << 20)],
        interval in 12..22_u32,
        grain in 9..15_u32,
        held in any::<bool>(),
    ) {
        let params = HashParams::new(1 << interval, 1 << grain.min(interval)).unwrap();
        let image = compare(&wishes, &parts, chunk, params.interval());
        let options = ReadOptions::canonical(params).held(held);
        is_right(&image, options)?;
        // The coverage checker of a receiver accepts it.
        let base = Base { size: image.older.size, digest: None };
        let mut coverage = CoverageChecker::new(&StreamHeader { size: image.size(), sums: Some(params) }, Some(&base));
        let mut found = Vec::new();
        for piece in Coalescer::new(SerialReader::new(&image, options), &options) {
            if let Some(record) = piece.unwrap().record() {
                let at = coverage.step(&record).map_err(|step| TestCaseError::fail(step.to_string()))?;
                let digest = if let xfer_hole_proto::Record::Data { digest, .. } = record { digest } else { None };
                if !image.kept.contains(&at) {
                    found.push((record.len(), digest));
                }
            }
        }
        prop_assert!(coverage.finish().is_ok());
        // Each gap between kept ranges has the form of a disk of its own.
        let (mut expected, mut at) = (Vec::new(), 0);
        for kept in image.kept.iter().cloned().chain(std::iter::once(image.size()..image.size())) {
            let gap = usize::try_from(at).unwrap()..usize::try_from(kept.start).unwrap();
            let gap = &image.disk.bytes[gap];
            expected.extend(canonical::form(gap, params));
            at = kept.end;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn parallel_copy_equals_the_pieces(
        wishes in mixed::wishes(),
        parts in parts(),
        detect in any::<bool>(),
        count in 1..4_usize,
    ) {
        let (image, options) = (compare(&wishes, &parts, 1, 1), ReadOptions::plain(detect, 1));
        let expected = outcome(&image, Coalescer::new(SerialReader::new(&image, options), &options)).1;
        let writer = Memory(Mutex::new(vec![None; image.disk.bytes.len()]));
        let counters = ProgressCounters::default();
        ParallelCopy { image: &image, shape: options, sink: &writer, share: false, counters: &counters }.all(count).unwrap();
        let fates = writer.0.into_inner().unwrap();
        prop_assert!(fates == expected.into_iter().map(Some).collect::<Vec<_>>());
        prop_assert_eq!(counters.disk(), image.size());
    }
}
