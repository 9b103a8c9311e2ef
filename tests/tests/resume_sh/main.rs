//! A push to recv-hole.sh that was cut goes on when it is run again, whatever cut it, and whatever became of DEST.part meanwhile.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod far;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use rig::{Running, TestDisk, assert_same, holes, mode, run, tool, tools, wait_until};
use tempfile::TempDir;
use xfer_hole_proto::Digest;

use crate::far::{CUT_SO, Far, INTERVAL, wire};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const SHELLS: [&str; 7] = ["dash", "bash", "busybox", "mksh", "ksh93", "yash", "zsh"];

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Data and holes of all lengths, on interval multiples and off them, and an end that is no multiple of anything.
fn disk() -> TestDisk {
    TestDisk::empty(12 * M + 777)
        .with(0, M + 4 * K, 1)
        .with(M + 40 * K, 3 * INTERVAL, 2)
        .with(3 * M, 2 * M + 60 * K, 3)
        .with(5 * M + 100 * K, 8 * K, 4)
        .with(8 * M - 64 * K, 3 * M, 5)
        .with(12 * M, 777, 6)
}

#[test]
fn cut_at_any_byte_what_is_sent_again_is_what_was_missing() {
    let far = Far::new("dash", &disk());
    let (whole, mut random) = (far.finish(&[]), Random(1));
    for round in 0..20 {
        let bytes = random.below(whole);
        fs::remove_file(&far.dest).unwrap();
        far.cut(bytes);
        assert_eq!(mode(&far.lines()), 0o600, "cut behind {bytes}");
        let missing = far.missing();
        let again = far.finish(&[]);
        let allowed = far.allowed(missing);
        assert!(
            again <= allowed,
            "round {round}, cut behind {bytes}: {missing} were missing, {again} were sent, not {allowed}"
        );
    }
}

#[test]
fn whoever_is_killed_what_is_sent_again_is_what_was_missing() {
    let far = Far::new("dash", &disk());
    let mut random = Random(2);
    for round in 0..12 {
        let _old = fs::remove_file(&far.dest);
        let until = random.below(6 * M);
        let mut sender = far.sender(&[&CUT_SO, &["--bwlimit", "8M"][..]].concat());
        let mut sends = Running::between(Stdio::null(), &mut sender, Stdio::null());
        wait_until("bytes arrive", || {
            fs::metadata(far.part()).is_ok_and(|stat| stat.blocks() * 512 > until) || !sends.lives()
        });
        match round % 3 {
            0 => drop(sends.kill()),
            1 => {
                sends.signal(Signal::SIGTERM);
                assert_eq!(sends.end().code, Some(128 + Signal::SIGTERM as i32));
            }
            _ => {
                nix::sys::signal::kill(sends.pid(), Signal::SIGKILL).unwrap();
                drop(sends.end());
            }
        }
        // The far end may take a moment to notice.
        wait_until("nobody writes", || {
            tool("sh", &["-c", &format!("flock -n '{}' echo free || :", far.part().display())]) == "free\n"
        });
        let missing = far.missing();
        let again = far.finish(&[]);
        let allowed = far.allowed(missing);
        assert!(
            again <= allowed,
            "round {round}, killed at {until}: {missing} were missing, {again} were sent, not {allowed}"
        );
    }
}

#[test]
fn cut_again_and_again_it_comes_to_its_end() {
    let far = Far::new("dash", &disk());
    let data = far.missing();
    let (mut runs, mut sent) = (0, 0);
    loop {
        runs += 1;
        assert!(runs < 40, "{data} bytes of data in pieces of {M} take more than 40 runs");
        let cut = far.folder.path().join("cut");
        fs::write(&cut, M.to_string()).unwrap();
        let outcome = far.push(&[]);
        fs::remove_file(cut).unwrap();
        if outcome.code == Some(0) {
            break;
        }
        assert_eq!(outcome.code, Some(2), "{}", outcome.err);
        sent += M;
    }
    assert_same(&far.image, &far.dest);
    assert!(sent <= data + runs * (2 * INTERVAL + 20 * K), "{data} bytes of data, {sent} sent in {runs} runs");
    assert!(!far.part().exists() && !far.lines().exists());
}

