//! Other programs at `DEST.part` and DEST at the worst moment: system calls are delayed, and what happens meanwhile is found out.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rig::{
    Before, Cut, Filesystem, Fs, Outcome, Receiver, Running, TestDisk, assert_same, converse, holes, mark_part, mode,
    part_of, pour, requires, run, tools, wait_until,
};
use xfer_hole_target::{DiskWriter, Target, TargetOptions};

const MIB: u64 = 1 << 20;
/// nobody
const USER: u32 = 65534;

fn disk() -> TestDisk {
    TestDisk::empty(4 * MIB).with(MIB, MIB, 1)
}

/// `recv-hole --no-sync DEST` under strace, which does this to system calls.
fn injected(inject: &str, args: &[&str], dest: &Path) -> Command {
    requires(&["strace"]);
    let traced = inject.split(':').next().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={traced}"), "-e", &format!("inject={inject}")]);
    command.arg(tools!().recv_hole).args(args).arg(dest);
    command
}

/// What another receiver does while this one waits before it locks `DEST.part`.
type Meanwhile<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn what_another_receiver_wrote_before_the_lock_is_not_in_the_disk() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let dest = fs.join("out.img");
    let part = part_of(&dest);
    let write = |len: usize| {
        let file = File::options().write(true).open(&part).unwrap();
        file.lock().unwrap();
        mark_part(&part);
        file.write_all_at(&vec![0xee; len], 0).unwrap();
    };
    let meanwhile: [Meanwhile<'_>; 4] = [
        ("wrote some and died", &|_| write(3 << 20)),
        ("wrote more than the disk has and died", &|_| write(5 << 20)),
        ("wrote and gave it its name", &|dest| {
            write(3 << 20);
            fs::rename(&part, dest).unwrap();
        }),
        ("removed it", &|_| fs::remove_file(&part).unwrap()),
    ];
    for leftover in [false, true] {
        for (what, act) in meanwhile {
            if leftover {
                File::create(&part).unwrap();
                mark_part(&part);
            }
            let mut receiver = injected("flock:delay_enter=4000000:when=1", &["--no-sync"], &dest);
            let mut receives = Running::start(&mut receiver);
            receives.say(&stream[..1000]);
            // It is opened, and not locked yet.
            wait_until("it is opened", || holders(&part) > 0);
            act(&dest);
            receives.say(&stream[1000..]);
            receives.end().ok();
            assert_same(&image, &dest);
            assert_eq!(holes(&dest), holes(&image), "{what}, leftover {leftover}");
            assert!(!part.exists(), "{what}, leftover {leftover}");
            fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn an_increment_builds_on_the_dest_that_is_there_once_it_has_the_lock() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let part = part_of(&dest);
    let stream = [b"XFER-HOLE 1 8192\nBASE 8192\nDATA 4096\n", &[3; 4096][..], b"KEEP 4096\nEND\n"].concat();
    for args in [&["--no-sync"][..], &[]] {
        for leftover in [false, true] {
            fs::write(&dest, [1; 8192]).unwrap();
            if leftover {
                fs::write(&part, [5; 100]).unwrap();
                mark_part(&part);
            }
            let mut receives = Running::start(&mut injected("flock:delay_enter=4000000:when=1", args, &dest));
            receives.say(&stream[..1000]);
            wait_until("it is opened, and not locked yet", || holders(&part) > 0);
            // The one before it succeeds.
            let file = File::options().write(true).open(&part).unwrap();
            file.lock().unwrap();
            file.write_all_at(&[2; 8192], 0).unwrap();
            fs::rename(&part, &dest).unwrap();
            drop(file);
            receives.say(&stream[1000..]);
            receives.end().ok();
            assert!(fs::read(&dest).unwrap() == [[3; 4096], [2; 4096]].concat(), "{args:?}, leftover {leftover}");
            assert!(!part.exists());
        }
    }
}

#[test]
fn a_kill_between_exchange_and_removal_leaves_what_is_replaced() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let (dest, sent) = (fs.join("out.img"), fs.join("stream"));
    fs::write(&sent, &stream).unwrap();
    let part = part_of(&dest);
    for receiver in Receiver::both() {
        TestDisk::empty(2 * MIB).with(0, MIB, 7).make(&dest);
        let old = fs::read(&dest).unwrap();
        let inode = fs::metadata(&dest).unwrap().ino();
        let mut killed = injected("renameat2:delay_exit=3000000:when=1", &["--no-sync"], &dest);
        let killed = Running::between(File::open(&sent).unwrap(), &mut killed, Stdio::null());
        wait_until("the names are exchanged", || fs::metadata(&dest).unwrap().ino() != inode);
        for holder in holding(&part) {
            nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        let _killed = killed.end();
        assert_same(&image, &dest);
        assert!(fs::read(&part).unwrap() == old);
        // It is in no transfer's way, and nothing goes on with it.
        if receiver == Receiver::Binary {
            let (sent, received, flowed) = converse(&tools!(), &[], &image, &[], &dest, Cut::Never);
            assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{} {}", sent.err, received.err);
            assert!(flowed.want().is_none());
        } else {
            run(&mut receiver.command(&tools!(), &dest, false, true), &stream).ok();
        }
        assert_same(&image, &dest);
        assert!(!part.exists() && attributes(&dest).is_empty(), "{receiver:?}: {}", attributes(&dest));
    }
}

#[test]
fn the_side_file_of_a_receiver_that_begins_at_the_rename_stays() {
    let fs = Filesystem::new(Fs::Ramfs, 64 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let (dest, sent) = (fs.join("out.img"), fs.join("stream"));
    fs::write(&sent, &stream).unwrap();
    let part = part_of(&dest);
    let mut first = injected("rename,renameat,renameat2:delay_exit=4000000:when=1", &[], &dest);
    let first = Running::between(File::open(&sent).unwrap(), &mut first, Stdio::null());
    wait_until("the first has given it its name", || dest.exists());
    let mut second = Running::start(Command::new(tools!().recv_hole).arg("--force").arg(&dest));
    second.say(&stream[..stream.len() / 2]);
    let marked = || {
        let inode = fs::metadata(&part).map(|stat| stat.ino()).unwrap_or_default();
        fs::read_to_string(part.with_extension("part.lines")).is_ok_and(|line| line.ends_with(&format!(" {inode}\n")))
    };
    wait_until("the second has begun", marked);
    first.end().ok();
    assert!(marked());
    assert_eq!(second.kill().code, None);
    // It is known to be no user's file.
    run(Command::new(tools!().recv_hole).arg(&dest), &stream).ok();
    assert_same(&image, &dest);
    assert!(!part.exists() && !part.with_extension("part.lines").exists());
}

/// The processes that have this file open.
fn holding(path: &Path) -> Vec<nix::unistd::Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let holds = |pid: &i32| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .is_ok_and(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == path)))
    };
    pids.filter(holds).map(nix::unistd::Pid::from_raw).collect()
}

