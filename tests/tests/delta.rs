//! `--delta`: what a target holds stays where it is, and only what differs flows; the result is the source all the same.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::sys::statvfs::statvfs;
use rig::{
    Cut, FarEnd, Filesystem, Fill, Flowed, Fs, HOST, LoopDevice, Outcome, Qcow2, Setup, TestDisk, Toolbox, Tools,
    Wiretap, assert_holes_within, assert_same, converse, differing, extents, holes, holes_of, holes_within, mark_part,
    part_of, qemu_disk, requires, run, tool, tools,
};
use xfer_hole_proto::{Frame, Record};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const INTERVAL: usize = 64 << 10;
const GRAIN: usize = 4 << 10;

/// What a record of the manifest may cost, and what the first and the last lines of a conversation do, in bytes.
const RECORD: usize = 80;
const FRAME: usize = 1024;

/// A guest's disk: runs of data between holes.
fn disk() -> TestDisk {
    TestDisk::empty(20 * MIB).with(0, MIB, 1).with(2 * MIB + 4 * KIB, 3 * MIB, 2).with(8 * MIB, 100 * KIB, 3).with(
        12 * MIB,
        4 * MIB,
        4,
    )
}

/// Pairs of what stands there before, if anything, and what is to stand there.
fn pairs() -> Vec<(&'static str, Option<TestDisk>, TestDisk)> {
    let ragged = |size: u64| TestDisk { size, ..disk() }.with(size - 700, 700, 5);
    let holes = TestDisk { data: Vec::new(), ..disk() };
    vec![
        ("identical", Some(disk()), disk()),
        ("nothing there", None, disk()),
        ("an empty one there", Some(TestDisk::empty(0)), disk()),
        (
            "pieces changed",
            Some(disk()),
            disk().with(512 * KIB, 64 * KIB, 9).with(13 * MIB + 1, 1, 9).with(15 * MIB, 4096, 9),
        ),
        ("data where a hole was", Some(disk()), disk().with(6 * MIB, 70 * KIB, 9)),
        ("zeros where data was", Some(disk()), disk().with(13 * MIB, MIB, 0)),
        ("written zeros there", Some(disk().with(6 * MIB, MIB, 0)), disk()),
        ("all became a hole", Some(disk()), holes.clone()),
        ("all was a hole", Some(holes), disk()),
        ("grown", Some(TestDisk { size: 16 * MIB, ..disk() }), disk().with(19 * MIB, MIB, 9)),
        ("grown off an interval", Some(TestDisk { size: 16 * MIB + 512, ..disk() }.with(16 * MIB, 512, 6)), disk()),
        ("shrunk", Some(disk().with(17 * MIB, 3 * MIB, 6)), TestDisk { size: 16 * MIB, ..disk() }),
        ("shrunk into an interval", Some(disk()), TestDisk { data: vec![(0, MIB, 1)], size: 5 * MIB + 512 }),
        ("ragged, equal", Some(ragged(17 * MIB + 12345)), ragged(17 * MIB + 12345)),
        ("ragged, another tail", Some(ragged(17 * MIB + 12345)), ragged(17 * MIB + 12345).with(17 * MIB + 12344, 1, 9)),
        ("tails of 512", Some(ragged(17 * MIB + 512)), ragged(17 * MIB + 1024)),
        ("one byte", Some(TestDisk::empty(1).with(0, 1, 1)), TestDisk::empty(1).with(0, 1, 2)),
        ("no bytes", Some(disk()), TestDisk::empty(0)),
        ("another disk", Some(disk()), TestDisk::empty(9 * MIB).with(MIB, 5 * MIB, 8)),
    ]
}

/// Fails unless what flowed is what differs, and what lines cost.
#[track_caller]
fn assert_flowed(flowed: &Flowed, old: &[u8], new: &[u8], what: &str) {
    assert!(flowed.want().is_some(), "{what}: nobody asked");
    assert_eq!(flowed.payload(), differing(old, new, INTERVAL, GRAIN), "{what}");
    let intervals = new.chunks(INTERVAL).enumerate();
    let changed: usize = intervals
        .filter(|(number, piece)| old.get(number * INTERVAL..number * INTERVAL + piece.len()) != Some(piece))
        .map(|(_, piece)| piece.len())
        .sum();
    let most = changed + changed / 50 + RECORD * flowed.told() + FRAME;
    let wire = flowed.up.len() + flowed.down.len();
    assert!(wire <= most, "{what}: {wire} bytes for {changed} that changed and {} records", flowed.told());
}

