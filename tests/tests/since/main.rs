//! Only what changed since an older state flows: a snapshot, a layer of the chain, a bitmap. What comes of it is what qemu-img reads in
//! the newer state, and what qemu-img calls unchanged is kept.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod base;
mod bitmap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rig::{
    FarEnd, Filesystem, Fill, Fs, Mapped, Op, Qcow2, Receiver, SHELLS, Setup, TestDisk, Toolbox, assert_holes_within,
    assert_same, gone_back, holes, holes_within, items, qemu_disk, qemu_img, records, requires, run, tool, tools,
};
use xfer_hole_proto::{Dialect, Frame, Record};

use crate::bitmap::bitmap;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
/// Longer is a hang.
const GUARD: Duration = Duration::from_secs(60);

/// The stream that flows, which must be good. What it builds on is taken on trust.
#[track_caller]
fn stream(args: &[&str], image: &Path) -> Vec<u8> {
    run(Command::new(tools!().xfer_hole).arg("--trust-base").args(args).arg(image), b"").ok().out
}

/// What a stream keeps: start and end in bytes.
fn kept(stream: &[u8]) -> Vec<(u64, u64)> {
    let (mut at, mut kept) = (0, Vec::<(u64, u64)>::new());
    for record in records(stream) {
        let end = at + record.len();
        match (&record, kept.last_mut()) {
            (Record::Keep { .. }, Some(last)) if last.1 == at => last.1 = end,
            (Record::Keep { .. }, _) => kept.push((at, end)),
            _ => {}
        }
        at = end;
    }
    kept
}

/// Fails unless what is sent `since` makes the newer disk of the older one, by both receivers, in place and not, and by a copy; with
/// and without digests. Gives what is kept without them.
#[track_caller]
fn assert_since(since: &[&str], image: &Path, older: &Path, newer: &Path) -> Vec<(u64, u64)> {
    let (dest, tools) = (image.with_extension("ours"), tools!());
    let mut all = Vec::new();
    for digests in [&[][..], &["--hash"], &["--hash", "--hash-interval", "4K"]] {
        let args = [since, digests].concat();
        let bytes = stream(&args, image);
        let Frame::Base(base) = &items(&bytes, Dialect::V1)[1] else { panic!("{args:?}: no BASE") };
        assert_eq!(base.size, fs::metadata(older).unwrap().len(), "{args:?}");
        all.push(kept(&bytes));
        for in_place in [true, false] {
            // Short records cost a shell much.
            let receivers = if digests.len() > 1 { 1 } else { 2 };
            for receiver in [Receiver::Binary, Receiver::Script(SHELLS[0])].into_iter().take(receivers) {
                let what = format!("{args:?} {receiver:?} in place {in_place}");
                fs::copy(older, &dest).unwrap();
                let outcome = run(&mut receiver.command(&tools, &dest, in_place, true), &bytes);
                assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{what}");
                assert_same(newer, &dest);
            }
            fs::copy(older, &dest).unwrap();
            let mut copy = Command::new(&tools.xfer_hole);
            copy.args(&args).args(["--trust-base", "--no-sync", "-q"]).args(in_place.then_some("--in-place"));
            run(copy.arg(image).arg(&dest), b"").ok();
            assert_same(newer, &dest);
            // What is kept is copied by blocks that are counted from its beginning.
            if !in_place && all.concat().iter().all(|(start, _)| start % 4096 == 0) {
                assert_holes_within(&holes_within(newer, 4096), &holes(&dest), &format!("{args:?} copied"));
            }
        }
    }
    // With digests, whole intervals of what is kept without them.
    let (size, base) = (fs::metadata(newer).unwrap().len(), fs::metadata(older).unwrap().len());
    for (kept, interval) in all[1..].iter().zip([64 * K, 4 * K]) {
        let whole = |end: u64| if end == size { end } else { end / interval * interval };
        let expected = all[0].iter().map(|&(start, end)| (start.next_multiple_of(interval), whole(end.min(base))));
        assert_eq!(kept, &expected.filter(|(start, end)| start < end).collect::<Vec<_>>(), "{since:?} by {interval}");
    }
    fs::remove_file(dest).unwrap();
    all.swap_remove(0)
}

