//! Property tests from extents to pieces, on generated disks: the pieces give the bytes of the disk, in the specified
//! form.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod canonical;
mod mixed;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mixed::Mixed;
use proptest::prelude::*;
use tempfile::TempDir;
use xfer_hole_image::{BackingChain, BlockStatus, Disk, DiskOptions, Extent, ExtentMethod, Format};
use xfer_hole_os::Result;
use xfer_hole_pipeline::{Action, Coalescer, Payload, PayloadPart, Piece, Plan, ReadOptions, SerialReader};
use xfer_hole_proto::{Digest, HashParams};

/// A disk: its bytes, and the file that holds them.
struct WrittenDisk {
    bytes: Vec<u8>,
    path: PathBuf,
    in_memory: bool,
    _folder: TempDir,
}

/// How a disk is generated: parts with a kind, a length and a seed.
#[derive(Clone, Debug)]
struct Wishes {
    parts: Vec<(Stuff, u64, u8)>,
    /// True for a file in memory, whose file system has no FIEMAP; false for a file on disk.
    in_memory: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stuff {
    Hole,
    /// Bytes that are not zero.
    Data,
    /// Written zeros.
    Zeros,
    /// Mostly zeros.
    Sprinkled,
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let stuff = prop_oneof![3 => Just(Stuff::Hole), 3 => Just(Stuff::Data), 1 => Just(Stuff::Zeros), 1 => Just(Stuff::Sprinkled)];
    let blocks = prop_oneof![
        (1..40_u64).prop_map(|blocks| blocks * 4096),
        (1..40_u64).prop_map(|blocks| blocks * 512),
        1..60_000_u64
    ];
    let parts = prop::collection::vec((stuff, blocks, 1..=255_u8), 0..12);
    (parts, any::<bool>()).prop_map(|(parts, in_memory)| Wishes { parts, in_memory })
}

fn make(wishes: &Wishes) -> WrittenDisk {
    let folder = if wishes.in_memory { tempfile::tempdir_in("/dev/shm").unwrap() } else { folder_on_disk() };
    let path = folder.path().join("disk.img");
    let file = File::create(&path).unwrap();
    let mut bytes: Vec<u8> = Vec::new();
    for &(stuff, len, seed) in &wishes.parts {
        let at = bytes.len() as u64;
        let byte = |index: u64| match stuff {
            Stuff::Hole | Stuff::Zeros => 0,
            Stuff::Data => u8::try_from((index.wrapping_mul(0x9e37_79b9) >> 7) % 255).unwrap() + 1,
            Stuff::Sprinkled => {
                if index % 5003 == u64::from(seed) {
                    seed
                } else {
                    0
                }
            }
        };
        bytes.extend((0..len).map(byte));
        if !matches!(stuff, Stuff::Hole) {
            file.write_all_at(&bytes[usize::try_from(at).unwrap()..], at).unwrap();
        }
    }
    file.set_len(bytes.len() as u64).unwrap();
    WrittenDisk { bytes, path, in_memory: wishes.in_memory, _folder: folder }
}

/// Makes a directory on a file system with FIEMAP.
fn folder_on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Opens a raw disk with this method to find extents.
fn raw(path: &Path, method: ExtentMethod) -> BackingChain {
    let how = DiskOptions { format: Some(Format::Raw), method: Some(method), ..DiskOptions::default() };
    BackingChain::open(path, &how).unwrap()
}

/// Opens a disk with each method that its file system supports.
fn raws(disk: &WrittenDisk) -> Vec<BackingChain> {
    let methods: &[_] = match disk.in_memory {
        true => &[ExtentMethod::Seek, ExtentMethod::Scan],
        false => &[ExtentMethod::Seek, ExtentMethod::Scan, ExtentMethod::Fiemap],
    };
    methods.iter().map(|&method| raw(&disk.path, method)).collect()
}

fn pieces(image: &dyn Disk, options: ReadOptions) -> Vec<Piece> {
    let pieces = Coalescer::new(SerialReader::new(image, options), &options).collect::<Result<Vec<_>>>().unwrap();
    pieces.into_iter().filter(|piece| *piece != Piece::Nothing).collect()
}

fn len(piece: &Piece) -> u64 {
    match piece {
        Piece::Nothing => 0,
        Piece::Hole(len) | Piece::Keep(len) => *len,
        Piece::Data(data, _) => data.len(),
    }
}

fn payload(image: &dyn Disk, payload: &Payload) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in payload.parts() {
        match part {
            PayloadPart::Bytes(part) => bytes.extend_from_slice(part),
            PayloadPart::Range { depth, at, len } => {
                let from = bytes.len();
                bytes.resize(from + usize::try_from(*len).unwrap(), 0);
                image.host(*depth).unwrap().read_at(*at, &mut bytes[from..]).unwrap();
            }
        }
    }
    bytes
}