/// Makes each pair, and has what stands there brought up to date `by` this, in a new file and in place: what it is called, with which
/// arguments, of which image, where, and the bytes that stand there. Fails unless that is the source afterwards, with its holes.
fn renewed(by: impl Fn(&str, &[&str], &Path, &Path, &[u8])) {
    let fs = Filesystem::with_options(Fs::Ext4, 256 * MIB, &["-b", "4096"]);
    let (image, dest) = (fs.join("image"), fs.join("dest"));
    for (what, old, new) in pairs() {
        new.make(&image);
        for args in [&[][..], &["--in-place"]] {
            let what = format!("{what} {args:?}");
            let _left = fs::remove_file(&dest);
            old.iter().for_each(|old| old.make(&dest));
            by(&what, args, &image, &dest, &old.as_ref().map(TestDisk::bytes).unwrap_or_default());
            assert_same(&image, &dest);
            assert!(!part_of(&dest).exists(), "{what}");
            // What is kept stays as it was.
            let (as_is, most) = (what.contains("written zeros") && !args.is_empty(), holes_within(&image, 4096));
            assert!(as_is || holes(&dest) == most, "{what}: {:?} {most:?}", holes(&dest));
        }
    }
}

#[test]
fn what_differs_flows_and_the_result_is_the_source_with_its_holes() {
    renewed(|what, args, image, dest, old| {
        let (sent, received, flowed) = converse(&tools!(), &["--delta"], image, args, dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
        assert_flowed(&flowed, old, &fs::read(image).unwrap(), what);
        let records: Vec<_> = flowed.records().into_iter().map(|(_, record)| record).collect();
        let keeps = records.iter().any(|record| matches!(record, Record::Keep { .. }));
        if !keeps && !args.is_empty() {
            assert_holes_within(&holes_of(&records, 4096), &holes(dest), what);
        }
    });
}

#[test]
fn a_copy_by_delta_is_the_source_with_its_holes() {
    renewed(|what, args, image, dest, _| {
        let mut copies = Command::new(tools!().xfer_hole);
        let copied = run(copies.args(["--delta", "-q"]).args(args).arg(image).arg(dest), b"");
        assert_eq!((copied.code, copied.err.as_str()), (Some(0), ""), "{what}");
    });
}

#[test]
fn a_device_keeps_what_is_equal_and_what_lies_behind_the_disk() {
    let device = LoopDevice::filled(4 * MIB, 7);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut new = vec![7; usize::try_from(3 * MIB + 512).unwrap()];
    new[100_000..200_000].fill(0);
    new[300_000..300_010].fill(1);
    fs::write(&image, &new).unwrap();
    for turn in ["delta", "again"] {
        let old = fs::read(device.path()).unwrap();
        let (sent, received, flowed) = converse(&tools!(), &["--delta"], &image, &[], device.path(), Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{turn}: {} {}", sent.err, received.err);
        assert_flowed(&flowed, &old, &new, turn);
        assert!(turn == "delta" || flowed.payload() == 0);
        let now = fs::read(device.path()).unwrap();
        assert!(now[..new.len()] == new && now[new.len()..].iter().all(|&byte| byte == 7), "{turn}");
    }
    fs::write(&image, vec![1; usize::try_from(5 * MIB).unwrap()]).unwrap();
    let (sent, received, _) = converse(&tools!(), &["--delta"], &image, &[], device.path(), Cut::Never);
    assert_eq!((sent.code, received.code), (Some(2), Some(2)));
    // A copy on this machine goes the same way.
    fs::write(&image, &new[..2_000_000]).unwrap();
    run(Command::new(tools!().xfer_hole).args(["--delta", "-q"]).arg(&image).arg(device.path()), b"").ok();
    let now = fs::read(device.path()).unwrap();
    assert!(now[..new.len()] == new, "equal, and left alone");
}

/// A receiver under strace, and what it did to a file.
struct Traced {
    toolbox: Toolbox,
    logs: tempfile::TempDir,
}

impl Traced {
    fn new(name: &str, program: &Path) -> Self {
        requires(&["strace"]);
        let logs = tempfile::tempdir().unwrap();
        let calls = "trace=write,pwrite64,pwritev,pwritev2,writev,splice,fallocate,ftruncate,copy_file_range,ioctl";
        let text = format!(
            // A file for each thread: in one, a call that waits for another's is in two lines.
            "exec strace -ff -y -qq -s 0 -e {calls} -o '{}/log' '{}' \"$@\"",
            logs.path().display(),
            program.display()
        );
        Self { toolbox: Toolbox::new().script(name, &text), logs }
    }

    /// Bytes that the last run wrote to a file, and calls that changed it otherwise.
    fn changes(&self, path: &Path) -> (u64, Vec<String>) {
        let mut log = String::new();
        for file in fs::read_dir(self.logs.path()).unwrap() {
            let file = file.unwrap().path();
            log += &fs::read_to_string(&file).unwrap();
            fs::remove_file(file).unwrap();
        }
        let name = format!("<{}>", path.display());
        let (mut bytes, mut others) = (0, Vec::new());
        for line in log.lines().filter(|line| line.contains(&name)) {
            if line.contains("write(") || line.contains("pwrite64(") || line.contains("splice(") {
                bytes += line.rsplit(" = ").next().unwrap().parse::<u64>().unwrap();
            } else {
                others.push(line.to_owned());
            }
        }
        (bytes, others)
    }
}

#[test]
fn what_is_equal_is_never_written_in_place() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("image"), fs.join("dest"));
    let new = disk().with(512 * KIB, 64 * KIB, 9).with(14 * MIB, 4 * KIB, 9);
    let traced = Traced::new("recv-hole", &tools!().recv_hole);
    let tools = Tools { recv_hole: traced.toolbox.program("recv-hole").into(), ..tools!() };
    for (new, bytes) in [(disk(), 0), (new.clone(), 2 * 64 * KIB), (new.with(13 * MIB, 128 * KIB, 0), 0)] {
        new.make(&image);
        if !dest.exists() {
            disk().make(&dest);
        }
        let (sent, received, flowed) = converse(&tools, &["--delta"], &image, &["--in-place"], &dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
        assert_same(&image, &dest);
        let (written, others) = traced.changes(&dest);
        let kept = |call: &&String| !call.contains("TCGETS") && !call.contains("FIEMAP");
        let others: Vec<_> = others.iter().filter(kept).collect();
        assert_eq!(written, bytes, "{others:#?}");
        let holes = flowed.records().iter().filter(|(_, record)| matches!(record, Record::Hole { .. })).count();
        assert!(others.len() <= holes, "{holes} holes: {others:#?}");
    }
}

#[test]
fn a_copy_by_delta_writes_what_differs_and_nothing_else() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("image"), fs.join("dest"));
    disk().with(512 * KIB, 64 * KIB, 9).make(&image);
    disk().make(&dest);
    let traced = Traced::new("xfer-hole", &tools!().xfer_hole);
    let mut copies = Command::new(traced.toolbox.program("xfer-hole"));
    run(copies.args(["--delta", "-q", "--in-place"]).arg(&image).arg(&dest), b"").ok();
    assert_same(&image, &dest);
    assert_eq!(traced.changes(&dest).0, 64 * KIB);
}

