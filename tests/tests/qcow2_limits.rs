//! What large images and long chains cost at most: bytes on the wire, memory.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rig::{Filesystem, Fill, Fs, Op, Qcow2, Receiver, Running, assert_as_qemu, pour, requires, tool, tools};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const T: u64 = 1 << 40;
const MOST_KIB: u64 = 64 << 10;

/// What runs, under time(1), which writes the peak memory in KiB to this file.
fn measured(command: &Command, report: &Path) -> Command {
    requires(&["time"]);
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(report).arg(command.get_program()).args(command.get_args());
    timed
}

/// Sends the image, and maps it: both within the memory there is.
#[track_caller]
fn assert_small(args: &[&str], image: &Path) {
    let (tools, folder) = (tools!(), tempfile::tempdir().unwrap());
    let reports = ["send", "receive", "map"].map(|name| folder.path().join(name));
    let (read, write) = std::io::pipe().unwrap();
    let dest = image.with_extension("ours");
    let received = Running::between(
        read,
        &mut measured(&Receiver::Binary.command(&tools, &dest, false, true), &reports[1]),
        Stdio::null(),
    );
    let mut sender = Command::new(&tools.xfer_hole);
    let sent = Running::between(Stdio::null(), &mut measured(sender.args(args).arg(image), &reports[0]), write);
    sent.end().ok();
    received.end().ok();
    fs::remove_file(dest).unwrap();
    let mut map = Command::new(&tools.xfer_hole);
    let map = map.args(["map", "--output", "json"]).arg(image);
    Running::between(Stdio::null(), &mut measured(map, &reports[2]), Stdio::null()).end().ok();
    let peaks =
        reports.map(|report| fs::read_to_string(report).unwrap().lines().last().unwrap().parse::<u64>().unwrap());
    assert!(peaks.iter().all(|&peak| peak <= MOST_KIB), "{} {args:?}: {peaks:?} KiB", image.display());
}

#[test]
fn sixty_layers_are_read_within_64_mib() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
    let name = |layer: u64| format!("layer{layer}.qcow2");
    for layer in 0..60 {
        let disk = Qcow2::new(64 * M)
            .option(["cluster_size=4k", "", "extended_l2=on", "cluster_size=512"][(layer % 4) as usize]);
        let disk = if layer == 0 { disk } else { disk.backing(&name(layer - 1), Some("qcow2")) };
        let place = |n: u64| Op::Write((layer * 5 + n * 97) * 128 * K % (64 * M), 20 * K, Fill::Noise(layer));
        disk.ops((0..6).map(place)).make(&fs.join(&name(layer)));
    }
    let top = fs.join(&name(59));
    assert_as_qemu(&tools!(), &top, &[]);
    assert_small(&[], &top);
    assert_small(&["--hash", "--hash-interval", "16M"], &top);
}

#[test]
fn sixteen_tebibytes_are_read_within_64_mib_and_an_empty_one_is_128_bytes_on_the_wire() {
    let fs = Filesystem::new(Fs::Xfs, 512 * M);
    let image = fs.join("disk.qcow2");
    for (size, options) in [(T, ""), (16 * T, ""), (16 * T, "extended_l2=on"), (16 * T, "cluster_size=2M")] {
        Qcow2::new(size).option(options).make(&image);
        let stream = pour(&tools!(), &[], &image);
        assert!(stream.len() <= 128, "{size} {options}: {} bytes", stream.len());
        assert_small(&[], &image);
        let ends = [
            Op::Write(0, K, Fill::Same(1)),
            Op::Write(size / 2, M, Fill::Noise(1)),
            Op::Write(size - K, K, Fill::Same(2)),
        ];
        Qcow2::new(size).ops(ends).live(&image);
        assert_as_qemu(&tools!(), &image, &[]);
        assert_small(&["--hash"], &image);
    }
}

#[test]
fn an_l1_table_of_32_mib_in_each_of_many_layers_is_not_kept() {
    let fs = Filesystem::new(Fs::Tmpfs, 1 << 30);
    // 4 KiB clusters: 8 TiB take an L1 table of 32 MiB, the largest there is.
    for layer in 0..3 {
        let disk = Qcow2::new(8 * T).option("cluster_size=4k");
        let disk = if layer == 0 { disk } else { disk.backing(&format!("layer{}.qcow2", layer - 1), Some("qcow2")) };
        let place = |n: u64| Op::Write(n * T + layer * 64 * K, 8 * K, Fill::Noise(layer));
        disk.ops((0..8).map(place)).make(&fs.join(&format!("layer{layer}.qcow2")));
    }
    assert_as_qemu(&tools!(), &fs.join("layer2.qcow2"), &[]);
    assert_small(&["--hash"], &fs.join("layer2.qcow2"));
}

#[test]
fn large_clusters_that_are_compressed_are_read_within_64_mib() {
    let fs = Filesystem::new(Fs::Tmpfs, 1 << 30);
    let (raw, image) = (fs.join("disk.raw"), fs.join("disk.qcow2"));
    let text = [Fill::Text(1), Fill::Noise(1), Fill::Same(1)].map(|fill| fill.bytes(16 << 20)).concat();
    fs::write(&raw, text.repeat(2)).unwrap();
    for method in ["zlib", "zstd"] {
        let options = format!("compression_type={method},cluster_size=2M");
        let names = [raw.to_str().unwrap(), image.to_str().unwrap()];
        tool("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &options, names[0], names[1]]);
        assert_as_qemu(&tools!(), &image, &[]);
        assert_small(&[], &image);
        assert_small(&["--hash", "--hash-interval", "16M"], &image);
    }
}
