//! A block device is right over old bytes, is never taken from who has it, and is told of where it is too small or too large.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use rig::{
    Filesystem, Fs, LoopDevice, Outcome, Receiver, Running, SHELLS, TestDisk, part_of, pour, requires, run, tool,
    tools, wait_until,
};

const MIB: u64 = 1 << 20;
const OLD: u8 = 0xee;
const RECEIVERS: [Receiver; 4] =
    [Receiver::Binary, Receiver::Script(SHELLS[0]), Receiver::Script(SHELLS[2]), Receiver::Script(SHELLS[3])];

fn receive(receiver: Receiver, dest: &Path, stream: &[u8]) -> Outcome {
    run(&mut receiver.command(&tools!(), dest, false, true), stream)
}

/// A stream of data and holes in turns, and the disk that it is.
fn turns(lens: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let (mut stream, mut disk) = (format!("XFER-HOLE 1 {}\n", lens.iter().sum::<usize>()).into_bytes(), Vec::new());
    for (n, &len) in lens.iter().enumerate() {
        let data = n % 2 == 0;
        stream.extend(format!("{} {len}\n", if data { "DATA" } else { "HOLE" }).bytes());
        if data {
            stream.extend((0..len).map(|at| (at % 251) as u8 + 1));
        }
        disk.extend((0..len).map(|at| if data { (at % 251) as u8 + 1 } else { 0 }));
    }
    stream.extend(b"END\n");
    (stream, disk)
}

fn bytes(device: &LoopDevice) -> Vec<u8> {
    // From what is stored, not from what the device's cache holds.
    tool("blockdev", &["--flushbufs", device.path().to_str().unwrap()]);
    fs::read(device.path()).unwrap()
}

#[test]
fn holes_at_any_offset_are_zeros_over_old_bytes() {
    let disks: [&[usize]; 5] = [
        &[1, 1, 1, 511, 513, 4095, 4097, 65_537, 3, 1_000_000, 7],
        &[512, 512, 4096, 4096, 100, 1_048_576],
        &[4097, 8190, 1, 200_001],
        &[1, 2 * 1_048_576 - 1],
        &[700, 5000, 65_536, 123],
    ];
    for lens in disks {
        let (stream, disk) = turns(lens);
        for receiver in RECEIVERS {
            let device = LoopDevice::filled(3 * MIB, OLD);
            let outcome = receive(receiver, device.path(), &stream).ok();
            let found = bytes(&device);
            let what = format!("{receiver:?} {lens:?}: {}", outcome.err);
            assert!(found[..disk.len()] == disk, "{what}");
            assert!(found[disk.len()..].iter().all(|&byte| byte == OLD), "the tail is not ours: {what}");
            assert!(outcome.err.contains("larger") || outcome.err.contains("left as they were"), "{what}");
            assert!(!part_of(device.path()).exists(), "{what}");
        }
    }
}

#[test]
fn a_disk_with_digests_is_right_on_a_device_and_the_device_is_a_source_again() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    // Not a multiple of 4096.
    TestDisk::empty(3 * MIB + 512).with(4096, 70_000, 1).with(2 * MIB + 100, 5000, 2).make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    for receiver in RECEIVERS {
        let device = LoopDevice::filled(3 * MIB + 512, OLD);
        let outcome = receive(receiver, device.path(), &stream).ok();
        assert_eq!(outcome.err, "", "{receiver:?}");
        assert!(bytes(&device) == fs::read(&image).unwrap(), "{receiver:?}");
        assert!(pour(&tools!(), &["--hash"], device.path()) == stream, "{receiver:?}");
    }
}

#[test]
fn a_device_that_is_too_small_is_refused_before_an_byte_is_written() {
    let (stream, _) = turns(&[700_000, 300_000, 100_000]);
    for receiver in RECEIVERS {
        let device = LoopDevice::filled(MIB, OLD);
        receive(receiver, device.path(), &stream).refused(&["too small", "1048576", "1100000"]);
        assert!(bytes(&device).iter().all(|&byte| byte == OLD), "{receiver:?}");
    }
}

#[test]
fn a_failure_half_way_says_that_the_device_is_not_whole() {
    let (stream, _) = turns(&[700_000, 300_000, 100_000]);
    for receiver in RECEIVERS {
        let device = LoopDevice::filled(2 * MIB, OLD);
        let word = if receiver == Receiver::Binary { "overwritten in part" } else { "not whole" };
        let cut = receive(receiver, device.path(), &stream[..stream.len() - 50_000]);
        cut.refused(&["record 3", "disk offset 1000000", word, device.path().to_str().unwrap()]);
    }
}

