//! A transfer that was cut goes on from its `.part` when it is run again, wherever it was cut, and by whatever.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{
    Before, Cut, FarEnd, Flowed, Setup, TestDisk, Toolbox, Wiretap, assert_same, converse, differing, held, holes,
    holes_within, mark_part, part_of, run, tool, tools,
};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const INTERVAL: usize = 64 << 10;
const GRAIN: usize = 4 << 10;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn disk() -> TestDisk {
    TestDisk::empty(24 * MIB + 512)
        .with(0, 3 * MIB, 1)
        .with(5 * MIB + 4 * KIB, 6 * MIB, 2)
        .with(14 * MIB, 200 * KIB, 3)
        .with(20 * MIB, 4 * MIB + 512, 4)
}

/// A folder with a disk to be sent.
struct Case {
    _folder: TempDir,
    image: PathBuf,
    dest: PathBuf,
    new: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, dest) = (folder.path().join("image"), folder.path().join("dest"));
        disk().make(&image);
        Self { _folder: folder, image, dest, new: disk().bytes() }
    }

    /// What the receiver holds.
    fn held(&self) -> Vec<u8> {
        held(&part_of(&self.dest), &self.dest)
    }

    /// Bytes of data that are missing where an interval is as long.
    fn missing(&self) -> u64 {
        differing(&self.held(), &self.new, INTERVAL, GRAIN)
    }

    /// A transfer that is cut.
    #[track_caller]
    fn cut(&self, cut: Cut) -> Flowed {
        let (sent, received, flowed) = converse(&tools!(), &[], &self.image, &[], &self.dest, cut);
        assert_ne!(sent.code, Some(0), "{cut:?}");
        assert_ne!(received.code, Some(0), "{cut:?}");
        flowed
    }

    /// The transfer that ends well: what flowed is what was missing.
    #[track_caller]
    fn ends(&self, what: &str) -> Flowed {
        let part = fs::metadata(part_of(&self.dest)).is_ok_and(|part| part.blocks() > 0);
        let missing = self.missing();
        let (sent, received, flowed) = converse(&tools!(), &[], &self.image, &[], &self.dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
        assert_same(&self.image, &self.dest);
        assert_eq!(holes(&self.dest), holes_within(&self.image, 4096), "{what}");
        assert!(!part_of(&self.dest).exists(), "{what}");
        assert_eq!(flowed.want().is_some(), part, "{what}: goes on where there is something to go on from");
        if part {
            assert_eq!(flowed.payload(), missing, "{what}");
        }
        flowed
    }
}

#[test]
fn wherever_and_by_whatever_it_is_cut_what_is_missing_is_what_flows_again() {
    let case = Case::new();
    let all = case.ends("undisturbed").up.len();
    let mut random = Random(6);
    let mut resumed = 0;
    for round in 0..20 {
        let _anew = (fs::remove_file(&case.dest), fs::remove_file(part_of(&case.dest)));
        let at = random.below(all);
        let cut = [Cut::Link(at), Cut::Sender(at), Cut::Receiver(at)][round % 3];
        case.cut(cut);
        assert!(!case.dest.exists());
        let what = format!("round {round}, {cut:?}");
        let flowed = case.ends(&what);
        resumed += usize::from(flowed.want().is_some());
        // What had arrived doesn't flow again, but for what the receiver had in hand when it was killed.
        let in_hand = if matches!(cut, Cut::Receiver(_)) { 6 * MIB } else { MIB };
        let most = (all - at) as u64 + in_hand + 2 * INTERVAL as u64;
        assert!(
            flowed.want().is_none() || flowed.payload() <= most,
            "{what}: {} of {all} flowed again",
            flowed.payload()
        );
    }
    assert!(resumed >= 12, "{resumed} of 20 went on");
}

#[test]
fn cut_again_and_again_it_still_ends() {
    let case = Case::new();
    let mut random = Random(7);
    let mut rounds = 0;
    loop {
        let before = case.missing();
        let at = 2 * MIB + 600 * KIB + u64::try_from(random.below(1 << 20)).unwrap();
        let at = usize::try_from(at).unwrap();
        let cut = [Cut::Link(at), Cut::Sender(at), Cut::Receiver(at)][rounds % 3];
        let (sent, received, flowed) = converse(&tools!(), &[], &case.image, &[], &case.dest, cut);
        rounds += 1;
        if sent.code == Some(0) {
            assert_eq!(received.code, Some(0), "{}", received.err);
            break;
        }
        assert!(case.missing() <= before, "round {rounds}, {cut:?}: what had come is lost");
        assert!(rounds < 30, "{} bytes are missing after {rounds} rounds, {} flowed", case.missing(), flowed.payload());
    }
    assert!(rounds > 3, "{rounds} rounds");
    assert_same(&case.image, &case.dest);
    assert!(!part_of(&case.dest).exists());
}

