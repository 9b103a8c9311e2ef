//! Internal snapshots: by name and by ID, with the size that the disk had then.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;

use rig::{
    Field, Filesystem, Fill, Fs, Op, Qcow2, TestDisk, Tools, assert_as, assert_as_qemu, assert_refused, gone_back,
    merged, our_map, poke, qemu_img, tools,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

fn tmpfs() -> Filesystem {
    Filesystem::new(Fs::Tmpfs, 512 * M)
}

#[track_caller]
fn assert_snapshot(tools: &Tools, image: &Path, snapshot: &str, back: &Path) {
    assert_eq!(assert_as(tools, image, &["--snapshot", snapshot], back), "", "{snapshot}");
}

/// Three snapshots, each unlike the others and unlike what came after.
fn with_three(disk: Qcow2) -> Qcow2 {
    disk.write(0, 300 * K, Fill::Noise(1))
        .snapshot("first")
        .write(100 * K, 100 * K, Fill::Noise(2))
        .ops([Op::Zero(0, 64 * K), Op::Discard(192 * K, 64 * K)])
        .snapshot("second one")
        .ops([Op::Compressed(M, 64 * K, Fill::Text(3)), Op::Unmap(256 * K, 128 * K)])
        .snapshot("third")
        .write(0, 2 * M, Fill::Same(4))
}

#[test]
fn a_snapshot_is_read_by_its_name_and_by_its_id() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    let cases = [
        "",
        "compat=v2",
        "cluster_size=4k",
        "cluster_size=512,compression_type=zstd",
        "extended_l2=on",
        "cluster_size=64k,refcount_bits=64",
    ];
    for options in cases {
        with_three(Qcow2::new(3 * M + 512).option(options)).make(&image);
        for (id, name) in [("1", "first"), ("2", "second one"), ("3", "third")] {
            let back = gone_back(&image, name);
            assert_snapshot(&tools, &image, name, &back);
            assert_snapshot(&tools, &image, id, &back);
        }
        assert_as_qemu(&tools, &image, &[]);
    }
}

#[test]
fn a_snapshot_has_the_size_that_the_disk_had() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for cluster in ["512", "4k", "64k"] {
        let disk = Qcow2::new(M + 512).option(&format!("cluster_size={cluster}")).write(M, 512, Fill::Same(1));
        let disk = disk.snapshot("small").resize(5 * M).write(4 * M, M, Fill::Noise(2)).snapshot("large");
        disk.resize(9 * M + 1024).write(9 * M, 1024, Fill::Same(3)).make(&image);
        for (name, size) in [("small", M + 512), ("large", 5 * M)] {
            assert_snapshot(&tools, &image, name, &gone_back(&image, name));
            let lines = merged(&our_map(&tools, &["--snapshot", name], &image));
            assert_eq!(lines.iter().map(|line| line.length).sum::<u64>(), size);
        }
        assert_as_qemu(&tools, &image, &[]);
    }
}

#[test]
fn a_snapshot_lies_over_the_same_bases_as_its_image() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("top.qcow2");
    TestDisk::empty(2 * M + 100).with(0, M, 1).with(2 * M, 100, 2).make(&fs.join("base.raw"));
    Qcow2::over("base.raw", "raw")
        .write(M, 50 * K, Fill::Same(1))
        .snapshot("not asked for")
        .make(&fs.join("middle.qcow2"));
    let disk = Qcow2::new(3 * M).option("extended_l2=on").backing("middle.qcow2", Some("qcow2"));
    with_three(disk).make(&image);
    for name in ["first", "second one", "third"] {
        assert_snapshot(&tools, &image, name, &gone_back(&image, name));
    }
    assert_as_qemu(&tools, &image, &[]);
}

#[test]
fn snapshots_of_images_with_external_data_files_are_refused_by_qemu_and_so_there_are_none() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    Qcow2::new(M).option("data_file=disk.data").write(0, M, Fill::Noise(1)).make(&image);
    assert_refused(&tools, &image, &["--snapshot", "1"], &["disk.qcow2", "snapshot"]);
}

