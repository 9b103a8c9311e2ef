//! Transfers that leave the machine's page cache as it is: the same disks, by O_DIRECT, and where there is none, out of the cache again.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rig::{
    Before, FarEnd, Filesystem, Fill, Fs, HOST, LoopDevice, Op, Outcome, Qcow2, Setup, TestDisk, Toolbox,
    assert_holes_within, assert_same, holes, holes_within, part_of, qemu_disk, requires, run, tool, tools,
};

const MIB: u64 = 1 << 20;
/// Bytes.
const PAGE: u64 = 4096;

/// Data, zeros that were written, and holes; not all of it at multiples of anything.
fn disk() -> TestDisk {
    TestDisk::empty(48 * MIB + 1536)
        .with(0, MIB, 1)
        .with(3 * MIB + 512, 3 * MIB + 7, 2)
        .with(9 * MIB, 2 * MIB, 0)
        .with(11 * MIB, 4096, 3)
        .with(16 * MIB - 4096, 9 * MIB, 4)
        .with(30 * MIB + 100, 1, 5)
        .with(40 * MIB, 64 << 10, 6)
        .with(48 * MIB + 1000, 536, 7)
}

fn copy(args: &[&str], image: &Path, dest: &Path) -> Outcome {
    run(Command::new(tools!().xfer_hole).arg("-q").args(args).arg(image).arg(dest), b"")
}

/// `xfer-hole ARGS IMAGE | recv-hole ARGS DEST`
fn pipe(sender: &[&str], image: &Path, receiver: &[&str], dest: &Path) -> Outcome {
    let mut shell = Command::new("bash");
    shell.args(["-c", "set -o pipefail; \"$XFER\" $SENDER \"$0\" | \"$RECV\" $RECEIVER \"$1\""]).arg(image).arg(dest);
    shell.env("XFER", tools!().xfer_hole).env("RECV", tools!().recv_hole);
    run(shell.env("SENDER", sender.join(" ")).env("RECEIVER", receiver.join(" ")), b"")
}

/// Pages of a file that the page cache has.
fn cached(path: &Path) -> u64 {
    requires(&["fincore"]);
    tool("fincore", &["-n", "-b", "-o", "PAGES", path.to_str().unwrap()]).trim().parse().unwrap()
}

/// Has the page cache forget a file.
fn forget(path: &Path) {
    for _ in 0..10 {
        tool("sync", &[path.to_str().unwrap()]);
        tool("dd", &[&format!("if={}", path.display()), "iflag=nocache", "count=0"]);
        if cached(path) == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{}: {} pages stay", path.display(), cached(path));
}

/// Has a transfer make it so with each file's pages in the page cache. Where memory is short the kernel takes pages that were to stay,
/// and holds on to pages that are to leave: three tries.
fn leaves(what: &str, files: &[&Path], so: impl Fn(u64) -> bool, mut transfer: impl FnMut()) {
    let mut found = Vec::new();
    for _ in 0..3 {
        transfer();
        let pages: Vec<u64> = files.iter().map(|file| cached(file)).collect();
        if pages.iter().all(|&pages| so(pages)) {
            return;
        }
        found.push(pages);
    }
    panic!("{what}: {found:?} pages");
}

/// Pages of a file that the page cache may have all the same.
fn few(pages: u64) -> bool {
    pages < 20
}

#[test]
fn bytes_and_holes_are_those_of_a_transfer_through_the_page_cache() {
    let sizes = [1, 511, 513, 4096, 4097, 3 * MIB + 512, 4 * MIB + 1];
    let small = sizes.map(|size| TestDisk::empty(size).with(0, size, 1));
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        for disk in small.iter().chain([&disk(), &TestDisk::empty(2 * MIB + 100), &TestDisk::empty(0)]) {
            disk.make(&image);
            for args in [&[][..], &["--hash"], &["--hash", "--hash-interval=4K"], &["--min-hole=64K"]] {
                let what = format!("{kind:?} {args:?} {}", disk.size);
                let grain = if args.contains(&"--min-hole=64K") { 64 << 10 } else { PAGE };
                let same = |how: &str| {
                    assert_same(&image, &dest);
                    assert_holes_within(&holes_within(&image, grain), &holes(&dest), &format!("{what} {how}"));
                    fs::remove_file(&dest).unwrap();
                };
                let both = [&["--direct"], args].concat();
                assert_eq!(
                    copy(&[&both[..], &["--reflink=never", "--no-sync"]].concat(), &image, &dest).ok().err,
                    "",
                    "{what}"
                );
                same("copied");
                assert_eq!(pipe(&both, &image, &["--direct", "--no-sync"], &dest).ok().err, "", "{what}");
                same("sent");
                // Over what was there, which is longer.
                fs::write(&dest, vec![0xee; usize::try_from(disk.size).unwrap() + 9000]).unwrap();
                let in_place = ["--direct", "--in-place", "--no-sync"];
                assert_eq!(pipe(&both, &image, &in_place, &dest).ok().err, "", "{what}");
                same("in place");
            }
        }
    }
}

