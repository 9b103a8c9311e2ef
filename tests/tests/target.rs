//! What a DEST may be, what becomes of it, and what is refused before anything is lost.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::stat::Mode;
use rig::{
    Before, Filesystem, Fs, Outcome, Receiver, Running, SHELLS, TestDisk, mode, part_of, pour, requires, run, tool,
    tools, wait_until,
};

const MIB: u64 = 1 << 20;
/// nobody
const USER: u32 = 65534;

/// A small disk, its bytes, and its stream.
fn disk(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let image = folder.join("disk.img");
    TestDisk::empty(40_000).with(8192, 9000, 1).make(&image);
    (fs::read(&image).unwrap(), pour(&tools!(), &["--hash"], &image))
}

fn receive(receiver: Receiver, dest: &Path, stream: &[u8]) -> Outcome {
    run(&mut receiver.command(&tools!(), dest, false, true), stream)
}

/// The receiver as an unprivileged user, by copies of the tools that such a user reaches.
fn as_user(receiver: Receiver, folder: &Path, dest: &Path, in_place: bool) -> Command {
    requires(&["setpriv"]);
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&bin, Permissions::from_mode(0o755)).unwrap();
    let mut tools = tools!();
    let (binary, script) = (bin.join("recv-hole"), bin.join("recv-hole.sh"));
    if !script.exists() {
        fs::copy(&tools.recv_hole, &binary).unwrap();
        fs::copy(rig::script(), &script).unwrap();
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
    }
    tools.recv_hole = binary;
    let inner = receiver.command(&tools, dest, in_place, true);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(inner.get_program());
    command.args(inner.get_args().map(|arg| if arg == rig::script() { script.as_os_str() } else { arg }));
    command
}

/// A file system whose mount point everybody reaches.
fn public(kind: Fs) -> Filesystem {
    let fs = Filesystem::new(kind, 512 * MIB);
    for folder in fs.path().ancestors().take(2) {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    fs
}

#[test]
fn an_existing_dest_gives_its_owner_and_mode_and_its_inode_is_not_written() {
    let fs = public(Fs::Tmpfs);
    let (bytes, stream) = disk(fs.path());
    for receiver in Receiver::all() {
        // The script keeps the nine bits that count for a disk.
        let special = if receiver == Receiver::Binary { 0o4000 } else { 0 };
        for bits in [0o640, special | 0o751, 0o600, 0o777, 0o004] {
            let (dest, other) = (fs.join("out.img"), fs.join("its other name"));
            fs::write(&dest, "the old disk").unwrap();
            chown(&dest, Some(USER), Some(7)).unwrap();
            fs::set_permissions(&dest, Permissions::from_mode(bits)).unwrap();
            fs::hard_link(&dest, &other).unwrap();
            let outcome = receive(receiver, &dest, &stream).ok();
            // The old disk is told to stay under its other name.
            assert!(outcome.err.contains("out.img: the old disk had "), "{receiver:?}: {}", outcome.err);
            assert_eq!(outcome.err.lines().count(), 1, "{receiver:?}: {}", outcome.err);
            let stat = fs::metadata(&dest).unwrap();
            assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (USER, 7, bits), "{receiver:?}");
            assert!(fs::read(&dest).unwrap() == bytes, "{receiver:?}");
            assert_eq!(fs::read(&other).unwrap(), b"the old disk", "{receiver:?}");
            fs::remove_file(&dest).unwrap();
            fs::remove_file(&other).unwrap();
        }
    }
}

#[test]
fn an_owner_that_is_not_permitted_is_a_warning() {
    let fs = public(Fs::Tmpfs);
    let (bytes, stream) = disk(fs.path());
    let folder = fs.join("theirs");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(USER), Some(USER)).unwrap();
    for receiver in Receiver::both() {
        let dest = folder.join("out.img");
        fs::write(&dest, "the old disk").unwrap();
        fs::set_permissions(&dest, Permissions::from_mode(0o4755)).unwrap();
        let outcome = run(&mut as_user(receiver, fs.path(), &dest, false), &stream).ok();
        assert!(outcome.err.contains("can") && outcome.err.contains("owner 0:0"), "{receiver:?} {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{receiver:?} {}", outcome.err);
        let stat = fs::metadata(&dest).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o707), (USER, 0o705), "{receiver:?}");
        let group = if receiver == Receiver::Binary { 0 } else { stat.mode() & 0o070 };
        assert_eq!(stat.mode() & 0o070, group, "what the old group may is not another group's");
        assert_eq!(stat.mode() & 0o6000, 0, "set-id bits are not another owner's to give: {receiver:?}");
        assert!(fs::read(&dest).unwrap() == bytes, "{receiver:?}");
        fs::remove_file(dest).unwrap();
    }
}