#[test]
fn every_sh_goes_on() {
    for sh in SHELLS {
        let far = Far::new(sh, &disk());
        far.cut(4 * M);
        // In a hole, and once more at once.
        let missing = far.missing();
        far.cut(700);
        let again = far.finish(&[]);
        assert!(again <= far.allowed(missing), "{sh}: {missing} were missing, {again} were sent");
        let sent = holes(&far.dest);
        assert!(sent.iter().map(|hole| hole.1).sum::<u64>() >= 3 * M, "{sh}: {sent:?}");
    }
}

/// Writes one byte into a file.
fn poke(path: &Path, at: u64, byte: u8) {
    File::options().write(true).open(path).unwrap().write_all_at(&[byte], at).unwrap();
}

#[test]
fn what_becomes_of_the_part_meanwhile_is_found_out() {
    type Harm<'a> = (&'a str, &'a dyn Fn(&Far), u64);
    let truncate = |far: &Far, len| File::options().write(true).open(far.part()).unwrap().set_len(len).unwrap();
    let harms: [Harm<'_>; 6] = [
        ("a byte of data", &|far| poke(&far.part(), 3 * M + 5, 0), 3 * M),
        ("the first byte", &|far| poke(&far.part(), 0, 0), 0),
        ("a byte in a hole", &|far| poke(&far.part(), 2 * M + 5, 7), 12 * M),
        ("cut", &|far| truncate(far, 4 * M), 4 * M),
        ("longer", &|far| truncate(far, 99 * M), 12 * M),
        ("emptied", &|far| truncate(far, 0), 0),
    ];
    for (what, harm, from) in harms {
        let far = Far::new("dash", &disk());
        far.cut(5 * M);
        harm(&far);
        let missing = far.missing();
        let again = far.finish(&[]);
        // What is behind the first that is wrong is not believed.
        let allowed = far.allowed(missing) + if from < 12 * M { 7 * M } else { 0 };
        assert!(again <= allowed, "{what}: {missing} were missing, {again} were sent, not {allowed}");
        // A hole is punched again: nothing has to be sent for it.
        assert!(what == "a byte in a hole" || again >= missing, "{what}: {missing} were missing, {again} were sent");
    }
}

#[test]
fn another_file_by_the_name_of_part_is_refused_before_anything_is_sent() {
    let other = TempDir::new().unwrap();
    let far = Far::new("dash", &disk());
    far.cut(5 * M);
    fs::rename(far.part(), other.path().join("ours")).unwrap();
    TestDisk::empty(disk().size).with(0, 9 * M, 99).make(&far.part());
    let before = rig::Before::of(&far.part());
    let outcome = far.push(&[]);
    assert!(outcome.code == Some(2) && outcome.err.contains("--force"), "{}", outcome.err);
    before.untouched("another program's file");
    run(far.sender(&CUT_SO).arg("--force"), b"").ok();
    assert_same(&far.image, &far.dest);
}

#[test]
fn a_hole_is_looked_at_where_none_can_be_punched() {
    let mut far = Far::new("dash", &disk());
    far.toolbox = far.toolbox.script("fallocate", "exit 1");
    let path = format!("{}:{}", far.toolbox.path(), std::env::var("PATH").unwrap());
    let push = |far: &Far| run(far.sender(&CUT_SO).env("PATH", &path), b"");
    far.cut(5 * M);
    let missing = far.missing();
    poke(&far.part(), 2 * M + 5, 7);
    let again = wire(&push(&far).ok());
    assert_same(&far.image, &far.dest);
    assert!(again > missing + M, "the offer ends before the hole: {missing} were missing, {again} were sent");

    fs::remove_file(&far.dest).unwrap();
    far.cut(5 * M);
    let again = wire(&push(&far).ok());
    assert_same(&far.image, &far.dest);
    assert!(again <= far.allowed(missing), "{missing} were missing, {again} were sent");
    assert!(far.toolbox.calls().iter().any(|call| call.starts_with("fallocate ")));
}

