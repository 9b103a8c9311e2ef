//! `xfer-hole manifest` and `digest`: the lines of a disk without its bytes, the same for whatever it is stored in.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rig::{
    Before, Field, Filesystem, Fill, Fs, LoopDevice, Op, Outcome, Qcow2, Running, TestDisk, items, l2_entry, mode,
    part_of, peek, pour, qemu_img, run, tools, write_at,
};
use xfer_hole_proto::{Dialect, Frame, ManifestHeader};

const K: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn xfer_hole(command: &str, args: &[&str], image: &Path) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg(command).args(args).arg(image), b"")
}

/// What a manifest has to be: the record lines of the hashed stream, behind a first line of their own. And its fingerprint.
fn expected(args: &[&str], image: &Path) -> (String, String) {
    let stream = pour(&tools!(), &[&["--hash"], args].concat(), image);
    let (mut text, mut fingerprint) = (String::new(), String::new());
    for item in items(&stream, Dialect::V1) {
        match item {
            Frame::Open(open) => {
                let sums = open.sums.unwrap();
                text += &format!("{}\n", ManifestHeader::whole(open.size, sums));
                fingerprint = format!("sha256:{}:{}:", sums.interval(), sums.grain());
            }
            Frame::Record(record) => match record {
                xfer_hole_proto::Record::Data { len, digest } => text += &format!("DATA {len} {}\n", digest.unwrap()),
                other => text += &format!("{} {}\n", other.word(), other.len()),
            },
            Frame::End(end) => {
                text += &format!("END {}\n", end.lines.unwrap());
                fingerprint += &format!("{}\n", end.lines.unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    (text, fingerprint)
}

/// Data off the grain, zeros that were written, holes; and a last block that is short.
fn disk() -> TestDisk {
    TestDisk::empty(40 * MIB + 1536)
        .with(0, MIB, 1)
        .with(3 * MIB + 512, 3 * MIB + 7, 2)
        .with(9 * MIB, 2 * MIB, 0)
        .with(20 * MIB - 4096, 5 * MIB, 3)
        .with(30 * MIB + 100, 1, 4)
        .with(40 * MIB + 1000, 536, 5)
}

const CUTS: [&[&str]; 4] = [
    &[],
    &["--hash-interval", "64K", "--min-hole", "512"],
    &["--hash-interval", "4K", "--min-hole", "4K"],
    &["--hash-interval", "16M", "--min-hole", "64K"],
];

/// Fails unless both commands say of this image what the stream says of it. Gives what they say with the usual parameters.
#[track_caller]
fn assert_lines(image: &Path, args: &[&str]) -> String {
    let mut usual = String::new();
    for cut in CUTS {
        let args = [cut, args].concat();
        let (manifest, fingerprint) = expected(&args, image);
        let what = format!("{} {args:?}", image.display());
        let said = xfer_hole("manifest", &args, image).ok();
        assert_eq!(said.err, "", "{what}");
        assert!(said.out == manifest.as_bytes(), "{what}");
        assert_eq!(String::from_utf8(xfer_hole("digest", &args, image).ok().out).unwrap(), fingerprint, "{what}");
        if cut.is_empty() {
            usual = manifest;
        }
    }
    usual
}

#[test]
fn a_raw_disk_has_the_lines_of_its_stream_on_every_file_system_and_by_every_method() {
    let mut all = Vec::new();
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let image = fs.join("disk.img");
        disk().make(&image);
        all.push(assert_lines(&image, &[]));
        all.push(assert_lines(&image, &["--extents", "scan"]));
        if kind != Fs::Tmpfs {
            all.push(assert_lines(&image, &["--extents", "fiemap"]));
        }
        let direct = xfer_hole("manifest", &["--direct"], &image);
        all.push(String::from_utf8(direct.ok().out).unwrap());
    }
    assert!(all.iter().all(|manifest| *manifest == all[0]));
}

#[test]
fn qcow2_compressed_chains_snapshots_and_devices_have_the_lines_of_the_raw_disk() {
    let fs = Filesystem::new(Fs::Ext4, 1 << 30);
    let raw = fs.join("disk.img");
    disk().make(&raw);
    let same = assert_lines(&raw, &[]);
    let convert = |name: &str, options: &[&str]| {
        let image = fs.join(name);
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], options, &["disk.img"]].concat(), &image);
        image
    };
    let mut images = vec![
        convert("plain.qcow2", &[]),
        convert("small.qcow2", &["-o", "cluster_size=4k"]),
        convert("zlib.qcow2", &["-c"]),
        convert("zstd.qcow2", &["-c", "-o", "compression_type=zstd"]),
        convert("subclusters.qcow2", &["-o", "extended_l2=on"]),
    ];
    // The disk in two layers: what the top doesn't have, the base has.
    let base = fs.join("base.qcow2");
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.img"], &base);
    let wrong = [Op::Write(20 * MIB, 64 * K, Fill::Noise(1)), Op::Write(35 * MIB, 64 * K, Fill::Noise(2))];
    Qcow2::new(1).ops(wrong).live(&base);
    let top = fs.join("top.qcow2");
    Qcow2::over("base.qcow2", "qcow2").make(&top);
    let right: Vec<u8> = fs::read(&raw).unwrap()[20 * MIB as usize..][..64 << 10].to_vec();
    let patch = fs.join("patch");
    fs::write(&patch, right).unwrap();
    rig::tool(
        "qemu-io",
        &["-f", "qcow2", "-c", &format!("write -q -s {} 20M 64k", patch.display()), top.to_str().unwrap()],
    );
    rig::tool("qemu-io", &["-f", "qcow2", "-c", "write -q -z 35M 64k", top.to_str().unwrap()]);
    images.push(top);
    for image in &images {
        assert_eq!(assert_lines(image, &[]), same, "{}", image.display());
    }
    let snapshot = &images[0];
    qemu_img(&["snapshot", "-c", "then"], snapshot);
    Qcow2::new(1).write(5 * MIB, MIB, Fill::Same(9)).live(snapshot);
    assert_eq!(assert_lines(snapshot, &["--snapshot", "then"]), same);
    assert_ne!(assert_lines(snapshot, &[]), same);
    let device = LoopDevice::filled(40 * MIB + 1536, 0);
    disk().write(&fs::OpenOptions::new().write(true).open(device.path()).unwrap());
    assert_eq!(assert_lines(device.path(), &[]), same);
}