#[test]
fn past_the_page_cache_nothing_old_is_left_where_something_new_came() {
    let fs = Filesystem::with_options(Fs::Ext4, 256 * MIB, &["-b", "4096"]);
    let (image, dest) = (fs.join("image"), fs.join("dest"));
    let old = TestDisk::empty(20 * MIB).with(0, 20 * MIB, 1);
    // Zeros of blocks and of intervals, bytes that fill no page, and whole intervals.
    let new = (0..20).map(|number| number * MIB).fold(old.clone(), |new, at| {
        let new = new.with(at + 4 * KIB, 4 * KIB, 0).with(at + 256 * KIB, 130 * KIB, 0);
        new.with(at + 500 * KIB + 100, 900, 2).with(at + 640 * KIB, 128 * KIB, 3)
    });
    new.make(&image);
    for interval in ["4K", "64K", "1M"] {
        for args in [&["--direct"][..], &["--direct", "--in-place"]] {
            let what = format!("{interval} {args:?}");
            let delta = ["--delta", "--hash-interval", interval];
            old.make(&dest);
            let (sent, received, _) = converse(&tools!(), &delta, &image, args, &dest, Cut::Never);
            assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
            assert_same(&image, &dest);
            old.make(&dest);
            let mut copies = Command::new(tools!().xfer_hole);
            run(copies.args(delta).arg("-q").args(args).arg(&image).arg(&dest), b"").ok();
            assert_same(&image, &dest);
            assert_eq!(holes(&dest), holes_within(&image, 4096), "{what}");
        }
    }
}