#[test]
fn a_mounted_or_swapped_device_is_refused() {
    requires(&["mkfs.ext4", "mkswap", "swapon", "swapoff"]);
    let (stream, _) = turns(&[700_000, 300_000, 100_000]);
    let folder = tempfile::tempdir().unwrap();
    let (mount, device) = (folder.path().to_str().unwrap(), LoopDevice::filled(16 * MIB, 0));
    let name = device.path().to_str().unwrap();
    tool("mkfs.ext4", &["-q", name]);
    tool("mount", &[name, mount]);
    let outcomes = RECEIVERS.map(|receiver| receive(receiver, device.path(), &stream));
    tool("umount", &[mount]);
    for outcome in outcomes {
        outcome.refused(&["in use", name]);
    }
    tool("e2fsck", &["-fn", name]);
    tool("mkswap", &[name]);
    tool("swapon", &[name]);
    let outcomes = RECEIVERS.map(|receiver| receive(receiver, device.path(), &stream));
    tool("swapoff", &[name]);
    for outcome in outcomes {
        outcome.refused(&["in use", name]);
    }
    receive(Receiver::Binary, device.path(), &stream).ok();
}

#[test]
fn a_btrfs_of_several_devices_holds_each_of_them() {
    requires(&["mkfs.btrfs"]);
    let (stream, _) = turns(&[700_000, 300_000, 100_000]);
    let folder = tempfile::tempdir().unwrap();
    let devices = [0, 1].map(|_| LoopDevice::filled(160 * MIB, 0));
    let names = devices.each_ref().map(|device| device.path().to_str().unwrap());
    let mount = folder.path().to_str().unwrap();
    tool("mkfs.btrfs", &["-q", "-f", names[0], names[1]]);
    tool("mount", &[names[0], mount]);
    let outcomes = devices.each_ref().map(|device| RECEIVERS.map(|receiver| receive(receiver, device.path(), &stream)));
    tool("umount", &[mount]);
    for outcome in outcomes.into_iter().flatten() {
        outcome.refused(&["in use"]);
    }
}

#[test]
fn the_device_is_held_alone_while_it_is_written() {
    let (stream, disk) = turns(&[700_000, 300_000, 100_000]);
    let device = LoopDevice::filled(2 * MIB, OLD);
    let mut holds = Running::start(&mut Receiver::Binary.command(&tools!(), device.path(), false, true));
    holds.say(&stream[..200_000]);
    let mut byte = [0];
    wait_until("writing has begun", || {
        File::open(device.path()).unwrap().read_exact_at(&mut byte, 0).unwrap();
        byte[0] != OLD
    });
    let second = OpenOptions::new().write(true).custom_flags(nix::libc::O_EXCL).open(device.path());
    assert_eq!(second.unwrap_err().raw_os_error(), Some(nix::libc::EBUSY));
    for receiver in RECEIVERS {
        let (words, outcome) = (["in use", device.path().to_str().unwrap()], receive(receiver, device.path(), &stream));
        match receiver {
            Receiver::Binary => outcome.retryable(&words),
            Receiver::Script(_) => outcome.refused(&words),
        };
    }
    holds.say(&stream[200_000..]);
    holds.end().ok();
    assert!(bytes(&device)[..disk.len()] == disk);
}

#[test]
fn target_is_zero_writes_data_only() {
    let (stream, disk) = turns(&[700_000, 300_000, 100_000]);
    let device = LoopDevice::filled(2 * MIB, OLD);
    let mut command = Command::new(tools!().recv_hole);
    run(command.arg("--target-is-zero").arg(device.path()), &stream).ok();
    let found = bytes(&device);
    assert!(found[..700_000] == disk[..700_000] && found[1_000_000..1_100_000] == disk[1_000_000..]);
    assert!(found[700_000..1_000_000].iter().all(|&byte| byte == OLD), "holes were written");
}

#[test]
fn the_device_is_synced_before_exit_0_and_not_where_nobody_asked() {
    requires(&["strace"]);
    // No hole: fallocate(1), which punches one for the script, syncs on its own.
    let (stream, _) = turns(&[1_100_000]);
    let device = LoopDevice::filled(2 * MIB, OLD);
    let folder = tempfile::tempdir().unwrap();
    for receiver in Receiver::both() {
        for no_sync in [false, true] {
            let log = folder.path().join("log");
            let plain = receiver.command(&tools!(), device.path(), false, no_sync);
            let mut traced = Command::new("strace");
            traced.args(["-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs,exit_group", "-o"]).arg(&log);
            run(traced.arg(plain.get_program()).args(plain.get_args()), &stream).ok();
            let log = fs::read_to_string(&log).unwrap();
            let synced =
                log.lines().position(|call| call.contains("sync(") && call.contains(device.path().to_str().unwrap()));
            assert_eq!(synced.is_some(), !no_sync, "{receiver:?} {log}");
            assert!(synced.is_none_or(|at| log.lines().skip(at).any(|call| call.contains("exit_group(0)"))), "{log}");
        }
    }
}

