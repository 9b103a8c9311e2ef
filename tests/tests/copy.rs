//! Copies on one machine: bytes and holes, on real file systems and devices, shared blocks, and what is refused or cut short.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{major, minor};
use rig::{
    Before, Filesystem, Fill, Fs, LoopDevice, Op, Outcome, Qcow2, Running, TestDisk, assert_holes_within, assert_same,
    holes, holes_within, mark_part, part_of, pour, qemu_disk, run, tool, tools, wait_until,
};

const MIB: u64 = 1 << 20;

fn copy(args: &[&str], image: &Path, dest: &Path) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg("-q").args(args).arg(image).arg(dest), b"")
}

/// Data, zeros that were written, and holes; not all of it at multiples of anything. It ends in a hole.
fn disk() -> TestDisk {
    TestDisk::empty(48 * MIB + 1536)
        .with(0, MIB, 1)
        .with(3 * MIB + 512, 3 * MIB + 7, 2)
        .with(9 * MIB, 2 * MIB, 0)
        .with(11 * MIB, 4096, 3)
        .with(16 * MIB - 4096, 9 * MIB, 4)
        .with(30 * MIB, MIB, 0)
        .with(30 * MIB + 100, 1, 5)
        .with(40 * MIB, 64 << 10, 6)
}

fn fingerprint(said: &str) -> &str {
    said.lines().find(|line| line.starts_with("sha256:")).unwrap_or_else(|| panic!("no fingerprint in: {said}"))
}

#[test]
fn a_copy_has_the_bytes_and_the_holes_of_the_disk_on_every_file_system() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("a copy"));
        disk().make(&image);
        for args in [
            &["--reflink", "never"][..],
            &["--detect-zeroes", "on"],
            &["--hash"],
            &["--hash", "--min-hole", "64K"],
            &["--min-hole", "64K"],
            &["--extents", "scan", "--min-hole", "1"],
            &["--no-sync", "--reflink=never"],
        ] {
            let what = format!("{kind:?} {args:?}");
            assert_eq!(copy(args, &image, &dest).ok().err, "", "{what}");
            assert_same(&image, &dest);
            let grain = if args.contains(&"64K") { 64 << 10 } else { 4096 };
            assert_holes_within(&holes_within(&image, grain), &holes(&dest), &what);
            assert!(!part_of(&dest).exists(), "{what}");
        }
        // As they stand: what was written as zeros is data, and what is a hole is one.
        for args in [&["--detect-zeroes", "off"][..], &["--detect-zeroes=off", "--reflink=never"], &[]] {
            assert_eq!(copy(args, &image, &dest).ok().err, "", "{kind:?} {args:?}");
            assert_same(&image, &dest);
            assert_holes_within(&holes(&image), &holes(&dest), &format!("{kind:?} {args:?}"));
        }
    }
}

#[test]
fn short_holes_become_data_where_that_is_asked_for() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("copy.img"));
    (0..16).fold(TestDisk::empty(8 * MIB), |disk, at| disk.with(at * (128 << 10), 64 << 10, 7)).make(&image);
    copy(&["--min-hole", "1M"], &image, &dest).ok();
    assert_same(&image, &dest);
    assert_eq!(holes(&dest), [(2 * MIB - (64 << 10), 6 * MIB + (64 << 10))]);
}

#[test]
fn chains_and_compressed_images_are_copied_as_qemu_reads_them() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let size = 32 * MIB + 512;
    let base = fs.join("base.qcow2");
    Qcow2::new(20 * MIB)
        .write(0, 3 * MIB, Fill::Noise(1))
        .op(Op::Compressed(4 * MIB, 8 * MIB, Fill::Text(2)))
        .make(&base);
    let top = fs.join("top.qcow2");
    Qcow2::new(size)
        .backing("base.qcow2", Some("qcow2"))
        .write(MIB, 70_000, Fill::Noise(3))
        .op(Op::Zero(5 * MIB, 2 * MIB))
        .op(Op::Compressed(24 * MIB, 2 * MIB, Fill::Text(4)))
        .write(size - 512, 512, Fill::Same(9))
        .make(&top);
    let judge = qemu_disk(&top);
    for args in [&[][..], &["--hash"], &["--detect-zeroes", "off"], &["--detect-zeroes=off", "--reflink=never"]] {
        let dest = fs.join("copy.img");
        assert_eq!(copy(args, &top, &dest).ok().err, "", "{args:?}");
        assert_same(&judge, &dest);
        if !args.contains(&"off") && !args.contains(&"--detect-zeroes=off") {
            assert_holes_within(&holes_within(&judge, 4096), &holes(&dest), &format!("{args:?}"));
        }
    }
}

#[test]
fn a_copy_has_the_fingerprint_that_its_stream_has() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    disk().make(&image);
    for args in [&["--hash"][..], &["--hash", "--hash-interval", "64K", "--min-hole", "512"]] {
        let sent = run(Command::new(tools!().xfer_hole).args(args).arg("--print-digest").arg(&image), b"").ok();
        let copied = copy(&[args, &["--print-digest"]].concat(), &image, &folder.path().join("copy.img")).ok();
        assert_eq!(fingerprint(&sent.err), fingerprint(&copied.err));
    }
}

