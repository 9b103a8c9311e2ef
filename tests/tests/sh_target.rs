//! recv-hole.sh and a DEST that others use, replace or remove: what it writes is what it has open, and no success is said of anything else.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rig::{
    Before, Filesystem, Fs, Outcome, Receiver, Running, SHELLS, TestDisk, Toolbox, part_of, requires, run, tool, tools,
    wait_until,
};

const MIB: u64 = 1 << 20;
const FIRST: [u8; 4096] = [b'x'; 4096];

/// A stream whose first record is data, with a hole and more data behind it.
fn stream() -> Vec<u8> {
    let rest = [&b"DATA 4096\n"[..], &[b'y'; 4096], format!("HOLE {}\nEND\n", MIB - 3 * 4096).as_bytes()].concat();
    [format!("XFER-HOLE 1 {MIB}\nDATA 4096\n").as_bytes(), &FIRST, b"HOLE 4096\n", &rest].concat()
}

fn scripts() -> impl Iterator<Item = Receiver> {
    SHELLS.into_iter().map(Receiver::Script)
}

fn receive(receiver: Receiver, dest: &Path, in_place: bool) -> Outcome {
    run(&mut receiver.command(&tools!(), dest, in_place, true), &stream())
}

/// A receiver that has written the first record, and waits for the next, of which `rest` is yet to be said.
fn begun(receiver: Receiver, dest: &Path, in_place: bool) -> (Running, Vec<u8>) {
    // What an earlier one has left would be taken for what it writes.
    let _left = fs::remove_file(part_of(dest));
    let stream = stream();
    let (first, rest) = stream.split_at(4200);
    let mut running = Running::start(&mut receiver.command(&tools!(), dest, in_place, true));
    running.say(first);
    let written = if in_place { dest.to_path_buf() } else { part_of(dest) };
    wait_until("the first record is written", || fs::read(&written).is_ok_and(|bytes| bytes.starts_with(&FIRST)));
    (running, rest.to_vec())
}

fn ended((mut running, rest): (Running, Vec<u8>)) -> Outcome {
    running.say(&rest);
    running.end()
}

#[test]
fn in_place_another_file_by_the_name_of_dest_is_not_touched() {
    for kind in [Fs::Ext4, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 64 * MIB);
        let (dest, victim) = (fs.join("out.img"), fs.join("victim.img"));
        for receiver in scripts() {
            for by_link in [false, true] {
                TestDisk::empty(3 * MIB).with(0, 3 * MIB, 1).make(&dest);
                TestDisk::empty(3 * MIB).with(0, 3 * MIB, 2).make(&victim);
                let begun = begun(receiver, &dest, true);
                if by_link {
                    fs::remove_file(&dest).unwrap();
                    std::os::unix::fs::symlink(&victim, &dest).unwrap();
                } else {
                    fs::rename(&dest, fs.join("moved.img")).unwrap();
                    fs::rename(&victim, &dest).unwrap();
                }
                let before = Before::of(&fs::canonicalize(&dest).unwrap());
                ended(begun).refused(&["out.img was replaced"]);
                let what = format!("{kind:?} {receiver:?} by link {by_link}");
                before.untouched(&what);
                fs::remove_file(&dest).unwrap();
            }
        }
    }
}

#[test]
fn in_place_a_dest_that_is_gone_is_a_failure() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    for receiver in scripts() {
        for len in [100, 3 * MIB] {
            TestDisk::empty(len).with(0, len, 1).make(&dest);
            let begun = begun(receiver, &dest, true);
            fs::remove_file(&dest).unwrap();
            ended(begun).refused(&["out.img was replaced or removed"]);
            assert!(!dest.exists(), "{receiver:?} {len}");
        }
    }
}

