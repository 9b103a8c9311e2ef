//! What is there is read before parts of it are kept, and another disk than the sender names is left as it is.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rig::{
    Before, FarEnd, Filesystem, Fill, Fs, HOST, LoopDevice, Outcome, Qcow2, Setup, TestDisk, Toolbox, assert_same,
    gone_back, note_of, part_of, qemu_disk, run, tools, write_at,
};

const M: u64 = 1 << 20;

/// An image with a snapshot, the snapshot's disk, and today's.
struct Case {
    image: PathBuf,
    older: PathBuf,
    newer: PathBuf,
    dest: PathBuf,
    fs: Filesystem,
}

impl Case {
    fn new(size: u64) -> Self {
        let fs = Filesystem::new(Fs::Tmpfs, 256 * M);
        let image = fs.join("disk.qcow2");
        let disk = Qcow2::new(size).write(M, 2 * M, Fill::Noise(1)).snapshot("one");
        disk.write(2 * M, 100_000, Fill::Noise(2)).make(&image);
        let (older, newer) = (qemu_disk(&gone_back(&image, "one")), qemu_disk(&image));
        Self { older, newer, dest: fs.join("out.img"), image, fs }
    }

    fn stream(&self, args: &[&str]) -> Vec<u8> {
        let mut sender = Command::new(tools!().xfer_hole);
        run(sender.args(["--since-snapshot", "one"]).args(args).arg(&self.image), b"").ok().out
    }
}

fn receive(args: &[&str], dest: &Path, stream: &[u8]) -> Outcome {
    run(Command::new(tools!().recv_hole).args(["--check-base", "--no-sync"]).args(args).arg(dest), stream)
}

/// How a stream may say what it builds on: named by digests of its own intervals, or by the default ones.
const NAMED: [&[&str]; 4] = [
    &[],
    &["--hash"],
    &["--hash", "--hash-interval", "4K", "--base-digest"],
    &["--hash", "--min-hole", "512", "--base-digest"],
];

#[test]
fn the_image_that_the_sender_names_is_built_on_and_any_other_is_left_as_it_is() {
    let case = Case::new(5 * M + 512);
    for named in NAMED {
        let stream = case.stream(named);
        for in_place in [&[][..], &["--in-place"]] {
            let what = format!("{named:?} {in_place:?}");
            fs::copy(&case.older, &case.dest).unwrap();
            receive(in_place, &case.dest, &stream).ok();
            assert_same(&case.newer, &case.dest);
            // One byte is another: of what is kept, of what is written over, of what was a hole.
            for at in [M + 5, 2 * M + 5, 5 * M + 511] {
                fs::copy(&case.older, &case.dest).unwrap();
                let byte = fs::read(&case.dest).unwrap()[usize::try_from(at).unwrap()] ^ 1;
                write_at(&case.dest, at, &[byte]);
                let before = Before::of(&case.dest);
                let outcome = receive(in_place, &case.dest, &stream).refused(&["out.img", "older disk", "sha256:"]);
                assert!(outcome.err.contains("hint: "), "{}", outcome.err);
                before.untouched(&what);
                assert!(!part_of(&case.dest).exists(), "{what}");
                // Nobody has to ask for it.
                run(Command::new(tools!().recv_hole).args(in_place).arg(&case.dest), &stream).refused(&["older disk"]);
                before.untouched(&what);
            }
        }
    }
}

#[test]
fn a_target_that_goes_on_behind_the_older_image_is_judged_by_its_beginning() {
    let case = Case::new(5 * M);
    for named in NAMED {
        let stream = case.stream(named);
        fs::copy(&case.older, &case.dest).unwrap();
        write_at(&case.dest, 5 * M, &[7; 1000]);
        receive(&["--in-place"], &case.dest, &stream).ok();
        assert_same(&case.newer, &case.dest);
    }
    let device = LoopDevice::filled(6 * M, 0xee);
    let stream = case.stream(&["--base-digest"]);
    let device_bytes = || fs::read(device.path()).unwrap();
    receive(&[], device.path(), &stream).refused(&["older disk"]);
    assert!(device_bytes().iter().all(|&byte| byte == 0xee));
    write_at(device.path(), 0, &fs::read(&case.older).unwrap());
    receive(&[], device.path(), &stream).ok();
    assert!(device_bytes()[..usize::try_from(5 * M).unwrap()] == fs::read(&case.newer).unwrap());
}