/// Fails unless all of `unchanged` is kept.
#[track_caller]
fn assert_all_kept(unchanged: &[(u64, u64)], kept: &[(u64, u64)], what: &str) {
    for &(start, end) in unchanged {
        let inside = kept.iter().any(|&(from, to)| from <= start && end <= to);
        assert!(inside, "{what}: {start}..{end} is unchanged, but only {kept:?} is kept");
    }
}

/// What two maps say to be alike: by sectors, joined.
fn alike(one: &str, other: &str, same: impl Fn(&Mapped, &Mapped, u64) -> bool) -> Vec<(u64, u64)> {
    let (one, other) = (rig::merged(one), rig::merged(other));
    let mut found = Vec::<(u64, u64)>::new();
    for one in &one {
        for other in &other {
            let (start, end) = (one.start.max(other.start), (one.start + one.length).min(other.start + other.length));
            if start < end && same(one, other, start) {
                match found.last_mut() {
                    Some(last) if last.1 == start => last.1 = end,
                    _ => found.push((start, end)),
                }
            }
        }
    }
    found
}

/// Data in the same place, or zeros in both.
fn in_one_place(one: &Mapped, other: &Mapped, at: u64) -> bool {
    let place = |mapped: &Mapped| mapped.offset.map(|offset| offset + (at - mapped.start));
    let data = one.data && other.data && one.depth == other.depth;
    let zeros = one.zero && other.zero && !one.data && !other.data;
    zeros || (data && place(one).is_some() && place(one) == place(other))
}

/// Three snapshots, each unlike the others and unlike what came after.
fn with_three(disk: Qcow2) -> Qcow2 {
    disk.forgiving()
        .write(0, 300 * K, Fill::Noise(1))
        .write(M + 4 * K, 200 * K, Fill::Noise(7))
        .snapshot("first")
        .write(100 * K, 100 * K, Fill::Noise(2))
        .ops([Op::Zero(0, 64 * K), Op::Discard(192 * K, 64 * K), Op::Compressed(2 * M, 64 * K, Fill::Text(3))])
        .snapshot("second")
        .ops([Op::Compressed(M, 64 * K, Fill::Text(3)), Op::Unmap(256 * K, 128 * K), Op::Zero(2 * M + 64 * K, 64 * K)])
        .snapshot("third")
        .write(5 * K, 100, Fill::Same(4))
        .ops([Op::Write(3 * M - 512, 1024, Fill::Same(5)), Op::Discard(M, 64 * K)])
}

/// The states of such an image, as qemu-img reads and maps them: what is asked for them, disk, map.
fn states(image: &Path, names: &[&str]) -> Vec<(Option<String>, PathBuf, String)> {
    let mut found = Vec::new();
    for name in names {
        let back = gone_back(image, name);
        found.push((Some((*name).to_owned()), qemu_disk(&back), rig::qemu_map(&back)));
    }
    found.push((None, qemu_disk(image), rig::qemu_map(image)));
    found
}

/// Every state since every other.
fn assert_states(image: &Path, names: &[&str], what: &str) {
    let states = states(image, names);
    for (old, (name, older, old_map)) in states.iter().enumerate() {
        let Some(name) = name else { continue };
        for (new, (newer_name, newer, new_map)) in states.iter().enumerate() {
            // Back in time, too, but not all of the way.
            if old > new + 1 {
                continue;
            }
            let mut since = vec!["--since-snapshot", name];
            since.extend(newer_name.iter().flat_map(|name| ["--snapshot", name]));
            let kept = assert_since(&since, image, older, newer);
            assert_all_kept(&alike(old_map, new_map, in_one_place), &kept, &format!("{what}: {since:?}"));
            let whole = fs::metadata(newer).unwrap().len();
            assert!(old != new || kept == [(0, whole)], "{what}: {since:?} keeps {kept:?}");
        }
    }
}