#[test]
fn a_fresh_dest_has_the_umask_and_part_is_private_meanwhile() {
    let fs = public(Fs::Tmpfs);
    let (_, stream) = disk(fs.path());
    for receiver in Receiver::all() {
        for (mask, bits) in [("0022", 0o644), ("0027", 0o640), ("0000", 0o666)] {
            let dest = fs.join("out.img");
            let plain = receiver.command(&tools!(), &dest, false, true);
            let mut command = Command::new("sh");
            command.args(["-c", "umask \"$0\"; exec \"$@\"", mask]).arg(plain.get_program()).args(plain.get_args());
            let mut running = Running::start(&mut command);
            running.say(&stream[..stream.len() / 2]);
            wait_until("the disk's size is set", || {
                fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.len() == 40_000)
            });
            assert_eq!(mode(&part_of(&dest)), 0o600, "{receiver:?}");
            running.say(&stream[stream.len() / 2..]);
            running.end().ok();
            assert_eq!(mode(&dest), bits, "{receiver:?} {mask}");
            fs::remove_file(dest).unwrap();
        }
    }
}

#[test]
fn a_link_leads_to_the_file_that_is_replaced() {
    let fs = public(Fs::Ext4);
    let (bytes, stream) = disk(fs.path());
    let (away, here) = (fs.join("away"), fs.join("here"));
    fs::create_dir(&away).unwrap();
    fs::create_dir(&here).unwrap();
    symlink("../away/out.img", here.join("relative")).unwrap();
    symlink(here.join("relative"), here.join("chain")).unwrap();
    for receiver in Receiver::all() {
        for name in ["relative", "chain"] {
            // First dangling, then with a file behind it.
            for existing in [false, true] {
                let what = format!("{receiver:?} {name} existing {existing}");
                if existing {
                    fs::write(away.join("out.img"), "the old disk").unwrap();
                }
                let mut running = Running::start(&mut receiver.command(&tools!(), &here.join(name), false, true));
                running.say(&stream);
                wait_until("part is beside the target", || away.join("out.img.part").exists());
                running.end().ok();
                assert!(fs::symlink_metadata(here.join(name)).unwrap().is_symlink(), "{what}");
                assert!(fs::read(away.join("out.img")).unwrap() == bytes, "{what}");
                assert_eq!(fs::read_dir(&here).unwrap().count(), 2, "{what}");
                assert_eq!(fs::read_dir(&away).unwrap().count(), 1, "{what}");
                fs::remove_file(away.join("out.img")).unwrap();
            }
        }
    }
}

#[test]
fn a_link_that_leads_in_a_circle_or_to_no_directory_is_refused() {
    let fs = public(Fs::Tmpfs);
    let (_, stream) = disk(fs.path());
    symlink("circle", fs.join("circle")).unwrap();
    symlink("no such directory/out.img", fs.join("nowhere")).unwrap();
    for receiver in Receiver::both() {
        for name in ["circle", "nowhere"] {
            receive(receiver, &fs.join(name), &stream).refused(&[]);
            assert!(fs::symlink_metadata(fs.join(name)).unwrap().is_symlink(), "{receiver:?} {name}");
        }
    }
}

#[test]
fn a_fifo_gets_the_full_bytes_and_stays_a_fifo() {
    let fs = public(Fs::Tmpfs);
    let (bytes, stream) = disk(fs.path());
    let fifo = fs.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    symlink("fifo", fs.join("link")).unwrap();
    for receiver in Receiver::all() {
        for name in ["fifo", "link"] {
            let reader = thread::spawn({
                let fifo = fifo.clone();
                move || fs::read(fifo).unwrap()
            });
            receive(receiver, &fs.join(name), &stream).ok();
            assert!(reader.join().unwrap() == bytes, "{receiver:?}");
            assert!(!part_of(&fs.join(name)).exists(), "{receiver:?}");
            assert_eq!(fs::metadata(&fifo).unwrap().mode() & 0o17_0000, 0o1_0000, "{receiver:?}");
        }
    }
}

