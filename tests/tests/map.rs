//! `xfer-hole map`: to the letter what `qemu-img map` says, and a table for people.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;
use std::process::{Command, Stdio};

use rig::{
    Filesystem, Fill, Fs, Op, Outcome, Qcow2, Running, TestDisk, our_map, qemu_img, qemu_map, requires, run, tools,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

fn tmpfs() -> Filesystem {
    Filesystem::new(Fs::Tmpfs, 256 * M)
}

fn map(args: &[&str], image: &Path) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg("map").args(args).arg(image), b"")
}

/// An image with a line of each kind.
fn every_line(fs: &Filesystem) -> std::path::PathBuf {
    let image = fs.join("top.qcow2");
    TestDisk::empty(3 * M + 100).with(0, 100 * K, 1).with(M, 50 * K, 2).with(3 * M, 100, 3).make(&fs.join("base.raw"));
    let middle = Qcow2::new(4 * M).backing("base.raw", Some("raw"));
    middle.write(M, 128 * K, Fill::Noise(1)).op(Op::Zero(2 * M, 128 * K)).make(&fs.join("middle.qcow2"));
    let top = Qcow2::new(5 * M).backing("middle.qcow2", Some("qcow2"));
    let ops = [
        Op::Compressed(2 * M + 512 * K, 64 * K, Fill::Text(1)),
        Op::Write(3 * M + 512 * K, 64 * K, Fill::Noise(2)),
        Op::Write(3 * M + 640 * K, 128 * K, Fill::Noise(3)),
        Op::Zero(3 * M + 640 * K, 64 * K),
    ];
    top.ops(ops).make(&image);
    image
}

#[test]
fn json_is_that_of_qemu_img_to_the_letter() {
    let (tools, fs) = (tools!(), tmpfs());
    let top = every_line(&fs);
    for image in [&top, &fs.join("middle.qcow2")] {
        assert_eq!(our_map(&tools, &[], image), qemu_map(image));
        assert_eq!(our_map(&tools, &["--format", "qcow2"], image), qemu_map(image));
    }
    let image = fs.join("disk.qcow2");
    for size in [512, 64 * K, M + 512, 100 * G, 16 << 40] {
        Qcow2::new(size).make(&image);
        assert_eq!(our_map(&tools, &[], &image), qemu_map(&image), "{size}");
    }
    Qcow2::new(8 * M)
        .option("extended_l2=on")
        .ops((0..60).map(|n| Op::Write(n * 130 * K, 3 * K, Fill::Noise(n))))
        .make(&image);
    assert_eq!(our_map(&tools, &[], &image), qemu_map(&image));
    Qcow2::new(8 * M)
        .option("data_file=disk.data")
        .ops((0..60).map(|n| Op::Write(n * 130 * K, 3 * K, Fill::Noise(n))))
        .make(&image);
    assert_eq!(our_map(&tools, &[], &image), qemu_map(&image));
}

#[test]
fn chains_in_which_nothing_is_allocated_are_mapped_to_the_letter_too() {
    let (tools, fs) = (tools!(), tmpfs());
    let sizes = [3 * M, M, 2 * M + 512, 5 * M];
    for (base, format) in [("base.raw", "raw"), ("base.qcow2", "qcow2")] {
        match format {
            "raw" => TestDisk::empty(M + 100).make(&fs.join(base)),
            _ => Qcow2::new(M + 512).make(&fs.join(base)),
        }
        let mut below = (base.to_owned(), format);
        for (layer, size) in sizes.into_iter().enumerate() {
            let name = format!("layer{layer}.qcow2");
            Qcow2::new(size).backing(&below.0, Some(below.1)).make(&fs.join(&name));
            assert_eq!(our_map(&tools, &[], &fs.join(&name)), qemu_map(&fs.join(&name)));
            below = (name, "qcow2");
        }
    }
}

#[test]
fn an_image_without_bytes_is_an_empty_list() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    Qcow2::new(0).make(&image);
    let (ours, theirs) = (our_map(&tools, &[], &image), qemu_map(&image));
    assert_eq!(ours, theirs);
    map(&[], &image).ok();
}

