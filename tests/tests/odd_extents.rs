//! File systems that answer oddly where data is, and where holes are: nothing hangs, fails or gets lost by that.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{Filesystem, Fs, Outcome, TestDisk, Tools, assert_same, requires, run, tool, tools};

const M: u64 = 1 << 20;

/// Stands between the tools and the C library. `ODD` says what is odd.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

static int is(const char *word) {
	const char *odd = getenv("ODD");
	return odd && !strcmp(odd, word);
}

static int settled;

static off64_t real(int fd, off64_t at, int whence) {
	off64_t (*next)(int, off64_t, int) = dlsym(RTLD_NEXT, "lseek64");
	return next(fd, at, whence);
}

static off64_t fail(int code) {
	errno = code;
	return -1;
}

off64_t lseek64(int fd, off64_t at, int whence) {
	off64_t half = 4 << 20;
	if (whence != SEEK_DATA && whence != SEEK_HOLE) return real(fd, at, whence);
	if (is("ebadfd")) return fail(77);
	if (is("enotsupp")) return fail(524);
	if (is("later") && at >= half) return fail(77);
	if (is("eio later") && at >= half) return fail(EIO);
	if (is("nowhere")) return at;
	if (is("hole nowhere") && whence == SEEK_HOLE) return at;
	if (is("backwards") && at >= half) return at - 4096;
	if (is("to the beginning") && at > 0) return 0;
	if (is("late") && !settled) return whence == SEEK_DATA ? fail(ENXIO) : at;
	if (is("byte by byte") && at >= half) return at + 1 + (whence == SEEK_HOLE);
	off64_t found = real(fd, at, whence);
	if (is("no end") && found < 0) return at + 1;
	if (is("far beyond") && found < 0) return 1LL << 62;
	return found;
}

off_t lseek(int fd, off_t at, int whence) {
	return lseek64(fd, at, whence);
}

int ioctl(int fd, unsigned long request, ...) {
	va_list list;
	va_start(list, request);
	void *argument = va_arg(list, void *);
	va_end(list);
	if (request == 0xc020660b && is("fiemap enotsupp")) return fail(524);
	if (request == 0xc020660b && is("fiemap ebadfd")) return fail(77);
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	return next(fd, request, argument);
}

int fstatfs64(int fd, struct statfs64 *stat) {
	int (*next)(int, struct statfs64 *) = dlsym(RTLD_NEXT, "fstatfs64");
	int result = next(fd, stat);
	if (is("late")) stat->f_type = 0x2fc12fc1;
	return result;
}

int fstatfs(int fd, struct statfs *stat) {
	return fstatfs64(fd, (struct statfs64 *)stat);
}

int fdatasync(int fd) {
	int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
	settled = 1;
	return next(fd);
}
"#;

struct Place {
    tools: Tools,
    fs: Filesystem,
}