#[test]
fn a_delta_that_is_cut_goes_on_and_the_old_disk_fills_what_is_missing() {
    let case = Case::new();
    let old = disk().with(MIB, 64 * KIB, 8).with(7 * MIB, 3 * MIB, 8).with(17 * MIB, MIB, 8);
    let mut random = Random(8);
    for round in 0..9 {
        let _left = fs::remove_file(part_of(&case.dest));
        old.make(&case.dest);
        let before = Before::of(&case.dest);
        let args: &[&str] = if round < 5 { &["--delta"] } else { &[] };
        // Of the delta 3 MiB and more, without one all flows.
        let at = random.below(usize::try_from(if args.is_empty() { 11 * MIB } else { 3 * MIB }).unwrap());
        let cut = [Cut::Link(at), Cut::Sender(at), Cut::Receiver(at)][round % 3];
        let (sent, received, _) = converse(&tools!(), args, &case.image, &[], &case.dest, cut);
        assert!(sent.code != Some(0) && received.code != Some(0), "{cut:?}");
        before.untouched("it was cut");
        let what = format!("round {round}, {cut:?} of {args:?}");
        let flowed = case.ends(&what);
        assert!(flowed.want().is_none() || flowed.payload() <= 3 * MIB + 128 * KIB, "{what}: {}", flowed.payload());
    }
}

#[test]
fn what_another_disk_has_left_is_found_out() {
    let case = Case::new();
    let other = TestDisk { size: 30 * MIB, ..TestDisk::empty(0) }.with(0, 30 * MIB, 7);
    let part = part_of(&case.dest);
    for (what, left) in [
        ("another", other.clone()),
        ("a shorter one", TestDisk { size: 9 * MIB + 77, data: vec![(0, 9 * MIB + 77, 7)] }),
        ("one byte changed", disk().with(6 * MIB, 1, 7)),
        ("data in its holes", disk().with(16 * MIB, 3 * MIB, 7)),
        ("the whole disk", disk()),
    ] {
        left.make(&part);
        mark_part(&part);
        case.ends(what);
        fs::remove_file(&case.dest).unwrap();
    }
}

#[test]
fn where_the_part_has_no_holes_the_old_disk_shows_through_its_zeros() {
    let case = Case::new();
    let old = disk().with(7 * MIB, 64 * KIB, 8).with(22 * MIB, 64 * KIB, 8);
    old.make(&case.dest);
    // As a file system without holes has it: half of the new disk, and zeros that are written behind.
    let half = usize::try_from(10 * MIB).unwrap();
    let mut left = case.new.clone();
    left[half..].fill(0);
    let part = part_of(&case.dest);
    fs::write(&part, &left).unwrap();
    mark_part(&part);
    let mut told = left;
    told[half..].copy_from_slice(&old.bytes()[half..]);
    for hole in told[..half].chunks_mut(4096).zip(old.bytes().chunks(4096)) {
        if hole.0.iter().all(|&byte| byte == 0) {
            hole.0.copy_from_slice(hole.1);
        }
    }
    let (sent, received, flowed) = converse(&tools!(), &[], &case.image, &[], &case.dest, Cut::Never);
    assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
    assert_same(&case.image, &case.dest);
    assert!(flowed.want().is_some());
    assert_eq!(flowed.payload(), differing(&told, &case.new, INTERVAL, GRAIN));
    assert_eq!(flowed.payload(), 64 * KIB);
}

#[test]
fn no_resume_starts_over() {
    let case = Case::new();
    let data = case.ends("undisturbed").payload();
    for cut in [Cut::Link(4 << 20), Cut::Receiver(4 << 20)] {
        let _anew = (fs::remove_file(&case.dest), fs::remove_file(part_of(&case.dest)));
        case.cut(cut);
        let args = ["--no-resume"];
        let (sent, received, flowed) = converse(&tools!(), &args, &case.image, &[], &case.dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
        assert_eq!((flowed.want(), flowed.payload()), (None, data));
        assert_same(&case.image, &case.dest);
    }
}

#[test]
fn what_somebody_else_has_put_there_is_not_built_on() {
    let case = Case::new();
    let part = part_of(&case.dest);
    let precious = case.dest.with_file_name("precious");
    disk().make(&precious);
    let before = Before::of(&precious);
    // A link is refused, with delta and without.
    symlink(&precious, &part).unwrap();
    for args in [&[][..], &["--delta"]] {
        let (sent, received, flowed) = converse(&tools!(), args, &case.image, &[], &case.dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(2), Some(2)));
        let said = flowed.answers().pop().unwrap();
        assert!(said.contains("is a symbolic link, which is not followed"), "{said}");
    }
    before.untouched("a link to it");
    fs::remove_file(&part).unwrap();
    // A file that no transfer has left, though it is private, is refused.
    disk().make(&part);
    tool("chmod", &["600", part.to_str().unwrap()]);
    let foreign = Before::of(&part);
    for args in [&[][..], &["--delta"]] {
        let (sent, received, flowed) = converse(&tools!(), args, &case.image, &[], &case.dest, Cut::Never);
        assert_eq!((sent.code, received.code), (Some(2), Some(2)));
        let said = flowed.answers().pop().unwrap();
        assert!(said.contains("no transfer has left it"), "{said}");
    }
    foreign.untouched("no transfer has left it");
    fs::remove_file(&part).unwrap();
    // Leftovers that another user may have open, or that have other names: a new file is made instead.
    let make: [(&str, &dyn Fn()); 3] = [
        ("another name", &|| {
            fs::hard_link(&precious, &part).unwrap();
            mark_part(&part);
        }),
        ("another's", &|| {
            disk().make(&part);
            mark_part(&part);
            chown(&part, Some(65534), None).unwrap();
        }),
        ("open to others", &|| {
            disk().make(&part);
            mark_part(&part);
            tool("chmod", &["666", part.to_str().unwrap()]);
        }),
    ];
    for (what, make) in make {
        for args in [&[][..], &["--delta"]] {
            make();
            let inode = fs::metadata(&part).unwrap().ino();
            // By its number it could be taken for the one that was removed.
            let _held = File::open(&part).unwrap();
            let (sent, received, flowed) = converse(&tools!(), args, &case.image, &[], &case.dest, Cut::Never);
            assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
            assert_same(&case.image, &case.dest);
            assert_ne!(fs::metadata(&case.dest).unwrap().ino(), inode, "{what}");
            assert_eq!(flowed.payload(), differing(&[], &case.new, INTERVAL, GRAIN), "{what}");
            fs::remove_file(&case.dest).unwrap();
        }
    }
    assert!(fs::read(&precious).unwrap() == before.bytes());
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
}