/// How many descriptors of all processes are open on this file.
fn holders(path: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let open = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).flat_map(Iterator::flatten);
    open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == path)).count()
}

#[test]
fn one_that_waited_for_the_lock_builds_on_what_its_holder_made() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let part = part_of(&dest);
    let options = || TargetOptions { patience: Some(Duration::from_secs(60)), no_sync: true, ..Default::default() };
    type MakesSink<'a> = &'a (dyn Fn(Target) -> Box<dyn DiskWriter> + Sync);
    let makes_sink: [(&str, MakesSink<'_>); 2] = [
        ("an increment", &|target| target.open(Some(8192), Some(8192)).unwrap()),
        ("a delta", &|target| target.hold(8192, false).unwrap().writer),
    ];
    for (what, make) in makes_sink {
        fs::write(&dest, [1; 8192]).unwrap();
        fs::write(&part, [2; 8192]).unwrap();
        mark_part(&part);
        let holder = File::options().read(true).write(true).open(&part).unwrap();
        holder.lock().unwrap();
        let target = Target::find(&dest, options()).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| make(target));
            wait_until("the other waits for the lock", || holders(&part) > 1);
            // The holder has done what it was to do.
            fs::rename(&part, &dest).unwrap();
            drop(holder);
            let sink = waits.join().unwrap();
            sink.write_at(0, &[3; 4096]).unwrap();
            if what == "an increment" {
                sink.keep_existing(4096, 4096).unwrap();
            } else {
                sink.write_at(4096, &[2; 4096]).unwrap();
            }
            sink.commit(8192).unwrap();
        });
        let expected = [[3; 4096], [2; 4096]].concat();
        assert!(fs::read(&dest).unwrap() == expected, "{what}");
    }
}

#[test]
fn a_dest_that_the_holder_of_the_lock_made_is_not_replaced_with_no_clobber() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let part = part_of(&dest);
    fs::write(&part, "its disk").unwrap();
    mark_part(&part);
    let holder = File::options().read(true).write(true).open(&part).unwrap();
    holder.lock().unwrap();
    let options = TargetOptions {
        patience: Some(Duration::from_secs(60)),
        no_sync: true,
        no_clobber: true,
        ..Default::default()
    };
    let target = Target::find(&dest, options).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| target.open(Some(4096), None).err());
        wait_until("the other waits for the lock", || holders(&part) > 1);
        fs::rename(&part, &dest).unwrap();
        drop(holder);
        // Before anything is sent.
        let refused = waits.join().unwrap().unwrap().to_string();
        assert!(refused.contains("is there already"), "{refused}");
    });
    assert_eq!(fs::read(&dest).unwrap(), b"its disk");
    assert!(!part.exists());
}