/// Returns offset and length of each hole.
fn holes(pieces: &[Piece]) -> Vec<(u64, u64)> {
    let mut at = 0;
    let mut found = Vec::new();
    for piece in pieces {
        if let Piece::Hole(len) = piece {
            found.push((at, *len));
        }
        at += len(piece);
    }
    found
}

/// Returns the bytes that the pieces give.
fn rebuilt(image: &dyn Disk, pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Nothing | Piece::Keep(_) => {}
            Piece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(*len).unwrap(), 0),
            Piece::Data(data, _) => bytes.extend(payload(image, data)),
        }
    }
    bytes
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Returns the extents of a disk, in order.
fn extents(image: &dyn Disk) -> Vec<Extent> {
    let (mut at, mut found) = (0, Vec::new());
    while at < image.size() {
        let extent = image.extent(at, image.size() - at).unwrap();
        assert!(extent.start == at && extent.len > 0, "{extent:?} was asked for at {at}");
        at += extent.len;
        found.push(extent);
    }
    assert_eq!(at, image.size());
    found
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn plan_covers_the_disk_once_and_zeros_are_zeros(wishes in wishes()) {
        let disk = make(&wishes);
        for raw in raws(&disk) {
            let mut at = 0;
            for step in Plan::whole(&raw) {
                let step = step.unwrap();
                prop_assert_eq!(step.extent.start, at);
                prop_assert!(step.extent.len > 0);
                let end = step.extent.end();
                let bytes = &disk.bytes[usize::try_from(at).unwrap()..usize::try_from(end).unwrap()];
                prop_assert!(step.want == Action::Copy || bytes.iter().all(|&byte| byte == 0));
                at = end;
            }
            prop_assert_eq!(at, disk.bytes.len() as u64);
        }
    }

    #[test]
    fn extents_at_any_offset_agree_with_the_whole_list(
        wishes in wishes(),
        places in prop::collection::vec((any::<prop::sample::Index>(), 1..200_000_u64), 20),
    ) {
        let disk = make(&wishes);
        prop_assume!(!disk.bytes.is_empty());
        for raw in raws(&disk) {
            let list = extents(&raw);
            // In any order, so that the cached FIEMAP extents are replaced in both directions.
            for (place, max) in &places {
                let at = place.index(disk.bytes.len()) as u64;
                let holds = list.iter().find(|extent| (extent.start..extent.start + extent.len).contains(&at)).unwrap();
                let found = raw.extent(at, *max).unwrap();
                prop_assert_eq!((found.start, found.status), (at, holds.status));
                prop_assert!(found.len >= 1 && found.len <= *max);
                // Adjacent extents may be equal, so a result may span several of them.
                let ends = at + found.len;
                let alike = list.iter().filter(|extent| extent.start < ends && extent.start + extent.len > at);
                prop_assert!(alike.into_iter().all(|extent| extent.status == found.status));
                prop_assert!(found.len == *max || ends == raw.size() || list.iter().any(|extent| extent.start == ends));
                prop_assert_eq!(found.host, Some(at));
            }
        }
    }

    #[test]
    fn canonical_pieces_are_those_of_the_specification(
        wishes in wishes(),
        interval in 12..18_u32,
        grain in 9..15_u32,
    ) {
        let disk = make(&wishes);
        let (interval, grain) = (1_u64 << interval, 1 << grain.min(interval));
        for raw in raws(&disk) {
            is_canonical(&raw, &disk.bytes, interval, grain)?;
        }
    }

    #[test]
    fn plain_pieces_give_the_disk_without_short_holes(
        wishes in wishes(),
        detect in any::<bool>(),
        min_hole in prop_oneof![Just(1), 2..70_000_u64, (1..17_u64).prop_map(|blocks| blocks * 4096), Just(16 << 20)],
    ) {
        let disk = make(&wishes);
        for raw in raws(&disk) {
            is_plain(&raw, &disk.bytes, detect, min_hole)?;
        }
    }

    #[test]
    fn zero_detection_sends_no_zero_grain_as_data(wishes in wishes()) {
        let disk = make(&wishes);
        for raw in raws(&disk) {
            has_no_zeros(&raw, &disk.bytes)?;
        }
    }

    #[test]
    fn mixed_disks_give_canonical_and_plain_pieces(
        wishes in mixed::wishes(),
        chunk in prop_oneof![Just(1_u64), Just(512), Just(65_536), Just(2 << 20)],
        interval in 12..22_u32,
        grain in 9..15_u32,
        detect in any::<bool>(),
        min_hole in prop_oneof![Just(1), 2..70_000_u64, (1..17_u64).prop_map(|blocks| blocks * 4096), Just(16 << 20)],
    ) {
        let image = Mixed::make(&wishes, chunk);
        is_canonical(&image, &image.bytes, 1 << interval, 1 << grain.min(interval))?;
        is_plain(&image, &image.bytes, detect, min_hole)?;
        has_no_zeros(&image, &image.bytes)?;
    }
}

