//! `xfer-hole verify` and `recv-hole --verify`: equal is 0, different is 1 with where, all else is 2.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rig::{
    Filesystem, Fill, Fs, LoopDevice, Outcome, Qcow2, Receiver, Running, TestDisk, assert_refused, qemu_img, requires,
    run, send_to, tools, write_at,
};
use xfer_hole_proto::{Digest, HashParams, ManifestHeader, ManifestWriter};

const K: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Both ways to ask, of a raw disk.
#[derive(Clone, Copy, Debug)]
enum Way {
    Sender,
    Receiver,
}

const WAYS: [Way; 2] = [Way::Sender, Way::Receiver];

impl Way {
    fn command(self, args: &[&str], disk: &Path) -> Command {
        let mut command = match self {
            Self::Sender => Command::new(tools!().xfer_hole),
            Self::Receiver => Command::new(tools!().recv_hole),
        };
        match self {
            Self::Sender => command.arg("verify").args(args).arg(disk).arg("-"),
            Self::Receiver => command.arg("--verify").args(args).arg(disk),
        };
        command
    }

    fn ask(self, args: &[&str], disk: &Path, manifest: &[u8]) -> Outcome {
        run(&mut self.command(args, disk), manifest)
    }
}

fn manifest(args: &[&str], image: &Path) -> Vec<u8> {
    run(Command::new(tools!().xfer_hole).arg("manifest").args(args).arg(image), b"").ok().out
}

/// Fails unless it says that they differ: its lines on standard output.
#[track_caller]
fn differs(outcome: Outcome) -> Vec<String> {
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(1), ""));
    String::from_utf8(outcome.out).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn equal(outcome: Outcome) {
    assert_eq!(outcome, Outcome { code: Some(0), out: Vec::new(), err: String::new() });
}

fn disk() -> TestDisk {
    TestDisk::empty(24 * MIB + 1536).with(0, MIB, 1).with(3 * MIB + 512, 3 * MIB + 7, 2).with(
        20 * MIB - 4096,
        2 * MIB,
        3,
    )
}

#[test]
fn a_disk_is_equal_to_its_manifest_whatever_it_lies_in() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, copy) = (fs.join("disk.img"), fs.join("copy.img"));
        disk().make(&image);
        let (sent, received) = send_to(&tools!(), &["--hash"], &image, Receiver::Binary, &copy);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)));
        for args in [&[][..], &["--hash-interval", "4K", "--min-hole", "512"], &["--hash-interval", "16M"]] {
            let manifest = manifest(args, &image);
            for way in WAYS {
                equal(way.ask(&[], &copy, &manifest));
                equal(way.ask(&["--list"], &copy, &manifest));
                equal(way.ask(&["--direct", "-q"], &copy, &manifest));
            }
        }
    }
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let manifest = manifest(&[], &image);
    for options in [&["-c"][..], &[], &["-o", "cluster_size=4k"]] {
        let packed = fs.join("disk.qcow2");
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], options, &["disk.img"]].concat(), &packed);
        equal(Way::Sender.ask(&[], &packed, &manifest));
    }
    let overlay = fs.join("overlay.qcow2");
    Qcow2::over("disk.qcow2", "qcow2").write(5 * MIB, 64 * K, Fill::Noise(1)).make(&overlay);
    assert_eq!(differs(Way::Sender.ask(&["--list"], &overlay, &manifest)), [format!("{} {MIB}", 5 * MIB)]);
    // The receiver reads what is there, and asks for no format.
    differs(Way::Receiver.ask(&["-q"], &overlay, &manifest));
}

#[test]
fn the_first_and_the_number_of_intervals_are_said_and_all_of_them_are_listed() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, other) = (fs.join("disk.img"), fs.join("other.img"));
    disk().make(&image);
    let manifest = manifest(&["--hash-interval", "64K"], &image);
    fs::copy(&image, &other).unwrap();
    let name = other.display();
    // One byte of data.
    write_at(&other, 4 * MIB + 5, &[0]);
    for way in WAYS {
        let said = differs(way.ask(&[], &other, &manifest));
        assert_eq!(said, [format!("{name}: 1 interval of 65536 bytes differs, at offset {}", 4 * MIB)]);
        assert_eq!(differs(way.ask(&["--list"], &other, &manifest)), [format!("{} 65536", 4 * MIB)]);
        assert!(differs(way.ask(&["-q"], &other, &manifest)).is_empty());
    }
    // Neighbours, a byte in a hole, and the last.
    write_at(&other, 5 * MIB - 1, &[0; 2]);
    write_at(&other, 10 * MIB, &[1]);
    write_at(&other, 24 * MIB + 1535, &[1]);
    for way in WAYS {
        let said = differs(way.ask(&[], &other, &manifest));
        assert_eq!(said, [format!("{name}: 5 intervals of 65536 bytes differ, the first at offset {}", 4 * MIB)]);
        let list = differs(way.ask(&["--list"], &other, &manifest));
        let ranges = [(4 * MIB, 65536), (5 * MIB - 65536, 2 * 65536), (10 * MIB, 65536), (24 * MIB, 1536)];
        assert_eq!(list, ranges.map(|(at, len)| format!("{at} {len}")));
    }
}

