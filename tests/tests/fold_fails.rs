//! Folding and pruning that is refused, cut short, or can't be done: the child is whole, and it can be run again.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rig::{Before, Filesystem, Fs, Layers, Outcome, Running, TestDisk, requires, run, tool, tools, wait_until};

const MIB: u64 = 1 << 20;
const COMMANDS: [&str; 2] = ["fold", "prune"];

/// `fold CHILD PARENT` or `prune PARENT CHILD`.
fn command(name: &str, args: &[&str], child: &Path, parent: &Path) -> Command {
    let mut files = [child, parent];
    if name == "prune" {
        files.reverse();
    }
    let mut command = Command::new(tools!().xfer_hole);
    command.args([name, "-q"]).args(args).args(files);
    command
}

fn call(name: &str, layers: &Layers) -> Outcome {
    run(&mut command(name, &[], &layers.child, &layers.parent), b"")
}

#[track_caller]
fn done(name: &str, layers: &Layers, what: &str) {
    if name == "fold" { layers.folded(what) } else { layers.pruned(what) }
}

#[test]
fn one_file_under_two_names_is_refused_and_left_alone() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let layers = Layers::of_letters(fs.path(), "DHD", "DDD");
    let before = Before::of(&layers.child);
    let (hard, soft) = (fs.join("hard"), fs.join("soft"));
    symlink("child.img", &soft).unwrap();
    for name in COMMANDS {
        for other in [&layers.child, &soft] {
            run(&mut command(name, &[], &layers.child, other), b"").refused(&["is the same as"]);
            run(&mut command(name, &[], other, &layers.child), b"").refused(&["is the same as"]);
        }
        before.untouched(name);
    }
    fs::hard_link(&layers.child, &hard).unwrap();
    for name in COMMANDS {
        run(&mut command(name, &[], &layers.child, &hard), b"").refused(&["is the same as"]);
    }
    assert!(fs::read(&hard).unwrap() == before.bytes());
}