#[test]
fn a_stream_that_does_not_name_its_base_is_taken_on_trust_unless_that_is_refused() {
    let case = Case::new(5 * M);
    for hash in [&[][..], &["--hash"]] {
        fs::copy(&case.older, &case.dest).unwrap();
        let before = Before::of(&case.dest);
        let trusting = case.stream(&[hash, &["--trust-base"]].concat());
        receive(&[], &case.dest, &trusting).refused(&["out.img", "it is not known what it has to be"]);
        before.untouched("no digest");
        run(Command::new(tools!().recv_hole).arg(&case.dest), &trusting).ok();
        assert_same(&case.newer, &case.dest);
        let whole = run(Command::new(tools!().xfer_hole).args(hash).arg(&case.image), b"").ok().out;
        receive(&[], &case.dest, &whole).ok();
        assert_same(&case.newer, &case.dest);
    }
}

#[test]
fn a_base_is_named_by_its_fingerprint_and_the_stream_s_digests_are_taken_as_it_was() {
    let case = Case::new(5 * M);
    let older = |args: &[&str]| {
        let said =
            run(Command::new(tools!().xfer_hole).args(["--hash", "--print-digest"]).args(args).arg(&case.older), b"");
        said.ok().fingerprint().2
    };
    let (usual, short) = (older(&[]), older(&["--hash-interval", "64K"]));
    let named = |fingerprint: &str| format!("--base-digest={fingerprint}");
    for (args, fingerprint, read) in [
        (&[][..], &usual, &["--base-digest"][..]),
        (&["--hash"], &short, &["--hash", "--base-digest"]),
        (&["--hash"], &usual, &["--hash", "--hash-interval", "1M", "--base-digest"]),
    ] {
        let stream = case.stream(&[args, &[&named(fingerprint)]].concat());
        assert!(stream == case.stream(read), "{args:?}");
        fs::copy(&case.older, &case.dest).unwrap();
        receive(&[], &case.dest, &stream).ok();
        assert_same(&case.newer, &case.dest);
    }
    let refused = |args: &[&str], words: &[&str]| {
        let mut sender = Command::new(tools!().xfer_hole);
        let outcome = run(sender.args(["--since-snapshot", "one"]).args(args).arg(&case.image), b"").refused(words);
        assert!(outcome.out.is_empty(), "{args:?}");
    };
    // The line has no place for other parameters than the stream's, or the default ones.
    refused(&[&named(&short)], &["65536", "1048576"]);
    refused(&["--hash", "--hash-interval", "1M", &named(&short)], &["65536", "1048576"]);
    refused(&["--hash", "--min-hole", "512", &named(&short)], &["4096", "512"]);
    refused(&["--base-digest", &short], &["--base-digest=sha256:"]);
}

#[test]
fn a_copy_checks_its_target_too() {
    let case = Case::new(5 * M);
    let copy = |args: &[&str]| {
        let mut sender = Command::new(tools!().xfer_hole);
        sender.args(["--since-snapshot", "one", "--check-base", "-q"]).args(args);
        run(sender.arg(&case.image).arg(&case.dest), b"")
    };
    for hash in [&[][..], &["--hash"]] {
        let args = [hash, &["--base-digest", "--in-place"]].concat();
        fs::copy(&case.older, &case.dest).unwrap();
        copy(&args).ok();
        assert_same(&case.newer, &case.dest);
        let before = Before::of(&case.dest);
        copy(&args).refused(&["out.img", "already"]);
        before.untouched("a copy");
    }
    let other = case.fs.join("other.img");
    TestDisk::empty(M).make(&other);
    let mut sender = Command::new(tools!().xfer_hole);
    run(sender.args(["--check-base", "--since-snapshot", "one", "--base-digest"]).arg(&case.image), b"")
        .refused(&["--check-base is for the receiver"]);
}

