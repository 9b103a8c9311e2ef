//! Every kind of qcow2 image is the disk that qemu-img reads in it: versions, geometries, kinds of clusters, sizes, headers.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rig::{
    Field, Filesystem, Fill, Fs, LoopDevice, Op, Qcow2, TestDisk, assert_as, assert_as_qemu, l1_entry, l2_entry,
    merged, our_map, peek, poke, qemu_img, qemu_map, run, stretch_header, tool, tools, write_at,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const REFCOUNT_BITS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

fn tmpfs() -> Filesystem {
    Filesystem::new(Fs::Tmpfs, 512 * M)
}

/// Every kind of cluster there is, over some 40 clusters.
fn all_kinds(cluster: u64, size: u64) -> Vec<Op> {
    let mut ops = vec![
        Op::Write(0, 3 * cluster, Fill::Noise(1)),
        // Written in pieces, out of order, so that neighbours lie apart in the file.
        Op::Write(9 * cluster, cluster, Fill::Same(9)),
        Op::Write(7 * cluster, cluster, Fill::Same(7)),
        Op::Write(8 * cluster, cluster, Fill::Same(8)),
        // A sector, and nothing around it.
        Op::Write(12 * cluster + cluster / 2 / 512 * 512, 512, Fill::Same(12)),
        // Written, then zeroed: with and without its place.
        Op::Write(14 * cluster, 4 * cluster, Fill::Noise(2)),
        Op::Zero(15 * cluster, cluster),
        Op::Unmap(16 * cluster, cluster),
        // Zeroed where nothing was.
        Op::Zero(20 * cluster, 2 * cluster),
        // Written and discarded.
        Op::Write(24 * cluster, 3 * cluster, Fill::Same(24)),
        Op::Discard(25 * cluster, cluster),
        Op::Compressed(28 * cluster, cluster, Fill::Text(3)),
        Op::Compressed(29 * cluster, cluster, Fill::Text(4)),
        Op::Compressed(31 * cluster, cluster, Fill::Same(31)),
        // Compressed, then zeroed or overwritten.
        Op::Compressed(33 * cluster, cluster, Fill::Text(5)),
        Op::Zero(33 * cluster, cluster),
        Op::Compressed(34 * cluster, cluster, Fill::Text(6)),
        Op::Write(34 * cluster, 512, Fill::Same(34)),
        // Bytes that are zeros, but no zero clusters.
        Op::Write(36 * cluster, cluster, Fill::Same(0)),
    ];
    let tail = size - size % cluster;
    if tail < size {
        ops.push(Op::Write(tail, size - tail, Fill::Noise(7)));
    }
    ops
}

#[test]
fn versions_cluster_sizes_and_refcount_widths_are_read() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for bits in 9..=21 {
        let cluster = 1 << bits;
        // The last cluster is whole, of one sector, or all but one.
        let size = 40 * cluster + [0, 512, cluster - 512][bits % 3];
        for version in ["v2", "v3"] {
            let width = if version == "v2" { 16 } else { REFCOUNT_BITS[bits % 7] };
            let options = format!("cluster_size={cluster},compat={version},refcount_bits={width}");
            // Compressed clusters share sectors, which takes counts of more than one bit.
            let one_bit = |op: &Op| width == 1 && matches!(op, Op::Compressed(..));
            let ops = all_kinds(cluster, size).into_iter().filter(|op| !one_bit(op));
            Qcow2::new(size).option(&options).ops(ops).make(&image);
            assert_as_qemu(&tools, &image, &[]);
            assert_as_qemu(&tools, &image, &["--hash", "--format", "qcow2"]);
        }
    }
}

#[test]
fn refcount_widths_don_t_matter() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for width in REFCOUNT_BITS {
        let disk = Qcow2::new(8 * M).option(&format!("refcount_bits={width},cluster_size=4k"));
        disk.write(M, 3 * M, Fill::Noise(1)).op(Op::Zero(2 * M, 8 * K)).make(&image);
        assert_as_qemu(&tools, &image, &[]);
    }
}

