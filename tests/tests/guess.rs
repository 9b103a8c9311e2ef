//! A format that nobody named: a guest can write an image's header into its disk, and gets no other file opened by it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{
    FarEnd, Filesystem, Fill, Fs, HOST, LoopDevice, Outcome, Qcow2, Setup, TestDisk, Toolbox, Tools, assert_as_qemu,
    assert_same, requires, run, tools, write_at,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// What is in the other tenant's disk, and must not get out.
const SECRET: [u8; 32] = *b"the other tenant's own bytes....";

/// A file system with the other tenant's disk, in the pool and as a device's, and a header of an empty image over the one in the pool.
struct Pool {
    tools: Tools,
    fs: Filesystem,
}

impl Pool {
    fn new() -> Self {
        let fs = Filesystem::new(Fs::Tmpfs, 128 * M);
        fs::create_dir(fs.join("pool")).unwrap();
        let pool = Self { tools: tools!(), fs };
        fs::write(pool.at("other.raw"), SECRET.repeat(M as usize / SECRET.len())).unwrap();
        pool
    }

    fn at(&self, name: &str) -> PathBuf {
        self.fs.join("pool").join(name)
    }

    /// What a guest writes at the beginning of its disk: an image of nothing over `other`.
    fn header(&self, other: &str) -> Vec<u8> {
        let image = self.at("made");
        Qcow2::new(M).backing(other, Some("raw")).make(&image);
        let header = fs::read(&image).unwrap();
        fs::remove_file(image).unwrap();
        header
    }

    /// The raw disk of a guest that has written that.
    fn tenant(&self, name: &str) -> PathBuf {
        let disk = self.at(name);
        fs::write(&disk, self.header("other.raw")).unwrap();
        disk
    }

    /// Runs `xfer-hole WORDS IMAGE MORE`.
    fn run(&self, words: &[&str], image: &Path, more: &[&OsStr]) -> Outcome {
        run(Command::new(&self.tools.xfer_hole).args(words).arg(image).args(more), b"")
    }