#[test]
fn an_id_goes_before_a_name_that_looks_like_it() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    let disk = Qcow2::new(M).write(0, K, Fill::Same(1)).snapshot("2").write(0, K, Fill::Same(2)).snapshot("9");
    disk.write(0, K, Fill::Same(3)).make(&image);
    let copies = ["1", "2"].map(|id| {
        let copy = fs.join(&format!("{id}.qcow2"));
        Qcow2::new(M).write(0, K, Fill::Same(id.parse().unwrap())).make(&copy);
        rig::pour(&tools, &[], &copy)
    });
    for (wanted, of) in [("1", 0), ("2", 1), ("9", 1)] {
        assert!(rig::pour(&tools, &["--snapshot", wanted], &image) == copies[of], "{wanted}");
    }
}

#[test]
fn a_name_that_two_snapshots_have_is_refused_and_their_ids_are_not() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    let disk = Qcow2::new(M).write(0, K, Fill::Same(1)).snapshot("twin").write(0, K, Fill::Same(2)).snapshot("twin");
    disk.make(&image);
    let said = assert_refused(&tools, &image, &["--snapshot", "twin"], &["disk.qcow2", "twin"]);
    assert!(said.contains("hint: "), "{said}");
    for id in ["1", "2"] {
        assert_snapshot(&tools, &image, id, &gone_back(&image, id));
    }
}

#[test]
fn a_snapshot_that_is_not_there_is_refused_and_those_that_are_are_named() {
    let (tools, fs) = (tools!(), tmpfs());
    let (image, raw) = (fs.join("disk.qcow2"), fs.join("disk.raw"));
    with_three(Qcow2::new(3 * M)).make(&image);
    for wanted in ["fourth", "4", "firs", ""] {
        let said = assert_refused(&tools, &image, &["--snapshot", wanted], &["disk.qcow2", "snapshot"]);
        assert!(["first", "second one", "third"].iter().all(|name| said.contains(name)), "{said}");
    }
    Qcow2::new(3 * M).make(&image);
    assert_refused(&tools, &image, &["--snapshot", "first"], &["disk.qcow2", "snapshot"]);
    TestDisk::empty(M).make(&raw);
    assert_refused(&tools, &raw, &["--snapshot", "first"], &["disk.raw", "snapshot"]);
}

#[test]
fn deleted_snapshots_are_gone_and_the_others_stay() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    with_three(Qcow2::new(3 * M)).make(&image);
    qemu_img(&["snapshot", "-d", "second one"], &image);
    assert_refused(&tools, &image, &["--snapshot", "2"], &["snapshot"]);
    for name in ["first", "third"] {
        assert_snapshot(&tools, &image, name, &gone_back(&image, name));
    }
}

#[test]
fn one_of_many_snapshots_is_found() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    let one_more = |disk: Qcow2, n: u64| {
        // Names of all lengths, so that the table's entries begin at all places.
        let name = format!("snapshot {n} {}", "x".repeat(usize::try_from(n * 7 % 200).unwrap()));
        disk.write(n * 512, 512, Fill::Same(u8::try_from(n).unwrap() + 1)).snapshot(&name)
    };
    (0..60).fold(Qcow2::new(M).option("cluster_size=512"), one_more).make(&image);
    for id in ["1", "2", "37", "60"] {
        assert_snapshot(&tools, &image, id, &gone_back(&image, id));
    }
}

#[test]
fn a_bad_snapshot_table_does_not_keep_the_disk_itself_from_being_refused_in_one_line() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for (field, value) in [
        (Field::SNAPSHOTS, 0xffff_ffff),
        (Field::SNAPSHOTS, 65_537),
        (Field::SNAPSHOTS_OFFSET, (1 << 63) - (64 << 10)),
        (Field::SNAPSHOTS_OFFSET, 77),
    ] {
        with_three(Qcow2::new(3 * M)).make(&image);
        poke(&image, field, value);
        assert_refused(&tools, &image, &[], &["disk.qcow2", "snapshot"]);
    }
}