/// Result of a check of a generated disk.
type Verdict = std::result::Result<(), TestCaseError>;

/// Checks that the pieces have the specified canonical form and give the bytes of the disk.
fn is_canonical(image: &dyn Disk, bytes: &[u8], interval: u64, grain: u64) -> Verdict {
    let params = HashParams::new(interval, grain).unwrap();
    let expected = canonical::form(bytes, params);
    for held in [false, true] {
        is_canonical_as(image, bytes, ReadOptions::canonical(params).held(held), held, &expected)?;
    }
    Ok(())
}

fn is_canonical_as(
    image: &dyn Disk,
    bytes: &[u8],
    options: ReadOptions,
    held: bool,
    expected: &[(u64, Option<Digest>)],
) -> Verdict {
    // Each piece is dropped before the next one is taken, so that buffers are reused.
    let digest = |piece: &Piece| if let Piece::Data(_, digest) = piece { *digest } else { None };
    let record = |piece: Piece| {
        let len = len(&piece);
        (len > 0).then(|| (len, digest(&piece)))
    };
    let found: Vec<_> = Coalescer::new(SerialReader::new(image, options), &options)
        .filter_map(|piece| record(piece.unwrap()))
        .collect();
    prop_assert_eq!(&found, expected);
    let pieces = pieces(image, options);
    prop_assert!(rebuilt(image, &pieces) == bytes);
    let in_memory = |piece: &Piece| match piece {
        Piece::Data(data, _) => data.parts().iter().all(|part| matches!(part, PayloadPart::Bytes(_))),
        _ => true,
    };
    prop_assert!(!held || pieces.iter().all(in_memory), "what was hashed has to be what is sent");
    Ok(())
}

/// Checks that the pieces give the bytes of the disk and have the requested holes.
fn is_plain(image: &dyn Disk, bytes: &[u8], detect: bool, min_hole: u64) -> Verdict {
    let pieces = pieces(image, ReadOptions::plain(detect, min_hole));
    prop_assert!(rebuilt(image, &pieces) == bytes);
    let mut at = 0;
    let mut before = None;
    for piece in &pieces {
        match piece {
            Piece::Hole(len) => {
                prop_assert!(*len >= min_hole, "a hole of {} at {}", len, at);
                prop_assert!(before != Some(true), "a hole behind a hole at {}", at);
            }
            Piece::Nothing | Piece::Keep(_) => {}
            Piece::Data(data, digest) => {
                prop_assert!(!data.is_empty() && digest.is_none());
                for two in data.parts().windows(2) {
                    prop_assert!(!adjacent(two), "{:?} could be one", two);
                }
            }
        }
        before = Some(matches!(piece, Piece::Hole(_)));
        at += len(piece);
    }
    // Grains of at least 4 KiB are the same for all lengths: the holes are exactly those that are long enough.
    if !detect || min_hole >= 4096 {
        let all = self::pieces(image, ReadOptions::plain(detect, 1));
        let long = holes(&all).into_iter().filter(|hole| hole.1 >= min_hole);
        prop_assert_eq!(holes(&pieces), long.collect::<Vec<_>>());
    }
    if !detect {
        // Without zero detection, every hole is one of the extents.
        let list = extents(image);
        let zero = |at: u64| list.iter().any(|it| it.status != BlockStatus::Data && (it.start..it.end()).contains(&at));
        let mut at = 0;
        for piece in &pieces {
            let len = len(piece);
            prop_assert!(!matches!(piece, Piece::Hole(_)) || (zero(at) && zero(at + len - 1)), "at {}", at);
            at += len;
        }
    }
    Ok(())
}

