//! How long compressed clusters take: inflated by one thread, and by two that give them in order.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xfer_hole_image::{BackingChain, Disk, DiskOptions};
use xfer_hole_pipeline::{ParallelReader, ReadOptions};

/// Bytes of the disk.
const SIZE: usize = 32 << 20;
/// Bytes that are read at once.
const READ: usize = 256 << 10;

fn inflate(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory for a disk");
    let raw = folder.path().join("raw");
    fs::write(&raw, text()).expect("a disk");
    let mut group = criterion.benchmark_group("inflate");
    group.sample_size(20).throughput(Throughput::Bytes(SIZE as u64));
    for kind in ["zlib", "zstd"] {
        let path = folder.path().join(kind);
        compress(&raw, &path, kind);
        let chain = BackingChain::open(&path, &DiskOptions::default()).expect("an image");
        group.bench_function(format!("{kind} by reading"), |bencher| bencher.iter(|| read(&chain)));
        group.bench_function(format!("{kind} by two workers"), |bencher| bencher.iter(|| work(&chain)));
    }
    group.finish();
}

/// Bytes that become some three times smaller, and are never the same for long.
fn text() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = |at: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if at % 32 < 10 { state.to_be_bytes()[0] } else { at.to_be_bytes()[7] % 32 + b'a' }
    };
    (0..SIZE).map(byte).collect()
}

fn compress(raw: &Path, path: &Path, kind: &str) {
    let mut qemu_img = Command::new("qemu-img");
    qemu_img.args(["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &format!("compression_type={kind}")]);
    let status = qemu_img.args([raw, path]).status().expect("qemu-img, of Debian's qemu-utils");
    assert!(status.success(), "qemu-img makes no {kind} image");
}

fn read(chain: &BackingChain) {
    let mut buffer = vec![0; READ];
    for at in (0..chain.size()).step_by(READ) {
        chain.read_at(at, black_box(&mut buffer)).expect("bytes");
    }
}

fn work(chain: &BackingChain) {
    thread::scope(|scope| {
        for block in ParallelReader::start(scope, chain, ReadOptions::plain(true, 1), 2).expect("threads") {
            black_box(block.expect("a block"));
        }
    });
}

criterion_group!(benches, inflate);
criterion_main!(benches);