#[test]
fn holes_cost_nothing_and_a_disk_of_no_bytes_has_lines_too() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let image = fs.join("disk.img");
    // Reading it would take hours.
    for size in [0, 1, 512, 4096, 16 << 40] {
        TestDisk::empty(size).make(&image);
        let _lines = assert_lines(&image, &[]);
    }
}

#[test]
fn a_file_of_lines_is_made_or_replaced_as_a_whole() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, file) = (fs.join("disk.img"), fs.join("disk.manifest"));
    disk().make(&image);
    let (manifest, _) = expected(&[], &image);
    let write = |file: &Path, image: &Path| xfer_hole("manifest", &["-o", file.to_str().unwrap()], image);
    for old in [false, true] {
        assert_eq!(write(&file, &image).ok().out, b"");
        assert_eq!(fs::read_to_string(&file).unwrap(), manifest, "old: {old}");
        assert!(!part_of(&file).exists());
        fs::write(&file, "old").unwrap();
    }
    // One that can't be read leaves all as it was.
    let before = Before::of(&file);
    let broken = broken(&fs);
    let failed = write(&file, &broken).refused(&["broken.qcow2"]);
    assert!(failed.out.is_empty());
    before.untouched("a failure");
    assert!(!part_of(&file).exists());
    // Nor is the image ever replaced, by whatever name.
    let image_before = Before::of(&image);
    symlink("disk.img", fs.join("link")).unwrap();
    for name in ["disk.img", "link"] {
        write(&fs.join(name), &image).refused(&["is the same as"]);
    }
    image_before.untouched("its own name");
    write(fs.path(), &image).refused(&["is a directory"]);
    let missing = write(&fs.join("none/disk.manifest"), &image).refused(&["none: no such directory"]);
    assert!(!missing.err.contains("--mkpath"), "{}", missing.err);
    let device = LoopDevice::filled(MIB, 0xee);
    write(device.path(), &image).refused(&["block device"]);
    assert!(fs::read(device.path()).unwrap().iter().all(|&byte| byte == 0xee));
    write(Path::new("/dev/full"), &image).refused(&["/dev/full"]);
    assert_eq!(write(Path::new("-"), &image).ok().out, manifest.as_bytes());
    // Whoever may not read the disk doesn't get its digests.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
    write(&fs.join("private"), &image).ok();
    assert_eq!(mode(&fs.join("private")), 0o600);
}

