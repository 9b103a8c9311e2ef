//! Bytes that are no disk: archives and compressed images are not written to a block device, and are warned of elsewhere.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{
    FarEnd, Filesystem, Fs, HOST, LoopDevice, Outcome, Receiver, Setup, TestDisk, Toolbox, Tools, assert_refused,
    assert_same, qemu_img, run, send_to, tools, write_at,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// The lines that make such files of `disk.img`, and what they are called.
const MADE: [(&str, &str, &str); 7] = [
    ("a.gz", "gzip -c disk.img > a.gz", "gzip"),
    ("b.img", "xz -c disk.img > b.img", "xz"),
    ("c", "zstd -qc disk.img > c", "zstd"),
    ("d.raw", "bzip2 -c disk.img > d.raw", "bzip2"),
    ("e.ova", "tar -cf e.ova disk.img", "tar"),
    ("f.img", "tar --format=ustar -cf f.img disk.img", "tar"),
    (
        "g.img",
        "printf '\\072\\377\\046\\355\\001\\000\\000\\000\\034\\000\\014\\000' > g.img; cat disk.img >> g.img",
        "Android sparse",
    ),
];

struct Place {
    tools: Tools,
    fs: Filesystem,
}

impl Place {
    fn new() -> Self {
        let place = Self { tools: tools!(), fs: Filesystem::new(Fs::Tmpfs, 64 * M) };
        TestDisk::empty(M).with(0, 100 * K, 1).make(&place.fs.join("disk.img"));
        for (_, line, _) in MADE {
            run(Command::new("sh").args(["-ec", line]).current_dir(place.fs.path()), b"").ok();
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.fs.join(name)
    }

    fn copy(&self, args: &[&str], image: &Path, dest: &Path) -> Outcome {
        run(Command::new(&self.tools.xfer_hole).args(args).arg(image).arg(dest), b"")
    }
}

/// Fails unless it was refused, with the flag that allows it, and the device is as it was.
#[track_caller]
fn assert_kept(outcome: Outcome, kind: &str, device: &LoopDevice) {
    let outcome = outcome.refused(&[kind, "block device"]);
    assert!(outcome.err.contains("hint: ") && outcome.err.contains("--format raw"), "{}", outcome.err);
    assert!(fs::read(device.path()).unwrap() == vec![7; 4 * M as usize], "{kind}");
}

/// The lines that warn.
fn warnings(outcome: &Outcome) -> Vec<&str> {
    outcome.err.lines().filter(|line| line.contains("warning: ")).collect()
}

#[test]
fn what_is_no_disk_is_not_copied_to_a_block_device() {
    let place = Place::new();
    let device = LoopDevice::filled(4 * M, 7);
    symlink(device.path(), place.at("volume")).unwrap();
    for (name, _, kind) in MADE {
        for args in [&[][..], &["--hash"], &["--dry-run"]] {
            assert_kept(place.copy(args, &place.at(name), device.path()), kind, &device);
        }
        assert_kept(place.copy(&[], &place.at(name), &place.at("volume")), kind, &device);
    }
    let image = place.at("a.gz");
    let copied = place.copy(&["--format", "raw"], &image, device.path()).ok();
    assert!(!copied.err.contains("gzip"), "{}", copied.err);
    let bytes = fs::read(&image).unwrap();
    assert!(fs::read(device.path()).unwrap().starts_with(&bytes));
}

#[test]
fn what_is_no_disk_goes_into_a_file_with_one_warning() {
    let place = Place::new();
    let copy = place.at("copy");
    for (name, _, kind) in MADE {
        let image = place.at(name);
        let copied = place.copy(&[], &image, &copy).ok();
        let warned = warnings(&copied);
        assert!(warned.len() == 1 && warned[0].contains(kind), "{warned:?}");
        assert_same(&image, &copy);
        let (sent, received) = send_to(&place.tools, &[], &image, Receiver::Binary, &copy);
        assert!(warnings(&sent.ok()).len() == 1 && received.ok().err.is_empty());
        assert_same(&image, &copy);
        for words in [&["map"][..], &["info"], &["digest"], &["manifest"]] {
            let outcome = run(Command::new(&place.tools.xfer_hole).args(words).arg(&image), b"").ok();
            let warned = warnings(&outcome);
            assert!(warned.len() == 1 && warned[0].contains(kind), "{words:?} {warned:?}");
        }
        assert_eq!(warnings(&place.copy(&["--format", "raw"], &image, &copy).ok()), Vec::<&str>::new());
    }
}

#[test]
fn a_receiver_elsewhere_says_that_it_writes_to_a_device() {
    let toolbox = Toolbox::new().with("xfer-hole", &tools!().xfer_hole).with("recv-hole", &tools!().recv_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let place = Place::new();
    let device = LoopDevice::filled(4 * M, 7);
    fs::set_permissions(device.path(), PermissionsExt::from_mode(0o666)).unwrap();
    let image = place.at("b.img");
    let here = device.path().to_str().unwrap();
    for receiver in ["sh", "binary"] {
        for args in [&[][..], &["--dry-run"]] {
            let args = [args, &["--receiver", receiver]].concat();
            assert_kept(far.push(&args, &image, here), "xz", &device);
        }
        let pushed = far.push(&["--receiver", receiver], &image, "out.img").ok();
        assert!(warnings(&pushed).len() == 1 && pushed.err.contains("xz"), "{}", pushed.err);
        assert_same(&image, &far.account.home("out.img"));
        far.push(&["--receiver", receiver, "--format", "raw"], &image, here).ok();
        assert!(fs::read(device.path()).unwrap().starts_with(&fs::read(&image).unwrap()), "{receiver}");
        write_at(device.path(), 0, &vec![7; 4 * M as usize]);
    }
    let there = far.account.home("b.img");
    fs::copy(&image, &there).unwrap();
    chown(&there, Some(far.account.uid()), None).unwrap();
    for args in [&[][..], &["--dry-run"], &["--no-hash"]] {
        let pulled = far.pull(args, "b.img", device.path()).blamed(HOST, &["xz", "block device"]);
        assert!(pulled.err.contains("--format raw"), "{}", pulled.err);
        assert!(fs::read(device.path()).unwrap() == vec![7; 4 * M as usize]);
    }
    far.pull(&["-M", "--format=raw"], "b.img", device.path()).ok();
    assert!(fs::read(device.path()).unwrap().starts_with(&fs::read(&image).unwrap()));
}

#[test]
fn a_device_that_holds_such_bytes_is_a_disk_like_any_other() {
    let place = Place::new();
    let (from, to) = (LoopDevice::filled(4 * M, 0), LoopDevice::filled(4 * M, 7));
    for (name, _, kind) in MADE {
        write_at(from.path(), 0, &fs::read(place.at(name)).unwrap());
        let copied = place.copy(&[], from.path(), to.path()).ok();
        let warned = warnings(&copied);
        assert!(warned.len() == 1 && warned[0].contains(kind), "{warned:?}");
        assert!(fs::read(from.path()).unwrap() == fs::read(to.path()).unwrap(), "{name}");
    }
}

#[test]
fn a_vhd_of_fixed_size_is_refused_with_the_line_that_reads_it() {
    let place = Place::new();
    for name in ["fixed.vhd", "fixed.img", "it's fixed"] {
        let image = place.at(name);
        qemu_img(&["convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", "disk.img"], &image);
        // What QEMU itself takes it for.
        let said = qemu_img(&["info"], &image);
        assert!(said.contains("file format: raw"), "{said}");
        let said = assert_refused(&place.tools, &image, &[], &[name, "vpc"]);
        let hint = said.lines().find(|line| line.contains("hint: ")).unwrap();
        assert!(hint.contains("-f vpc") && hint.contains("--format raw"), "{hint}");
        let line = &hint[hint.find("qemu-img convert").unwrap()..hint.find(", or --").unwrap()];
        run(Command::new("sh").args(["-ec", line]).current_dir(place.fs.path()), b"").ok();
        let made = image.with_extension("qcow2");
        let copy = place.at("copy");
        place.copy(&[], &made, &copy).ok();
        assert_same(&place.at("disk.img"), &copy);
        // As it is, the footer is a part of the disk.
        place.copy(&["--format", "raw"], &image, &copy).ok();
        assert_same(&image, &copy);
        fs::remove_file(made).unwrap();
    }
    let device = LoopDevice::filled(4 * M, 0);
    write_at(device.path(), 4 * M - 512, b"conectix");
    let copied = place.copy(&[], device.path(), &place.at("copy")).ok();
    assert!(copied.err.contains("warning: ") && copied.err.contains("vpc"), "{}", copied.err);
}