#[test]
fn in_place_without_proc_is_refused_and_a_new_file_is_made() {
    requires(&["unshare", "mount"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let bare = |command: &Command| {
        let mut unshared = Command::new("unshare");
        unshared.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc; exec \"$@\"", "sh"]);
        unshared.arg(command.get_program()).args(command.get_args());
        unshared
    };
    for receiver in scripts() {
        TestDisk::empty(3 * MIB).with(0, 3 * MIB, 1).make(&dest);
        let before = Before::of(&dest);
        run(&mut bare(&receiver.command(&tools!(), &dest, true, true)), &stream()).refused(&["needs /proc"]);
        before.untouched(&format!("{receiver:?}"));
        run(&mut bare(&receiver.command(&tools!(), &dest, false, true)), &stream()).ok();
        assert_eq!(fs::metadata(&dest).unwrap().len(), MIB, "{receiver:?}");
    }
}

/// The receiver with --force.
fn forced(receiver: Receiver, dest: &Path, in_place: bool) -> Outcome {
    let plain = receiver.command(&tools!(), dest, in_place, true);
    let mut command = Command::new(plain.get_program());
    let args: Vec<_> = plain.get_args().collect();
    let (options, dest) = args.split_at(args.len() - 2);
    command.args(options).arg("--force").args(dest);
    run(&mut command, &stream())
}

#[test]
fn a_dest_behind_a_loop_device_is_refused_unless_forced() {
    requires(&["losetup"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (dest, other) = (fs.join("a disk.img"), fs.join("other name.img"));
    for receiver in scripts() {
        for in_place in [false, true] {
            let what = format!("{receiver:?} in place {in_place}");
            TestDisk::empty(2 * MIB).with(0, MIB, 1).make(&dest);
            // A name that is another one's is the same file.
            fs::hard_link(&dest, &other).unwrap();
            let device = tool("losetup", &["--find", "--show", other.to_str().unwrap()]);
            let before = Before::of(&dest);
            let refused = receive(receiver, &dest, in_place);
            before.untouched(&what);
            assert!(!part_of(&dest).exists(), "{what}");
            let forced = forced(receiver, &dest, in_place);
            tool("losetup", &["-d", device.trim()]);
            refused.refused(&["a disk.img is attached as the loop device loop", "--force"]);
            forced.ok();
            fs::remove_file(&dest).unwrap();
            fs::remove_file(&other).unwrap();
        }
    }
}

/// A QEMU that may write to this file until it is dropped.
struct Guest(Running);

impl Guest {
    fn new(image: &Path) -> Self {
        requires(&["qemu-storage-daemon"]);
        let node = format!("file,node-name=file,filename={}", image.display());
        let mut daemon = Command::new("qemu-storage-daemon");
        let folder = image.parent().unwrap();
        daemon.args(["--blockdev", &node, "--nbd-server", "addr.type=unix,addr.path=nbd", "--export"]);
        daemon.arg("nbd,id=export,node-name=file,writable=on").current_dir(folder);
        let running = Running::start(&mut daemon);
        let inode = format!(":{} 10", fs::metadata(image).unwrap().ino());
        wait_until("QEMU may write", || fs::read_to_string("/proc/locks").unwrap().contains(&inode));
        Self(running)
    }
}

#[test]
fn a_dest_that_a_running_qemu_writes_to_is_refused_unless_forced() {
    for kind in [Fs::Ext4, Fs::Btrfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 256 * MIB);
        let dest = fs.join("out.img");
        for receiver in scripts() {
            TestDisk::empty(2 * MIB).with(0, MIB, 1).make(&dest);
            let guest = Guest::new(&dest);
            let before = Before::of(&dest);
            for in_place in [false, true] {
                let what = format!("{kind:?} {receiver:?} in place {in_place}");
                receive(receiver, &dest, in_place).refused(&["out.img is in use by a running QEMU", "--force"]);
                before.untouched(&what);
                assert!(!part_of(&dest).exists(), "{what}");
            }
            forced(receiver, &dest, false).ok();
            assert_ne!(fs::read(&dest).unwrap()[..10], [0; 10]);
            drop(guest.0.kill());
        }
    }
}

#[test]
fn a_dest_that_comes_into_use_meanwhile_is_not_replaced() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    for receiver in scripts() {
        TestDisk::empty(2 * MIB).with(0, MIB, 1).make(&dest);
        let inode = fs::metadata(&dest).unwrap().ino();
        let first = begun(receiver, &dest, false);
        let guest = Guest::new(&dest);
        ended(first).refused(&["out.img is in use by a running QEMU", "kept"]);
        drop(guest.0.kill());
        let second = begun(receiver, &dest, false);
        let device = tool("losetup", &["--find", "--show", dest.to_str().unwrap()]);
        let outcome = ended(second);
        tool("losetup", &["-d", device.trim()]);
        outcome.refused(&["out.img is attached as the loop device", "kept"]);
        assert_eq!(fs::metadata(&dest).unwrap().ino(), inode, "{receiver:?}");
    }
}