#[test]
fn images_with_compressed_clusters_and_chains_are_read_as_they_are() {
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    Qcow2::new(24 * MIB + 512)
        .write(0, 3 * MIB, Fill::Noise(1))
        .op(Op::Compressed(4 * MIB, 8 * MIB, Fill::Text(2)))
        .write(20 * MIB + 700, 999, Fill::Noise(3))
        .make(&fs.join("base.qcow2"));
    let top = fs.join("top.qcow2");
    Qcow2::over("base.qcow2", "qcow2")
        .write(MIB + 512, 5 * MIB, Fill::Noise(4))
        .op(Op::Compressed(10 * MIB, MIB, Fill::Text(5)))
        .op(Op::Unmap(20 * MIB, MIB))
        .make(&top);
    let small = fs.join("small.qcow2");
    Qcow2::new(2 * MIB).option("cluster_size=512").write(100, MIB, Fill::Noise(6)).make(&small);
    for image in [&fs.join("base.qcow2"), &top, &small] {
        let (disk, dest) = (qemu_disk(image), fs.join("out.img"));
        for args in [&["--direct"][..], &["--direct", "--hash"]] {
            let what = format!("{} {args:?}", image.display());
            let files = ["base.qcow2", "top.qcow2", "small.qcow2"].map(|file| fs.join(file));
            // Headers and tables too.
            leaves(
                &what,
                &files.each_ref().map(|file| &**file),
                |pages| pages == 0,
                || {
                    files.iter().for_each(|file| forget(file));
                    assert_eq!(copy(args, image, &dest).ok().err, "");
                    assert_same(&disk, &dest);
                    assert_eq!(holes(&dest), holes_within(&disk, PAGE), "{what}");
                    assert_eq!(pipe(args, image, &["--direct"], &dest).ok().err, "");
                },
            );
            assert_same(&disk, &dest);
        }
    }
}

#[test]
fn devices_are_read_and_written_whole() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, read) = (fs.join("disk.img"), fs.join("read.img"));
    disk().make(&image);
    for args in [&["--direct"][..], &["--direct", "--hash"], &["--direct", "--hash", "--min-hole=512"]] {
        let device = LoopDevice::filled(50 * MIB, 0xee);
        copy(args, &image, device.path()).ok();
        let bytes = |path: &Path| {
            tool("blockdev", &["--flushbufs", device.path().to_str().unwrap()]);
            fs::read(path).unwrap()
        };
        let expected = [disk().bytes(), vec![0xee; usize::try_from(2 * MIB - 1536).unwrap()]].concat();
        assert!(bytes(device.path()) == expected, "{args:?}");
        assert_eq!(copy(args, device.path(), &read).ok().err, "");
        assert!(fs::read(&read).unwrap() == expected, "{args:?}");
        drop(device);
        let device = LoopDevice::filled(50 * MIB, 0xee);
        pipe(args, &image, &["--direct"], device.path()).ok();
        assert!(fs::read(device.path()).unwrap() == expected, "{args:?}");
    }
}

/// Bytes that went through which descriptors of a call, by strace's log: directly, and otherwise.
fn moved(log: &str, call: &str) -> (u64, u64) {
    let of = |line: &str, what: &str| line.split_once(what).map(|(_, rest)| rest.to_owned());
    // Directories are opened, too, by O_DIRECTORY.
    let opened = log.lines().filter(|line| line.replace("O_DIRECTORY", "").contains("O_DIRECT"));
    let direct: Vec<String> = opened.map(|line| of(line, " = ").unwrap()).collect();
    assert!(!direct.is_empty(), "nothing was opened with O_DIRECT: {log}");
    let mut bytes = (0, 0);
    for line in log.lines() {
        let Some(rest) = of(line, &format!(" {call}(")) else { continue };
        let file = rest.split(',').next().unwrap();
        let count: u64 = rest.rsplit_once(" = ").unwrap().1.trim().parse().unwrap();
        if direct.iter().any(|opened| opened.split('<').next() == file.split('<').next()) {
            bytes.0 += count;
        } else {
            bytes.1 += count;
        }
    }
    bytes
}