    /// Fails unless everything that reads an image refuses this one, opens nothing that it names, and says how to go on.
    fn refused(&self, image: &Path, what: &str) {
        let copy = self.at("copy.img");
        let manifest = self.at("a.manifest");
        fs::write(&manifest, self.run(&["manifest"], &self.at("other.raw"), &[]).ok().out).unwrap();
        let (copy, manifest) = (copy.as_os_str(), manifest.as_os_str());
        let cases: [(&[&str], &[&OsStr]); 6] =
            [(&[], &[]), (&["--hash"], &[]), (&[], &[copy]), (&["map"], &[]), (&["digest"], &[]), (&["manifest"], &[])];
        for (words, more) in cases.into_iter().chain([(&["verify"][..], &[manifest][..])]) {
            let outcome = self.run(words, image, more).refused(&["qcow2", "content", what]);
            let hint = outcome.err.lines().find(|line| line.contains("hint: ")).unwrap();
            assert!(hint.contains("--format qcow2") && hint.contains("--format raw"), "{words:?}: {hint}");
            assert!(!holds_secret(&outcome.out) && !Path::new(copy).exists(), "{words:?}");
        }
        for kind in ["human", "json"] {
            // It is what one looks with when an image isn't read.
            let info = self.run(&["info", "--output", kind], image, &[]).ok();
            assert!(info.err.contains("--format qcow2") && info.err.contains(what), "{}", info.err);
            let out = String::from_utf8(info.out).unwrap();
            assert!(out.contains("qcow2") && out.contains("other"), "{out}");
            assert_eq!(out.matches("virtual").count(), 1, "nothing is told of another file: {out}");
        }
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}

#[test]
fn a_header_in_a_block_device_is_bytes_of_the_disk() {
    let pool = Pool::new();
    let (guest, other) = (LoopDevice::filled(M, 0), LoopDevice::filled(M, 7));
    let header = pool.header(other.path().file_name().unwrap().to_str().unwrap());
    write_at(guest.path(), 0, &header);
    // A device is one under whatever name.
    symlink(guest.path(), pool.at("web.qcow2")).unwrap();
    let raw = pool.at("raw");
    fs::write(&raw, fs::read(guest.path()).unwrap()).unwrap();
    let digest = pool.run(&["digest", "--format", "raw"], &raw, &[]).ok().out;
    for device in [guest.path(), &pool.at("web.qcow2")] {
        let copy = pool.at("copy.img");
        let copied = pool.run(&[], device, &[copy.as_os_str()]).ok();
        assert_same(&raw, &copy);
        let warned = copied.err.lines().filter(|line| line.contains("warning: ") && line.contains("--format qcow2"));
        assert_eq!(warned.count(), 1, "{}", copied.err);
        assert_eq!(pool.run(&["digest"], device, &[]).ok().out, digest);
        let info = String::from_utf8(pool.run(&["info", "--output", "json"], device, &[]).ok().out).unwrap();
        assert!(info.contains("\"format\": \"raw\"") && !info.contains("backing"), "{info}");
        let mapped = pool.run(&["map", "--output", "json"], device, &[]).ok();
        assert!(!String::from_utf8(mapped.out).unwrap().contains("\"depth\": 1"));
        // What only an image has is asked for by the flag alone.
        let refused = pool.run(&["--snapshot", "monday"], device, &[]).refused(&["raw", "no snapshots"]);
        assert!(refused.err.contains("--format qcow2"), "{}", refused.err);
    }
    // The operator's word.
    let image = pool.run(&["digest", "--format", "qcow2"], guest.path(), &[]).ok().out;
    let behind = pool.run(&["digest"], other.path(), &[]).ok().out;
    assert_eq!(image, behind);
}

#[test]
fn other_magics_in_a_block_device_stop_no_backup() {
    let pool = Pool::new();
    for magic in [&b"KDMV"[..], b"vhdxfile", b"conectix", b"QED\0", b"LUKS\xba\xbe\0\x01"] {
        let guest = LoopDevice::filled(M, 3);
        write_at(guest.path(), 0, magic);
        let copy = pool.at("copy.img");
        let copied = pool.run(&[], guest.path(), &[copy.as_os_str()]).ok();
        assert!(copied.err.contains("warning: "), "{}", copied.err);
        assert!(fs::read(guest.path()).unwrap() == fs::read(&copy).unwrap());
    }
}

#[test]
fn a_file_that_is_not_named_qcow2_opens_no_backing_file() {
    let pool = Pool::new();
    for name in ["tenant.raw", "tenant.img", "tenant", "disk.1", "qcow2", "a.qcow2.raw", "a.qcow2.part", "a.qcow2x"] {
        let disk = pool.tenant(name);
        pool.refused(&disk, "backing file \"other.raw\"");
        let copy = pool.at("copy.img");
        pool.run(&["--format", "raw"], &disk, &[copy.as_os_str()]).ok();
        assert_same(&disk, &copy);
        pool.run(&["--format", "qcow2"], &disk, &[copy.as_os_str()]).ok();
        assert_same(&pool.at("other.raw"), &copy);
        fs::remove_file(copy).unwrap();
        fs::remove_file(disk).unwrap();
    }
}

#[test]
fn a_file_that_is_not_named_qcow2_opens_no_data_file() {
    let pool = Pool::new();
    let image = pool.at("tenant.raw");
    Qcow2::new(M).option("data_file=other.data").write(0, K, Fill::Same(1)).make(&image);
    pool.refused(&image, "data file \"other.data\"");
    pool.run(&["digest", "--format", "qcow2"], &image, &[]).ok();
}

#[test]
fn undeclared_and_unread_backing_files_are_no_way_around_it() {
    let pool = Pool::new();
    let image = pool.at("tenant.raw");
    for (name, declared) in [("other.raw", None), ("other.raw", Some("vmdk"))] {
        let _not_there = fs::remove_file(&image);
        // The names are written past qemu-img, which would look for them.
        Qcow2::new(M).backing(name, Some("raw")).make(&image);
        if declared.is_none() {
            let bytes = fs::read(&image).unwrap();
            let at = bytes.windows(4).position(|four| four == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
            write_at(&image, at as u64, &[0x12, 0x34, 0x56, 0x78]);
        }
        for args in [&["digest"][..], &["digest", "--backing-format", "raw"], &["digest", "--allow", "/"]] {
            let refused = pool.run(args, &image, &[]).refused(&["content", "other.raw"]);
            assert!(refused.err.contains("--format qcow2"), "{}", refused.err);
        }
    }
    pool.run(&["digest", "--no-backing"], &image, &[]).refused(&["--no-backing"]);
}

#[test]
fn the_other_file_is_not_even_touched() {
    requires(&["strace"]);
    let pool = Pool::new();
    let disk = pool.tenant("tenant.img");
    for words in [&["info"][..], &["map"], &["digest"], &["manifest"], &[]] {
        let log = pool.at("strace");
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-e", "trace=%file", "-o"]).arg(&log).arg(&pool.tools.xfer_hole).args(words);
        let _refused = run(traced.arg(&disk), b"");
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("tenant.img") && !log.contains("other.raw"), "{words:?}: {log}");
    }
}

#[test]
fn an_image_that_stands_alone_is_read_under_any_name() {
    let pool = Pool::new();
    for name in ["disk.img", "disk", "volume-1"] {
        let image = pool.at(name);
        Qcow2::new(M).write(0, 100 * K, Fill::Noise(1)).make(&image);
        let said = rig::assert_as(&pool.tools, &image, &[], &image);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("warning: ") && said.contains("--format qcow2|raw"), "{said}");
        assert_as_qemu(&pool.tools, &image, &["--format", "qcow2"]);
    }
}