/// A server with our receiver installed.
fn installed(path: &str) -> FarEnd {
    FarEnd::with(tools!(), "dash", Setup { path: Some(path), ..Setup::default() })
}

/// A file is the account's, as one that it made.
fn give(far: &FarEnd, path: &Path) {
    tool("chown", &[&format!("{}:nogroup", far.account.name()), path.to_str().unwrap()]);
}

#[test]
fn over_ssh_push_and_pull_send_what_differs_of_raw_and_of_qcow2() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let far = installed(&toolbox.path());
    let tap = Wiretap::new(&far.sshd);
    let (old, size) = (disk(), 20 * MIB);
    let raw = far.image("raw.img", &disk().with(512 * KIB, 64 * KIB, 9).with(15 * MIB, 4 * KIB, 8));
    let qcow2 = far.near("disk.qcow2");
    Qcow2::new(size).write(MIB, 3 * MIB, Fill::Noise(1)).write(15 * MIB, MIB, Fill::Same(7)).make(&qcow2);
    for (image, raw) in [(&raw, raw.clone()), (&qcow2, qemu_disk(&qcow2))] {
        let new = fs::read(&raw).unwrap();
        // There, and the second time nothing is left to be sent.
        let dest = far.account.home("out.img");
        old.make(&dest);
        give(&far, &dest);
        for before in [old.bytes(), new.clone()] {
            let mut pushes = Command::new(tools!().xfer_hole);
            pushes.args(["-q", "--delta", "-e"]).arg(tap.program()).arg(image).arg(far.place(&dest));
            assert_eq!(run(&mut pushes, b"").ok().err, "");
            assert_same(&raw, &dest);
            assert_flowed(&tap.pushed(size), &before, &new, "push");
        }
        // And back, where it is called as it was.
        let there = format!("there-{}", image.file_name().unwrap().display());
        fs::copy(image, far.account.home(&there)).unwrap();
        let near = far.near("back.img");
        old.make(&near);
        for before in [old.bytes(), new.clone()] {
            let mut pulls = Command::new(tools!().recv_hole);
            pulls.args(["-q", "--delta", "-e"]).arg(tap.program()).arg(far.place(&there)).arg(&near);
            assert_eq!(run(&mut pulls, b"").ok().err, "");
            assert_same(&raw, &near);
            assert_flowed(&tap.pulled(size), &before, &new, "pull");
        }
    }
}

#[test]
fn a_receiver_that_cannot_tell_what_it_has_gets_everything_and_the_user_is_told() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let dest = far.account.home("out.img");
    for receiver in ["sh", "auto"] {
        disk().make(&dest);
        give(&far, &dest);
        let pushed = far.push(&["-q", "--delta", "--receiver", receiver], &image, &dest);
        assert_eq!(pushed.code, Some(0), "{}", pushed.err);
        let what = "xfer-hole: warning: the receiver can't tell what it has, and everything is sent: ";
        assert!(pushed.err.starts_with(what) && pushed.err.lines().count() == 1, "{}", pushed.err);
        assert_same(&image, &dest);
    }
}

