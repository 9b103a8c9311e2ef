//! Images with random histories are what qemu-img says they are: random geometries, writes, zeroes, discards, compressed writes,
//! snapshots, sizes, overlays.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use rig::{
    Filesystem, Fill, Fs, Op, Qcow2, TestDisk, Tools, assert_as, assert_as_qemu, gone_back, pour, qemu_img, tools,
};

const M: u64 = 1 << 20;

/// One random thing: what, where and how much of the disk, each to be fitted into it.
#[derive(Clone, Copy, Debug)]
struct Act {
    what: u8,
    at: u32,
    len: u32,
    fill: Fill,
}

/// One random image.
#[derive(Clone, Debug)]
struct LayerSpec {
    bits: u32,
    extended: bool,
    old: bool,
    zstd: bool,
    preallocated: bool,
    external: bool,
    sectors: u64,
    acts: Vec<Act>,
    /// Snapshots are taken after so many acts.
    snapshots: Vec<usize>,
}

impl LayerSpec {
    fn size(&self) -> u64 {
        // At most some thousand clusters.
        (self.sectors % (1 << (self.bits + 12 - 9))).min(4 * M / 512 - 1) * 512 + 512
    }

    fn cluster(&self) -> u64 {
        1 << self.bits
    }

    fn fitted(&self, act: Act) -> Option<Op> {
        let size = self.size();
        let at = u64::from(act.at) % (size / 512) * 512;
        // Short ones as often as long ones, and some to cluster and subcluster boundaries.
        let most = [512, 4096, self.cluster(), 5 * self.cluster()][act.len as usize % 4].max(512);
        let len = (u64::from(act.len / 4) % (most / 512) + 1) * 512;
        let len = len.min(size - at);
        let (at, len) = match act.at % 3 {
            0 => (at / self.cluster() * self.cluster(), len),
            _ => (at, len),
        };
        let (first, whole) = (at / self.cluster() * self.cluster(), self.cluster());
        Some(match act.what {
            0..=3 => Op::Write(at, len, act.fill),
            4 | 5 if self.external => Op::Write(at, len, Fill::Same(0)),
            4 | 5 if first + whole <= size => Op::Compressed(first, whole, act.fill),
            6 => Op::Zero(at, len),
            7 => Op::Unmap(at, len),
            8 => Op::Discard(at, len),
            _ => return None,
        })
    }

    fn image(&self, number: usize, over: Option<&(String, &str)>) -> Qcow2 {
        let mut options = vec![format!("cluster_size={}", self.cluster())];
        let extended = self.extended && self.bits >= 14;
        if self.old && !extended && !self.zstd && !self.external {
            options.push("compat=v2".into());
        }
        options.extend(extended.then(|| "extended_l2=on".into()));
        options.extend(self.zstd.then(|| "compression_type=zstd".into()));
        options.extend(self.external.then(|| format!("data_file=data{number}")));
        options.extend((self.preallocated && over.is_none()).then(|| "preallocation=metadata".into()));
        let mut image = Qcow2::new(self.size()).option(&options.join(",")).forgiving();
        if let Some((base, format)) = over {
            image = image.backing(base, Some(format));
        }
        for (done, &act) in self.acts.iter().enumerate() {
            image = self.fitted(act).into_iter().fold(image, Qcow2::op);
            if self.snapshots.contains(&done) && !self.external {
                image = image.snapshot(&format!("after {done}"));
            }
        }
        image
    }

    /// The names of its snapshots.
    fn snapshots(&self) -> Vec<String> {
        let taken = (0..self.acts.len()).filter(|done| self.snapshots.contains(done) && !self.external);
        taken.map(|done| format!("after {done}")).collect()
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let fill =
        prop_oneof![(0..=255u8).prop_map(Fill::Same), (0..3u64).prop_map(Fill::Noise), (0..3u64).prop_map(Fill::Text)];
    let act = (0..9u8, any::<u32>(), any::<u32>(), fill);
    vec(act.prop_map(|(what, at, len, fill)| Act { what, at, len, fill }), 0..14)
}

fn layer() -> impl Strategy<Value = LayerSpec> {
    let bits = select(vec![9, 10, 12, 12, 14, 15, 16, 16, 18, 21]);
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.2),
        any::<bool>(),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.15),
    );
    (bits, flags, any::<u64>(), acts(), vec(0..14usize, 0..2)).prop_map(|(bits, flags, sectors, acts, snapshots)| {
        let (extended, old, zstd, preallocated, external) = flags;
        LayerSpec { bits, extended, old, zstd, preallocated, external, sectors, acts, snapshots }
    })
}