#[test]
fn a_dest_that_another_program_has_open_for_writing_is_refused_unless_forced() {
    for kind in [Fs::Ext4, Fs::Btrfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 256 * MIB);
        let (dest, other) = (fs.join("a disk.img"), fs.join("other.img"));
        for receiver in scripts() {
            TestDisk::empty(2 * MIB).with(0, MIB, 1).make(&dest);
            // Those who read, or write to others, don't count.
            let _reader = File::open(&dest).unwrap();
            let _neighbour = File::create(&other).unwrap();
            receive(receiver, &dest, false).ok();
            // By another name it is the same file.
            let link = fs.join("link.img");
            fs::hard_link(&dest, &link).unwrap();
            let writer = File::options().append(true).open(&link).unwrap();
            fs::remove_file(&link).unwrap();
            let before = Before::of(&dest);
            let says = format!("a disk.img is open for writing by process {} (", std::process::id());
            for in_place in [false, true] {
                let what = format!("{kind:?} {receiver:?} in place {in_place}");
                receive(receiver, &dest, in_place).refused(&[&says, "--force"]);
                before.untouched(&what);
                assert!(!part_of(&dest).exists(), "{what}");
            }
            forced(receiver, &dest, true).ok();
            forced(receiver, &dest, false).ok();
            drop(writer);
            let first = begun(receiver, &dest, false);
            let writer = File::options().read(true).write(true).open(&dest).unwrap();
            ended(first).refused(&[&says, "kept"]);
            drop(writer);
            receive(receiver, &dest, true).ok();
            fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn a_part_that_is_replaced_cut_or_grown_is_never_given_the_name() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (dest, part) = (fs.join("out.img"), part_of(&fs.join("out.img")));
    let resized = |len: u64| File::options().write(true).open(&part).unwrap().set_len(len).unwrap();
    let harms: [(&str, &dyn Fn()); 4] = [
        ("replaced", &|| {
            fs::remove_file(&part).unwrap();
            fs::write(&part, vec![0; 1 << 20]).unwrap();
        }),
        ("removed", &|| fs::remove_file(&part).unwrap()),
        ("cut", &|| resized(MIB - 4096)),
        ("grown", &|| resized(2 * MIB)),
    ];
    for receiver in scripts() {
        for (harm, does) in harms {
            TestDisk::empty(4096).with(0, 4096, 1).make(&dest);
            let before = Before::of(&dest);
            let begun = begun(receiver, &dest, false);
            does();
            ended(begun).refused(&["out.img"]);
            before.untouched(&format!("{receiver:?} {harm}"));
            let _left = fs::remove_file(&part);
        }
    }
}

#[test]
fn what_another_wrote_to_part_before_the_lock_is_not_kept() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (dest, flock) = (fs.join("out.img"), tool("sh", &["-c", "command -v flock"]));
    // Another receiver has been there between opening and locking, and is gone.
    let text = format!(
        "[ ! -e '{0}' ] || dd if=/dev/urandom of='{0}' bs=4096 count=9 conv=notrunc 2>/dev/null\nexec {1} \"$@\"",
        part_of(&dest).display(),
        flock.trim()
    );
    let toolbox = Toolbox::new().script("flock", &text);
    for receiver in scripts() {
        let mut command = receiver.command(&tools!(), &dest, false, true);
        run(command.env("PATH", toolbox.path()), &stream()).ok();
        let found = fs::read(&dest).unwrap();
        assert!(found[4096..8192].iter().chain(&found[3 * 4096..]).all(|&byte| byte == 0), "{receiver:?}");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn data_is_stored_before_part_has_the_final_mode_and_the_name() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (dest, trace) = (fs.join("out.img"), fs.join("trace"));
    for receiver in scripts() {
        TestDisk::empty(4096).make(&dest);
        drop(tool("chmod", &["640", dest.to_str().unwrap()]));
        let plain = receiver.command(&tools!(), &dest, false, false);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", "trace=fsync,fdatasync,syncfs,chmod,fchmodat,rename,renameat,renameat2", "-o"]);
        run(traced.arg(&trace).arg(plain.get_program()).args(plain.get_args()), &stream()).ok();
        let text = fs::read_to_string(&trace).unwrap();
        let calls: Vec<_> = text.lines().filter(|line| line.ends_with("= 0")).collect();
        let at = |call: &str, rest: &str, from: usize| {
            let found = calls[from..].iter().position(|line| line.contains(call) && line.contains(rest));
            from + found.unwrap_or_else(|| panic!("{receiver:?}: no {call} {rest} after {from} of {calls:#?}"))
        };
        // The mode of a part that can be resumed.
        let mode = at("chmod", "0640", 0);
        assert!(calls[..mode].iter().any(|line| line.contains("sync(")), "{receiver:?}: {calls:#?}");
        let stored = at("sync(", "", mode);
        let renamed = at("rename", "out.img.part", stored);
        let _directory = at("sync", "", renamed);
    }
}

#[test]
fn other_names_of_the_old_disk_are_told_of() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (dest, other) = (fs.join("out.img"), fs.join("other.img"));
    for receiver in scripts() {
        fs::write(&dest, "the old disk").unwrap();
        fs::hard_link(&dest, &other).unwrap();
        let outcome = receive(receiver, &dest, false).ok();
        assert!(outcome.err.contains("out.img: the old disk had other names"), "{receiver:?} {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{receiver:?}");
        assert_eq!(fs::read(&other).unwrap(), b"the old disk");
        fs::remove_file(&other).unwrap();
    }
}