#[test]
fn data_goes_through_descriptors_with_o_direct_and_in_large_pieces() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, dest, log) = (fs.join("disk.img"), fs.join("out.img"), fs.join("strace"));
    TestDisk::empty(64 * MIB + 100)
        .with(0, 20 * MIB, 1)
        .with(30 * MIB, 10 * MIB, 2)
        .with(64 * MIB, 100, 3)
        .make(&image);
    let data = 30 * MIB + PAGE;
    let stream = fs.join("stream");
    for args in [&[][..], &["--hash"]] {
        let traced = |command: &str, input: &Path| {
            let mut traced = Command::new("strace");
            traced.args(["-f", "-qq", "-e", "trace=openat,pread64,pwrite64,splice,copy_file_range", "-o"]).arg(&log);
            // One thread writes a line at a time.
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec \"$0\" \"$@\" {command} < '{}'", input.display())]);
            shell.arg(traced.get_program()).args(traced.get_args());
            (shell, log.clone())
        };
        // Reading.
        let (mut shell, log) = traced(&format!("> '{}'", stream.display()), Path::new("/dev/null"));
        run(shell.arg(tools!().xfer_hole).args(args).arg("--direct").arg(&image), b"").ok();
        let said = joined(&fs::read_to_string(&log).unwrap());
        let (direct, cached) = moved(&said, "pread64");
        assert!(direct >= 30 * MIB + 100 && direct < data + 4 * PAGE, "{args:?}: {direct}");
        assert!(cached < 64 << 10, "{args:?}: {cached}");
        let calls = said.lines().filter(|line| line.contains(" pread64(")).count();
        assert!(calls < 50 && !said.contains("splice("), "{args:?}: {calls} calls");
        // Writing.
        let (mut shell, log) = traced("", &stream);
        run(shell.arg(tools!().recv_hole).arg("--direct").arg(&dest), b"").ok();
        assert_same(&image, &dest);
        let said = joined(&fs::read_to_string(&log).unwrap());
        assert_eq!(moved(&said, "pwrite64"), (30 * MIB, 100), "{args:?}");
        let calls = said.lines().filter(|line| line.contains(" pwrite64(")).count();
        assert!(calls < 40 && !said.contains("splice("), "{args:?}: {calls} calls");
    }
}

/// strace's log, with the halves of calls joined that another thread's came between.
fn joined(log: &str) -> String {
    let mut begun = std::collections::BTreeMap::new();
    let mut lines = String::new();
    for line in log.lines() {
        let (thread, said) = line.split_once(' ').unwrap();
        if let Some(half) = said.strip_suffix("<unfinished ...>") {
            begun.insert(thread, half.trim_start());
        } else if let Some((_, rest)) = said.split_once(" resumed>") {
            lines.push_str(&format!("{thread} {}{rest}\n", begun.remove(thread).unwrap()));
        } else {
            lines.push_str(&format!("{thread} {}\n", said.trim_start()));
        }
    }
    lines
}