/// Bytes that a file takes on its file system.
fn allocated(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

/// A disk of 128 MiB with 2 MiB of data in it, which don't begin or end at a page.
fn sparse() -> TestDisk {
    TestDisk::empty(128 * MIB).with(0, 4096, 1).with(20 * MIB + 100, MIB, 2).with(100 * MIB + 4000, MIB - 4096, 3)
}

/// A loop device over a sparse file, the space of which is made on demand: full of old bytes, or with none.
fn on_demand(fs: &Filesystem, full: bool) -> LoopDevice {
    let backing = fs.join("backing");
    let disk = TestDisk::empty(128 * MIB);
    if full { disk.with(0, 128 * MIB, 9) } else { disk }.make(&backing);
    LoopDevice::over(&backing)
}

#[test]
fn holes_take_no_space_of_a_device_that_makes_it_on_demand() {
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let image = fs.join("disk.img");
        sparse().make(&image);
        let stream = pour(&tools!(), &["--hash"], &image);
        let expected = fs::read(&image).unwrap();
        for full in [true, false] {
            for how in ["pipe", "direct", "copy", "delta"] {
                let device = on_demand(&fs, full);
                let (tool, args): (_, &[&str]) = match how {
                    "pipe" => (tools!().recv_hole, &[]),
                    "direct" => (tools!().recv_hole, &["--direct"]),
                    "copy" => (tools!().xfer_hole, &[image.to_str().unwrap()]),
                    _ => (tools!().xfer_hole, &["--hash", "--delta", image.to_str().unwrap()]),
                };
                run(Command::new(tool).args(args).arg(device.path()), &stream).ok();
                let what = format!("{kind:?}, full: {full}, {how}");
                assert!(bytes(&device) == expected, "{what}");
                let taken = allocated(&device.backing());
                assert!(taken <= 4 * MIB, "{what}: {taken} bytes are taken");
            }
        }
    }
}

/// `recv-hole ARGS DEVICE` below strace, with these options.
fn traced(options: &[&str], args: &[&str], device: &LoopDevice, log: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=ioctl,fallocate", "-e", "inject=fallocate:error=EOPNOTSUPP"]).args(options);
    command.arg("-o").arg(log).arg(tools!().recv_hole).args(args).arg(device.path());
    command
}

#[test]
fn what_only_discarding_gives_back_is_discarded_and_read_back() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let (image, log) = (fs.join("disk.img"), fs.join("log"));
    sparse().make(&image);
    // Without digests all is done by one thread, whose calls are counted below.
    let (stream, expected) = (pour(&tools!(), &[], &image), fs::read(&image).unwrap());
    // Like dm-thin: it can't zero without writing.
    let device = on_demand(&fs, true);
    run(&mut traced(&[], &[], &device, &log), &stream).ok();
    assert!(bytes(&device) == expected);
    assert!(allocated(&device.backing()) > 100 * MIB, "zeros take space there");
    drop(device);
    let device = on_demand(&fs, true);
    let outcome = run(&mut traced(&[], &["--discard", "--force"], &device, &log), &stream).ok();
    assert!(bytes(&device) == expected);
    assert!(allocated(&device.backing()) <= 4 * MIB, "{}", allocated(&device.backing()));
    assert!(!outcome.err.contains("may take space"), "{}", outcome.err);
    drop(device);
    // A device that only says that it discards is found out: the first time it is asked, nothing happens. By --force, no other loop devices
    // are looked at, so that there are as many calls before.
    let calls = fs::read_to_string(&log).unwrap();
    let (thread, _) = calls.lines().find(|line| line.contains("BLKDISCARD")).unwrap().split_once(' ').unwrap();
    let of_thread = calls.lines().filter(|line| line.starts_with(&format!("{thread} ")) && line.contains("ioctl("));
    let first = 1 + of_thread.take_while(|line| !line.contains("BLKDISCARD")).count();
    let device = on_demand(&fs, true);
    let inject = format!("inject=ioctl:retval=0:when={first}");
    let outcome = run(&mut traced(&["-e", &inject], &["--discard", "--force"], &device, &log), &stream).ok();
    let calls = fs::read_to_string(&log).unwrap();
    let discards: Vec<_> = calls.lines().filter(|line| line.contains("BLKDISCARD")).collect();
    assert!(discards.len() == 1 && discards[0].contains("INJECTED"), "{discards:?}");
    assert!(bytes(&device) == expected);
    assert!(outcome.err.contains("may take space"), "{}", outcome.err);
}

#[test]
fn discarding_is_for_devices_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out.img");
    run(Command::new(tools!().recv_hole).arg("--discard").arg(&dest), b"").refused(&["no block device", "--discard"]);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}
