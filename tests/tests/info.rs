//! `xfer-hole info`: what an image is, as qemu-img says it where it does, for people and for programs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;
use std::process::Command;

use rig::{Field, Filesystem, Fill, Fs, Op, Outcome, Qcow2, TestDisk, poke, qemu_img, run, tools};
use serde_json::Value;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

fn tmpfs() -> Filesystem {
    Filesystem::new(Fs::Tmpfs, 256 * M)
}

fn info(args: &[&str], image: &Path) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg("info").args(args).arg(image), b"")
}

fn json(args: &[&str], image: &Path) -> Value {
    let outcome = info(&[&["--output", "json"], args].concat(), image).ok();
    serde_json::from_slice(&outcome.out).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

fn human(image: &Path) -> String {
    String::from_utf8(info(&[], image).ok().out).unwrap()
}

/// What qemu-img says, where ours says it too.
fn theirs(image: &Path) -> Value {
    serde_json::from_str(&qemu_img(&["info", "--output=json"], image)).unwrap()
}

/// Fails unless each of these places of the two answers, as JSON pointers, is the same: there or not.
#[track_caller]
fn assert_like(ours: &Value, theirs: &Value, places: &[&str]) {
    for place in places {
        assert_eq!(ours.pointer(place), theirs.pointer(place), "{place} of {ours:#} and {theirs:#}");
    }
}

const PLACES: [&str; 15] = [
    "/format",
    "/virtual-size",
    "/cluster-size",
    "/dirty-flag",
    "/backing-filename",
    "/backing-filename-format",
    "/format-specific/type",
    "/format-specific/data/compat",
    "/format-specific/data/compression-type",
    "/format-specific/data/lazy-refcounts",
    "/format-specific/data/refcount-bits",
    "/format-specific/data/corrupt",
    "/format-specific/data/extended-l2",
    "/format-specific/data/data-file",
    "/format-specific/data/data-file-raw",
];

#[test]
fn json_has_the_fields_of_qemu_img() {
    let fs = tmpfs();
    let image = fs.join("disk.qcow2");
    let cases = [
        "",
        "compat=v2",
        "cluster_size=512",
        "cluster_size=2M,refcount_bits=1",
        "refcount_bits=64,lazy_refcounts=on",
        "compression_type=zstd",
        "extended_l2=on",
        "data_file=disk.data",
        "data_file=disk.data,data_file_raw=on",
    ];
    for options in cases {
        let _not_there = std::fs::remove_file(fs.join("disk.data"));
        Qcow2::new(8 * M + 512).option(options).write(0, M, Fill::Noise(1)).make(&image);
        let (ours, theirs) = (json(&[], &image), theirs(&image));
        assert_like(&ours, &theirs, &PLACES);
        assert_like(&ours, &theirs, &["/actual-size"]);
        let text = human(&image);
        for word in ["disk.qcow2", "qcow2", &(8 * M + 512).to_string()] {
            assert!(text.contains(word), "{options}: {word} is not in {text}");
        }
    }
    for (bit, place) in [(1, "/dirty-flag"), (2, "/format-specific/data/corrupt")] {
        Qcow2::new(M).option("lazy_refcounts=on").make(&image);
        poke(&image, Field::INCOMPATIBLE, bit);
        assert_eq!(json(&[], &image).pointer(place), Some(&Value::Bool(true)));
        assert_like(&json(&[], &image), &theirs(&image), &PLACES);
    }
}

#[test]
fn a_raw_disk_has_its_sizes() {
    let fs = tmpfs();
    let image = fs.join("disk.raw");
    TestDisk::empty(3 * M).with(0, M, 1).make(&image);
    let theirs = serde_json::from_str(&qemu_img(&["info", "--output=json", "-f", "raw"], &image)).unwrap();
    assert_like(&json(&[], &image), &theirs, &["/format", "/virtual-size", "/actual-size"]);
    assert!(human(&image).contains("raw"));
}

#[test]
fn snapshots_are_listed_as_qemu_img_lists_them() {
    let fs = tmpfs();
    let image = fs.join("disk.qcow2");
    let disk = Qcow2::new(2 * M).write(0, M, Fill::Noise(1)).snapshot("first").write(0, K, Fill::Same(2));
    disk.snapshot("späße \"and\" more").resize(3 * M).snapshot("third").make(&image);
    let (ours, theirs) = (json(&[], &image), theirs(&image));
    let places = |list: usize| {
        ["id", "name", "vm-state-size", "date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec"]
            .map(|name| format!("/snapshots/{list}/{name}"))
    };
    for place in (0..3).flat_map(places) {
        assert!(theirs.pointer(&place).is_some(), "{place}");
        assert_like(&ours, &theirs, &[&place]);
    }
    assert_eq!(ours["snapshots"].as_array().unwrap().len(), 3);
    let text = human(&image);
    assert!(["first", "späße \"and\" more", "third"].iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn bitmaps_are_listed_as_qemu_img_lists_them() {
    let fs = tmpfs();
    let image = fs.join("disk.qcow2");
    Qcow2::new(8 * M).write(0, M, Fill::Noise(1)).make(&image);
    let name = image.to_str().unwrap();
    for args in [
        &["bitmap", "--add", name, "daily"][..],
        &["bitmap", "--add", "-g", "128k", name, "weekly"],
        &["bitmap", "--disable", name, "weekly"],
        &["bitmap", "--add", "-g", "512", name, "fine grained"],
    ] {
        rig::tool("qemu-img", args);
    }
    let (ours, theirs) = (json(&[], &image), theirs(&image));
    let bitmaps = |of: &Value| {
        let list = of.pointer("/format-specific/data/bitmaps").unwrap().as_array().unwrap().clone();
        let mut list: Vec<_> =
            list.iter().map(|one| (one["name"].clone(), one["granularity"].clone(), one["flags"].clone())).collect();
        list.sort_by_key(|one| one.0.to_string());
        list
    };
    assert_eq!(bitmaps(&ours), bitmaps(&theirs));
    let text = human(&image);
    assert!(["daily", "weekly", "fine grained"].iter().all(|name| text.contains(name)), "{text}");
    // The disk itself is none the worse for them.
    rig::assert_as_qemu(&tools!(), &image, &[]);
}

#[test]
fn the_chain_is_told_layer_by_layer() {
    let fs = tmpfs();
    let top = fs.join("top.qcow2");
    TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join("base.raw"));
    Qcow2::new(2 * M).option("cluster_size=4k").backing("base.raw", Some("raw")).make(&fs.join("middle.qcow2"));
    Qcow2::new(3 * M).backing("middle.qcow2", Some("qcow2")).op(Op::Write(0, K, Fill::Same(1))).make(&top);
    let ours = json(&[], &top);
    assert_like(&ours, &theirs(&top), &PLACES);
    let chain = ours["chain"].as_array().unwrap();
    assert_eq!(chain.len(), 2, "{ours:#}");
    assert_like(&chain[0], &theirs(&fs.join("middle.qcow2")), &PLACES);
    assert_eq!((&chain[1]["format"], &chain[1]["virtual-size"]), (&"raw".into(), &M.into()));
    let text = human(&top);
    assert!(["top.qcow2", "middle.qcow2", "base.raw"].iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn an_image_whose_base_is_missing_or_refused_is_told_of_all_the_same() {
    let fs = tmpfs();
    let top = fs.join("top.qcow2");
    for name in ["missing.qcow2", "/etc/passwd", "nbd://localhost/x"] {
        Qcow2::new(3 * M).make(&top);
        qemu_img(&["rebase", "-u", "-b", name, "-F", "raw"], &top);
        let outcome = info(&["--output", "json"], &top).ok();
        let ours: Value = serde_json::from_slice(&outcome.out).unwrap();
        assert_eq!((&ours["virtual-size"], &ours["backing-filename"]), (&(3 * M).into(), &name.into()));
        assert!(
            outcome.err.starts_with("xfer-hole: warning: ") && outcome.err.contains("top.qcow2"),
            "{}",
            outcome.err
        );
        assert!(ours["chain"].to_string().contains("error"), "{ours:#}");
        assert!(human(&top).contains(name));
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let fs = tmpfs();
    let image = fs.join("disk.qcow2");
    Qcow2::new(M).make(&image);
    poke(&image, Field::CLUSTER_BITS, 8);
    for output in ["json", "human"] {
        let outcome = info(&["--output", output], &image).refused(&["disk.qcow2", "cluster"]);
        assert!(outcome.out.is_empty());
    }
    info(&[], &fs.join("missing")).refused(&["missing", "no such file"]);
    let snapshot = info(&["--snapshot", "none"], &image);
    assert_eq!(snapshot.code, Some(2));
}