#[test]
fn readers_and_writers_in_place_keep_each_other_away() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (dest, copy) = (fs.join("out.img"), fs.join("copy.img"));
    for receiver in Receiver::all() {
        TestDisk::empty(2 * MIB).with(0, MIB, 1).make(&dest);
        let begun = begun(receiver, &dest, true);
        let tools = tools!();
        let readers: [&[&str]; 4] = [&[], &["map"], &["digest"], &["manifest"]];
        for words in readers {
            let target = words.is_empty().then_some(&copy);
            let read = run(Command::new(&tools.xfer_hole).args(words).arg(&dest).args(target), b"");
            let says = if receiver == Receiver::Binary { "is being updated by" } else { "is locked by" };
            read.retryable(&["out.img", says]);
            let read = run(Command::new(&tools.xfer_hole).args(words).arg("-U").arg(&dest).args(target), b"");
            assert!(read.code == Some(0) || words.is_empty(), "{receiver:?} {words:?} {}", read.err);
        }
        ended(begun).ok();
        run(Command::new(&tools.xfer_hole).arg(&dest).arg(&copy), b"").ok();
        // A reader that is in the middle.
        TestDisk::empty(2 * MIB).with(0, 2 * MIB, 1).make(&dest);
        let (mut pipe, write) = std::io::pipe().unwrap();
        let reading = Running::between(
            std::process::Stdio::null(),
            Command::new(&tools.xfer_hole).arg("--no-hash").arg(&dest),
            write,
        );
        std::io::Read::read_exact(&mut pipe, &mut [0]).unwrap();
        receive(receiver, &dest, true).refused(&["out.img"]);
        drop(pipe);
        drop(reading.end());
    }
}