#[test]
fn a_device_gets_the_data_and_zeros_where_the_holes_are() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    disk().make(&image);
    let disk = fs::read(&image).unwrap();
    for args in [&[][..], &["--hash"], &["--detect-zeroes", "off"], &["--no-sync"]] {
        let device = LoopDevice::filled(50 * MIB, 0xee);
        let said = copy(args, &image, device.path()).ok().err;
        assert!(said.contains("bytes of the device are left as they were"), "{said}");
        let found = fs::read(device.path()).unwrap();
        let (copied, behind) = found.split_at(disk.len());
        assert!(copied == disk && behind.iter().all(|&byte| byte == 0xee), "{args:?}");
    }
    let small = LoopDevice::filled(MIB, 0xee);
    copy(&[], &image, small.path()).refused(&["too small"]);
    copy(&["--reflink", "always"], &image, small.path()).refused(&["only a new file"]);
}

#[test]
fn in_place_what_was_there_is_overwritten_and_the_file_stays_the_same() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("old.img"));
        disk().make(&image);
        TestDisk::empty(60 * MIB).with(0, 60 * MIB, 9).make(&dest);
        let before = fs::metadata(&dest).unwrap().ino();
        assert_eq!(copy(&["--in-place"], &image, &dest).ok().err, "");
        assert_same(&image, &dest);
        assert_holes_within(&holes_within(&image, 64 << 10), &holes(&dest), &format!("{kind:?}"));
        assert_eq!(fs::metadata(&dest).unwrap().ino(), before);
    }
}

#[test]
fn a_pipe_gets_the_bytes_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (image, fifo) = (folder.path().join("disk.img"), folder.path().join("fifo"));
    disk().make(&image);
    drop(tool("mkfifo", &[fifo.to_str().unwrap()]));
    let reading = thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    copy(&[], &image, &fifo).ok();
    assert!(reading.join().unwrap() == fs::read(&image).unwrap());
}

/// True if some of the file's blocks are another's too.
fn is_shared(file: &Path) -> bool {
    tool("filefrag", &["-v", file.to_str().unwrap()]).contains("shared")
}

#[test]
fn blocks_are_shared_where_they_can_be_and_nobody_wants_otherwise() {
    for kind in [Fs::Xfs, Fs::Btrfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("copy.img"));
        disk().make(&image);
        for (args, shared) in [
            (&[][..], true),
            (&["--reflink", "auto", "--no-sync"], true),
            (&["--reflink", "always"], true),
            (&["--detect-zeroes", "off"], true),
            (&["--reflink", "never"], false),
            (&["--reflink", "never", "--detect-zeroes", "off"], false),
            (&["--detect-zeroes", "on"], false),
            (&["--min-hole", "4K"], false),
            (&["--hash"], false),
        ] {
            assert_eq!(copy(args, &image, &dest).ok().err, "", "{kind:?} {args:?}");
            assert_same(&image, &dest);
            assert_eq!(is_shared(&dest), shared, "{kind:?} {args:?}");
            assert_eq!(fs::metadata(&dest).unwrap().len(), fs::metadata(&image).unwrap().len());
        }
    }
}

#[test]
fn sharing_that_can_not_be_had_is_refused_and_leaves_nothing() {
    let (ext4, xfs) = (Filesystem::new(Fs::Ext4, 128 * MIB), Filesystem::new(Fs::Xfs, 512 * MIB));
    let always = ["--reflink", "always"];
    for (image, dest) in [(ext4.join("disk.img"), ext4.join("copy.img")), (xfs.join("disk.img"), ext4.join("new.img"))]
    {
        disk().make(&image);
        copy(&always, &image, &dest).refused(&["cannot share its blocks"]);
        assert!(!dest.exists() && !part_of(&dest).exists());
        copy(&[], &image, &dest).ok();
        let before = Before::of(&dest);
        copy(&always, &image, &dest).refused(&["cannot share its blocks"]);
        before.untouched("a refused copy");
    }
    let image = xfs.join("disk.img");
    for flags in [&["--hash"][..], &["--min-hole", "4K"], &["--detect-zeroes", "on"]] {
        copy(&[&always, flags].concat(), &image, &xfs.join("copy.img")).refused(&["--reflink always"]);
    }
    let qcow2 = xfs.join("disk.qcow2");
    Qcow2::new(MIB).write(0, 65_536, Fill::Noise(1)).make(&qcow2);
    copy(&always, &qcow2, &xfs.join("copy.img")).refused(&["only a raw image"]);
    assert!(!xfs.join("copy.img").exists());
}