#[test]
fn a_character_device_is_written_and_never_renamed_over() {
    let fs = public(Fs::Tmpfs);
    let (_, stream) = disk(fs.path());
    for receiver in Receiver::all() {
        let before = fs::metadata("/dev/null").unwrap();
        receive(receiver, Path::new("/dev/null"), &stream).ok();
        let now = fs::metadata("/dev/null").unwrap();
        assert_eq!((before.ino(), before.mode(), before.rdev()), (now.ino(), now.mode(), now.rdev()), "{receiver:?}");
        assert!(!Path::new("/dev/null.part").exists(), "{receiver:?}");
    }
}

#[test]
fn standard_output_gets_the_full_bytes() {
    let fs = public(Fs::Tmpfs);
    let (bytes, stream) = disk(fs.path());
    for receiver in Receiver::all() {
        let outcome = receive(receiver, Path::new("-"), &stream).ok();
        assert!(outcome.out == bytes, "{receiver:?}: {} bytes", outcome.out.len());
        let mut command = receiver.command(&tools!(), Path::new("-"), false, true);
        let file = fs.join("redirected");
        let mut running = Running::between(Stdio::piped(), &mut command, File::create(&file).unwrap());
        running.say(&stream);
        running.end().ok();
        assert!(fs::read(file).unwrap() == bytes, "{receiver:?}");
    }
}

#[test]
fn a_directory_is_refused_and_so_is_a_dest_in_none() {
    let fs = public(Fs::Tmpfs);
    let (_, stream) = disk(fs.path());
    fs::create_dir(fs.join("folder")).unwrap();
    for receiver in Receiver::all() {
        receive(receiver, &fs.join("folder"), &stream).refused(&["folder"]);
        receive(receiver, &fs.join("missing/out.img"), &stream).refused(&["missing"]);
        assert_eq!(fs::read_dir(fs.path()).unwrap().count(), 2, "{receiver:?}");
        assert_eq!(fs::read_dir(fs.join("folder")).unwrap().count(), 0, "{receiver:?}");
    }
}

/// Refused before anything of the stream has come, with the hint that helps.
fn refused_at_once(mut command: Command, dest: &Path, what: &str) {
    let before = Before::of(dest);
    // No byte of a stream, and no end of it either.
    let mut running = Running::start(&mut command);
    let script = command.get_args().any(|arg| arg.as_bytes().ends_with(b".sh"));
    if script {
        running.say(b"XFER-HOLE 1 4096\n");
    }
    wait_until("it is refused", || !running.lives());
    let outcome = running.end();
    let hint = "--in-place";
    assert!(outcome.err.contains(hint), "{what}: {}", outcome.err);
    outcome.refused(&[]);
    before.untouched(what);
    assert!(!part_of(dest).exists(), "{what}");
}

#[test]
fn a_directory_that_can_not_be_written_is_refused_with_the_way_out() {
    let fs = public(Fs::Ext4);
    let (bytes, stream) = disk(fs.path());
    let folder = fs.join("theirs");
    fs::create_dir(&folder).unwrap();
    let dest = folder.join("out.img");
    for receiver in Receiver::both() {
        fs::write(&dest, "the old disk").unwrap();
        chown(&dest, Some(USER), Some(USER)).unwrap();
        refused_at_once(as_user(receiver, fs.path(), &dest, false), &dest, &format!("{receiver:?}"));
        let inode = fs::metadata(&dest).unwrap().ino();
        run(&mut as_user(receiver, fs.path(), &dest, true), &stream).ok();
        assert!(fs::read(&dest).unwrap() == bytes, "{receiver:?}");
        assert_eq!(fs::metadata(&dest).unwrap().ino(), inode, "{receiver:?}");
    }
}