/// A raw disk with runs of noise, of text, of text that ends within clusters, and of holes.
fn mixed(path: &Path, size: u64) {
    TestDisk::empty(size).with(0, 150_000, 1).with(M, 40 * K, 0).with(2 * M + 5, 70_000, 2).make(path);
    for (at, fill) in [(200 * K, Fill::Text(1)), (3 * M, Fill::Text(2)), (3 * M + 600 * K, Fill::Same(b'z'))] {
        write_at(path, at, &fill.bytes(500 << 10));
    }
    write_at(path, size - 70_000, &Fill::Text(3).bytes(70_000));
}

#[test]
fn compressed_clusters_that_share_and_cross_sectors_are_read() {
    let (tools, fs) = (tools!(), tmpfs());
    let (raw, image) = (fs.join("disk.raw"), fs.join("disk.qcow2"));
    mixed(&raw, 5 * M + 512 * 3);
    for method in ["zlib", "zstd"] {
        for bits in [9, 12, 14, 16, 18, 21] {
            let options = format!("compression_type={method},cluster_size={}", 1 << bits);
            qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &options, "disk.raw"], &image);
            assert!(merged(&qemu_map(&image)).iter().any(|line| line.compressed), "{options}");
            assert_as_qemu(&tools, &image, &[]);
            assert_as_qemu(&tools, &image, &["--hash", "--hash-interval", "64K"]);
        }
    }
}

#[test]
fn the_last_compressed_cluster_may_end_with_the_file_s_last_byte() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for method in ["zlib", "zstd"] {
        for bits in [9, 12, 16] {
            let cluster = 1 << bits;
            let options = format!("compression_type={method},cluster_size={cluster}");
            for (length, fill) in [Fill::Text(1), Fill::Same(5), Fill::Text(9)].into_iter().enumerate() {
                let at = 64 * cluster * (1 + u64::try_from(length).unwrap());
                let ops = [Op::Compressed(0, cluster, Fill::Text(2)), Op::Compressed(at, cluster, fill)];
                Qcow2::new(at + cluster).option(&options).ops(ops).make(&image);
                // Zeros past the end are what is read there, so these are none of the cluster's bytes that count.
                let bytes = fs::read(&image).unwrap();
                let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
                File::options().write(true).open(&image).unwrap().set_len(end as u64).unwrap();
                assert_as_qemu(&tools, &image, &[]);
            }
        }
    }
}

#[test]
fn subclusters_are_exact_to_the_subcluster() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for bits in [14, 15, 16, 18, 21] {
        let (cluster, sub) = (1 << bits, 1 << (bits - 5));
        let size = 40 * cluster + 5 * sub;
        let mut ops = vec![
            Op::Write(0, cluster, Fill::Noise(1)),
            // First and last, the middle, every other.
            Op::Write(2 * cluster, sub, Fill::Same(2)),
            Op::Write(3 * cluster - sub, 3 * sub, Fill::Same(3)),
            Op::Write(4 * cluster + 7 * sub, 9 * sub, Fill::Noise(4)),
            // Zeros with and without a place, next to data and to nothing.
            Op::Write(6 * cluster, cluster, Fill::Noise(5)),
            Op::Zero(6 * cluster + 3 * sub, 4 * sub),
            Op::Unmap(6 * cluster + 20 * sub, 5 * sub),
            Op::Zero(8 * cluster + 30 * sub, 4 * sub),
            Op::Unmap(10 * cluster, cluster),
            Op::Discard(6 * cluster + 10 * sub, 2 * sub),
            Op::Write(12 * cluster, 2 * cluster, Fill::Noise(6)),
            Op::Discard(12 * cluster, cluster),
            Op::Compressed(15 * cluster, cluster, Fill::Text(7)),
            Op::Compressed(16 * cluster, cluster, Fill::Text(8)),
            Op::Zero(16 * cluster + sub, sub),
            Op::Write(40 * cluster + 4 * sub, sub, Fill::Same(9)),
        ];
        ops.extend((0..16).map(|n| Op::Write(18 * cluster + 2 * n * sub, sub, Fill::Same(11))));
        ops.extend((0..10).map(|n| Op::Zero(18 * cluster + (3 * n + 1) * sub, sub)));
        let options = format!("extended_l2=on,cluster_size={cluster}");
        Qcow2::new(size).option(&options).ops(ops.clone()).make(&image);
        assert_as_qemu(&tools, &image, &[]);
        // The same over a base: what is unallocated is the base's, what is zero is not.
        let base = fs.join("base.qcow2");
        Qcow2::new(size - cluster).option("cluster_size=4k").write(0, size - cluster, Fill::Noise(12)).make(&base);
        let image = fs.join("overlay.qcow2");
        Qcow2::new(size).option(&options).backing("base.qcow2", Some("qcow2")).ops(ops).make(&image);
        assert_as_qemu(&tools, &image, &["--hash"]);
    }
}