#[test]
fn what_is_no_regular_file_or_is_not_there_is_refused() {
    requires(&["losetup", "mkfifo"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let layers = Layers::of_letters(fs.path(), "DHD", "DDD");
    let device = tool("losetup", &["--find", "--show", layers.parent.to_str().unwrap()]);
    let device = Path::new(device.trim());
    let (fifo, missing) = (fs.join("fifo"), fs.join("missing"));
    drop(tool("mkfifo", &[fifo.to_str().unwrap()]));
    let before = [Before::of(&layers.child), Before::of(&layers.parent)];
    for name in COMMANDS {
        for (other, why) in [
            (device, "is no regular file"),
            (fs.path(), "is "),
            (&fifo, "is "),
            (&missing, "no such file or directory"),
            (Path::new("-"), "no such file or directory"),
        ] {
            run(&mut command(name, &[], &layers.child, other), b"").refused(&[why]);
            run(&mut command(name, &[], other, &layers.parent), b"").refused(&[why]);
        }
    }
    drop(tool("losetup", &["-d", device.to_str().unwrap()]));
    before.iter().for_each(|file| file.untouched("refused"));
    assert!(!missing.exists());
}

#[test]
fn a_parent_that_is_larger_than_its_child_is_refused() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let layers =
        Layers::make(fs.path(), &TestDisk::empty(MIB).with(0, 9, 1), &TestDisk::empty(MIB + 1).with(0, MIB, 2));
    let before = Before::of(&layers.parent);
    for name in COMMANDS {
        let said = call(name, &layers).refused(&["has 1048577 bytes, more than the 1048576 that its child has"]);
        assert!(said.err.ends_with("hint: parent and child are maybe exchanged\n"), "{}", said.err);
        before.untouched(name);
    }
}

#[test]
fn images_with_formats_of_their_own_are_refused_unless_they_are_said_to_be_raw() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, raw) = (fs.join("disk.qcow2"), fs.join("disk.img"));
    drop(tool("qemu-img", &["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "1M"]));
    let size = fs::metadata(&image).unwrap().len();
    TestDisk::empty(size).make(&raw);
    let before = [Before::of(&image), Before::of(&raw)];
    for name in COMMANDS {
        for (child, parent) in [(&image, &raw), (&raw, &image)] {
            let said = run(&mut command(name, &[], child, parent), b"").refused(&["disk.qcow2", "qcow2 image"]);
            assert!(said.err.contains("qemu-img commit and rebase are for its chains; --format raw"), "{}", said.err);
        }
        before.iter().for_each(|file| file.untouched(name));
    }
    run(&mut command("fold", &["--format", "raw"], &image, &raw), b"").ok();
    assert!(fs::read(&raw).unwrap() == fs::read(&image).unwrap());
}

#[test]
fn what_another_program_has_locked_is_refused() {
    requires(&["flock", "qemu-io"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let layers = Layers::of_letters(fs.path(), "DHD", "DDD");
    let before = [Before::of(&layers.child), Before::of(&layers.parent)];
    for file in [&layers.child, &layers.parent] {
        let shell = ["-n", file.to_str().unwrap(), "sh", "-c", "echo locked; read end"];
        let qemu = ["-f", "raw", file.to_str().unwrap()];
        for (holder, args, ask, says) in
            [("flock", &shell[..], "", "locked by"), ("qemu-io", &qemu, "length\n", "in use")]
        {
            let mut held = Command::new(holder);
            let mut held = held.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            held.stdin.as_mut().unwrap().write_all(ask.as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(held.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            for name in COMMANDS {
                for args in [&[][..], &["--dry-run"]] {
                    let outcome = run(&mut command(name, args, &layers.child, &layers.parent), b"");
                    let words = [file.to_str().unwrap(), says];
                    // A lock of another program's may go soon.
                    if holder == "flock" {
                        outcome.retryable(&words)
                    } else {
                        outcome.refused(&words)
                    };
                }
            }
            drop(held.stdin.take());
            held.wait().unwrap();
        }
    }
    before.iter().for_each(|file| file.untouched("locked"));
    call("fold", &layers).ok();
}

/// Every other block of 4 KiB of 64 MiB has data.
fn fragmented(seed: u8) -> TestDisk {
    let blocks = 64 * MIB / 4096;
    (0..blocks).step_by(2).fold(TestDisk::empty(blocks * 4096), |disk, block| disk.with(block * 4096, 4096, seed))
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Starts it on these layers, and waits until it has moved so many bytes, or has ended.
fn begun(name: &str, layers: &Layers, bytes: u64) -> Running {
    let before = allocated(&layers.parent);
    let mut running = Running::start(&mut command(name, &[], &layers.child, &layers.parent));
    wait_until("it is in the middle, or done", || {
        allocated(&layers.parent).abs_diff(before) >= bytes || !running.lives()
    });
    running
}

#[test]
fn killed_in_the_middle_and_run_again_it_comes_to_the_same() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * MIB);
    for (name, parent) in [("fold", TestDisk::empty(20 * MIB).with(0, 4096, 2)), ("prune", fragmented(2))] {
        let (mut in_time, mut seed) = (0, 4711_u64);
        for round in 0..12 {
            let layers = Layers::make(fs.path(), &fragmented(1), &parent);
            let child = Before::of(&layers.child);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = (seed >> 33) % (24 * MIB) + 1;
            let outcome = begun(name, &layers, bytes).kill();
            in_time += u32::from(outcome.code.is_none());
            child.untouched(&format!("{name} killed, round {round}"));
            call(name, &layers).ok();
            done(name, &layers, &format!("{name} killed after {bytes} bytes, round {round}"));
        }
        assert!(in_time >= 4, "{name} was killed in the middle {in_time} times");
    }
}

#[test]
fn a_signal_ends_it_with_a_word_about_what_to_do() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * MIB);
    for (name, parent) in [("fold", TestDisk::empty(64 * MIB)), ("prune", fragmented(2))] {
        let ended = (0..20).find_map(|_| {
            let layers = Layers::make(fs.path(), &fragmented(1), &parent);
            let mut running = begun(name, &layers, 1);
            if !running.lives() {
                return None;
            }
            running.signal(Signal::SIGTERM);
            let outcome = running.outlived();
            call(name, &layers).ok();
            done(name, &layers, name);
            (outcome.code != Some(0)).then_some((outcome, layers))
        });
        let (outcome, layers) = ended.unwrap();
        let parent = layers.parent.display();
        let line = format!("xfer-hole: interrupted by SIGTERM; {parent} is updated in part: run it again\n");
        assert_eq!((outcome.code, outcome.err), (Some(143), line));
    }
}

#[test]
fn a_child_that_is_written_to_meanwhile_is_a_failure() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * MIB);
    for (name, parent) in [("fold", TestDisk::empty(64 * MIB)), ("prune", fragmented(2))] {
        let failed = (0..20).find_map(|_| {
            let layers = Layers::make(fs.path(), &fragmented(1), &parent);
            let running = begun(name, &layers, 1);
            File::options().write(true).open(&layers.child).unwrap().write_all_at(b"!", 10).unwrap();
            let outcome = running.outlived();
            (outcome.code != Some(0)).then_some(outcome)
        });
        let said = failed.unwrap().refused(&["child.img: changed while it was read", "updated in part: run it again"]);
        assert!(said.err.ends_with("hint: let nobody write to it, and run it again\n"), "{}", said.err);
    }
}

#[test]
fn a_full_file_system_is_a_failure_and_the_child_is_whole_and_may_be_folded_later() {
    for kind in [Fs::Tmpfs, Fs::Ext4, Fs::Xfs] {
        let large = Filesystem::new(Fs::Ext4, 512 * MIB);
        let small = Filesystem::new(kind, if kind == Fs::Xfs { 300 * MIB } else { 48 * MIB });
        let ballast = small.join("ballast");
        let free = tool("df", &["--output=avail", "-B1", small.path().to_str().unwrap()]);
        let free: u64 = free.lines().last().unwrap().trim().parse().unwrap();
        drop(tool("fallocate", &["-l", &(free.saturating_sub(16 * MIB) + 1).to_string(), ballast.to_str().unwrap()]));
        let child = TestDisk::empty(64 * MIB + 77).with(MIB, 40 * MIB, 1);
        let layers = Layers::apart([large.path(), small.path()], &child, &TestDisk::empty(2 * MIB).with(0, MIB, 2));
        let before = Before::of(&layers.child);
        let said = call("fold", &layers).refused(&["parent.img", "is updated in part: run it again"]);
        assert!(said.err.contains("no space left on device"), "{kind:?}: {}", said.err);
        before.untouched("the parent's file system is full");
        if kind == Fs::Xfs {
            fs::remove_file(&ballast).unwrap();
            call("fold", &layers).ok();
            layers.folded("when there is room");
        }
    }
}

#[test]
fn a_parent_that_may_not_be_so_large_is_a_failure() {
    requires(&["prlimit"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let layers =
        Layers::make(fs.path(), &TestDisk::empty(8 * MIB).with(6 * MIB, 9, 1), &TestDisk::empty(MIB).with(0, 9, 2));
    let before = Before::of(&layers.parent);
    let fold = command("fold", &[], &layers.child, &layers.parent);
    let mut limited = Command::new("prlimit");
    limited.arg("--fsize=4194304").arg(fold.get_program()).args(fold.get_args());
    run(&mut limited, b"").refused(&["cannot make it 8388608 bytes long: file too large", "is as it was"]);
    before.untouched("the limit");
}