#[test]
fn the_page_cache_is_left_as_it_is_with_the_flag_and_is_filled_without() {
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        disk().make(&image);
        let most = |pages| pages > 12 * MIB / PAGE;
        for args in [&[][..], &["--hash"]] {
            let what = format!("{kind:?} {args:?}");
            leaves(&what, &[&image, &dest], few, || {
                forget(&image);
                copy(&[&["--direct", "--reflink=never"], args].concat(), &image, &dest).ok();
            });
            let sender = [&["--direct"], args].concat();
            for receiver in [&["--direct"][..], &["--direct", "--no-sync"]] {
                leaves(&what, &[&image, &dest], few, || {
                    forget(&image);
                    fs::remove_file(&dest).unwrap();
                    pipe(&sender, &image, receiver, &dest).ok();
                });
            }
            // Without the flag all of it is there, and stays there.
            leaves(&what, &[&image, &dest], most, || {
                fs::remove_file(&dest).unwrap();
                pipe(args, &image, &[], &dest).ok();
            });
            // What was there before us is not ours to drop.
            leaves(&what, &[&image, &dest], most, || {
                copy(&[&["--reflink=never"], args].concat(), &image, &dest).ok();
            });
            fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn what_the_page_cache_has_of_the_image_already_stays_there() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    // All but the window that is looked into.
    leaves(
        "read before",
        &[&image],
        |pages| pages + 8 * MIB / PAGE > 12_000,
        || {
            fs::read(&image).unwrap();
            copy(&["--direct", "--format=raw"], &image, &dest).ok();
        },
    );
    assert_same(&image, &dest);
}

/// A file system that refuses O_DIRECT: ext4 where data goes through the journal.
fn refusing(size: u64) -> Filesystem {
    let mut fs = Filesystem::new(Fs::Ext4, size);
    fs.unmount();
    tool("tune2fs", &["-o", "journal_data", fs.backing().to_str().unwrap()]);
    fs.mount();
    fs
}

#[test]
fn where_there_is_no_o_direct_that_is_said_once_and_the_page_cache_is_emptied_behind() {
    let fs = refusing(1024 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(200 * MIB + 100).with(0, 120 * MIB, 1).with(150 * MIB, MIB, 2).with(200 * MIB, 100, 3).make(&image);
    let name = |path: &Path| path.display().to_string();
    let read = format!(
        "xfer-hole: warning: {}: takes no O_DIRECT; what was read is dropped from the page cache instead\n",
        name(&image)
    );
    let written = |who: &str| {
        let what = "takes no O_DIRECT; what was written is dropped from the page cache instead";
        format!("{who}: warning: {}: {what}\n", name(&dest))
    };
    for args in [&["--direct"][..], &["--direct", "--hash"]] {
        forget(&image);
        assert_eq!(copy(args, &image, &dest).ok().err, read.clone() + &written("xfer-hole"));
        assert_same(&image, &dest);
        fs::remove_file(&dest).unwrap();
        leaves(&format!("{args:?}"), &[&image, &dest], few, || {
            forget(&image);
            assert_eq!(pipe(args, &image, &["--direct"], &dest).ok().err, read.clone() + &written("recv-hole"));
        });
        assert_same(&image, &dest);
        assert_eq!(holes(&dest), holes_within(&image, PAGE));
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn where_nothing_can_be_opened_once_more_it_falls_back_too() {
    requires(&["unshare"]);
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    leaves("hidden", &[&image, &dest], few, || {
        forget(&image);
        let mut hidden = Command::new("unshare");
        hidden.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]).arg(tools!().xfer_hole);
        let said = run(hidden.args(["-q", "--direct", "--reflink=never"]).arg(&image).arg(&dest), b"").ok().err;
        assert_eq!(said.matches(": takes no O_DIRECT; what was ").count(), 2, "{said}");
    });
    assert_same(&image, &dest);
}

#[test]
fn what_is_refused_at_the_first_transfer_goes_another_way() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(20 * MIB).with(MIB, 2 * MIB, 1).make(&image);
    // The first call of the thread that opens is answered so, though the kernel would have done it.
    let refused = |call: &str, file: &Path| {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={call}:error=EINVAL:when=1"), "-P"]).arg(file);
        command
    };
    leaves("refused", &[&image, &dest], few, || {
        forget(&image);
        let sent =
            run(refused("pread64", &image).arg(tools!().xfer_hole).args(["--direct", "--format=raw"]).arg(&image), b"")
                .ok();
        assert_eq!(sent.err.matches("takes no O_DIRECT; what was read is dropped").count(), 1, "{}", sent.err);
        let received =
            run(refused("pwrite64", &part_of(&dest)).arg(tools!().recv_hole).arg("--direct").arg(&dest), &sent.out)
                .ok();
        assert_eq!(
            received.err.matches("takes no O_DIRECT; what was written is dropped").count(),
            1,
            "{}",
            received.err
        );
    });
    assert_same(&image, &dest);
}

#[test]
fn a_file_system_that_caches_in_spite_of_o_direct_is_found_out() {
    let fs = Filesystem::new(Fs::Btrfs, 512 * MIB);
    tool("mount", &["-o", "remount,compress-force=zstd", fs.path().to_str().unwrap()]);
    let image = fs.join("disk.img");
    // It compresses.
    let lines = "the same line, again and again and again\n".repeat(1 << 20);
    fs::write(&image, lines).unwrap();
    let dest = fs.join("out.img");
    leaves("compressed", &[&image, &dest], few, || {
        forget(&image);
        let said = copy(&["--direct", "--reflink=never"], &image, &dest).ok().err;
        let what = "is read through the page cache in spite of O_DIRECT; what was read is dropped from it";
        assert_eq!(said, format!("xfer-hole: warning: {}: {what}\n", image.display()));
    });
    assert_same(&image, &dest);
}

#[test]
fn a_full_file_system_says_so_and_the_old_disk_stays() {
    let source = Filesystem::new(Fs::Ext4, 256 * MIB);
    let image = source.join("disk.img");
    TestDisk::empty(80 * MIB).with(MIB, 60 * MIB, 1).make(&image);
    for fs in [Filesystem::new(Fs::Ext4, 32 * MIB), Filesystem::new(Fs::Tmpfs, 16 * MIB), refusing(32 * MIB)] {
        let dest = fs.join("out.img");
        fs::write(&dest, "the old disk").unwrap();
        let before = Before::of(&dest);
        for args in [&["--direct"][..], &["--direct", "--hash"]] {
            for copied in [true, false] {
                let outcome = if copied { copy(args, &image, &dest) } else { pipe(args, &image, &["--direct"], &dest) };
                let last = outcome.complaints().into_iter().find(|line| line.contains("disk offset")).unwrap();
                assert!(outcome.code == Some(2) && last.contains("no space left on device"), "{}", outcome.err);
                fs::remove_file(part_of(&dest)).unwrap();
                before.untouched("direct");
            }
        }
    }
}

#[test]
fn the_other_side_of_a_push_and_of_a_pull_is_asked_for_it_too() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let image = far.image("disk.img", &disk());
    let there = far.account.home("x");
    leaves("pushed", &[&there, &image], few, || {
        forget(&image);
        far.push(&["--direct"], &image, "x").ok();
    });
    assert_same(&image, &there);
    let back = far.near("back.img");
    leaves("pulled", &[&there, &back], few, || {
        forget(&there);
        far.pull(&["--direct"], "x", &back).ok();
    });
    assert_same(&image, &back);
    // The script can't, and says so.
    let said = far.push(&["--direct", "--receiver=sh"], &image, "y").ok().err;
    assert!(said.lines().any(|line| line.contains(HOST) && line.contains("--direct is for recv-hole")), "{said}");
    assert_same(&image, &far.account.home("y"));
}