#[test]
fn reading_back_may_take_longer_than_a_dead_link_is_waited_for() {
    let mut far = Far::new("dash", &disk());
    far.cut(5 * M);
    let real = tool("sh", &["-c", "command -v sha256sum"]);
    far.toolbox = far.toolbox.script("sha256sum", &format!("mkdir \"$0.slow\" 2>/dev/null && sleep 9\nexec {real}"));
    let path = format!("{}:{}", far.toolbox.path(), std::env::var("PATH").unwrap());
    let outcome = run(far.sender(&[&CUT_SO, &["--timeout", "3"][..]].concat()).env("PATH", &path), b"").ok();
    assert_same(&far.image, &far.dest);
    assert!(wire(&outcome) < 4 * M, "{}", wire(&outcome));
}

#[test]
fn a_part_or_lines_that_are_a_link_are_not_gone_on_from() {
    let far = Far::new("dash", &disk());
    let theirs = far.folder.path().join("theirs");
    for name in [far.part(), far.lines()] {
        for hard in [false, true] {
            far.cut(5 * M);
            fs::rename(&name, &theirs).unwrap();
            let linked = if hard { fs::hard_link(&theirs, &name) } else { symlink(&theirs, &name) };
            linked.unwrap();
            let before = fs::read(&theirs).unwrap();
            let what = format!("{}, {hard}", name.display());
            if name == far.part() {
                let outcome = far.push(&[]);
                assert_eq!(outcome.code, Some(2), "{what}: {}", outcome.err);
                fs::remove_file(&name).unwrap();
            }
            let whole = far.finish(&[]);
            assert!(whole > 6 * M, "{what}: all is sent, not {whole}");
            assert!(fs::read(&theirs).unwrap() == before, "{what}: what it leads to is not touched");
            fs::remove_file(&far.dest).unwrap();
            fs::remove_file(&theirs).unwrap();
        }
    }
}

#[test]
fn lines_that_are_torn_or_lie_are_worth_what_is_whole_of_them() {
    let far = Far::new("dash", &disk());
    far.cut(5 * M);
    let (lines, part) = (fs::read_to_string(far.lines()).unwrap(), fs::read(far.part()).unwrap());
    let (header, records) = lines.split_once('\n').unwrap();
    let inode = |far: &Far| far.part().metadata().unwrap().ino().to_string();
    let fields: Vec<_> = header.split(' ').collect();
    let mark = ["XFER-HOLE-PART", &disk().size.to_string(), "131072", "4096", "inode", &inode(&far)];
    assert_eq!(fields, mark);
    let first = records.lines().next().unwrap();
    let cases = [
        ("torn", records[..records.len() - 20].to_owned(), true),
        ("torn in the middle", records[..records.len() / 2].to_owned(), true),
        ("no records", String::new(), false),
        ("NULs", records.replacen("DATA", "\0\0\0\0\0\0", 9), false),
        ("no numbers", records.replace("DATA 131072", "DATA x[$(touch${IFS}pwned)]"), false),
        ("leading zeros", records.replace("DATA 131072", "DATA 0131072"), false),
        ("off the grain", records.replacen("DATA 131072", "DATA 131071", 2), false),
        ("one left out", records.replacen(&format!("{first}\n"), "", 1), false),
        ("another word", records.replacen("DATA", "KEEP", 3), false),
        ("an endless hole", format!("HOLE 9223372036854775807\n{records}"), false),
        ("more than there is", format!("{records}HOLE {}\n", 12 * M), true),
        ("a disk of holes", format!("HOLE {}\n", disk().size), false),
    ];
    for (what, records, some) in cases {
        let _old = fs::remove_file(&far.dest);
        fs::write(far.part(), &part).unwrap();
        let header = format!("XFER-HOLE-PART {} 131072 4096 inode {}", disk().size, inode(&far));
        fs::write(far.lines(), format!("{header}\n{records}")).unwrap();
        let again = far.finish(&[]);
        assert_eq!(again < 6 * M, some, "{what}: {again} were sent");
    }
    let wrong = [format!("{} 131073 4096", disk().size), format!("0{} 131072 4096", disk().size)];
    for header in ["1", "1 2 3", "", &wrong[0], &wrong[1]] {
        fs::remove_file(&far.dest).unwrap();
        fs::write(far.part(), &part).unwrap();
        fs::write(far.lines(), format!("XFER-HOLE-PART {header} inode {}\n{records}", inode(&far))).unwrap();
        assert!(far.finish(&[]) > 6 * M, "{header}");
    }
    assert!(!far.folder.path().join("pwned").exists());
}