#[test]
fn what_changed_since_a_snapshot_makes_the_newer_state_of_the_older_and_the_rest_is_kept() {
    for options in ["", "cluster_size=4k", "cluster_size=512,compression_type=zstd", "extended_l2=on", "compat=v2"] {
        let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
        let image = fs.join("disk.qcow2");
        with_three(Qcow2::new(4 * M + 512).option(options)).make(&image);
        assert_states(&image, &["first", "second", "third"], options);
    }
}

#[test]
fn snapshots_over_a_backing_file_and_of_other_sizes_are_compared_too() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
    TestDisk::empty(2 * M + 100).with(0, M, 1).with(2 * M, 100, 2).make(&fs.join("base.raw"));
    for options in ["cluster_size=4k", "extended_l2=on"] {
        let image = fs.join("disk.qcow2");
        let disk = Qcow2::new(3 * M).option(options).backing("base.raw", Some("raw"));
        let disk =
            disk.ops([Op::Write(64 * K, 64 * K, Fill::Noise(1)), Op::Zero(M - 64 * K, 64 * K)]).snapshot("small");
        let disk = disk.ops([Op::Discard(64 * K, 64 * K), Op::Zero(M, 128 * K)]).resize(5 * M).snapshot("large");
        let disk = disk.ops([Op::Write(5 * M - 70 * K, 70 * K, Fill::Same(1)), Op::Zero(2 * M, 512)]);
        disk.resize(M + 512).make(&image);
        assert_states(&image, &["small", "large"], options);
        fs::remove_file(image).unwrap();
    }
}

#[test]
fn what_lies_above_a_layer_of_the_chain_makes_the_disk_of_that_layer_s() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
    // The raw base is no multiple of a sector, and longer than the middle.
    TestDisk::empty(3 * M + 100).with(0, M, 1).with(3 * M, 100, 2).make(&fs.join("base.raw"));
    let middle = Qcow2::new(2 * M + 512).option("cluster_size=4k").backing("base.raw", Some("raw"));
    let middle = middle.ops([Op::Write(100 * K, 50 * K, Fill::Noise(1)), Op::Zero(200 * K, 70 * K)]);
    middle.write(2 * M, 512, Fill::Same(9)).make(&fs.join("middle.qcow2"));
    let next = Qcow2::new(4 * M).option("extended_l2=on").backing("middle.qcow2", Some("qcow2"));
    next.ops([Op::Write(M, 3 * K, Fill::Noise(2)), Op::Write(3 * M, M, Fill::Same(3))]).make(&fs.join("next.qcow2"));
    let top = fs.join("top.qcow2");
    for size in [4 * M, 7 * M, M + 512] {
        let disk = Qcow2::new(size).option("cluster_size=64k").backing("next.qcow2", Some("qcow2"));
        disk.ops([Op::Write(5 * K, 100, Fill::Same(4)), Op::Zero(128 * K, 64 * K)]).make(&top);
        let newer = qemu_disk(&top);
        for (depth, name) in [(3, "base.raw"), (2, "middle.qcow2"), (1, "next.qcow2")] {
            let layer = fs.join(name);
            let older = if depth == 3 { layer.clone() } else { qemu_disk(&layer) };
            let kept = assert_since(&["--since-base", layer.to_str().unwrap()], &top, &older, &newer);
            let unchanged = alike(&rig::qemu_map(&top), &rig::qemu_map(&top), |one, _, _| one.depth >= depth);
            let base = fs::metadata(&older).unwrap().len();
            let unchanged: Vec<_> =
                unchanged.into_iter().map(|(start, end)| (start, end.min(base))).filter(|it| it.0 < it.1).collect();
            assert_all_kept(&unchanged, &kept, &format!("{name} below {size} bytes"));
        }
    }
}