#[test]
fn a_key_that_may_not_read_is_told_nothing_of_what_is_there() {
    let far = FarEnd::new(tools!(), "dash");
    let tap = Wiretap::new(&far.sshd);
    let image = far.image("disk.img", &disk().with(MIB, 4 * KIB, 9));
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let (home, new) = (far.account.home(""), fs::read(&image).unwrap());
    for (allowed, tells) in [("", false), (" --allow-read", true)] {
        let dest = far.account.home("out.img");
        disk().make(&dest);
        disk().make(&part_of(&dest));
        give(&far, &dest);
        give(&far, &part_of(&dest));
        mark_part(&part_of(&dest));
        let only = format!("{} --restrict '{}'{allowed}", toolbox.program("recv-hole"), home.display());
        far.sshd.admit_only(&far.account, &only);
        let mut pushes = Command::new(tools!().xfer_hole);
        pushes.args(["-q", "--delta", "-e"]).arg(tap.program()).arg(&image).arg(far.place("out.img"));
        let pushed = run(&mut pushes, b"").ok();
        let flowed = tap.pushed(20 * MIB);
        let ready = flowed.answers()[0].clone();
        assert_same(&image, &dest);
        if tells {
            assert_eq!(ready, "XFER-HOLE-READY 1 recv-hole delta part base");
            assert_flowed(&flowed, &disk().bytes(), &new, "allowed");
        } else {
            assert_eq!(ready, "XFER-HOLE-READY 1 recv-hole");
            assert!(pushed.err.contains("everything is sent") && flowed.want().is_none(), "{}", pushed.err);
        }
    }
}

/// Bytes that a file system has in use.
fn in_use(fs: &Filesystem) -> u64 {
    tool("sync", &["-f", fs.path().to_str().unwrap()]);
    let stat = statvfs(fs.path()).unwrap();
    (stat.blocks() - stat.blocks_free()) * stat.fragment_size()
}

#[test]
fn a_new_file_shares_the_blocks_that_stay_where_the_file_system_can() {
    for kind in [Fs::Btrfs, Fs::Xfs, Fs::Ext4, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest, kept) = (fs.join("image"), fs.join("dest"), fs.join("kept"));
        disk().with(13 * MIB, 256 * KIB, 9).make(&image);
        for by in ["relay", "copy"] {
            let _left = (fs::remove_file(&dest), fs::remove_file(&kept));
            disk().make(&dest);
            // The old file's blocks stay in use by this name, and are counted twice if they were copied.
            fs::hard_link(&dest, &kept).unwrap();
            let before = in_use(&fs);
            if by == "relay" {
                let (sent, received, _) = converse(&tools!(), &["--delta"], &image, &[], &dest, Cut::Never);
                assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{kind:?}: {} {}", sent.err, received.err);
            } else {
                run(Command::new(tools!().xfer_hole).args(["--delta", "-q"]).arg(&image).arg(&dest), b"").ok();
            }
            assert_same(&image, &dest);
            assert_eq!(fs::read(&kept).unwrap(), disk().bytes(), "{kind:?} {by}");
            assert_ne!(fs::metadata(&kept).unwrap().ino(), fs::metadata(&dest).unwrap().ino());
            assert_eq!(holes(&dest), holes_within(&image, 4096), "{kind:?} {by}");
            let more = in_use(&fs).saturating_sub(before);
            let shares = matches!(kind, Fs::Btrfs | Fs::Xfs);
            let data: u64 = extents(&image).iter().map(|(_, len)| len).sum();
            assert_eq!(more < 3 * MIB, shares, "{kind:?} {by}: {more} bytes more, of {data}");
        }
    }
}

#[test]
fn what_can_not_be_had_with_a_delta_is_refused_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (image, dest) = (folder.path().join("image"), folder.path().join("dest"));
    disk().make(&image);
    let refused = |args: &[&str], words: &[&str]| {
        let mut sends = Command::new(tools!().xfer_hole);
        run(sends.args(args).arg(&image).arg(&dest), b"").refused(words);
        assert!(!dest.exists() && !part_of(&dest).exists());
    };
    refused(&["--delta", "--no-hash"], &["xfer-hole: --delta can't be had without digests"]);
    refused(&["--delta", "--detect-zeroes=off"], &["--detect-zeroes=off can't be had with digests"]);
    refused(&["--delta", "--hash-interval", "5000"], &["--hash-interval must be a power of two"]);
    let far = |program: &Path, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-e", "/nonexistent", "--delta", "--no-hash"]).args(words);
        run(&mut command, b"")
    };
    let push = far(&tools!().xfer_hole, &[image.to_str().unwrap(), &format!("{HOST}:x")]);
    push.refused(&["--delta can't be had without digests"]);
    let pull = far(&tools!().recv_hole, &[&format!("{HOST}:x"), dest.to_str().unwrap()]);
    pull.refused(&["--delta can't be had without digests"]);
    let stream = run(Command::new(tools!().xfer_hole).arg("--delta").arg(&image), b"");
    stream.refused(&["--delta is for the receiver of a stream to be told, or for a DEST"]);
    let stream = run(Command::new(tools!().recv_hole).arg("--delta").arg(&dest), b"");
    stream.refused(&["--no-resume are for an image from another machine"]);
    let both = run(Command::new(tools!().xfer_hole).args(["--delta", "--no-resume"]).arg(&image).arg(&dest), b"");
    assert_eq!(both.code, Some(2), "{}", both.err);
}