#[test]
fn the_list_is_that_of_a_comparison_byte_by_byte() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, other) = (fs.join("disk.img"), fs.join("other.img"));
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..12 {
        let size = 4 * MIB + random(100_000);
        let mut disk = TestDisk::empty(size);
        for _ in 0..20 {
            let at = random(size);
            disk = disk.with(at, random(200_000).clamp(1, size - at), u8::try_from(random(3)).unwrap());
        }
        disk.make(&image);
        fs::copy(&image, &other).unwrap();
        for _ in 0..random(8) {
            write_at(&other, random(size - 5000), &vec![u8::try_from(random(2)).unwrap(); 1 + random(5000) as usize]);
        }
        let [ours, theirs] = [&image, &other].map(|path| fs::read(path).unwrap());
        for (interval, grain) in [(4096, "512"), (65536, "4K"), (65536, "64K"), (1 << 20, "4K")] {
            let mut expected: Vec<(u64, u64)> = Vec::new();
            for (number, (one, two)) in ours.chunks(interval).zip(theirs.chunks(interval)).enumerate() {
                let (at, len) = (number as u64 * interval as u64, one.len() as u64);
                match expected.last_mut() {
                    _ if one == two => {}
                    Some((start, before)) if *start + *before == at => *before += len,
                    _ => expected.push((at, len)),
                }
            }
            let manifest = manifest(&["--hash-interval", &interval.to_string(), "--min-hole", grain], &image);
            let expected: String = expected.iter().map(|(at, len)| format!("{at} {len}\n")).collect();
            for way in WAYS {
                let listed = way.ask(&["--list"], &other, &manifest);
                assert_eq!(listed.code, Some(i32::from(!expected.is_empty())), "{round} {}", listed.err);
                assert_eq!(String::from_utf8(listed.out).unwrap(), expected, "{round} {interval} {grain} {way:?}");
            }
        }
    }
}

#[test]
fn another_size_is_a_difference_and_what_only_one_has_differs() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, other) = (fs.join("disk.img"), fs.join("other.img"));
    disk().make(&image);
    let size = 24 * MIB + 1536;
    let manifest = manifest(&[], &image);
    for (other_size, first, len) in [
        // What follows is a hole in both, but not to the same end.
        (25 * MIB, 24 * MIB, MIB),
        (30 * MIB + 1, 24 * MIB, 6 * MIB + 1),
        (24 * MIB, 24 * MIB, 1536),
        (24 * MIB - 1, 23 * MIB, MIB + 1536),
        (MIB, MIB, size - MIB),
        (0, 0, size),
    ] {
        fs::copy(&image, &other).unwrap();
        OpenOptions::new().write(true).open(&other).unwrap().set_len(other_size).unwrap();
        for way in WAYS {
            let said = differs(way.ask(&[], &other, &manifest));
            let what = format!("{other_size}: {said:?}");
            assert_eq!(said.len(), 2, "{what}");
            assert!(said[0].ends_with(&format!("has {other_size} bytes, and by the manifest {size}")), "{what}");
            assert!(said[1].ends_with(&format!("at offset {first}")), "{what}");
            assert_eq!(differs(way.ask(&["--list"], &other, &manifest)), [format!("{first} {len}")], "{what}");
        }
    }
}

