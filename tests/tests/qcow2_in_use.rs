//! Images that a running QEMU holds: refused while it may write, and kept from it while we read.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rig::{
    Filesystem, Fill, Fs, Qcow2, Running, TestDisk, assert_as_qemu, assert_refused, our_map, pour, qemu_disk, requires,
    run, tools, wait_until,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// A qemu-io that has this image open for writing until its input ends.
#[track_caller]
fn held(image: &Path, format: &str) -> Running {
    requires(&["qemu-io"]);
    let holder = Running::start(Command::new("qemu-io").args(["-f", format]).arg(image));
    wait_until("qemu-io may write the image", || locks(image).iter().any(|&(first, last)| first <= 101 && 101 <= last));
    holder
}

/// The locks that the system knows of on this file: their first and last byte.
fn locks(image: &Path) -> Vec<(u64, u64)> {
    let stat = fs::metadata(image).unwrap();
    // Inode numbers are those of one file system: others have the same.
    let (dev, inode) = (stat.dev(), stat.ino());
    let file = format!(" {:02x}:{:02x}:{inode} ", nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let all = fs::read_to_string("/proc/locks").unwrap();
    let range = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let last = words.next()?.parse().unwrap_or(u64::MAX);
        Some((words.next()?.parse().ok()?, last))
    };
    all.lines().filter(|line| line.contains(&file)).filter_map(range).collect()
}

fn ext4() -> Filesystem {
    Filesystem::new(Fs::Ext4, 128 * M)
}

#[test]
fn an_image_that_qemu_may_write_is_refused_and_read_by_force() {
    let (tools, fs) = (tools!(), ext4());
    let image = fs.join("disk.qcow2");
    Qcow2::new(4 * M).write(0, M, Fill::Noise(1)).make(&image);
    let (stream, map) = (pour(&tools, &[], &image), our_map(&tools, &[], &image));
    let holder = held(&image, "qcow2");
    let said = assert_refused(&tools, &image, &[], &["disk.qcow2", "in use"]);
    assert!(said.contains("hint: ") && said.contains("--force-share"), "{said}");
    for flag in ["--force-share", "-U"] {
        assert!(pour(&tools, &[flag], &image) == stream, "{flag}");
        assert_eq!(our_map(&tools, &[flag], &image), map, "{flag}");
        run(Command::new(&tools.xfer_hole).args(["info", flag]).arg(&image), b"").ok();
    }
    holder.end().ok();
    assert!(pour(&tools, &[], &image) == stream);
}

#[test]
fn bases_and_data_files_that_qemu_may_write_are_refused() {
    let (tools, fs) = (tools!(), ext4());
    let top = fs.join("top.qcow2");
    Qcow2::new(M).write(0, 100 * K, Fill::Noise(1)).make(&fs.join("base.qcow2"));
    TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join("base.raw"));
    for (base, format) in [("base.qcow2", "qcow2"), ("base.raw", "raw")] {
        Qcow2::over(base, format).make(&top);
        let holder = held(&fs.join(base), format);
        assert_refused(&tools, &top, &[], &[base, "in use"]);
        pour(&tools, &["-U"], &top);
        holder.end().ok();
        assert_as_qemu(&tools, &top, &[]);
    }
    Qcow2::new(M).option("data_file=top.data").write(0, 100 * K, Fill::Noise(1)).make(&top);
    let holder = held(&fs.join("top.data"), "raw");
    assert_refused(&tools, &top, &[], &["top.data", "in use"]);
    pour(&tools, &["-U"], &top);
    holder.end().ok();
    assert_as_qemu(&tools, &top, &[]);
}

#[test]
fn a_raw_disk_that_qemu_may_write_is_refused() {
    let (tools, fs) = (tools!(), ext4());
    let image = fs.join("disk.raw");
    TestDisk::empty(M).with(0, 100 * K, 1).make(&image);
    let stream = pour(&tools, &[], &image);
    let holder = held(&image, "raw");
    assert_refused(&tools, &image, &[], &["disk.raw", "in use"]);
    assert!(pour(&tools, &["-U"], &image) == stream);
    holder.end().ok();
}

#[test]
fn readers_don_t_disturb_each_other() {
    let (tools, fs) = (tools!(), ext4());
    let image = fs.join("disk.qcow2");
    Qcow2::new(4 * M).write(0, M, Fill::Noise(1)).make(&image);
    let (stream, map) = (pour(&tools, &[], &image), our_map(&tools, &[], &image));
    let reader = Running::start(Command::new("qemu-io").args(["-r", "-f", "qcow2"]).arg(&image));
    wait_until("qemu-io reads the image", || !locks(&image).is_empty());
    assert!(pour(&tools, &[], &image) == stream);
    assert_eq!(our_map(&tools, &[], &image), map);
    reader.end().ok();
}

/// A sender that is held in the middle, by a pipe that is read only once it has begun to write.
fn half_sent(args: &[&str], image: &Path) -> (Running, PipeReader) {
    let (mut read, write) = io::pipe().unwrap();
    let mut command = Command::new(tools!().xfer_hole);
    let sender = Running::between(Stdio::null(), command.args(args).arg(image), write);
    read.read_exact(&mut [0]).unwrap();
    (sender, read)
}

fn end((sender, mut pipe): (Running, PipeReader)) {
    io::copy(&mut pipe, &mut io::sink()).unwrap();
    sender.end().ok();
}

/// QEMU opening it for writing, without writing.
fn opened_for_writing(image: &Path) -> rig::Outcome {
    run(Command::new("qemu-io").args(["-f", "qcow2", "-c", "read 0 512"]).arg(image), b"")
}

#[test]
fn while_we_read_qemu_may_read_and_not_write() {
    let (tools, fs) = (tools!(), ext4());
    let (image, base) = (fs.join("disk.qcow2"), fs.join("base.qcow2"));
    Qcow2::new(8 * M).write(0, M, Fill::Noise(1)).make(&base);
    Qcow2::over("base.qcow2", "qcow2").write(2 * M, 6 * M, Fill::Noise(2)).make(&image);
    let sending = half_sent(&[], &image);
    for file in [&image, &base] {
        let refused = opened_for_writing(file);
        assert!(refused.code != Some(0) && refused.err.contains("lock"), "{}: {}", file.display(), refused.err);
        fs::remove_file(qemu_disk(file)).unwrap();
    }
    // Another one of us, too.
    assert_as_qemu(&tools, &image, &[]);
    end(sending);
    opened_for_writing(&image).ok();
    let sending = half_sent(&["--force-share"], &image);
    opened_for_writing(&image).ok();
    end(sending);
}