#[test]
fn data_in_an_external_file_is_read_from_beside_the_image() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for options in
        ["", "data_file_raw=on", "cluster_size=4k", "extended_l2=on,cluster_size=32k", "preallocation=metadata"]
    {
        let _not_there = fs::remove_file(fs.join("disk.data"));
        let cluster = 64 * K;
        let ops = all_kinds(cluster, 41 * cluster - 512).into_iter().filter(|op| !matches!(op, Op::Compressed(..)));
        let disk = Qcow2::new(41 * cluster - 512).option("data_file=disk.data").option(options);
        disk.ops(ops).make(&image);
        assert_as_qemu(&tools, &image, &[]);
        // A shorter data file: what is past its end reads as zeros.
        File::options().write(true).open(fs.join("disk.data")).unwrap().set_len(8 * cluster + 700).unwrap();
        assert!(assert_as(&tools, &image, &[], &image).contains("disk.data: ends at 0x802bc, before data"));
    }
}

#[test]
fn a_table_that_the_end_of_the_file_cuts_is_told_of() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    // Five L1 entries of 2 MiB each; the last L2 table speaks of 1 MiB only.
    let made = || {
        Qcow2::new(9 * M).option("cluster_size=4k").write(M, 8 * M, Fill::Noise(1)).make(&image);
        fs::metadata(&image).unwrap().len().next_multiple_of(4 * K)
    };
    let at_the_end = |end: u64, from: u64, len: u64| {
        let table =
            fs::read(&image).unwrap()[usize::try_from(from).unwrap()..][..usize::try_from(len).unwrap()].to_vec();
        write_at(&image, end, &table);
    };
    let cut = |len| File::options().write(true).open(&image).unwrap().set_len(len).unwrap();
    let said = || assert_as(&tools, &image, &[], &image);
    for (entries, lost) in [(512, false), (256, false), (255, true), (1, true)] {
        let end = made();
        let entry = l1_entry(&image, 4);
        at_the_end(end, peek(&image, entry) & !(1 << 63), 4 * K);
        poke(&image, entry, end | 1 << 63);
        assert!(!said().contains("inside a table"));
        cut(end + 8 * entries);
        assert_eq!(said().contains("disk.qcow2: ends at"), lost, "{entries} entries: {}", said());
        assert_eq!(said().contains("inside a table"), lost, "{entries} entries");
    }
    for (entries, lost) in [(5, false), (3, true)] {
        let end = made();
        at_the_end(end, peek(&image, Field::L1_OFFSET), 40);
        poke(&image, Field::L1_OFFSET, end);
        cut(end + 8 * entries);
        assert_eq!(said().contains("inside a table"), lost, "{entries} entries");
    }
}

