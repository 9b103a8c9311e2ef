//! How long the extents of a disk take: a fragmented raw file's by its file system, a qcow2 image's by its tables.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xfer_hole_bench::micro::{Fragments, Tables, count};
use xfer_hole_image::{BackingChain, DiskOptions, ExtentMethod};

fn extents(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory for a disk");
    let (raw, qcow2) = (folder.path().join("raw"), folder.path().join("qcow2"));
    Fragments { count: 10_000 }.make(&raw).expect("a raw disk");
    Tables { tables: 16 }.make(&qcow2).expect("a qcow2 image");
    let seek = DiskOptions { method: Some(ExtentMethod::Seek), ..DiskOptions::default() };
    let mut group = criterion.benchmark_group("extents");
    for (name, path, how) in [("raw by seeking", raw, seek), ("qcow2 tables", qcow2, DiskOptions::default())] {
        let walk =
            || BackingChain::open(&path, &how).map_err(Into::into).and_then(|chain| count(&chain)).expect("a walk");
        group.throughput(Throughput::Elements(walk()));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(walk())));
    }
    group.finish();
}

criterion_group!(benches, extents);
criterion_main!(benches);