#[test]
fn an_image_that_changed_since_sends_what_is_missing_and_what_changed() {
    let far = Far::new("dash", &disk());
    far.cut(5 * M);
    // In what was received: other data, data that became zeros, zeros that became data, and a hole beyond what is there.
    let changed =
        disk().with(0, 4 * K, 50).with(M, 4 * K, 0).with(2 * M + 5, 3000, 51).with(4 * M, 2 * M, 0).with(7 * M, 9, 52);
    changed.make(&far.image);
    let missing = far.missing();
    let again = far.finish(&[]);
    assert!(again <= far.allowed(missing), "{missing} were missing, {again} were sent");
    assert!(holes(&far.dest).iter().any(|&(at, len)| at <= 4 * M && at + len >= 6 * M), "zeros there are a hole");
    // Cut while it is told what to keep, it still comes to an end.
    fs::remove_file(&far.dest).unwrap();
    disk().make(&far.image);
    far.cut(5 * M);
    changed.make(&far.image);
    for _ in 0..3 {
        far.cut(300 * K);
    }
    far.finish(&[]);
}

#[test]
fn another_image_gets_nothing_of_the_part() {
    let far = Far::new("dash", &disk());
    far.cut(5 * M);
    TestDisk::empty(disk().size).with(0, 10 * M, 77).make(&far.image);
    assert!(far.finish(&[]) > 10 * M);
    for size in [0, 5, 4 * M, 13 * M] {
        let _old = fs::remove_file(&far.dest);
        disk().make(&far.image);
        far.cut(5 * M);
        TestDisk::empty(size).with(0, size.min(M), 1).make(&far.image);
        let sent = far.finish(&[]);
        assert!(sent >= size.min(M) && sent <= size.min(M) + 10 * K, "{size}: {sent}");
    }
}

#[test]
fn other_parameters_than_those_of_the_part_give_way_to_them() {
    let far = Far::new("dash", &disk());
    far.cut(5 * M);
    let missing = far.missing();
    let outcome = run(&mut far.sender(&["--print-digest"]), b"").ok();
    assert!(outcome.err.contains("sha256:131072:4096:"), "{}", outcome.err);
    assert_same(&far.image, &far.dest);
    assert!(wire(&outcome) <= far.allowed(missing));
}

#[test]
fn with_no_resume_or_without_digests_it_starts_over() {
    let far = Far::new("dash", &disk());
    let whole = far.finish(&[]);
    for args in [&["--no-resume"][..], &["--no-hash"]] {
        fs::remove_file(&far.dest).unwrap();
        far.cut(5 * M);
        let mut sender = far.sender(args);
        let sender = if args == ["--no-hash"] { &mut sender } else { sender.args(CUT_SO) };
        let outcome = run(sender, b"").ok();
        assert!(wire(&outcome) > whole - 100 * K, "{args:?}: {}", wire(&outcome));
        assert_same(&far.image, &far.dest);
        assert!(!far.part().exists() && !far.lines().exists());
    }
    // One that has no digests leaves a mark, and no lines of records, nor those of another.
    far.cut(5 * M);
    fs::write(far.folder.path().join("cut"), M.to_string()).unwrap();
    assert_eq!(run(&mut far.sender(&["--no-hash"]), b"").code, Some(2));
    fs::remove_file(far.folder.path().join("cut")).unwrap();
    assert!(far.part().exists());
    assert_eq!(fs::read_to_string(far.lines()).unwrap().lines().count(), 1);
}