impl Place {
    fn new(kind: Fs) -> Self {
        requires(&["cc"]);
        let place = Self { tools: tools!(), fs: Filesystem::new(kind, 320 * M) };
        let source = place.at("shim.c");
        fs::write(&source, SHIM).unwrap();
        let library = place.at("shim.so");
        tool("cc", &["-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap(), source.to_str().unwrap(), "-ldl"]);
        TestDisk::empty(12 * M + 512)
            .with(M, M, 1)
            .with(5 * M, 2 * M, 2)
            .with(9 * M, 4096, 3)
            .make(&place.at("disk.img"));
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.fs.join(name)
    }

    /// Runs `xfer-hole ARGS` where `odd` is odd. One that doesn't end is killed.
    fn run(&self, odd: &str, args: &[&str], more: &[&Path]) -> Outcome {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(&self.tools.xfer_hole).args(args).args(more);
        run(command.env("LD_PRELOAD", self.at("shim.so")).env("ODD", odd), b"")
    }
}

fn warnings(outcome: &Outcome) -> Vec<&str> {
    outcome.err.lines().filter(|line| line.contains("warning: ")).collect()
}

/// What is odd, and whether it can be told from an answer.
const ODD: [(&str, bool); 10] = [
    ("ebadfd", true),
    ("later", true),
    ("eio later", true),
    ("nowhere", true),
    ("hole nowhere", true),
    ("backwards", true),
    ("to the beginning", true),
    ("no end", true),
    ("byte by byte", true),
    ("far beyond", false),
];

#[test]
fn answers_that_make_no_sense_are_replaced_by_reading() {
    let place = Place::new(Fs::Tmpfs);
    let (disk, copy) = (place.at("disk.img"), place.at("copy.img"));
    let digest = place.run("", &["digest"], &[&disk]).ok().out;
    for (odd, told) in ODD {
        for args in [&[][..], &["--hash"], &["--detect-zeroes", "off"], &["--direct"]] {
            let copied = place.run(odd, args, &[&disk, &copy]).ok();
            let warned = warnings(&copied).into_iter().filter(|line| line.contains("holes")).collect::<Vec<_>>();
            assert_eq!(warned.len(), usize::from(told), "{odd} {args:?}: {}", copied.err);
            assert_same(&disk, &copy);
            fs::remove_file(&copy).unwrap();
        }
        for (command, prints) in [("digest", true), ("manifest", false), ("map", false)] {
            let done = place.run(odd, &[command], &[&disk]).ok();
            assert_eq!(warnings(&done).len(), usize::from(told), "{odd} {command}: {}", done.err);
            assert!(!prints || done.out == digest, "{odd}");
        }
        let stream = place.run(odd, &["--hash"], &[&disk]).ok().out;
        run(Command::new(&place.tools.recv_hole).arg(&copy), &stream).ok();
        assert_same(&disk, &copy);
        fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn a_method_that_was_named_fails_with_the_way_on() {
    let place = Place::new(Fs::Tmpfs);
    let (disk, copy) = (place.at("disk.img"), place.at("copy.img"));
    for (odd, told) in ODD.into_iter().chain([("enotsupp", true)]) {
        let copied = place.run(odd, &["--extents", "seek"], &[&disk, &copy]);
        if told {
            let copied = copied.refused(&["disk.img", "seek"]);
            assert!(copied.err.contains("hint: ") && copied.err.contains("--extents scan"), "{odd}: {}", copied.err);
        } else {
            copied.ok();
            assert_same(&disk, &copy);
        }
        let _not_there = fs::remove_file(&copy);
        assert_eq!(warnings(&place.run(odd, &["--extents", "scan"], &[&disk, &copy]).ok()), Vec::<&str>::new());
        assert_same(&disk, &copy);
        fs::remove_file(&copy).unwrap();
    }
    // That it isn't supported is nothing odd: without a word everything is read.
    assert_eq!(warnings(&place.run("enotsupp", &[], &[&disk, &copy]).ok()), Vec::<&str>::new());
    assert_same(&disk, &copy);
}

#[test]
fn fiemap_that_is_not_supported_is_said_to_be_so() {
    let place = Place::new(Fs::Ext4);
    let (disk, copy) = (place.at("disk.img"), place.at("copy.img"));
    for (odd, words) in [("fiemap enotsupp", "not to be had"), ("fiemap ebadfd", "bad state")] {
        let copied = place.run(odd, &["--extents", "fiemap"], &[&disk, &copy]).refused(&["fiemap", words]);
        assert!(copied.err.contains("--extents scan") && !copied.err.contains("nknown"), "{odd}: {}", copied.err);
        assert_eq!(warnings(&place.run(odd, &[], &[&disk, &copy]).ok()), Vec::<&str>::new());
        assert_same(&disk, &copy);
    }
    place.run("", &["--extents", "fiemap"], &[&disk, &copy]).ok();
    // Layers go by SEEK_DATA then.
    TestDisk::empty(12 * M + 512).with(0, M, 9).make(&place.at("parent.img"));
    place.run("fiemap enotsupp", &["fold"], &[&disk, &place.at("parent.img")]).ok();
    let folded = fs::read(place.at("parent.img")).unwrap();
    assert!(folded[M as usize..] == fs::read(&disk).unwrap()[M as usize..] && folded[0] != 0);
}

#[test]
fn holes_of_a_layer_are_never_guessed() {
    let place = Place::new(Fs::Tmpfs);
    let (disk, parent) = (place.at("disk.img"), place.at("parent.img"));
    for odd in ["ebadfd", "later", "nowhere", "hole nowhere", "backwards", "to the beginning"] {
        TestDisk::empty(12 * M + 512).with(0, 12 * M, 9).make(&parent);
        let before = fs::read(&parent).unwrap();
        let folded = place.run(odd, &["fold"], &[&disk, &parent]);
        assert_eq!(folded.code, Some(2), "{odd}: {}", folded.err);
        let after = fs::read(&parent).unwrap();
        assert!(after[..M as usize] == before[..M as usize], "{odd}: the child has a hole there");
        let pruned = place.run(odd, &["prune"], &[&parent, &disk]);
        assert_eq!(pruned.code, Some(2), "{odd}: {}", pruned.err);
    }
}

#[test]
fn data_that_is_not_written_yet_is_flushed_before_holes_are_asked_for() {
    let place = Place::new(Fs::Tmpfs);
    let (disk, copy) = (place.at("disk.img"), place.at("copy.img"));
    for args in [&[][..], &["--hash"], &["--extents", "seek"]] {
        assert_eq!(warnings(&place.run("late", args, &[&disk, &copy]).ok()), Vec::<&str>::new());
        assert_same(&disk, &copy);
        fs::remove_file(&copy).unwrap();
    }
    // A preallocated image asks for the holes of its file, too.
    let image = place.at("image.qcow2");
    let names = [disk.to_str().unwrap(), image.to_str().unwrap()];
    tool("qemu-img", &["convert", "-O", "qcow2", "-o", "preallocation=metadata", names[0], names[1]]);
    place.run("late", &[], &[&image, &copy]).ok();
    assert_same(&disk, &copy);
}

#[test]
fn what_is_kept_of_an_old_target_is_flushed_before_its_holes_are_asked_for() {
    let place = Place::new(Fs::Tmpfs);
    let (disk, dest) = (place.at("disk.img"), place.at("out.img"));
    let size = fs::metadata(&disk).unwrap().len();
    let kept = format!("XFER-HOLE 1 {size}\nBASE {size}\nKEEP {size}\nEND\n");
    for args in [&[][..], &["--no-sync"], &["--direct"], &["--in-place"]] {
        for odd in ["late", "nowhere", "ebadfd", "to the beginning", "no end", "byte by byte"] {
            fs::copy(&disk, &dest).unwrap();
            let mut command = Command::new("timeout");
            command.args(["-s", "KILL", "60"]).arg(&place.tools.recv_hole).args(args).arg(&dest);
            run(command.env("LD_PRELOAD", place.at("shim.so")).env("ODD", odd), kept.as_bytes()).ok();
            assert!(fs::read(&disk).unwrap() == fs::read(&dest).unwrap(), "{odd}, {args:?}");
        }
    }
}