#[test]
fn a_push_has_the_far_end_check_and_a_shell_says_that_it_can_not() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let case = Case::new(5 * M);
    let dest = far.account.home("x.img");
    let put = |from: &Path| {
        fs::copy(from, &dest).unwrap();
        std::os::unix::fs::chown(&dest, Some(far.account.uid()), None).unwrap();
    };
    let args = ["--since-snapshot", "one", "--base-digest", "--check-base"];
    for more in [&[][..], &["--in-place"], &["--no-hash"]] {
        put(&case.older);
        far.push(&[&args, more].concat(), &case.image, "x.img").ok();
        assert_same(&case.newer, &dest);
        let before = Before::of(&dest);
        far.push(&[&args, more].concat(), &case.image, "x.img").blamed(HOST, &["x.img", "older disk", "already"]);
        before.untouched("a push");
    }
    far.push(&[&args[..], &["--receiver", "sh"]].concat(), &case.image, "x.img").blamed(HOST, &["--check-base"]);
}

#[test]
fn a_noted_fingerprint_is_believed_at_both_ends_until_the_file_is_touched() {
    let fs = Filesystem::new(Fs::Ext4, 64 * M);
    let [base, image, dest] = ["base.raw", "top.qcow2", "out.img"].map(|name| fs.join(name));
    TestDisk::empty(2 * M).with(0, M, 3).make(&base);
    // What was touched within two seconds is not noted.
    thread::sleep(Duration::from_millis(2100));
    let mut sender = Command::new(tools!().xfer_hole);
    run(sender.args(["--delta", "--remember"]).args([&base, &dest]), b"").ok();
    Qcow2::over("base.raw", "raw").write(0, 4096, Fill::Noise(4)).make(&image);
    let stream = || {
        let mut sender = Command::new(tools!().xfer_hole);
        run(sender.arg("--hash").arg("--since-base").args([&base, &image]), b"").ok().out
    };
    // Nobody has asked for a digest: what was noted is said.
    let named = stream();
    let note = note_of(&dest);
    let noted = fs::read_to_string(&note).unwrap();
    let digest = noted.lines().last().unwrap().rsplit(':').next().unwrap();
    let line = format!("BASE {} {digest}\n", 2 * M);
    assert!(named.windows(line.len()).any(|window| window == line.as_bytes()));
    // A note that lies shows that the file isn't read.
    let lie = noted.replace(digest, &digest.chars().rev().collect::<String>());
    fs::write(&note, &lie).unwrap();
    receive(&["--in-place"], &dest, &named).refused(&["older disk"]);
    assert_same(&base, &dest);
    fs::write(&note, &noted).unwrap();
    receive(&["--in-place"], &dest, &named).ok();
    assert_same(&qemu_disk(&image), &dest);
    assert!(!note.exists(), "what was noted is over");
    // A copy has something to check for, too.
    let copy = || {
        let mut sender = Command::new(tools!().xfer_hole);
        run(sender.args(["-q", "--hash", "--in-place", "--since-base"]).args([&base, &image, &dest]), b"")
    };
    copy().refused(&["already"]);
    fs::copy(&base, &dest).unwrap();
    copy().ok();
    assert_same(&qemu_disk(&image), &dest);
    // Touched, it is read.
    fs::copy(&base, &dest).unwrap();
    fs::write(&note, &lie).unwrap();
    receive(&["--in-place"], &dest, &named).ok();
    write_at(&base, 2 * M - 1, &[1]);
    assert!(!stream().windows(line.len()).any(|window| window == line.as_bytes()));
}

#[test]
fn what_reads_all_of_a_disk_is_not_had_where_only_changes_are_sent() {
    let case = Case::new(5 * M);
    for flag in ["--delta", "--read-back"] {
        let mut sender = Command::new(tools!().xfer_hole);
        let given = sender.args(["--hash", "--since-snapshot", "one", flag]).args([&case.image, &case.dest]);
        run(given, b"").refused(&[flag, "--since-snapshot"]);
    }
}