#[test]
fn memory_stays_within_tens_of_mebibytes() {
    let fs = Filesystem::new(Fs::Ext4, 1024 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(300 * MIB).with(0, 200 * MIB, 1).make(&image);
    for args in [&["--direct"][..], &["--direct", "--hash"]] {
        let peak = peak_of(Command::new(tools!().xfer_hole).arg("-q").args(args).arg(&image).arg(&dest));
        assert!(peak < 64 << 10, "{args:?}: {peak} KiB");
        assert_same(&image, &dest);
    }
}

/// The most memory, in KiB, that a command which succeeds had at a time.
fn peak_of(command: &Command) -> u64 {
    requires(&["python3"]);
    let script = "import resource, subprocess, sys\n\
                  subprocess.run(sys.argv[1:], check=True)\n\
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut measured = Command::new("python3");
    measured.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    String::from_utf8(run(&mut measured, b"").ok().out).unwrap().trim().parse().unwrap()
}

#[test]
fn an_image_that_was_just_written_is_read_as_it_is_now() {
    let fs = Filesystem::new(Fs::Xfs, 512 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    for seed in 1..5 {
        // Nothing of it is on the disk yet.
        let disk = TestDisk::empty(20 * MIB).with(512, 9 * MIB, seed);
        let file = File::create(&image).unwrap();
        file.set_len(disk.size).unwrap();
        disk.write(&file);
        copy(&["--direct", "--reflink=never", "--no-sync"], &image, &dest).ok();
        assert!(fs::read(&dest).unwrap() == disk.bytes(), "{seed}");
    }
}