#[test]
fn a_compressed_cluster_that_the_end_of_the_file_cuts_is_refused() {
    let (tools, fs) = (tools!(), tmpfs());
    let (raw, image) = (fs.join("disk.raw"), fs.join("disk.qcow2"));
    // Few bytes of many kinds: their codes are short, and zeros are one of them.
    let text: Vec<u8> =
        (0..8 * 16384_u32).map(|n| b"aaaabbcd"[(n.wrapping_mul(2_654_435_761) >> 29) as usize]).collect();
    fs::write(&raw, &text).unwrap();
    for kind in ["zlib", "zstd"] {
        let options = format!("compression_type={kind}");
        let args = ["convert", "-c", "-O", "qcow2", "-o", &options, raw.to_str().unwrap(), image.to_str().unwrap()];
        tool("qemu-img", &args);
        let whole = fs::read(&image).unwrap();
        let place = peek(&image, l2_entry(&image, 0, 1)) & ((1 << 54) - 1);
        assert!(whole.len() as u64 > place + 600, "the second cluster lies last");
        let mut refused = 0;
        for cut in (place..whole.len() as u64).step_by(97) {
            fs::write(&image, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            let outcome = run(
                Command::new(&tools.xfer_hole).args(["-q"]).arg(&image).arg(fs.join("out.img")).arg("--force"),
                b"",
            );
            if outcome.code == Some(0) {
                assert!(fs::read(fs.join("out.img")).unwrap() == text, "{kind}, cut at {cut}: {}", outcome.err);
            } else {
                outcome.refused(&["disk.qcow2", "compressed cluster at"]);
                refused += 1;
            }
        }
        assert!(refused > 5, "{kind}: {refused}");
    }
}

#[test]
fn sizes_that_are_no_multiple_of_anything_are_kept() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for size in [0, 512, 65_024, 65_536, 66_048, 70_144, 10 * M + 512 * 77] {
        for options in ["", "cluster_size=512", "cluster_size=2M", "compat=v2"] {
            let mut disk = Qcow2::new(size).option(options);
            if size >= 1024 {
                disk = disk.write(size - 1024, 1024, Fill::Noise(size));
            }
            disk.make(&image);
            assert_as_qemu(&tools, &image, &[]);
        }
    }
    // The size may end within a sector, which then is none of the disk's.
    for (size, bytes) in [(70_001, 69_632), (65_536 + 511, 65_536), (511, 0), (1, 0)] {
        Qcow2::new(70_144).write(0, 70_144, Fill::Noise(1)).make(&image);
        poke(&image, Field::SIZE, size);
        assert_as(&tools, &image, &[], &image);
        assert_eq!(merged(&our_map(&tools, &[], &image)).iter().map(|line| line.length).sum::<u64>(), bytes);
    }
}

#[test]
fn what_a_short_image_file_lacks_reads_as_zeros() {
    let (tools, fs) = (tools!(), tmpfs());
    let (image, whole) = (fs.join("disk.qcow2"), fs.join("whole.qcow2"));
    let places = [0, M, 40 * M, 2 * M, 80 * M];
    let write = |disk: Qcow2, &at: &u64| disk.write(at, 200 * K, Fill::Noise(at));
    places.iter().fold(Qcow2::new(100 * M).option("cluster_size=4k"), write).make(&whole);
    let len = fs::metadata(&whole).unwrap().len();
    // The last L2 table lies before its data: from there on anything may be missing.
    let table = l2_entry(&whole, 40, 0).0;
    let cuts = [len - 1, len - 512, len - 4096, len - 5000, len - 100 * K, table + 4096, table + 4096 + 77];
    for cut in cuts {
        assert!(cut > table);
        fs::copy(&whole, &image).unwrap();
        File::options().write(true).open(&image).unwrap().set_len(cut).unwrap();
        // A file may end within its last cluster. That a whole cluster is gone is told.
        let said = assert_as(&tools, &image, &[], &image);
        let told = said.contains("warning: ") && said.contains("disk.qcow2: ends at 0x");
        assert_eq!(told, cut <= len - 4096, "{cut} of {len}: {said}");
    }
}