/// Returns true if two parts are adjacent in one buffer or file.
fn adjacent(two: &[PayloadPart]) -> bool {
    match two {
        [PayloadPart::Range { depth, at, len }, PayloadPart::Range { depth: other, at: next, .. }] => {
            depth == other && at + len == *next
        }
        // Static zeros have a fixed length: a full slice may be followed by another.
        [PayloadPart::Bytes(one), PayloadPart::Bytes(other)] => one.as_ptr_range().end == other.as_ptr(),
        _ => false,
    }
}

/// Checks that no grain of zeros is sent as data.
fn has_no_zeros(image: &dyn Disk, bytes: &[u8]) -> Verdict {
    let mut at = 0;
    for piece in &pieces(image, ReadOptions::plain(true, 1)) {
        let end = at + usize::try_from(len(piece)).unwrap();
        if let Piece::Data(..) = piece {
            let first = at.next_multiple_of(4096);
            let blocks = bytes[first.min(end)..end].chunks_exact(4096);
            prop_assert!(blocks.into_iter().all(|block| block.iter().any(|&byte| byte != 0)), "at {}", at);
        }
        at = end;
    }
    Ok(())
}

#[test]
fn fiemap_cache_covers_a_thousand_extents_both_ways() {
    let folder = folder_on_disk();
    let path: &Path = &folder.path().join("disk.img");
    let file = File::create(path).unwrap();
    file.set_len(2000 * 8192).unwrap();
    (0..2000).for_each(|block| file.write_all_at(&[7; 4096], block * 8192).unwrap());
    let raw = raw(path, ExtentMethod::Fiemap);
    let expected = |index: u64| if index.is_multiple_of(2) { BlockStatus::Data } else { BlockStatus::Zero };
    let list = extents(&raw);
    assert_eq!(list.len(), 4000);
    for (index, extent) in (0..).zip(&list) {
        assert_eq!((extent.start, extent.len, extent.status), (index * 4096, 4096, expected(index)));
    }
    for index in (0..4000).rev().step_by(37) {
        let extent = raw.extent(index * 4096, u64::MAX).unwrap();
        assert_eq!((extent.start, extent.len, extent.status), (index * 4096, 4096, expected(index)));
    }
}

#[test]
fn segments_continue_across_read_boundaries() {
    const M: u64 = 1 << 20;
    let folder = folder_on_disk();
    let path: &Path = &folder.path().join("disk.img");
    let file = File::create(path).unwrap();
    file.set_len(140 * M + 77).unwrap();
    // Data and short holes around multiples of 16 and 64 MiB, and at an unaligned end.
    for middle in [16 * M, 64 * M, 128 * M] {
        file.write_all_at(&[1; 5000], middle - 13_096).unwrap();
        file.write_all_at(&[2; 9000], middle + 4096).unwrap();
    }
    file.write_all_at(&vec![3; 3 << 20], 63 * M).unwrap();
    file.write_all_at(&[4; 99], 140 * M + 77 - 99).unwrap();
    let expected = std::fs::read(path).unwrap();
    for method in [ExtentMethod::Seek, ExtentMethod::Fiemap, ExtentMethod::Scan] {
        let raw = raw(path, method);
        for min_hole in [1, 4096, 10_000, 16 << 20] {
            for detect in [true, false] {
                let pieces = pieces(&raw, ReadOptions::plain(detect, min_hole));
                assert!(rebuilt(&raw, &pieces) == expected, "{method:?} {min_hole} {detect}");
                let short = pieces.iter().any(|piece| matches!(piece, Piece::Hole(len) if *len < min_hole));
                assert!(!short, "{method:?} {min_hole} {detect}");
                let holes = pieces.windows(2).any(|two| two.iter().all(|piece| matches!(piece, Piece::Hole(_))));
                assert!(!holes, "{method:?} {min_hole} {detect}: a hole behind a hole");
            }
        }
        let params = HashParams::new(16 * M, 4096).unwrap();
        let canonical = canonical::form(&expected, params);
        let found = pieces(&raw, ReadOptions::canonical(params)).iter().map(len).collect::<Vec<_>>();
        assert_eq!(found, canonical.iter().map(|(len, _)| *len).collect::<Vec<_>>(), "{method:?}");
    }
}