#[test]
fn a_device_is_compared_as_far_as_the_disk_goes() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let manifest = manifest(&[], &image);
    for (size, tail) in [(24 * MIB + 1536, 0), (26 * MIB, 2 * MIB - 1536)] {
        let device = LoopDevice::filled(size, 0xee);
        run(&mut Receiver::Binary.command(&tools!(), device.path(), false, true), &rig::pour(&tools!(), &[], &image))
            .ok();
        for way in WAYS {
            let found = way.ask(&["--direct"], device.path(), &manifest);
            assert_eq!((found.code, found.out.len()), (Some(0), 0), "{way:?} {}", found.err);
            let said =
                format!("warning: {}: the last {tail} bytes of the device aren't compared", device.path().display());
            assert_eq!(found.err.contains(&said), tail > 0, "{}", found.err);
        }
        write_at(device.path(), 10 * MIB, b"x");
        for way in WAYS {
            let found = way.ask(&["--list"], device.path(), &manifest);
            assert_eq!((found.code, found.out), (Some(1), format!("{} {MIB}\n", 10 * MIB).into_bytes()));
        }
    }
    let small = LoopDevice::filled(MIB, 0);
    for way in WAYS {
        assert!(differs(way.ask(&[], small.path(), &manifest))[0].contains("has 1048576 bytes"));
    }
}

#[test]
fn a_manifest_that_was_cut_or_changed_is_trouble_though_all_so_far_is_equal() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let manifest = manifest(&[], &image);
    let text = String::from_utf8(manifest.clone()).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let silent = |outcome: Outcome, words: &[&str]| {
        let outcome = outcome.refused(words);
        assert!(outcome.out.is_empty(), "{}", String::from_utf8_lossy(&outcome.out));
    };
    for way in WAYS {
        for cut in 0..lines.len() {
            let words: &[&str] = if cut == 0 { &["empty"] } else { &["cut before END"] };
            silent(way.ask(&[], &image, lines[..cut].concat().as_bytes()), words);
            // Within a line.
            let half = [&lines[..cut].concat(), &lines[cut][..lines[cut].len() - 1]].concat();
            silent(way.ask(&[], &image, half.as_bytes()), &["cut"]);
        }
        silent(way.ask(&[], &image, &[&manifest[..], b"\n"].concat()), &["follows END"]);
        silent(way.ask(&[], &image, &[&manifest[..], &manifest[..]].concat()), &["follows END"]);
        silent(way.ask(&[], &image, text.replacen("DATA", "KEEP", 1).as_bytes()), &["record 1 at disk offset 0"]);
        silent(way.ask(&[], &image, text.replacen("END ", "END 0", 1).as_bytes()), &["not a digest"]);
        silent(way.ask(&[], &image, text.replacen("END", "FAIL", 1).as_bytes()), &["gave up"]);
        silent(way.ask(&[], &image, text.replacen("MANIFEST 1", "MANIFEST 2", 1).as_bytes()), &["version"]);
        silent(way.ask(&[], &image, &fs::read(&image).unwrap()), &["no manifest"]);
        silent(way.ask(&[], &image, &rig::pour(&tools!(), &["--hash"], &image)), &["no manifest"]);
        let part = format!("XFER-HOLE-MANIFEST 1 {} sha256 {MIB} 4096 0\nEND {}\n", 24 * MIB + 1536, Digest::of(b""));
        silent(way.ask(&[], &image, part.as_bytes()), &["first 0 bytes"]);
        // A digest that isn't the disk's, and so neither the lines': it differs there, but nothing is to be believed.
        let other = text.replacen(&lines[1][13..30], "00000000000000000", 1);
        silent(way.ask(&[], &image, other.as_bytes()), &["END gives"]);
    }
    for missing in ["no-such-file", "."] {
        let mut command = Command::new(tools!().xfer_hole);
        silent(run(command.arg("verify").arg(&image).arg(fs.join(missing)), b""), &[missing]);
    }
}

#[test]
fn a_disk_that_cannot_be_read_or_changes_meanwhile_is_trouble() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let manifest = manifest(&[], &image);
    for way in WAYS {
        way.ask(&[], &fs.join("missing.img"), &manifest).refused(&["missing.img"]);
        way.ask(&[], fs.path(), &manifest).refused(&["is a directory"]);
        let mut asked = Running::start(&mut way.command(&[], &image));
        asked.say(&manifest[..100]);
        rig::wait_until("it reads the disk", || {
            let open = fs::read_dir(format!("/proc/{}/fd", asked.pid())).unwrap();
            open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == image))
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        write_at(&image, 0, &fs::read(&image).unwrap()[..1]);
        asked.say(&manifest[100..]);
        asked.end().refused(&["disk.img", "changed while it was read"]);
    }
    let image = fs.join("broken.qcow2");
    Qcow2::new(MIB).make(&image);
    write_at(&image, 0, b"QFI\xfb\0\0\0\x09");
    let said = assert_refused(&tools!(), &image, &[], &[]);
    let mut command = Command::new(tools!().xfer_hole);
    assert_eq!(run(command.arg("verify").arg(&image).arg("-"), &manifest).refused(&[]).err, said);
}