#[test]
fn in_place_there_is_no_part_and_a_delta_goes_on() {
    let case = Case::new();
    TestDisk::empty(24 * MIB).make(&case.dest);
    let args = ["--in-place"];
    let (sent, received, _) = converse(&tools!(), &[], &case.image, &args, &case.dest, Cut::Link(6 << 20));
    assert!(sent.code != Some(0) && received.code != Some(0));
    let missing = case.missing();
    let (sent, received, flowed) = converse(&tools!(), &["--delta"], &case.image, &args, &case.dest, Cut::Never);
    assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
    assert_same(&case.image, &case.dest);
    assert_eq!(flowed.payload(), missing);
    assert!(missing < 9 * MIB, "{missing} bytes were missing");
}

/// ssh, of which the sender's direction ends after so many bytes.
fn cutting(tap: &Wiretap, path: &Path, pull: bool, bytes: usize) -> PathBuf {
    let program = path.join("cutting");
    let tap = tap.program();
    let cuts = if pull { ">" } else { "<" };
    let text = format!("#!/bin/bash\nexec '{}' \"$@\" {cuts} {cuts}(exec stdbuf -o0 head -c {bytes})\n", tap.display());
    fs::write(&program, text).unwrap();
    tool("chmod", &["755", program.to_str().unwrap()]);
    program
}

#[test]
fn over_ssh_push_and_pull_go_on() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let tap = Wiretap::new(&far.sshd);
    let image = far.image("disk.img", &disk());
    let there = far.account.home("there.img");
    fs::copy(&image, &there).unwrap();
    let new = disk().bytes();
    for pull in [false, true] {
        let dest = if pull { far.near("back.img") } else { far.account.home("out.img") };
        let run_by = |program: &Path| {
            let (tool, from, to) = match pull {
                true => (tools!().recv_hole, far.place(&there), dest.clone().into_os_string()),
                false => (tools!().xfer_hole, image.clone().into_os_string(), far.place(&dest)),
            };
            let mut command = Command::new("timeout");
            run(command.args(["-s", "KILL", "60"]).arg(tool).args(["-q", "-e"]).arg(program).arg(from).arg(to), b"")
        };
        for bytes in [3 << 20, 8 << 20] {
            let cut = run_by(&cutting(&tap, &far.near(""), pull, bytes));
            assert_eq!(cut.code, Some(75), "{}", cut.err);
            assert!(!dest.exists(), "{}", cut.err);
        }
        rig::wait_until("nobody writes there", || far.account.processes().is_empty());
        let missing = differing(&held(&part_of(&dest), &dest), &new, INTERVAL, GRAIN);
        assert!(missing > 0 && missing < 6 * MIB, "{missing}");
        let ended = run_by(&tap.program());
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        assert_same(&image, &dest);
        let size = new.len() as u64;
        let flowed = if pull { tap.pulled(size) } else { tap.pushed(size) };
        assert_eq!(flowed.payload(), missing);
        assert!(!part_of(&dest).exists());
    }
}

#[test]
fn a_part_that_nothing_was_written_to_is_nothing_to_go_on_from() {
    let case = Case::new();
    let part = part_of(&case.dest);
    File::create(&part).unwrap().set_len(24 * MIB).unwrap();
    mark_part(&part);
    case.ends("an empty one");
    // One that was cut to half, as a file system may after a crash, is.
    disk().make(&part);
    let file = File::options().write(true).open(&part).unwrap();
    file.set_len(9 * MIB).unwrap();
    file.write_all_at(&[0; 5000], 6 * MIB).unwrap();
    mark_part(&part);
    let _anew = fs::remove_file(&case.dest);
    case.ends("half of one, with zeros in it");
}
