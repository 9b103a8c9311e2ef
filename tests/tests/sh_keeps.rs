//! recv-hole.sh: what a replaced DEST had stays its own, what others have left stays theirs, and each refusal says why.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rig::{
    Before, Filesystem, Fs, LoopDevice, Outcome, Receiver, SHELLS, TestDisk, mode, part_of, requires, run, tool, tools,
};

const MIB: u64 = 1 << 20;
const DATA: usize = 1_000_000;

fn scripts() -> impl Iterator<Item = Receiver> {
    SHELLS.into_iter().map(Receiver::Script)
}

/// A disk of this size, with data in its middle that begins and ends inside blocks.
fn stream(size: u64) -> Vec<u8> {
    let before = size / 2 + 100;
    let head = format!("XFER-HOLE 1 {size}\nHOLE {before}\nDATA {DATA}\n");
    let tail = format!("HOLE {}\nEND\n", size - before - DATA as u64);
    [head.as_bytes(), &[b'y'; DATA], tail.as_bytes()].concat()
}

fn receive(receiver: Receiver, dest: &Path, stream: &[u8]) -> Outcome {
    run(&mut receiver.command(&tools!(), dest, false, true), stream)
}

/// The receiver with an option in front of "--" and DEST.
fn with(receiver: Receiver, option: &str, dest: &Path) -> Command {
    let plain = receiver.command(&tools!(), dest, false, true);
    let mut command = Command::new(plain.get_program());
    let args: Vec<_> = plain.get_args().collect();
    let (options, dest) = args.split_at(args.len() - 2);
    command.args(options).arg(option).args(dest);
    command
}

fn acl(path: &Path) -> String {
    tool("getfacl", &["-cpnE", path.to_str().unwrap()])
}

fn attributes(path: &Path) -> String {
    tool("getfattr", &["-d", "-m", "^user|^security", "-e", "hex", "--absolute-names", path.to_str().unwrap()])
}

