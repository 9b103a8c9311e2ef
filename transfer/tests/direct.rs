//! Property tests: direct I/O reads and writes the same bytes as I/O through the page cache.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs;
use std::path::Path;
use std::thread;

use proptest::prelude::*;
use xfer_hole_image::{BackingChain, Disk, DiskOptions, Format};
use xfer_hole_target::{DiskWriter, Target, TargetOptions};

/// Lengths of consecutive parts of a disk, and whether each is data: short and long ones, whole pages, and unaligned
/// lengths.
fn pieces() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let len = prop_oneof![
        3 => 1..5000_usize,
        2 => (1..40_usize).prop_map(|pages| pages * 4096),
        2 => (1..20_usize).prop_map(|sectors| sectors * 512),
        1 => 200_000..1_500_000_usize,
        1 => Just(1 << 20),
    ];
    prop::collection::vec((len, prop::bool::weighted(0.8)), 1..40)
}

/// The bytes at an offset: never zero.
fn bytes(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) % 255).unwrap() + 1).collect()
}

fn writer(dest: &Path, size: u64, direct: bool, in_place: bool) -> Box<dyn DiskWriter> {
    let options = TargetOptions { direct, in_place, no_sync: true, ..TargetOptions::default() };
    Target::find(dest, options).unwrap().open(Some(size), None).unwrap()
}

/// The parts with their offsets, in an order that depends on `seed`.
fn placed(pieces: &[(usize, bool)], seed: u64) -> Vec<(usize, usize, bool)> {
    let mut at = 0;
    let mut placed: Vec<_> = pieces
        .iter()
        .map(|&(len, data)| {
            at += len;
            (at - len, len, data)
        })
        .collect();
    if seed > 0 {
        placed.sort_by_key(|&(at, ..)| (at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
    }
    placed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Data and holes are written in any order, by one or four threads, into new files and over old bytes.
    #[test]
    fn direct_writes_equal_cached_writes(
        pieces in pieces(),
        seed in prop_oneof![Just(0), any::<u64>()],
        threads in prop_oneof![Just(1_usize), Just(4)],
        in_place: bool,
        skew in 0..3_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let size = pieces.iter().map(|(len, _)| len).sum::<usize>();
        let mut written = Vec::new();
        for direct in [false, true] {
            let dest = folder.path().join(format!("{direct}.img"));
            if in_place {
                fs::write(&dest, vec![0xee; size + 10_000]).unwrap();
            }
            let writer = writer(&dest, size as u64, direct, in_place);
            let work = placed(&pieces, seed);
            thread::scope(|scope| {
                for thread_number in 0..threads {
                    let (writer, work) = (&writer, &work);
                    scope.spawn(move || {
                        for &(at, len, data) in work.iter().skip(thread_number).step_by(threads) {
                            if data {
                                // Aligned and unaligned memory.
                                let mut memory = vec![0; skew];
                                memory.extend(bytes(at, len));
                                writer.write_at(at as u64, &memory[skew..]).unwrap();
                            } else {
                                writer.zero_range(at as u64, len as u64).unwrap();
                            }
                        }
                    });
                }
            });
            prop_assert_eq!(writer.commit(size as u64).unwrap(), Vec::<String>::new());
            written.push(fs::read(&dest).unwrap());
        }
        prop_assert_eq!(written[0].len(), size);
        prop_assert!(written[0] == written[1]);
    }

    /// Any range of a file of any size is read to any memory address, including ranges after its end.
    #[test]
    fn direct_reads_equal_cached_reads(
        size in prop_oneof![1..10_000_usize, 500_000..3_000_000_usize, (1..600_usize).prop_map(|pages| pages * 4096)],
        reads in prop::collection::vec((0.0..1.0_f64, prop_oneof![1..9000_usize, 1..1_500_000_usize], 0..5000_usize), 1..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        fs::write(&path, bytes(0, size)).unwrap();
        let open = |direct| DiskOptions { format: Some(Format::Raw), direct, ..DiskOptions::default() };
        let [plain, direct] = [false, true].map(|direct| BackingChain::open(&path, &open(direct)).unwrap());
        prop_assert!(direct.warnings().is_empty() && direct.is_direct() && !plain.is_direct());
        for (share, len, skew) in reads {
            let at = (size as f64 * share) as usize;
            let len = len.min(size - at).max(1);
            let (mut one, mut other) = (vec![0; len], vec![0xff; skew + len]);
            plain.read_at(at as u64, &mut one).unwrap();
            direct.read_at(at as u64, &mut other[skew..]).unwrap();
            prop_assert!(one == other[skew..], "{len} bytes at {at}, {skew} in memory");
        }
        prop_assert!(direct.noticed().is_empty());
    }
}

#[test]
fn truncated_file_is_an_error_and_not_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, bytes(0, 100_000)).unwrap();
    let how = DiskOptions { format: Some(Format::Raw), direct: true, ..DiskOptions::default() };
    let disk = BackingChain::open(&path, &how).unwrap();
    let extent = disk.extent(0, 100_000).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    let mut bytes = vec![0; 100_000];
    disk.read(&extent, 0, &mut bytes[..50_000]).unwrap();
    for (at, len) in [(0, 100_000), (49_999, 2), (50_000, 1), (8192, 8192 * 10), (90_000, 512)] {
        let error = disk.read(&extent, at, &mut bytes[..len]).unwrap_err();
        assert!(error.to_string().contains("truncated while it was read"), "{error}");
    }
}