#[test]
fn what_is_not_there_is_refused_before_the_first_byte_and_what_there_is_is_named() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let (image, raw, base) = (fs.join("disk.qcow2"), fs.join("disk.raw"), fs.join("base.qcow2"));
    TestDisk::empty(M).with(0, M, 1).make(&raw);
    Qcow2::new(M).write(0, M, Fill::Noise(1)).snapshot("one").make(&base);
    bitmap(&["--add"], &base, "two");
    Qcow2::over("base.qcow2", "qcow2").make(&image);
    let outside = fs.join("outside.qcow2");
    Qcow2::new(M).option("data_file=disk.data").write(0, M, Fill::Noise(1)).make(&outside);
    let [raw_name, base_name, image_name] = [&raw, &base, &image].map(|path| path.to_str().unwrap());
    let cases: &[(&[&str], &Path, &[&str])] = &[
        (&["--since-snapshot", "x"], &base, &["\"x\"", "\"one\" (ID 1)"]),
        (&["--since-snapshot", "one"], &image, &["\"one\"", "has none"]),
        (&["--since-snapshot", "one"], &raw, &["raw", "no snapshots"]),
        (&["--since-snapshot", "one"], &outside, &["external file"]),
        (&["--bitmap", "x"], &base, &["\"x\"", "\"two\""]),
        (&["--bitmap", "two"], &image, &["\"two\"", "has none"]),
        (&["--bitmap", "two"], &raw, &["raw", "no bitmaps"]),
        (&["--bitmap", "two", "--snapshot", "one"], &base, &["\"two\"", "snapshot"]),
        (&["--since-base", base_name], &raw, &["raw", "no backing"]),
        (&["--since-base", base_name], &base, &["base.qcow2", "the image itself"]),
        (&["--since-base", image_name], &base, &["disk.qcow2", "no backing file"]),
        (&["--since-base", raw_name], &image, &["disk.raw", "not in the backing chain", "disk.qcow2"]),
        (&["--since-base", "nowhere"], &image, &["nowhere", "no such file"]),
        (&["--since-base", base_name, "--bitmap", "two"], &image, &["--bitmap", "--since-base"]),
        (&["--since-base", base_name, "--classic"], &image, &["--classic"]),
        (&["--base-digest"], &image, &["--base-digest", "--since-base"]),
        (&["--trust-base"], &image, &["--trust-base", "--since-base"]),
        (&["--bitmap", "two", "--base-digest"], &base, &["--bitmap", "what the disk was before"]),
        (&["--bitmap", "two", "--base-digest=sha256:1:2:3"], &base, &["--base-digest", "sha256:INTERVAL"]),
    ];
    for (args, image, words) in cases {
        let trusts = args[0] == "--bitmap" && !args.iter().any(|arg| arg.starts_with("--base-digest"));
        let mut sender = Command::new(tools!().xfer_hole);
        let outcome = run(sender.args(trusts.then_some("--trust-base")).args(*args).arg(image), b"").refused(words);
        assert!(outcome.out.is_empty(), "{args:?}");
    }
    // The file may be named otherwise than the image names it.
    let link = fs.join("link");
    std::os::unix::fs::symlink(&base, &link).unwrap();
    assert_eq!(kept(&stream(&["--since-base", link.to_str().unwrap()], &image)), [(0, M)]);
}

#[test]
fn a_target_that_does_not_hold_the_older_disk_is_refused_by_a_copy_too() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let (image, dest) = (fs.join("disk.qcow2"), fs.join("out.img"));
    Qcow2::new(M).write(0, M, Fill::Noise(1)).snapshot("one").make(&image);
    let copy = || run(Command::new(tools!().xfer_hole).args(["--since-snapshot", "one"]).arg(&image).arg(&dest), b"");
    copy().refused(&["out.img", "there is none"]);
    assert!(!dest.exists());
    fs::write(&dest, "short").unwrap();
    copy().refused(&["out.img", "has 5"]);
    assert_eq!(fs::read(&dest).unwrap(), b"short");
}