/// A push to `recv-hole` that is killed at this system call: the receiver's end.
fn killed_at(inject: &str, image: &Path, dest: &Path, args: &[&str]) {
    let stream = pour(&tools!(), &["--hash"], image);
    let outcome = run(&mut injected(inject, args, dest), &stream);
    assert_ne!(outcome.code, Some(0), "{inject}: {}", outcome.err);
    assert!(part_of(dest).exists(), "{inject}");
}

#[test]
fn a_kill_at_any_step_of_the_end_leaves_what_is_gone_on_with() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let dest = fs.join("out.img");
    for (existing, args, bits) in [
        (true, &[][..], 0o640),
        (true, &["--chmod", "444"], 0o444),
        (false, &["--chmod", "660", "--chown", "65534:7"], 0o660),
        (false, &[], 0o644),
    ] {
        for inject in
            ["fsync:signal=KILL:when=1", "fsync:signal=KILL:when=2", "rename,renameat,renameat2:signal=KILL:when=1"]
        {
            let what = format!("{inject}, existing {existing}, {args:?}");
            let before = existing.then(|| {
                fs::write(&dest, "the old disk").unwrap();
                fs::set_permissions(&dest, fs::Permissions::from_mode(0o640)).unwrap();
                chown(&dest, Some(USER), Some(7)).unwrap();
                Before::of(&dest)
            });
            killed_at(inject, &image, &dest, args);
            before.inspect(|before| before.untouched(&what));
            let (sent, received, flowed) = converse(&tools!(), &[], &image, args, &dest, Cut::Never);
            assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{what}: {} {}", sent.err, received.err);
            assert!(flowed.want().is_some(), "{what}");
            assert_eq!(flowed.payload(), 0, "{what}");
            assert_same(&image, &dest);
            assert_eq!(mode(&dest), bits, "{what}");
            let stat = fs::metadata(&dest).unwrap();
            let owned = existing || args.contains(&"--chown");
            assert_eq!((stat.uid(), stat.gid()), if owned { (USER, 7) } else { (0, 0) }, "{what}");
            assert_eq!(attributes(&dest), "", "{what}");
            assert!(!part_of(&dest).exists(), "{what}");
            fs::remove_file(&dest).unwrap();
        }
    }
}

/// The names of a file's extended attributes that any user may set.
fn attributes(path: &Path) -> String {
    String::from_utf8(Command::new("getfattr").args(["--absolute-names"]).arg(path).output().unwrap().stdout).unwrap()
}

/// What another program does to `DEST.part` while it is written.
type Act<'a> = (&'a str, &'a dyn Fn(&Path));

fn truncate(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn a_part_that_another_program_changes_does_not_become_the_disk() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(16 * MIB).with(0, 12 * MIB, 1).with(15 * MIB, MIB, 2).make(&image);
    let acts: [Act<'_>; 6] = [
        ("truncated", &|part| truncate(part, 0)),
        ("truncated and extended", &|part| {
            truncate(part, 0);
            truncate(part, 16 * MIB);
        }),
        ("truncated to a part of it", &|part| truncate(part, 2 * MIB)),
        ("removed", &|part| fs::remove_file(part).unwrap()),
        ("replaced", &|part| {
            fs::rename(part, part.with_extension("away")).unwrap();
            fs::write(part, "another file").unwrap();
        }),
        ("renamed", &|part| fs::rename(part, part.with_extension("away")).unwrap()),
    ];
    for hash in [&[][..], &["--hash"]] {
        let stream = pour(&tools!(), hash, &image);
        for existing in [false, true] {
            for (what, act) in acts {
                let dest = fs.join("out.img");
                let before = existing.then(|| {
                    fs::write(&dest, "the old disk").unwrap();
                    Before::of(&dest)
                });
                let mut receives = Running::start(Command::new(tools!().recv_hole).arg(&dest));
                receives.say(&stream[..8 << 20]);
                wait_until("data is there", || fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.blocks() > 0));
                act(&part_of(&dest));
                receives.say(&stream[8 << 20..]);
                let outcome = receives.end();
                refused(outcome, what);
                before.inspect(|before| before.untouched(what));
                assert!(existing || !dest.exists(), "{what}");
                let _left = (fs::remove_file(part_of(&dest)), fs::remove_file(&dest));
            }
        }
    }
}