#[test]
fn preallocated_clusters_are_holes_and_keep_their_place_in_the_map() {
    let tools = tools!();
    for kind in [Fs::Tmpfs, Fs::Ext4] {
        let fs = Filesystem::new(kind, 256 * M);
        let image = fs.join("disk.qcow2");
        for mode in ["metadata", "falloc", "full"] {
            for options in ["", "cluster_size=4k", "extended_l2=on"] {
                let disk = Qcow2::new(12 * M + 512).option(&format!("preallocation={mode}")).option(options);
                disk.write(5 * M, 100 * K, Fill::Noise(1)).write(8 * M + 512, 512, Fill::Same(1)).make(&image);
                tool("sync", &["-f", image.to_str().unwrap()]);
                assert_as_qemu(&tools, &image, &[]);
            }
        }
        Qcow2::new(12 * M).option("preallocation=metadata").make(&image);
        let lines = merged(&our_map(&tools, &[], &image));
        assert!(lines.iter().all(|line| line.data && line.zero && line.offset.is_some()), "{kind:?} {lines:?}");
    }
}

/// Its type, and its bytes.
type Extension<'a> = (u32, &'a [u8]);

#[test]
fn longer_headers_and_unknown_extensions_are_passed_over() {
    let (tools, fs) = (tools!(), tmpfs());
    let (image, plain) = (fs.join("disk.qcow2"), fs.join("plain.qcow2"));
    let long = [7; 300];
    let cases: [(u64, &[Extension<'_>]); 6] = [
        (120, &[]),
        (1024, &[]),
        (112, &[(0x1234_5678, b"")]),
        (112, &[(0x1234_5678, b"x"), (0x7654_3210, b"seven o"), (0xffff_ffff, b"eight oc")]),
        (144, &[(0x1234_5678, &long), (0x1234_5678, &long)]),
        (65_536 - 1024, &[(0x1234_5678, b"almost at the end")]),
    ];
    for options in ["", "compression_type=zstd", "extended_l2=on"] {
        Qcow2::new(4 * M).option(options).ops(all_kinds(64 * K, 40 * 64 * K)).make(&plain);
        for (header, extensions) in cases {
            fs::copy(&plain, &image).unwrap();
            stretch_header(&image, header, extensions);
            assert_as_qemu(&tools, &image, &[]);
        }
    }
    // The shortest there is, without a compression type.
    Qcow2::new(4 * M).option("compression_type=zlib").ops(all_kinds(64 * K, 40 * 64 * K)).make(&image);
    let bytes = fs::read(&image).unwrap();
    write_at(&image, 104, &bytes[112..4096]);
    poke(&image, Field::HEADER_LENGTH, 104);
    assert_as_qemu(&tools, &image, &[]);
}

#[test]
fn bits_that_don_t_concern_readers_are_passed_over() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    Qcow2::new(4 * M).option("lazy_refcounts=on").ops(all_kinds(64 * K, 40 * 64 * K)).make(&image);
    for field in [Field::COMPATIBLE, Field::AUTOCLEAR] {
        poke(&image, field, peek(&image, field) | 0xffff_ffff_ffff_0000);
        assert_as_qemu(&tools, &image, &[]);
    }
}

#[test]
fn dirty_and_corrupt_images_are_read_with_a_warning() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for (bit, word) in [(1, "dirty"), (2, "corrupt")] {
        Qcow2::new(4 * M).option("lazy_refcounts=on").ops(all_kinds(64 * K, 40 * 64 * K)).make(&image);
        poke(&image, Field::INCOMPATIBLE, bit);
        let said = assert_as(&tools, &image, &[], &image);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("xfer-hole: warning: ") && said.contains("disk.qcow2") && said.contains(word),
            "{said}"
        );
    }
}