#[test]
fn a_pipe_holds_nothing_to_build_on() {
    let folder = tempfile::tempdir().unwrap();
    let (image, fifo) = (folder.path().join("image"), folder.path().join("fifo"));
    disk().make(&image);
    tool("mkfifo", &[fifo.to_str().unwrap()]);
    let copied = run(Command::new(tools!().xfer_hole).args(["--delta"]).arg(&image).arg(&fifo), b"");
    copied.refused(&["takes bytes in order, and holds none to build on"]);
    // A receiver of that kind offers nothing, so it gets everything.
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::io::copy(&mut File::open(fifo).unwrap(), &mut std::io::sink()).unwrap()
    });
    let (sent, received, flowed) = converse(&tools!(), &["--delta"], &image, &[], &fifo, Cut::Never);
    assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
    assert_eq!((flowed.want(), reader.join().unwrap()), (None, 20 * MIB));
    assert!(sent.err.contains("everything is sent"), "{}", sent.err);
}

#[test]
fn the_stream_of_a_delta_names_the_whole_result_in_end_and_done() {
    let folder = tempfile::tempdir().unwrap();
    let (image, dest) = (folder.path().join("image"), folder.path().join("dest"));
    disk().with(MIB, 1, 9).make(&image);
    for interval in ["4096", "65536", "1048576", "16777216"] {
        disk().make(&dest);
        let args = ["--delta", "--hash-interval", interval];
        let (sent, received, flowed) = converse(&tools!(), &args, &image, &[], &dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
        assert_same(&image, &dest);
        assert_eq!(flowed.want().unwrap(), format!("WANT {} sha256 {interval} 4096", 20 * MIB));
        let mut prints = Command::new(tools!().xfer_hole);
        prints.args(["--hash", "--print-digest", "--hash-interval", interval]).arg(&image);
        let digest = run(&mut prints, b"").ok().fingerprint().2.rsplit(':').next().unwrap().to_owned();
        assert_eq!(flowed.answers().last().unwrap(), &format!("DONE {digest}"));
        let Some(Frame::End(end)) = flowed.items().pop() else { panic!("no END") };
        assert_eq!(end.result.unwrap().to_string(), digest);
        let kept: u64 =
            flowed.records().iter().filter(|(_, record)| record.word() == "KEEP").map(|(_, keep)| keep.len()).sum();
        assert_eq!(kept, 20 * MIB - interval.parse::<u64>().unwrap());
    }
}

#[test]
fn how_both_ended_is_no_secret_of_the_link() {
    let folder = tempfile::tempdir().unwrap();
    let (image, dest) = (folder.path().join("image"), folder.path().join("dest"));
    disk().with(MIB, 1, 9).make(&image);
    disk().make(&dest);
    let before = fs::read(&dest).unwrap();
    // Too large for what is accepted: refused at WANT, and nothing is begun.
    let limits = ["--max-size", "1M"];
    let (sent, received, flowed) = converse(&tools!(), &["--delta"], &image, &limits, &dest, Cut::Never);
    let ended = |outcome: &Outcome| outcome.code == Some(2);
    assert!(ended(&sent) && ended(&received) && flowed.stream().is_empty(), "{} {}", sent.err, received.err);
    assert!(flowed.answers().last().unwrap().starts_with("FAIL "), "{:?}", flowed.answers());
    assert!(fs::read(&dest).unwrap() == before && !part_of(&dest).exists());
}