/// Bytes that a command reads of a file, by the system's word.
fn bytes_read(command: &mut Command, file: &Path) -> u64 {
    requires(&["strace"]);
    let log = file.with_extension("strace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-qq", "-e", "trace=read,pread64,preadv,splice,sendfile,copy_file_range", "-o"]).arg(&log);
    run(traced.arg(command.get_program()).args(command.get_args()), b"").ok();
    let name = file.to_str().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    // Where another thread was called in between, a call's result stands on a line of its own: none of ours is to be lost.
    assert!(text.lines().count() > 3, "{text}");
    let calls = text.lines().filter(|line| line.contains(name) || line.contains("resumed"));
    calls.filter_map(|line| line.rsplit("= ").next()?.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn nothing_is_read_of_what_is_kept() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
    let (image, top) = (fs.join("disk.qcow2"), fs.join("top.qcow2"));
    Qcow2::new(64 * M).write(0, 64 * M, Fill::Noise(1)).snapshot("one").make(&image);
    bitmap(&["--add"], &image, "b");
    Qcow2::new(64 * M).write(32 * M, 64 * K, Fill::Noise(2)).live(&image);
    Qcow2::over("disk.qcow2", "qcow2").write(M, 64 * K, Fill::Noise(2)).make(&top);
    let base = image.to_str().unwrap();
    for hash in [None, Some("--hash")] {
        for (since, image) in
            [(["--since-snapshot", "one"], &image), (["--bitmap", "b"], &image), (["--since-base", base], &top)]
        {
            let mut sender = Command::new(tools!().xfer_hole);
            let read = bytes_read(sender.arg("--trust-base").args(since).args(hash).arg(image), image);
            assert!((64 * K..M).contains(&read), "{since:?} {hash:?}: {read} bytes");
        }
    }
}

#[test]
fn sixteen_tebibytes_that_are_kept_take_no_longer_than_their_tables() {
    requires(&["time"]);
    let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
    let (image, top, report) = (fs.join("disk.qcow2"), fs.join("top.qcow2"), fs.join("report"));
    let size = 16 << 40;
    let places = (0..100).map(|at| Op::Write(at * (160 << 30), 64 * K, Fill::Same(1)));
    Qcow2::new(size).ops(places).snapshot("one").make(&image);
    bitmap(&["--add"], &image, "b");
    Qcow2::new(size).ops([Op::Write(9 << 40, 64 * K, Fill::Same(2)), Op::Zero(size - M, M)]).live(&image);
    Qcow2::over("disk.qcow2", "qcow2").write(3 << 40, 512, Fill::Same(1)).make(&top);
    let base = image.to_str().unwrap();
    for (since, image) in
        [(["--since-snapshot", "one"], &image), (["--bitmap", "b"], &image), (["--since-base", base], &top)]
    {
        for hash in [None, Some("--hash")] {
            let start = Instant::now();
            let mut timed = Command::new("/usr/bin/time");
            timed.args(["-f", "%M", "-o"]).arg(&report).arg(tools!().xfer_hole).args(since).args(hash);
            // The older disk is read, where it is to be had: most of it is nothing.
            timed.args((since[0] == "--bitmap").then_some("--trust-base"));
            let bytes = run(timed.arg(image), b"").ok().out;
            assert!(bytes.len() < 100_000, "{since:?} {hash:?}");
            assert!(start.elapsed() < GUARD, "{since:?} {hash:?}: took {:?}", start.elapsed());
            let peak: u64 = fs::read_to_string(&report).unwrap().trim().parse().unwrap();
            assert!(peak <= 64 * K, "{since:?} {hash:?}: {peak} KiB");
        }
    }
}