#[test]
fn a_replaced_dest_keeps_its_acl_and_attributes() {
    requires(&["setfacl", "getfacl", "setfattr", "getfattr"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let dest = fs.join("it's a disk.img");
    let name = dest.to_str().unwrap();
    for receiver in scripts() {
        fs::write(&dest, "old").unwrap();
        drop(tool("setfacl", &["-m", "u:7:rw,g::-", name]));
        drop(tool("setfattr", &["-n", "user.note", "-v", "two\nlines \\ \"quoted\"", name]));
        drop(tool("setfattr", &["-n", "security.selinux", "-v", "system_u:object_r:virt_image_t:s0", name]));
        let before = (acl(&dest), attributes(&dest));
        drop(tool("setfattr", &["-n", "user.xfer-hole.fingerprint", "-v", "of the old disk", name]));
        let outcome = receive(receiver, &dest, &stream(4 * MIB)).ok();
        assert_eq!(outcome.err, "", "{receiver:?}");
        assert_eq!((acl(&dest), attributes(&dest)), before, "{receiver:?}");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn an_acl_that_the_directory_gives_adds_no_rights_to_a_replaced_dest() {
    requires(&["setfacl", "getfacl"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let dest = fs.join("out.img");
    for receiver in scripts() {
        fs::write(&dest, "old").unwrap();
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o660)).unwrap();
        let before = acl(&dest);
        drop(tool("setfacl", &["-d", "-m", "u:7:rw,m::rw", fs.path().to_str().unwrap()]));
        receive(receiver, &dest, &stream(4 * MIB)).ok();
        assert_eq!(acl(&dest), before, "{receiver:?}");
        drop(tool("setfacl", &["-k", fs.path().to_str().unwrap()]));
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn without_the_tools_an_acl_narrows_the_mode_and_is_told_of() {
    requires(&["setfacl"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let dest = fs.join("out.img");
    // All programs of the system but these.
    let away = ["getfacl", "setfacl", "getfattr", "setfattr"];
    let links = fs.join("bin");
    fs::create_dir(&links).unwrap();
    for program in fs::read_dir("/usr/bin").unwrap() {
        let program = program.unwrap();
        if !away.iter().any(|name| program.file_name() == *name) {
            std::os::unix::fs::symlink(program.path(), links.join(program.file_name())).unwrap();
        }
    }
    for receiver in scripts() {
        fs::write(&dest, "old").unwrap();
        drop(tool("setfacl", &["-m", "u:7:rw,g::-", dest.to_str().unwrap()]));
        assert_eq!(mode(&dest) & 0o070, 0o060, "the mask stands where group rights do");
        let mut command = receiver.command(&tools!(), &dest, false, true);
        let outcome = run(command.env("PATH", &links), &stream(4 * MIB)).ok();
        assert_eq!(mode(&dest) & 0o070, 0, "{receiver:?} {}", outcome.err);
        assert!(outcome.err.contains("out.img") && outcome.err.contains("ACL"), "{receiver:?} {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{receiver:?} {}", outcome.err);
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn a_dest_without_copy_on_write_stays_so() {
    requires(&["chattr", "lsattr"]);
    let fs = Filesystem::new(Fs::Btrfs, 256 * MIB);
    let dest = fs.join("out.img");
    for receiver in scripts() {
        fs::write(&dest, "").unwrap();
        drop(tool("chattr", &["+C", dest.to_str().unwrap()]));
        fs::write(&dest, "old").unwrap();
        receive(receiver, &dest, &stream(4 * MIB)).ok();
        let flags = tool("lsattr", &[dest.to_str().unwrap()]);
        assert!(flags.split(' ').next().unwrap().contains('C'), "{receiver:?} {flags}");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn holes_on_a_device_are_zeros_and_unmapped() {
    let size = 128 * MIB;
    for receiver in scripts() {
        for old in [None, Some(0xee)] {
            let device = match old {
                Some(old) => LoopDevice::filled(size, old),
                None => LoopDevice::filled(size, 0),
            };
            if old.is_none() {
                drop(tool("fallocate", &["-d", device.backing().to_str().unwrap()]));
            }
            receive(receiver, device.path(), &stream(size)).ok();
            tool("blockdev", &["--flushbufs", device.path().to_str().unwrap()]);
            let what = format!("{receiver:?} over {old:?}");
            let allocated = fs::metadata(device.backing()).unwrap().blocks() * 512;
            assert!(allocated <= DATA as u64 + 2 * MIB, "{what}: {allocated} bytes are allocated");
            let found = fs::read(device.path()).unwrap();
            let at = usize::try_from(size / 2 + 100).unwrap();
            assert!(found[at..at + DATA].iter().all(|&byte| byte == b'y'), "{what}");
            assert!(found[..at].iter().chain(&found[at + DATA..]).all(|&byte| byte == 0), "{what}");
        }
    }
}

#[test]
fn a_part_that_no_receiver_has_left_is_refused_unless_forced() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (dest, stream) = (fs.join("out.img"), stream(4 * MIB));
    let (part, lines) = (part_of(&dest), fs.join("out.img.part.lines"));
    for receiver in scripts() {
        let what = format!("{receiver:?}");
        fs::write(&part, "precious").unwrap();
        for side in [None, Some("precious, too\n"), Some("XFER-HOLE-PART 1 inode 1\n")] {
            if let Some(side) = side {
                fs::write(&lines, side).unwrap();
            }
            let before = Before::of(&part);
            let refused = receive(receiver, &dest, &stream).refused(&["out.img.part", "--force"]);
            assert!(!refused.err.contains("kept"), "{what} {}", refused.err);
            run(&mut with(receiver, "--dry-run", &dest), b"").refused(&["out.img.part", "--force"]);
            before.untouched(&what);
        }
        fs::write(&lines, "precious, too\n").unwrap();
        run(&mut with(receiver, "--force", &dest), &stream).ok();
        assert_eq!(fs::read(&lines).unwrap(), b"precious, too\n", "{what}");
        fs::remove_file(&lines).unwrap();
        // An empty one is lost by nobody, and what the other receiver has left is ours.
        fs::write(&part, "").unwrap();
        receive(receiver, &dest, &stream).ok();
        for other in [Receiver::Binary, receiver] {
            receive(other, &dest, &stream[..stream.len() / 2]).refused(&["kept"]);
            receive(receiver, &dest, &stream).ok();
            receive(receiver, &dest, &stream[..stream.len() / 2]).refused(&["kept"]);
            receive(other, &dest, &stream).ok();
        }
        assert_eq!(fs::read_dir(fs.path()).unwrap().count(), 2, "{what}: lost+found and the disk");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn a_link_in_place_of_the_side_file_is_not_written_through() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (dest, stream) = (fs.join("out.img"), stream(4 * MIB));
    let (fifo, lines) = (fs.join("fifo"), fs.join("out.img.part.lines"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opened to be read, it takes what is written without a wait.
    let mut reader =
        fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    std::os::unix::fs::symlink(&fifo, &lines).unwrap();
    for receiver in scripts() {
        receive(receiver, &dest, &stream).ok();
        let nothing = std::io::Read::read(&mut reader, &mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "{receiver:?}");
    }
}

#[test]
fn no_file_is_made_among_devices() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev", folder.path().join("link")).unwrap();
    for receiver in scripts() {
        for name in
            [Path::new("/dev/no-such-disk"), &folder.path().join("link/no-such-disk"), Path::new("no-such-disk")]
        {
            let mut command = receiver.command(&tools!(), name, false, true);
            run(command.current_dir("/dev"), &stream(4 * MIB)).refused(&["no-such-disk is no device"]);
            assert!(!Path::new("/dev/no-such-disk").exists() && !Path::new("/dev/no-such-disk.part").exists());
        }
    }
}

#[test]
fn a_limit_of_file_size_and_a_full_file_system_are_named() {
    let fs = Filesystem::new(Fs::Tmpfs, 4 * MIB);
    let dest = fs.join("out.img");
    let data = [format!("XFER-HOLE 1 {0}\nDATA {0}\n", 8 * MIB).as_bytes(), &vec![1; 8 << 20], b"END\n"].concat();
    for receiver in scripts() {
        let plain = receiver.command(&tools!(), &dest, false, true);
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -f 2000; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
        run(&mut limited, &data).refused(&["out.img", "ulimit -f"]);
        let outcome =
            receive(receiver, &dest, &data).refused(&["No space left", "bytes are missing", "may be removed"]);
        let missing = outcome.err.split("at most ").nth(1).unwrap().split(' ').next().unwrap();
        let missing: u64 = missing.parse().unwrap();
        // What was free went to the part of it that is there.
        assert!((4 * MIB..=8 * MIB).contains(&missing), "{receiver:?} {}", outcome.err);
        fs::remove_file(part_of(&dest)).unwrap();
        let _mark = fs::remove_file(fs.join("out.img.part.lines"));
    }
}

#[test]
fn a_dry_run_reads_nothing_and_finds_what_would_be_refused() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (dest, stream) = (fs.join("out.img"), stream(4 * MIB));
    for receiver in scripts() {
        let said = run(&mut with(receiver, "-n", &dest), &stream).ok();
        assert!(said.err.contains("a new raw image") && !dest.exists(), "{receiver:?} {}", said.err);
        fs::write(&dest, "the old disk").unwrap();
        let before = Before::of(&dest);
        let said = run(&mut with(receiver, "-n", &dest), &stream).ok();
        assert!(said.err.contains("replaces"), "{receiver:?} {}", said.err);
        let device = tool("losetup", &["--find", "--show", dest.to_str().unwrap()]);
        let outcome = run(&mut with(receiver, "-n", &dest), b"");
        tool("losetup", &["-d", device.trim()]);
        outcome.refused(&["attached as the loop device"]);
        before.untouched(&format!("{receiver:?}"));
        assert_eq!(fs::read_dir(fs.path()).unwrap().count(), 2, "{receiver:?}: lost+found and the disk");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn in_place_without_flock_is_told_of() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let dest = fs.join("out.img");
    let links = fs.join("bin");
    fs::create_dir(&links).unwrap();
    for program in fs::read_dir("/usr/bin").unwrap() {
        let program = program.unwrap();
        if program.file_name() != "flock" {
            std::os::unix::fs::symlink(program.path(), links.join(program.file_name())).unwrap();
        }
    }
    for receiver in scripts() {
        TestDisk::empty(MIB).make(&dest);
        let plain = receiver.command(&tools!(), &dest, true, true);
        let mut command = Command::new(plain.get_program());
        let outcome = run(command.args(plain.get_args()).env("PATH", &links), &stream(4 * MIB)).ok();
        assert!(outcome.err.contains("needs flock to keep readers"), "{receiver:?} {}", outcome.err);
    }
}

/// What a folder has: names and content.
fn content(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    let mut found: Vec<_> = entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect();
    found.sort();
    found
}

#[test]
fn an_increment_that_is_refused_leaves_nothing_and_takes_nothing_away() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (dest, whole) = (fs.join("out.img"), stream(4 * MIB));
    let increments = ["BASE 4194304", "BASE 4194304 nothing", "BASE x"];
    for receiver in scripts() {
        for there in [false, true] {
            // Of what a transfer that was cut has left, nothing is lost.
            for cut in [false, true] {
                if there {
                    fs::write(&dest, "shorter").unwrap();
                }
                if cut {
                    receive(receiver, &dest, &whole[..whole.len() / 2]).refused(&["kept"]);
                }
                let before = content(fs.path());
                for increment in increments {
                    let stream = format!("XFER-HOLE 1 4194304\n{increment}\nKEEP 4194304\nEND\n");
                    let outcome = receive(receiver, &dest, stream.as_bytes()).refused(&["BASE"]);
                    assert!(!outcome.err.contains("kept"), "{receiver:?} {}", outcome.err);
                    assert!(content(fs.path()) == before, "{receiver:?} {there} {cut} {increment}");
                }
                for (name, _) in before {
                    fs::remove_file(fs.path().join(name)).unwrap();
                }
            }
        }
    }
}

#[test]
fn what_stands_in_place_of_part_is_named() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (dest, stream) = (fs.join("out.img"), stream(4 * MIB));
    let part = part_of(&dest);
    for (word, does) in [("directory", "mkdir"), ("symbolic link", "ln -s nowhere"), ("fifo", "mkfifo")] {
        run(std::process::Command::new("sh").args(["-c", &format!("{does} \"$0\"")]).arg(&part), b"").ok();
        for receiver in scripts() {
            receive(receiver, &dest, &stream).refused(&["out.img.part is a", word, "remove or rename it"]);
            run(&mut with(receiver, "--dry-run", &dest), b"").refused(&["out.img.part is a", word]);
            run(&mut with(receiver, "--force", &dest), &stream).refused(&["out.img.part is a", word]);
        }
        run(std::process::Command::new("rm").arg("-d").arg(&part), b"").ok();
    }
}

#[test]
fn side_files_of_the_receiver_that_comes_next_stay() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (dest, stream) = (fs.join("out.img"), stream(4 * MIB));
    let (part, lines) = (part_of(&dest), fs.join("out.img.part.lines"));
    let mv = rig::tool("sh", &["-c", "command -v mv"]);
    // Another receiver begins right after the rename.
    let text = format!(
        "{} \"$@\" || exit\nrm -f '{1}'\necho XFER-HOLE-PART 1 inode 9 >'{1}'\necho new >'{2}'",
        mv.trim(),
        lines.display(),
        part.display()
    );
    let toolbox = rig::Toolbox::new().script("mv", &text);
    for receiver in scripts() {
        if receiver == Receiver::Script(rig::SHELLS[2]) {
            // Its own mv comes first there.
            continue;
        }
        let mut command = receiver.command(&tools!(), &dest, false, true);
        run(command.env("PATH", toolbox.path()), &stream).ok();
        assert_eq!(fs::read(&lines).unwrap(), b"XFER-HOLE-PART 1 inode 9\n", "{receiver:?}");
        assert_eq!(fs::read(&part).unwrap(), b"new\n", "{receiver:?}");
        fs::remove_file(&lines).unwrap();
        fs::remove_file(&part).unwrap();
    }
    receive(Receiver::Script(rig::SHELLS[0]), &dest, &stream).ok();
    assert!(!lines.exists() && !part.exists());
}