#[test]
fn names_of_qcow2_images_open_what_is_beside_them() {
    let pool = Pool::new();
    for name in ["a.qcow2", "A.QCOW2", "a.qcow", "a.qcow2.bak", "a.qcow2.2026-11-28", "a.b.qcow2", ".qcow2"] {
        let image = pool.at(name);
        Qcow2::new(M).backing("other.raw", Some("raw")).make(&image);
        let copy = pool.at("copy.img");
        let copied = pool.run(&[], &image, &[copy.as_os_str()]).ok();
        assert!(!copied.err.contains("warning"), "{}", copied.err);
        assert_same(&pool.at("other.raw"), &copy);
    }
}

#[test]
fn a_link_says_what_a_file_is_only_if_the_file_s_name_does() {
    let pool = Pool::new();
    let (disk, image) = (pool.tenant("tenant.raw"), pool.tenant("image.qcow2"));
    for (link, to) in [("web.qcow2", &disk), ("web", &image)] {
        symlink(to, pool.at(link)).unwrap();
        pool.refused(&pool.at(link), "backing file \"other.raw\"");
    }
    symlink(&image, pool.at("link.qcow2")).unwrap();
    let digest = |image: &str| pool.run(&["digest"], &pool.at(image), &[]).ok().out;
    assert_eq!(digest("link.qcow2"), digest("other.raw"));
    // Whose descriptor it is has no name of its own.
    for name in ["/dev/stdin", "/proc/self/fd/0", "/dev/fd/0"] {
        let mut command = Command::new(&pool.tools.xfer_hole);
        let out = command.args(["digest", name]).stdin(File::open(&image).unwrap()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(2) && said.contains("--format qcow2"), "{name}: {said}");
    }
}

#[test]
fn a_push_and_a_pull_open_it_no_more_than_a_copy() {
    let toolbox = Toolbox::new().with("xfer-hole", &tools!().xfer_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    let pool = Pool::new();
    let disk = pool.tenant("tenant.img");
    let there = far.account.home("");
    for name in ["tenant.img", "other.raw"] {
        fs::copy(pool.at(name), there.join(name)).unwrap();
        chown(there.join(name), Some(far.account.uid()), None).unwrap();
    }
    for receiver in ["sh", "auto"] {
        let pushed = far.push(&["--receiver", receiver], &disk, "out.img").refused(&["content", "other.raw"]);
        assert!(pushed.err.contains("--format qcow2"), "{}", pushed.err);
        assert!(!there.join("out.img").exists() && !there.join("out.img.part").exists());
    }
    let dest = far.near("out.img");
    let pulled = far.pull(&[], "tenant.img", &dest).blamed(HOST, &["content", "other.raw"]);
    assert!(pulled.err.contains("-M --format=qcow2") && !dest.exists(), "{}", pulled.err);
    far.pull(&["-M", "--format=raw"], "tenant.img", &dest).ok();
    assert_same(&disk, &dest);
    far.pull(&["-M", "--format=qcow2"], "tenant.img", &dest).ok();
    assert_same(&pool.at("other.raw"), &dest);
}

#[test]
fn fold_and_prune_take_no_image_by_content_for_a_layer() {
    let pool = Pool::new();
    let disk = pool.tenant("tenant.raw");
    TestDisk::empty(2 * M).with(0, K, 1).make(&pool.at("layer.raw"));
    for (command, words) in [("fold", [&disk, &pool.at("layer.raw")]), ("prune", [&pool.at("layer.raw"), &disk])] {
        let (one, two) = (words[0], words[1].as_os_str());
        pool.run(&[command], one, &[two]).refused(&["tenant.raw", "qcow2"]);
    }
    assert!(!holds_secret(&fs::read(pool.at("layer.raw")).unwrap()));
}