/// Gives a file to the account.
fn own(far: &FarEnd, file: &Path) {
    let group = tool("id", &["-g", far.account.name()]).trim().parse().unwrap();
    std::os::unix::fs::chown(file, Some(far.account.uid()), Some(group)).unwrap();
}

#[test]
fn a_push_changes_what_is_there_by_either_receiver() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let image = far.near("disk.qcow2");
    with_three(Qcow2::new(4 * M + 512)).make(&image);
    let older = qemu_disk(&gone_back(&image, "first"));
    bitmap(&["--add"], &image, "b");
    let before = qemu_disk(&image);
    let before_bitmap = far.near("before.img");
    fs::rename(before, &before_bitmap).unwrap();
    Qcow2::new(4 * M + 512).write(2 * M, 100 * K, Fill::Noise(9)).live(&image);
    let newer = qemu_disk(&image);
    let dest = far.account.home("x.img");
    for receiver in ["binary", "sh"] {
        for (since, older) in [(["--since-snapshot", "first"], &older), (["--bitmap", "b"], &before_bitmap)] {
            for more in [&[][..], &["--no-hash"], &["--in-place"]] {
                // A shell can't check, and a bitmap doesn't tell what for.
                let trusts = receiver == "sh" || since[0] == "--bitmap";
                let more = [more, if trusts { &["--trust-base"] } else { &[] }].concat();
                fs::copy(older, &dest).unwrap();
                own(&far, &dest);
                let args = [&["-q", "--receiver", receiver], &since[..], &more].concat();
                let outcome = far.push(&args, &image, "x.img").ok();
                assert_eq!(outcome.err, "", "{args:?}");
                assert_same(&newer, &dest);
            }
        }
        // What is to be had is not what has to be there.
        fs::write(&dest, "other").unwrap();
        own(&far, &dest);
        let args = ["--receiver", receiver, "--since-snapshot", "first", "--trust-base"];
        far.push(&args, &image, "x.img").blamed(rig::HOST, &["x.img"]);
        assert_eq!(fs::read(&dest).unwrap(), b"other");
    }
    fs::copy(&older, &dest).unwrap();
    own(&far, &dest);
    let would = far.push(&["--since-snapshot", "first", "-n"], &image, "x.img").ok();
    assert!(would.err.contains("would send") && would.err.contains("to be kept there"), "{}", would.err);
}

#[test]
fn a_pull_asks_for_changes_by_an_option_of_the_sender() {
    let toolbox = Toolbox::new().with("xfer-hole", &tools!().xfer_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let (image, dest) = (far.account.home("disk.qcow2"), far.near("x.img"));
    with_three(Qcow2::new(4 * M + 512)).make(&image);
    let (older, newer) = (qemu_disk(&gone_back(&image, "first")), qemu_disk(&image));
    tool("chmod", &["a+r", image.to_str().unwrap()]);
    for args in [
        &["-M", "--since-snapshot=first"][..],
        &["-M", "--since-snapshot=first", "-M", "--base-digest", "--check-base"],
    ] {
        fs::copy(&older, &dest).unwrap();
        far.pull(&[args, &["--in-place"]].concat(), "disk.qcow2", &dest).ok();
        assert_same(&newer, &dest);
        assert!(qemu_img(&["info"], &image).contains("first"));
    }
}

#[test]
fn a_fingerprint_that_is_not_to_be_had_is_not_printed() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let image = fs.join("disk.qcow2");
    Qcow2::new(M).write(0, M, Fill::Same(1)).snapshot("one").make(&image);
    let args = ["--since-snapshot", "one", "--hash", "--print-digest"];
    let outcome = run(Command::new(tools!().xfer_hole).args(args).arg(&image), b"").ok();
    assert!(outcome.err.starts_with("xfer-hole: warning: ") && !outcome.err.contains("sha256:"), "{}", outcome.err);
}