#[track_caller]
fn refused(outcome: Outcome, what: &str) {
    let kept = outcome.err.contains("kept ");
    assert_eq!(kept, what.contains("truncated") || what.contains("written"), "{what}: {}", outcome.err);
    outcome.refused(&["out.img.part", "by another program"]);
}

#[test]
fn a_part_that_is_changed_in_the_last_moment_does_not_become_the_disk() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let sent = fs.join("stream");
    fs::write(&sent, pour(&tools!(), &["--hash"], &image)).unwrap();
    let write = |part: &Path| File::options().write(true).open(part).unwrap().write_all_at(b"x", MIB).unwrap();
    let acts: [Act<'_>; 3] = [
        ("truncated", &|part| truncate(part, MIB)),
        ("written to", &write),
        ("removed", &|part| {
            fs::remove_file(part).unwrap();
        }),
    ];
    for (what, act) in acts {
        let dest = fs.join("out.img");
        fs::write(&dest, "the old disk").unwrap();
        // The second sync comes after the mode.
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o604)).unwrap();
        let before = Before::of(&dest);
        let mut receiver = injected("fsync:delay_enter=4000000:when=2", &[], &dest);
        let receives = Running::between(File::open(&sent).unwrap(), &mut receiver, Stdio::null());
        wait_until("it has its final mode", || {
            fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.mode() & 0o7777 == 0o604)
        });
        act(&part_of(&dest));
        refused(receives.end(), what);
        before.untouched(what);
        let _left = fs::remove_file(part_of(&dest));
    }
}

#[test]
fn a_file_that_is_truncated_or_removed_while_it_is_updated_in_place_is_no_success() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(16 * MIB).with(0, 12 * MIB, 1).with(15 * MIB, MIB, 2).make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let acts: [Act<'_>; 2] =
        [("truncated", &|dest| truncate(dest, 0)), ("removed", &|dest| fs::remove_file(dest).unwrap())];
    for (_, act) in acts {
        let dest = fs.join("out.img");
        fs::write(&dest, vec![7; 16 << 20]).unwrap();
        let mut receives = Running::start(Command::new(tools!().recv_hole).arg("--in-place").arg(&dest));
        receives.say(&stream[..8 << 20]);
        let first = fs::read(&image).unwrap()[..4096].to_vec();
        wait_until("data is there", || {
            let mut found = vec![0; 4096];
            File::open(&dest).unwrap().read_exact_at(&mut found, 0).unwrap();
            found == first
        });
        act(&dest);
        receives.say(&stream[8 << 20..]);
        receives.end().refused(&["out.img", "by another program"]);
        let _left = fs::remove_file(&dest);
    }
}

#[test]
fn a_file_that_is_replaced_before_it_is_locked_in_place_is_the_one_updated() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let dest = fs.join("out.img");
    fs::write(&dest, "the old disk").unwrap();
    let mut receiver = injected("flock:delay_enter=4000000:when=1", &["--no-sync", "--in-place"], &dest);
    let mut receives = Running::start(&mut receiver);
    receives.say(&stream[..1000]);
    wait_until("it is opened", || holders(&dest) > 0);
    // Another receiver has made a new file of it.
    let other = fs.join("new");
    fs::write(&other, vec![7; 5 << 20]).unwrap();
    fs::rename(&other, &dest).unwrap();
    let inode = fs::metadata(&dest).unwrap().ino();
    receives.say(&stream[1000..]);
    receives.end().ok();
    assert_same(&image, &dest);
    assert_eq!(fs::metadata(&dest).unwrap().ino(), inode);
}

#[test]
fn a_child_that_is_written_before_it_is_locked_is_folded_as_it_is_then() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (child, parent) = (fs.join("child"), fs.join("parent"));
    TestDisk::empty(MIB).with(0, 64 << 10, 1).make(&child);
    TestDisk::empty(MIB).with(MIB / 2, 64 << 10, 2).make(&parent);
    let mut folds = Command::new("strace");
    folds.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:delay_enter=4000000:when=1"]);
    folds.arg(tools!().xfer_hole).args(["fold", "-q"]).arg(&child).arg(&parent);
    let folds = Running::between(Stdio::null(), &mut folds, Stdio::null());
    wait_until("it is opened", || holders(&child) > 0);
    let file = File::options().write(true).open(&child).unwrap();
    file.lock().unwrap();
    file.write_all_at(&[3; 4096], 2 * MIB).unwrap();
    drop(file);
    folds.end().ok();
    let found = fs::read(&parent).unwrap();
    assert_eq!(found.len() as u64, 2 * MIB + 4096);
    assert!(found[found.len() - 4096..] == [3; 4096]);
}