/// An image of which some can be read, and a cluster not.
fn broken(fs: &Filesystem) -> PathBuf {
    let image = fs.join("broken.qcow2");
    let ops = (0..16).map(|n| Op::Compressed(n * 64 * K, 64 * K, Fill::Text(n)));
    Qcow2::new(32 * MIB).write(MIB, 20 * MIB, Fill::Noise(1)).make(&image);
    Qcow2::new(1).forgiving().ops(ops).live(&image);
    let entry = peek(&image, l2_entry(&image, 0, 9));
    assert_ne!(entry & (1 << 62), 0, "it is compressed");
    let bits = 62 - (peek(&image, Field::CLUSTER_BITS) - 8);
    write_at(&image, entry & ((1 << bits) - 1), &[0xff; 64]);
    image
}

#[test]
fn a_disk_that_cannot_be_read_ends_in_fail_and_never_in_end() {
    let fs = Filesystem::new(Fs::Tmpfs, 128 * MIB);
    let image = broken(&fs);
    let failed = xfer_hole("manifest", &[], &image);
    let text = String::from_utf8(failed.out.clone()).unwrap();
    let failed = failed.refused(&["broken.qcow2"]);
    let last = text.lines().last().unwrap();
    let reason = last.strip_prefix("FAIL ").unwrap_or_else(|| panic!("no FAIL in: {text}"));
    assert!(
        failed.err.contains(reason) && text.starts_with("XFER-HOLE-MANIFEST 1 ") && !text.contains("END"),
        "{text}"
    );
    let digest = xfer_hole("digest", &[], &image).refused(&["broken.qcow2"]);
    assert!(digest.out.is_empty());
    // Whoever reads it has the reason.
    let mut verify = Command::new(tools!().xfer_hole);
    let read = run(verify.arg("verify").arg(&image).arg("-"), text.as_bytes());
    read.refused(&["broken.qcow2"]);
    let zeros = fs.join("zeros.img");
    TestDisk::empty(32 * MIB).make(&zeros);
    let mut verify = Command::new(tools!().recv_hole);
    run(verify.arg("--verify").arg(&zeros), text.as_bytes()).refused(&["standard input", "gave up", "broken.qcow2"]);
}

#[test]
fn a_disk_that_changes_meanwhile_has_no_manifest() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let image = fs.join("disk.img");
    let mut disk = TestDisk::empty(64 * MIB);
    for at in (0..64 * MIB).step_by(8192) {
        disk = disk.with(at, 4096, 1);
    }
    disk.make(&image);
    // More lines than a pipe takes, which nobody reads for a while.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(tools!().xfer_hole);
    command.args(["manifest", "--hash-interval", "4K"]).arg(&image);
    let running = Running::between(Stdio::null(), &mut command, writer);
    let mut first = [0; 19];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"XFER-HOLE-MANIFEST ");
    thread::sleep(Duration::from_millis(50));
    write_at(&image, 60 * MIB, b"changed");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    running.end().refused(&["disk.img", "changed while it was read"]);
    assert!(rest.lines().last().unwrap().starts_with("FAIL "), "no FAIL");
}

#[test]
fn nobody_who_reads_on_and_a_full_output_are_failures() {
    let fs = Filesystem::new(Fs::Tmpfs, 128 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    for command in ["manifest", "digest"] {
        let line = format!("{} {command} {} >/dev/full", tools!().xfer_hole.display(), image.display());
        run(Command::new("sh").args(["-c", &line]), b"").refused(&["standard output", "no space"]);
        let line = format!("{} {command} {} >&-", tools!().xfer_hole.display(), image.display());
        run(Command::new("sh").args(["-c", &line]), b"").refused(&["standard output"]);
    }
}

#[test]
fn programs_are_told_the_phase_and_the_digest() {
    let fs = Filesystem::new(Fs::Tmpfs, 128 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let said = xfer_hole("digest", &["--progress", "json"], &image).ok();
    let fingerprint = String::from_utf8(said.out).unwrap();
    let last: serde_json::Value = serde_json::from_str(said.err.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["outcome"], &last["exit"]), (&"end".into(), &"done".into(), &0.into()));
    assert_eq!(last["digest"], fingerprint.trim_end());
    assert_eq!((&last["disk_size"], &last["disk_done"]), (&last["disk_done"], &(40 * MIB + 1536).into()));
}
