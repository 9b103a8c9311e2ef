//! How long it takes to read, to look for zeros, and to hash: of one thread, from the page cache.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xfer_hole_bench::micro::{Fragments, Mixture, drain};
use xfer_hole_image::{BackingChain, Disk, DiskOptions};
use xfer_hole_pipeline::ReadOptions;
use xfer_hole_proto::HashParams;

fn coalescer(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory for a disk");
    let path = folder.path().join("disk");
    let (all, plain, canonical) =
        (ReadOptions::plain(false, 1), ReadOptions::plain(true, 1), ReadOptions::canonical(HashParams::default()));
    Mixture { blocks: 16_384 }.make(&path).expect("a disk");
    measure(criterion, "coalescer of 64 MiB", &path, &[("unlooked", all), ("zeros", plain), ("digests", canonical)]);
    Fragments { count: 8192 }.make(&path).expect("a disk");
    measure(criterion, "coalescer of fragments", &path, &[("unlooked", all), ("zeros", plain), ("digests", canonical)]);
}

fn measure(criterion: &mut Criterion, group: &str, path: &Path, shapes: &[(&str, ReadOptions)]) {
    let chain = BackingChain::open(path, &DiskOptions::default()).expect("a disk");
    let mut group = criterion.benchmark_group(group);
    group.sample_size(20).throughput(Throughput::Bytes(chain.size()));
    for (name, shape) in shapes {
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(drain(&chain, *shape).expect("bytes"))));
    }
    group.finish();
}

criterion_group!(benches, coalescer);
criterion_main!(benches);