#[test]
fn what_can_not_be_renamed_over_is_never_lost() {
    requires(&["chattr"]);
    let fs = public(Fs::Ext4);
    let (bytes, stream) = disk(fs.path());
    let sticky = fs.join("sticky");
    fs::create_dir(&sticky).unwrap();
    fs::set_permissions(&sticky, Permissions::from_mode(0o1777)).unwrap();
    let names: [PathBuf; 3] = [sticky.join("another's"), fs.join("immutable"), fs.join("mounted")];
    for name in &names {
        fs::write(name, "the old disk").unwrap();
    }
    fs::set_permissions(&names[0], Permissions::from_mode(0o666)).unwrap();
    tool("chattr", &["+i", names[1].to_str().unwrap()]);
    let behind = fs.join("behind");
    fs::write(&behind, "the old disk").unwrap();
    tool("mount", &["--bind", behind.to_str().unwrap(), names[2].to_str().unwrap()]);
    let refusals = || {
        refused_at_once(as_user(Receiver::Binary, fs.path(), &names[0], false), &names[0], "sticky");
        for name in &names[1..] {
            refused_at_once(Receiver::Binary.command(&tools!(), name, false, true), name, &name.display().to_string());
        }
        let script = Receiver::Script(SHELLS[0]);
        refused_at_once(script.command(&tools!(), &names[2], false, true), &names[2], "mounted");
        // What else there is the script finds out when it renames, and keeps what arrived.
        let before = [&names[0], &names[1]].map(|name| Before::of(name));
        let outcomes =
            [run(&mut as_user(script, fs.path(), &names[0], false), &stream), receive(script, &names[1], &stream)];
        for ((before, name), outcome) in before.iter().zip(&names).zip(outcomes) {
            before.untouched("script");
            // Where the owner is another, that is said too.
            let last = Outcome { err: outcome.err.lines().last().unwrap().into(), ..outcome };
            last.refused(&["can't rename", "--in-place", ".part"]);
            assert!(fs::read(part_of(name)).unwrap() == bytes);
            fs::remove_file(part_of(name)).unwrap();
        }
        // In place it works where the system lets one write.
        for receiver in Receiver::both() {
            run(&mut receiver.command(&tools!(), &names[2], true, true), &stream).ok();
            assert!(fs::read(&behind).unwrap() == bytes, "{receiver:?}");
            run(&mut receiver.command(&tools!(), &names[1], true, true), &stream).refused(&["immutable"]);
        }
    };
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(refusals));
    tool("umount", &[names[2].to_str().unwrap()]);
    tool("chattr", &["-i", names[1].to_str().unwrap()]);
    judged.unwrap();
}

#[test]
fn any_name_is_only_a_name() {
    let fs = public(Fs::Ext4);
    let (bytes, stream) = disk(fs.path());
    let names: [&[u8]; 15] = [
        "grüße".as_bytes(),
        b"two words",
        b" leading and trailing ",
        b"it's",
        b"\"quoted\"",
        b"$HOME `id` $(id)",
        b"new\nline",
        b"ends in newline\n",
        b"-i",
        b"--",
        b"-n -s",
        b"*?[a-z]",
        b"back\\slash",
        b"\xff\xfe not UTF-8 \x80",
        b"\t~;|&<>()",
    ];
    for receiver in Receiver::all() {
        let folder = fs.join("names");
        fs::create_dir(&folder).unwrap();
        for name in names {
            let name = OsStr::from_bytes(name);
            for (n, existing) in [false, true].into_iter().enumerate() {
                // Relative, so that what begins with a dash does.
                let mut command = receiver.command(&tools!(), Path::new(name), false, true);
                command.current_dir(&folder);
                let outcome = run(&mut command, &stream);
                if outcome.err.starts_with("yash: cannot convert the argument") {
                    // This shell has no such names: nothing is made by another one.
                    assert_eq!((outcome.code, fs::read_dir(&folder).unwrap().count()), (Some(2), 0), "{name:?}");
                    continue;
                }
                assert_eq!(outcome.code, Some(0), "{receiver:?} {name:?} {existing}: {}", outcome.err);
                assert!(fs::read(folder.join(name)).unwrap() == bytes, "{receiver:?} {name:?} {existing}");
                assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{receiver:?} {name:?} {n}");
            }
            if !folder.join(name).exists() {
                continue;
            }
            let mut command = receiver.command(&tools!(), Path::new(name), false, true);
            let outcome = run(command.current_dir(&folder), &stream[..stream.len() - 1]);
            assert_eq!(outcome.code, Some(2), "{receiver:?} {name:?}");
            assert!(fs::read(folder.join(name)).unwrap() == bytes, "{receiver:?} {name:?}");
            fs::remove_file(folder.join(name)).unwrap();
            fs::remove_file(part_of(&folder.join(name))).unwrap();
            // The script's mark.
            let mut lines = part_of(&folder.join(name)).into_os_string();
            lines.push(".lines");
            let _lines = fs::remove_file(lines);
        }
        fs::remove_dir(&folder).unwrap();
    }
}
