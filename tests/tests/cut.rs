//! A stream that is cut, flipped or followed by anything else never becomes a disk, and never harms the one that is there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rig::{Before, Filesystem, Fs, Receiver, SHELLS, TestDisk, part_of, pour, run, tools};

/// A disk whose stream has every kind of line, small enough to be cut everywhere.
fn stream(folder: &Path, hash: bool) -> (PathBuf, Vec<u8>) {
    let image = folder.join("disk.img");
    TestDisk::empty(30_000).with(4096, 5000, 1).with(20_000, 300, 2).make(&image);
    let args: &[&str] = if hash { &["--hash", "--hash-interval", "4096", "--min-hole", "512"] } else { &[] };
    let stream = pour(&tools!(), args, &image);
    (image, stream)
}

/// The places that are bytes of lines, as (start, end) with the newline.
fn lines(stream: &[u8]) -> Vec<(usize, usize)> {
    let (mut at, mut found) = (0, Vec::new());
    while at < stream.len() {
        let end = at + stream[at..].iter().position(|&byte| byte == b'\n').unwrap() + 1;
        found.push((at, end));
        let words: Vec<_> = stream[at..end].trim_ascii_end().split(|&byte| byte == b' ').collect();
        let payload = if words[0] == b"DATA" { str::from_utf8(words[1]).unwrap().parse().unwrap() } else { 0 };
        at = end + payload;
    }
    found
}

/// Every place in a line, and `payload` places spread over what is between them.
fn places(stream: &[u8], payload: usize) -> Vec<usize> {
    let mut found: BTreeSet<usize> = lines(stream).into_iter().flat_map(|(start, end)| start..=end).collect();
    found.extend((0..payload).map(|n| n * stream.len() / payload));
    found.remove(&stream.len());
    found.into_iter().collect()
}

/// Runs `each` for all cases on two threads, with a name of its own.
fn on_two_threads<T: Sync>(cases: &[T], each: impl Fn(&T, usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(n) else { break };
                    each(case, n);
                }
            });
        }
    });
}

/// Receives a bad stream where no DEST was, and where one was.
fn must_fail(receiver: Receiver, stream: &[u8], folder: &Path, what: &str) {
    let dest = folder.join("out.img");
    for existing in [false, true] {
        let before = existing.then(|| {
            fs::write(&dest, "the old disk").unwrap();
            Before::of(&dest)
        });
        let what = format!("{receiver:?}, {what}, a DEST before: {existing}");
        let outcome = run(&mut receiver.command(&tools!(), &dest, false, true), stream);
        assert_eq!(outcome.code, Some(2), "{what}: {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{what}: {}", outcome.err);
        if part_of(&dest).exists() {
            assert!(outcome.err.contains("kept ") && outcome.err.contains("out.img.part"), "{what}: {}", outcome.err);
            fs::remove_file(part_of(&dest)).unwrap();
            // What marks it as a transfer's, where the script wrote it.
            let _marked_otherwise = fs::remove_file(folder.join("out.img.part.lines"));
        }
        match before {
            Some(before) => before.untouched(&what),
            None => assert!(!dest.exists(), "{what}"),
        }
        let _was_there = fs::remove_file(&dest);
    }
}

fn folder_of(fs: &Filesystem, name: &str, n: usize) -> PathBuf {
    let folder = fs.join(&format!("{name}{n}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_stream_cut_at_any_byte_is_refused_and_the_old_disk_stays() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 << 20);
    for hash in [false, true] {
        let (_, stream) = stream(fs.path(), hash);
        assert!(lines(&stream).len() >= 5, "every kind of line");
        let mut cases = Vec::new();
        for cut in places(&stream, 500) {
            cases.push((Receiver::Binary, cut));
        }
        for (n, cut) in places(&stream, 60).into_iter().enumerate() {
            // dash meets every line's bytes of the stream without digests, the other shells take turns.
            match n % 4 {
                0 => cases.push((Receiver::Script(SHELLS[1 + n / 4 % 6]), cut)),
                _ if hash && n % 2 == 0 => {}
                _ => cases.push((Receiver::Script(SHELLS[0]), cut)),
            }
        }
        on_two_threads(&cases, |&(receiver, cut), n| {
            let folder = folder_of(&fs, "cut", n);
            must_fail(receiver, &stream[..cut], &folder, &format!("cut at {cut} of {}, hash {hash}", stream.len()));
            fs::remove_dir(folder).unwrap();
        });
    }
}

#[test]
fn a_payload_cut_short_is_reported_with_the_record_it_was_in() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 << 20);
    for hash in [false, true] {
        let (_, stream) = stream(fs.path(), hash);
        let data = lines(&stream)[2].1;
        for receiver in Receiver::all() {
            let dest = fs.join("out.img");
            let outcome = run(&mut receiver.command(&tools!(), &dest, false, true), &stream[..data + 100]);
            outcome.refused(&["record 2", "disk offset 4096", "cut", "out.img.part"]);
        }
    }
}

#[test]
fn a_bit_flipped_in_a_hashed_stream_never_makes_another_disk() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 << 20);
    let (image, stream) = stream(fs.path(), true);
    let image = fs::read(image).unwrap();
    let step = 53;
    let every = lines(&stream).into_iter().flat_map(|(start, end)| (start..end).map(|at| (at, at % 8)));
    let spread = (0..stream.len() / step).map(|n| (n * step, n % 8));
    let mut cases: Vec<_> = every.chain(spread).map(|(at, bit)| (Receiver::Binary, at, bit)).collect();
    let few = (0..cases.len() / 10)
        .map(|n| (Receiver::Script(SHELLS[if n % 5 == 0 { n / 5 % 7 } else { 0 }]), cases[n * 10].1, n % 8));
    let few: Vec<_> = few.collect();
    cases.extend(few);
    on_two_threads(&cases, |&(receiver, at, bit), n| {
        let folder = folder_of(&fs, "flip", n);
        let dest = folder.join("out.img");
        let mut stream = stream.clone();
        stream[at] ^= 1 << bit;
        let outcome = run(&mut receiver.command(&tools!(), &dest, false, true), &stream);
        let what = format!("{receiver:?}, bit {bit} of byte {at}: {}", outcome.err);
        match outcome.code {
            Some(0) => assert!(fs::read(&dest).unwrap() == image, "{what}"),
            code => {
                assert_eq!(code, Some(2), "{what}");
                assert!(!dest.exists(), "{what}");
            }
        }
        fs::remove_dir_all(folder).unwrap();
    });
}

#[test]
fn what_follows_end_is_refused_before_the_old_disk_is_replaced() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 << 20);
    for hash in [false, true] {
        let (_, stream) = stream(fs.path(), hash);
        for (name, garbage) in
            [("newline", &b"\n"[..]), ("NUL", b"\0"), ("word", b"WAIT\n"), ("second stream", &stream)]
        {
            for receiver in Receiver::all() {
                let folder = folder_of(&fs, "tail", 0);
                must_fail(receiver, &[&stream, garbage].concat(), &folder, &format!("{name} after END, hash {hash}"));
            }
        }
    }
}