/// A chain: a raw disk at the bottom or none, and qcow2 layers.
fn chain() -> impl Strategy<Value = (Option<TestDisk>, Vec<LayerSpec>)> {
    let raw = (1..3 * M, vec((0..M, 1..100_000u64, 0..9u8), 0..4)).prop_map(|(size, data)| {
        let inside = data.into_iter().map(|(at, len, seed)| (at % size, len.min(size - at % size), seed));
        inside.fold(TestDisk::empty(size), |disk, (at, len, seed)| disk.with(at, len, seed))
    });
    (proptest::option::weighted(0.4, raw), vec(layer(), 1..4))
}

fn as_qemu(tools: &Tools, fs: &Filesystem, raw: Option<&TestDisk>, layers: &[LayerSpec]) {
    for old in std::fs::read_dir(fs.path()).unwrap() {
        std::fs::remove_file(old.unwrap().path()).unwrap();
    }
    let mut base = raw.map(|disk| {
        disk.make(&fs.join("base.raw"));
        ("base.raw".to_owned(), "raw")
    });
    for (number, layer) in layers.iter().enumerate() {
        let name = format!("layer{number}.qcow2");
        layer.image(number, base.as_ref()).make(&fs.join(&name));
        base = Some((name, "qcow2"));
    }
    let top = fs.join(&base.unwrap().0);
    assert_as_qemu(tools, &top, &[]);
    for name in layers.last().unwrap().snapshots() {
        assert_eq!(assert_as(tools, &top, &["--snapshot", &name], &gone_back(&top, &name)), "");
    }
}

/// A runner of so many random cases, which share what the test has.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })
}

#[test]
fn images_with_random_histories_are_what_qemu_img_says_they_are() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Tmpfs, 512 * M));
    let all = runner(80).run(&chain(), |(raw, layers)| {
        as_qemu(&tools, &fs, raw.as_ref(), &layers);
        Ok(())
    });
    all.unwrap_or_else(|error| panic!("{error}"));
}

/// A random disk of up to 4 MiB.
fn disk() -> impl Strategy<Value = TestDisk> {
    (vec((0..3 * M, 1..200_000u64, 0..5u8), 0..6), 1..4 * M / 512).prop_map(|(data, sectors)| {
        let size = sectors * 512;
        let inside = data.into_iter().map(|(at, len, seed)| (at % size, len.min(size - at % size), seed));
        inside.fold(TestDisk::empty(size), |disk, (at, len, seed)| disk.with(at, len, seed))
    })
}

#[test]
fn a_random_disk_is_the_same_stream_in_every_image() {
    let (tools, fs) = (tools!(), Filesystem::new(Fs::Tmpfs, 512 * M));
    let all = runner(8).run(&disk(), |disk| {
        disk.make(&fs.join("disk.raw"));
        let stream = pour(&tools, &["--hash"], &fs.join("disk.raw"));
        let geometries = [
            "cluster_size=512",
            "cluster_size=4k",
            "cluster_size=64k",
            "cluster_size=2M",
            "extended_l2=on",
            "compat=v2",
        ];
        for (options, args) in geometries.iter().flat_map(|one| [(one, ["-c", "-q"]), (one, ["-S", "0"])]) {
            let image = fs.join("disk.qcow2");
            let args = [&["convert", "-f", "raw", "-O", "qcow2", "-o", options], &args[..], &["disk.raw"]].concat();
            qemu_img(&args, &image);
            prop_assert!(pour(&tools, &["--hash"], &image) == stream, "{:?}", args);
        }
        Ok(())
    });
    all.unwrap_or_else(|error| panic!("{error}"));
}