#[test]
fn an_absent_l1_entry_is_a_hole_and_an_absent_table_is_none() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    Qcow2::new(64 * M)
        .option("cluster_size=4k")
        .write(5 * M, M, Fill::Noise(1))
        .write(63 * M, M, Fill::Noise(2))
        .make(&image);
    assert_as_qemu(&tools, &image, &[]);
    poke(&image, l1_entry(&image, 2), 0);
    assert_as_qemu(&tools, &image, &[]);
    // No L1 table is needed where there is no disk.
    Qcow2::new(0).make(&image);
    poke(&image, Field::L1_SIZE, 0);
    assert_as_qemu(&tools, &image, &[]);
}

#[test]
fn an_image_on_a_block_device_is_read() {
    let (tools, fs, device) = (tools!(), tmpfs(), LoopDevice::filled(8 * M, 7));
    let image = fs.join("disk.qcow2");
    Qcow2::new(41 * 64 * K).ops(all_kinds(64 * K, 41 * 64 * K)).make(&image);
    fs::write(device.path(), fs::read(&image).unwrap()).unwrap();
    let named = ["--format", "qcow2"];
    let streamed = rig::pour(&tools, &["--hash", "--format", "qcow2"], device.path());
    assert!(streamed == rig::pour(&tools, &["--hash"], &image));
    assert_eq!(rig::by_tables(&our_map(&tools, &named, device.path())), rig::by_tables(&qemu_map(&image)));
}

#[test]
fn the_bitmap_of_a_compressed_cluster_counts_for_nothing() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for bits in [1, 1 << 31, u64::from(u32::MAX), 1 << 32, u64::from(u32::MAX) << 32, 1 << 40 | 1 << 8, u64::MAX] {
        let disk =
            Qcow2::new(M).option("cluster_size=16k").option("extended_l2=on").write(64 * K, 2 * K, Fill::Noise(1));
        disk.ops([Op::Compressed(0, 32 * K, Fill::Text(1))]).make(&image);
        let bitmap = rig::Field(rig::l2_entry(&image, 0, 0).0 + 8, 8);
        rig::poke(&image, bitmap, bits);
        assert_as_qemu(&tools, &image, &[]);
    }
}

/// The records and END of a stream, without its first line and payloads, are what the disk is, not what holds it.
#[test]
fn the_same_disk_is_the_same_stream_whatever_holds_it() {
    let (tools, fs) = (tools!(), tmpfs());
    let raw = fs.join("disk.raw");
    mixed(&raw, 5 * M + 512 * 3);
    let mut images = vec![raw.clone()];
    let cases: [(&str, &[&str]); 7] = [
        ("plain", &[]),
        ("small", &["-o", "cluster_size=512"]),
        ("old", &["-o", "compat=v2"]),
        ("zlib", &["-c"]),
        ("zstd", &["-c", "-o", "compression_type=zstd,cluster_size=2M"]),
        ("extended", &["-o", "extended_l2=on"]),
        ("preallocated", &["-o", "preallocation=metadata", "-S", "0"]),
    ];
    for (name, args) in cases {
        let image = fs.join(&format!("{name}.qcow2"));
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], args, &["disk.raw"]].concat(), &image);
        images.push(image);
    }
    // And a chain, each layer of which has some of it, over a base that has other things there.
    Qcow2::new(3 * M).option("cluster_size=4k").write(0, 3 * M, Fill::Noise(9)).make(&fs.join("chain.0"));
    Qcow2::new(4 * M).backing("chain.0", Some("qcow2")).write(M, M, Fill::Noise(8)).make(&fs.join("chain.1"));
    let args = ["convert", "-f", "raw", "-O", "qcow2", "-B", "chain.1", "-F", "qcow2", "disk.raw"];
    qemu_img(&args, &fs.join("chain.qcow2"));
    images.push(fs.join("chain.qcow2"));
    for args in [&["--hash"][..], &["--hash", "--hash-interval", "64K", "--min-hole", "512"]] {
        let streams: Vec<_> = images.iter().map(|image| rig::pour(&tools, args, image)).collect();
        for (image, stream) in images.iter().zip(&streams) {
            assert!(*stream == streams[0], "{} {args:?} is another stream", image.display());
        }
    }
}