#[test]
fn words_that_cannot_be_meant_are_refused() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).make(&image);
    let (name, manifest) = (image.to_str().unwrap(), manifest(&[], &image));
    for args in [
        &["--verify"][..],
        &["--list", name],
        &["--verify", "-"],
        &["--verify", "host:disk.img", name],
        &["--verify", "host:disk.img"],
        &["--verify", "--in-place", name],
        &["--verify", "--read-back", name],
        &["--verify", "--converse", name],
        &["--verify", "--classic", name],
        &["--verify", "--list", "-q", name],
        &["--verify", "--restrict", name],
    ] {
        let outcome = run(Command::new(tools!().recv_hole).args(args), &manifest);
        assert!(outcome.code == Some(2) && outcome.out.is_empty(), "{args:?} {}", outcome.err);
    }
    for args in
        [&["verify"][..], &["verify", name], &["verify", name, name, name], &["verify", "-q", "--list", name, "-"]]
    {
        let outcome = run(Command::new(tools!().xfer_hole).args(args), &manifest);
        assert!(outcome.code == Some(2) && outcome.out.is_empty(), "{args:?} {}", outcome.err);
    }
}

#[test]
fn a_million_records_over_sixteen_tebibytes_stream_in_32_mib() {
    requires(&["time"]);
    const RECORDS: u64 = 1_000_000;
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let (image, lines, report) = (fs.join("disk.img"), fs.join("manifest"), fs.join("report"));
    let size = 16 << 40;
    TestDisk::empty(size).make(&image);
    let sums = HashParams::new(MIB, 4096).unwrap();
    let (mut writer, first) =
        (ManifestWriter::new(ManifestHeader::whole(size, sums)), ManifestHeader::whole(size, sums));
    let mut text = format!("{first}\n");
    for n in 0..RECORDS {
        writer.zeros(15 * MIB);
        writer.data(MIB, Digest::of(&n.to_be_bytes()), &mut text).unwrap();
    }
    writer.zeros(size - RECORDS * 16 * MIB);
    writer.end(&mut text).unwrap();
    fs::write(&lines, &text).unwrap();
    for way in WAYS {
        let asked = way.command(&[], &image);
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["-f", "%M", "-o"]).arg(&report).arg(asked.get_program()).args(asked.get_args());
        let outcome = Running::between(File::open(&lines).unwrap(), &mut timed, std::process::Stdio::piped()).end();
        let said = differs(Outcome { err: String::new(), ..outcome });
        assert!(
            said[0].ends_with(&format!(": {RECORDS} intervals of 1048576 bytes differ, the first at offset 15728640"))
        );
        let peak = fs::read_to_string(&report).unwrap();
        let peak: u64 = peak.lines().last().unwrap().parse().unwrap();
        assert!(peak <= 32 << 10, "{peak} KiB");
    }
    // And both as holes.
    equal(Way::Sender.ask(&[], &image, &manifest(&[], &image)));
}

#[test]
fn a_list_that_nobody_reads_to_its_end_is_quiet() {
    let fs = Filesystem::new(Fs::Tmpfs, 256 * MIB);
    let (image, zeros, lines) = (fs.join("disk.img"), fs.join("zeros.img"), fs.join("manifest"));
    let mut disk = TestDisk::empty(64 * MIB);
    for at in (0..64 * MIB).step_by(8192) {
        disk = disk.with(at, 1, 1);
    }
    disk.make(&image);
    TestDisk::empty(64 * MIB).make(&zeros);
    fs::write(&lines, manifest(&["--hash-interval", "4K"], &image)).unwrap();
    let file = File::open(&lines).unwrap();
    file.read_exact_at(&mut [0], 0).unwrap();
    let commands = [
        format!("{} verify --list {} {}", tools!().xfer_hole.display(), zeros.display(), lines.display()),
        format!("{} --verify --list {} <{}", tools!().recv_hole.display(), zeros.display(), lines.display()),
    ];
    for command in commands {
        let piped = format!("{{ {command}; echo $? >&2; }} | head -n 1");
        let outcome = run(Command::new("sh").args(["-c", &piped]), b"").ok();
        assert_eq!((outcome.out.as_slice(), outcome.err.as_str()), (&b"0 4096\n"[..], "2\n"));
    }
}