#[test]
fn recv_hole_goes_on_from_what_the_script_has_left() {
    let mut far = Far::new("dash", &disk());
    far.toolbox = far.toolbox.with("recv-hole", &tools!().recv_hole);
    let path = format!("{}:{}", far.toolbox.path(), std::env::var("PATH").unwrap());
    far.cut(5 * M);
    let missing = far.missing();
    let outcome = run(far.sender(&["--receiver", "binary"]).env("PATH", path), b"").ok();
    assert_same(&far.image, &far.dest);
    assert!(!far.part().exists() && !far.lines().exists());
    assert!(wire(&outcome) <= missing + 2 * INTERVAL + 20 * K, "{missing} were missing, {} were sent", wire(&outcome));
}

#[test]
fn what_no_sender_says_is_refused_and_the_part_stays() {
    let far = Far::new("dash", &disk());
    far.cut(5 * M);
    let size = disk().size;
    let want = format!("WANT {size} sha256 131072 4096\n");
    let (code, said) = far.answers(&want);
    assert_eq!(code, Some(2));
    let manifest = said.split_once("XFER-HOLE-MANIFEST ").unwrap().1;
    let offered: u64 = manifest.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let (lines, end) = manifest.split_once('\n').unwrap().1.split_once("END ").unwrap();
    assert_eq!(end.lines().next().unwrap(), Digest::of(lines.as_bytes()).to_string());
    assert!(said.contains("XFER-HOLE-READY 1 sh delta part manifest-first new\n"), "{said}");

    let open = format!("XFER-HOLE 1 {size} sha256 131072 4096\n");
    let (zero, rest) = (Digest::of(b""), size - offered);
    let kept = format!("KEEP {offered}\nHOLE {rest}\n");
    let (sent, whole) = (Digest::of(kept.as_bytes()), format!("{open}BASE {offered}\n{kept}"));
    for (stream, why) in [
        (format!("{want}{whole}END {sent}\n"), "END without the digest of the result"),
        (format!("{want}{whole}END {sent} {zero}\n"), "not the sender's disk"),
        (format!("{want}{whole}END {zero} {zero}\n"), "wrong digest of the lines"),
        (format!("{want}{open}KEEP {offered}\n"), "KEEP without BASE"),
        (format!("{want}{open}BASE {}\n", offered + INTERVAL), "smaller than BASE"),
        (format!("{want}{open}BASE {offered}\nKEEP {}\n", offered + INTERVAL), "KEEP runs past BASE"),
        (format!("{want}XFER-HOLE 1 {size} sha256 65536 4096\n"), "another disk than was asked for"),
        (format!("{want}XFER-HOLE 1 {size}\n"), "another disk than was asked for"),
        (format!("{want}{want}"), "not a stream"),
        ("WANT 5\n".into(), "bad words in WANT"),
        (format!("WANT {size} sha256 131072 4096 x\n"), "bad digest in WANT"),
        (format!("WANT {size} sha256 131072 4096 {zero} x\n"), "bad words in WANT"),
        ("WANT 5 sha256 5 4096\n".into(), "bad interval"),
        (format!("{open}BASE {offered}\n"), "there is no "),
    ] {
        let part = (fs::read(far.part()).unwrap(), fs::read(far.lines()).unwrap());
        let (code, said) = far.answers(&stream);
        let last = said.lines().last().unwrap();
        assert!(code == Some(2) && last.starts_with("FAIL ") && last.contains(why), "{stream}: {said}");
        assert!(!far.dest.exists(), "{stream}");
        if !why.contains("there is no") && !why.contains("sender's disk") {
            let prefix = usize::try_from(offered).unwrap();
            assert!(fs::read(far.part()).unwrap()[..prefix] == part.0[..prefix], "{stream}");
        }
    }
}