#[test]
fn a_raw_disk_is_mapped_as_qemu_img_maps_it() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.raw");
    for size in [512, 70_000, 3 * M + 100, 10 * M] {
        TestDisk::empty(size).with(0, 200, 1).with(size / 2 / 4096 * 4096, 50, 2).make(&image);
        let theirs = qemu_img(&["map", "--output=json", "-f", "raw"], &image);
        for args in [&[][..], &["--format", "raw"], &["--extents", "seek"]] {
            assert_eq!(our_map(&tools, args, &image), theirs, "{size} {args:?}");
        }
    }
    // By reading, all of it is data.
    let scanned = rig::merged(&our_map(&tools, &["--extents", "scan"], &image));
    assert!(scanned.iter().all(|line| line.data && !line.zero), "{scanned:?}");
}

#[test]
fn the_table_says_start_length_status_depth_and_file_and_ends_with_totals() {
    let fs = tmpfs();
    let image = every_line(&fs);
    for args in [&[][..], &["--output", "human"]] {
        let said = String::from_utf8(map(args, &image).ok().out).unwrap();
        let header = said.lines().next().unwrap().to_lowercase();
        for word in ["start", "length", "status", "depth", "file"] {
            assert!(header.contains(word), "{said}");
        }
        for word in ["data", "zero", "hole", "compressed", "top.qcow2", "middle.qcow2", "base.raw"] {
            assert!(said.contains(word), "{word} is not in {said}");
        }
        // A line for each of the map's, whose numbers are bytes.
        for line in rig::merged(&qemu_map(&image)) {
            let (start, length) = (line.start.to_string(), line.length.to_string());
            let found = said.lines().any(|row| {
                let words: Vec<_> = row.split_whitespace().collect();
                words.first() == Some(&&start[..]) && words.get(1) == Some(&&length[..])
            });
            assert!(found, "{line:?} is not in {said}");
        }
    }
}

#[test]
fn a_map_that_nobody_reads_to_its_end_ends_without_a_word() {
    let fs = tmpfs();
    let image = fs.join("disk.qcow2");
    let places = (0..8000).map(|n| Op::Write(n * 2048, 512, Fill::Same(1)));
    Qcow2::new(16 * M).option("cluster_size=512").ops(places).make(&image);
    for output in ["json", "human"] {
        let (read, write) = std::io::pipe().unwrap();
        let mut command = Command::new(tools!().xfer_hole);
        let running = Running::between(Stdio::null(), command.args(["map", "--output", output]).arg(&image), write);
        drop(read);
        let outcome = running.end();
        assert_eq!(outcome.err, "", "{output}");
    }
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut command = Command::new(tools!().xfer_hole);
    Running::between(Stdio::null(), command.arg("map").arg(&image), full).end().refused(&["no space left on device"]);
}

#[test]
fn a_file_called_map_is_sent_by_its_path() {
    let (tools, fs) = (tools!(), tmpfs());
    Qcow2::new(M).write(0, K, Fill::Same(1)).make(&fs.join("map"));
    let stream = rig::pour(&tools, &[], &fs.join("map"));
    let mut command = Command::new(&tools.xfer_hole);
    assert!(run(command.arg("./map").current_dir(fs.path()), b"").ok().out == stream);
    let mut command = Command::new(&tools.xfer_hole);
    let mapped = run(command.args(["map", "--output", "json", "map"]).current_dir(fs.path()), b"").ok().out;
    assert_eq!(String::from_utf8(mapped).unwrap(), qemu_map(&fs.join("map")));
    let mut command = Command::new(&tools.xfer_hole);
    assert_eq!(run(command.arg("map").current_dir(fs.path()), b"").code, Some(2));
}

#[test]
fn a_map_reads_tables_and_no_data() {
    requires(&["strace"]);
    let fs = tmpfs();
    let image = fs.join("disk.qcow2");
    Qcow2::new(64 * M).write(0, 64 * M, Fill::Noise(1)).make(&image);
    let log = fs.join("strace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-y", "-e", "trace=read,pread64,preadv,readv,copy_file_range,sendfile", "-o"]).arg(&log);
    run(traced.arg(tools!().xfer_hole).arg("map").arg(&image), b"").ok();
    let log = std::fs::read_to_string(log).unwrap();
    let bytes = |line: &str| line.rsplit("= ").next()?.parse::<u64>().ok();
    let read: u64 = log.lines().filter(|line| line.contains("/disk.qcow2>")).filter_map(bytes).sum();
    assert!(read > 0 && read < M, "{read} bytes were read");
}