#[test]
fn source_and_target_of_one_storage_are_refused_by_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name);
    let (base, top, data) = (name("base.img"), name("top.qcow2"), name("outside.raw"));
    disk().make(&base);
    Qcow2::over("base.img", "raw").write(0, 65_536, Fill::Noise(1)).make(&top);
    let external = name("external.qcow2");
    Qcow2::new(MIB).option("data_file=outside.raw").write(0, 65_536, Fill::Noise(2)).make(&external);
    fs::hard_link(&base, name("hard")).unwrap();
    symlink("base.img", name("soft")).unwrap();
    symlink(&top, name("soft-top")).unwrap();
    fs::copy(&base, name("new.img.part")).unwrap();
    mark_part(&name("new.img.part"));
    let befores = [&base, &top, &data, &external, &name("new.img.part")].map(|path| Before::of(path));
    for (image, dest) in [
        (&base, &base),
        (&base, &name("hard")),
        (&base, &name("soft")),
        (&name("soft"), &base),
        (&top, &top),
        (&top, &name("soft-top")),
        (&top, &base),
        (&top, &name("hard")),
        (&external, &data),
        // What is left of an interrupted run would be replaced.
        (&name("new.img.part"), &name("new.img")),
    ] {
        for args in [&[][..], &["--in-place"], &["--reflink", "never"], &["--hash"]] {
            copy(args, image, dest).refused(&["is the same as"]);
        }
    }
    befores.iter().for_each(|before| before.untouched("a refused copy"));
    assert!(!name("new.img").exists() && !part_of(&base).exists());
}

#[test]
fn one_device_by_two_nodes_and_the_file_behind_it_are_the_same() {
    let device = LoopDevice::filled(4 * MIB, 7);
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node");
    let number = fs::metadata(device.path()).unwrap().rdev();
    let (major, minor) = (major(number).to_string(), minor(number).to_string());
    drop(tool("mknod", &[node.to_str().unwrap(), "b", &major, &minor]));
    let backing = device.backing();
    for (image, dest) in [
        (device.path(), node.as_path()),
        (&node, device.path()),
        (&backing, device.path()),
        (device.path(), &backing),
        (&node, &backing),
    ] {
        copy(&[], image, dest).refused(&["is the same as"]);
    }
    assert!(fs::read(&backing).unwrap().iter().all(|&byte| byte == 7));
}

#[test]
fn an_image_that_changes_meanwhile_fails_the_copy_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (image, dest) = (folder.path().join("disk.img"), folder.path().join("copy.img"));
    TestDisk::empty(64 * MIB).with(0, 64 * MIB, 1).make(&image);
    TestDisk::empty(MIB).with(0, 100, 2).make(&dest);
    let before = Before::of(&dest);
    for args in [&["--reflink", "never"][..], &["--hash"]] {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().write(true).open(&image).unwrap();
                while !over.load(Ordering::Relaxed) {
                    file.set_modified(SystemTime::now()).unwrap();
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let outcome = copy(args, &image, &dest);
            over.store(true, Ordering::Relaxed);
            outcome.refused(&["changed while it was read", "kept", ".part"]);
        });
        before.untouched("the image changed");
        fs::remove_file(part_of(&dest)).unwrap();
    }
}

#[test]
fn a_killed_copy_leaves_its_part_only_and_the_next_one_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (image, dest) = (folder.path().join("disk.img"), folder.path().join("copy.img"));
    TestDisk::empty(192 * MIB).with(0, 192 * MIB, 1).make(&image);
    TestDisk::empty(MIB).with(0, 100, 2).make(&dest);
    let before = Before::of(&dest);
    for args in [&["--reflink", "never"][..], &["--hash"]] {
        let running = Running::start(Command::new(tools!().xfer_hole).args(args).arg(&image).arg(&dest));
        wait_until("it writes", || fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.blocks() > 0));
        assert_eq!(running.kill().code, None, "it ended before it was killed");
        before.untouched("the copy was killed");
        assert!(part_of(&dest).exists());
    }
    copy(&[], &image, &dest).ok();
    assert_same(&image, &dest);
    assert!(!part_of(&dest).exists());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (image, dest) = (folder.path().join("disk.img"), folder.path().join("copy.img"));
    disk().make(&image);
    let said = copy(&["--dry-run"], &image, &dest).ok().err;
    assert!(said.contains("would copy") && said.contains("a new raw image") && said.contains("copy.img"), "{said}");
    assert!(!dest.exists() && !part_of(&dest).exists());
    copy(&["-n"], &image, &folder.path().join("none/copy.img")).refused(&["no such directory"]);
    copy(&["-n"], &image, &image).refused(&["is the same as"]);
    copy(&["-n", "--reflink", "always"], &image, Path::new("/dev/null")).refused(&["only a new file"]);
    fs::write(&dest, b"old").unwrap();
    let said = copy(&["-n"], &image, &dest).ok().err;
    assert!(said.contains("replaces"), "{said}");
    assert_eq!(fs::read(&dest).unwrap(), b"old");
}

#[test]
fn how_a_disk_is_written_is_no_matter_of_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    disk().make(&image);
    for args in [&["--in-place"][..], &["--no-sync"], &["--target-is-zero"], &["-n"], &["--reflink", "auto"]] {
        let refused = run(Command::new(tools!().xfer_hole).args(args).arg(&image), b"")
            .refused(&[args[0].trim_start_matches("-n")]);
        assert!(refused.out.is_empty());
    }
    copy(&["--classic"], &image, &folder.path().join("copy.img")).refused(&["--classic"]);
    assert!(!pour(&tools!(), &[], &image).is_empty());
}
