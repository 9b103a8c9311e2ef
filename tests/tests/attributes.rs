//! A file that replaces another keeps its ACL, labels and flags; what can't be kept is told, and never widens rights.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rig::{Filesystem, Fs, Outcome, TestDisk, assert_same, mode, part_of, pour, requires, run, tool, tools};

const MIB: u64 = 1 << 20;

fn disk() -> TestDisk {
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The ACL, or what stands for it in the mode.
fn acl(path: &Path) -> String {
    requires(&["getfacl"]);
    tool("getfacl", &["-n", "-p", "--omit-header", text(path)])
}

/// All extended attributes but ACLs and our own.
fn attributes(path: &Path) -> Vec<String> {
    requires(&["getfattr"]);
    let all = tool("getfattr", &["-h", "-d", "-m", "-", "--absolute-names", "-e", "hex", text(path)]);
    let aside = ["user.xfer-hole.", "system.", "trusted.SGI_ACL"];
    let other = |line: &&str| line.contains('=') && !aside.iter().any(|kind| line.starts_with(kind));
    let mut found: Vec<_> = all.lines().filter(other).map(str::to_owned).collect();
    found.sort();
    found
}

/// An old file that a virtual machine may write by its ACL, and with labels.
fn labelled(dest: &Path) {
    requires(&["setfacl", "setfattr"]);
    TestDisk::empty(4 * MIB).with(0, 2 * MIB, 7).make(dest);
    chown(dest, Some(12345), Some(23456)).unwrap();
    fs::set_permissions(dest, fs::Permissions::from_mode(0o640)).unwrap();
    tool("setfacl", &["-m", "u:65534:rw,g:54321:r,g::---,m::rw", text(dest)]);
    for (name, value) in
        [("user.note", "nightly"), ("security.selinux", "system_u:object_r:svirt_image_t:s0"), ("trusted.mark", "1")]
    {
        tool("setfattr", &["-n", name, "-v", value, text(dest)]);
    }
}

fn recv_hole(args: &[&str], dest: &Path, stream: &[u8]) -> Outcome {
    run(Command::new(tools!().recv_hole).args(args).arg(dest), stream)
}

#[test]
fn acl_labels_and_other_attributes_are_kept() {
    for kind in Fs::ALL {
        let fs = Filesystem::new(kind, 512 * MIB);
        let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
        disk().make(&image);
        let stream = pour(&tools!(), &["--hash"], &image);
        let copy = |args: &[&str]| run(Command::new(tools!().xfer_hole).args(args).arg(&image).arg(&dest), b"");
        for way in ["pipe", "no-sync", "copy", "delta", "reflink"] {
            let what = format!("{kind:?}, {way}");
            let _none = fs::remove_file(&dest);
            labelled(&dest);
            let before = (acl(&dest), attributes(&dest), mode(&dest));
            assert!(before.0.contains("user:65534:rw-") && before.1.len() == 3, "{before:?}");
            let inode = fs::metadata(&dest).unwrap().ino();
            let outcome = match way {
                "pipe" => recv_hole(&[], &dest, &stream),
                "no-sync" => recv_hole(&["--no-sync"], &dest, &stream),
                "copy" => copy(&["--reflink", "never"]),
                "delta" => copy(&["--hash", "--delta"]),
                _ => copy(&[]),
            };
            let outcome = outcome.ok();
            assert!(!outcome.err.contains("cannot keep"), "{what}: {}", outcome.err);
            assert_eq!((acl(&dest), attributes(&dest), mode(&dest)), before, "{what}");
            let stat = fs::metadata(&dest).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (12345, 23456), "{what}");
            assert_ne!(stat.ino(), inode, "{what}");
            assert_same(&image, &dest);
        }
    }
}

#[test]
fn what_cannot_be_kept_narrows_rights_and_is_told_once() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    for (group, expected) in [("---", 0o600), ("r--", 0o640)] {
        let _none = fs::remove_file(&dest);
        labelled(&dest);
        tool("setfacl", &["-m", &format!("g::{group},m::rw"), text(&dest)]);
        assert_eq!(mode(&dest), 0o660, "the mask stands where the group's rights do");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsetxattr", "-e", "inject=fsetxattr:error=EPERM"]);
        let outcome = run(command.arg(tools!().recv_hole).arg(&dest), &stream).ok();
        let warnings: Vec<_> = outcome.err.lines().filter(|line| line.contains("cannot keep")).collect();
        assert_eq!(warnings.len(), 1, "{}", outcome.err);
        for word in ["its ACL", "security.selinux", "user.note", "trusted.mark", "not permitted"] {
            assert!(warnings[0].contains(word), "{word}: {}", outcome.err);
        }
        assert_eq!(mode(&dest), expected);
        assert!(!acl(&dest).contains("65534"), "{}", acl(&dest));
        assert!(!part_of(&dest).exists());
    }
}

#[test]
fn the_default_acl_of_the_directory_widens_nothing() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    fs::write(&dest, "old").unwrap();
    fs::set_permissions(&dest, fs::Permissions::from_mode(0o640)).unwrap();
    let before = acl(&dest);
    tool("setfacl", &["-d", "-m", "u:65534:rwx,g::rwx,o::rwx", text(fs.path())]);
    recv_hole(&[], &dest, &stream).ok();
    assert_eq!((acl(&dest), mode(&dest)), (before, 0o640), "of a file that is replaced");
    // A new file gets the directory's ACL, within the rights that it would have without.
    let fresh = fs.join("new.img");
    recv_hole(&[], &fresh, &stream).ok();
    assert_eq!(mode(&fresh) & 0o033, 0, "{}", acl(&fresh));
    fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
    let private = fs.join("private.img");
    run(Command::new(tools!().xfer_hole).arg(&image).arg(&private), b"").ok();
    assert_eq!(mode(&private), 0o600, "{}", acl(&private));
}

#[test]
fn a_mode_that_was_asked_for_does_what_chmod_does() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest, reference) = (fs.join("disk.img"), fs.join("out.img"), fs.join("reference.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    for bits in ["640", "600", "664"] {
        for file in [&dest, &reference] {
            let _none = fs::remove_file(file);
            labelled(file);
        }
        tool("chmod", &[bits, text(&reference)]);
        recv_hole(&["--chmod", bits], &dest, &stream).ok();
        assert_eq!((acl(&dest), mode(&dest)), (acl(&reference), mode(&reference)), "{bits}");
    }
}

#[test]
fn another_group_gets_nothing_of_what_the_old_one_had() {
    requires(&["setpriv"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    fs::set_permissions(fs.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let outer = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let (image, folder, binary) = (fs.join("disk.img"), fs.join("folder"), outer.path().join("recv-hole"));
    let dest = folder.join("out.img");
    fs::copy(tools!().recv_hole, &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(65534), Some(65534)).unwrap();
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    // The way to the file system leads through a folder of root's.
    let way = fs.path().parent().unwrap();
    fs::set_permissions(way, fs::Permissions::from_mode(0o755)).unwrap();
    for (entries, named) in [("u:54321:rw,g::rw,m::rw", true), ("", false)] {
        fs::write(&dest, "old").unwrap();
        chown(&dest, Some(12345), Some(23456)).unwrap();
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o664)).unwrap();
        if named {
            tool("setfacl", &["-m", entries, text(&dest)]);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary).arg(&dest);
        let outcome = run(&mut command, &stream).ok();
        assert_eq!(outcome.err.matches("cannot keep").count(), 1, "{}", outcome.err);
        assert!(outcome.err.contains("its owner 12345:23456, so its group gets no rights"), "{}", outcome.err);
        let acl = acl(&dest);
        assert!(acl.contains("group::---"), "{acl}");
        assert_eq!(acl.contains("user:54321:rw-"), named, "{acl}");
        fs::remove_file(&dest).unwrap();
    }
}

#[test]
fn who_had_no_rights_by_the_acl_has_none_without_it() {
    requires(&["strace", "setfacl"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    for (entries, expected) in [
        ("u:54321:-,g::r,o::r", 0o600),
        ("g:54321:-,g::rw,o::r", 0o600),
        ("u:54321:r,g::rw,m::rw,o::r", 0o644),
        ("u:54321:rw,g::r,m::rw,o::r", 0o644),
        ("u:54321:rw,g::-,m::r,o::rw", 0o604),
    ] {
        let _none = fs::remove_file(&dest);
        fs::write(&dest, "old").unwrap();
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o600)).unwrap();
        tool("setfacl", &["-m", entries, text(&dest)]);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsetxattr", "-e", "inject=fsetxattr:error=EPERM"]);
        let outcome = run(command.arg(tools!().recv_hole).arg(&dest), &stream).ok();
        assert!(outcome.err.contains("its ACL"), "{}", outcome.err);
        assert_eq!(mode(&dest), expected, "{entries}: {:o}", mode(&dest));
        // Permissions alone are taken over for a restricted key, and no more than these.
        fs::write(&dest, "old").unwrap();
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o600)).unwrap();
        tool("setfacl", &["-m", entries, text(&dest)]);
        let mut command = Command::new(tools!().recv_hole);
        command.arg("--restrict").arg(fs.path());
        command.env("SSH_ORIGINAL_COMMAND", "exec sh -c '' recv-hole 1 0 -- 'out.img' 'x'");
        run(&mut command, &stream).ok();
        assert_eq!(mode(&dest), expected, "restricted, {entries}: {:o}", mode(&dest));
    }
}

#[test]
fn who_was_in_the_old_group_gets_no_more_as_one_of_the_others() {
    requires(&["setpriv"]);
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let image = fs.join("disk.img");
    disk().make(&image);
    let stream = pour(&tools!(), &[], &image);
    let outer = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let (binary, script) = (outer.path().join("recv-hole"), outer.path().join("recv-hole.sh"));
    for (from, to) in [(&tools!().recv_hole, &binary), (&rig::script(), &script)] {
        fs::copy(from, to).unwrap();
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (folder, way) = (fs.join("folder"), fs.path().parent().unwrap().to_owned());
    let dest = folder.join("out.img");
    for way in [way.as_path(), fs.path()] {
        fs::set_permissions(way, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(65534), Some(65534)).unwrap();
    for by in [&[text(&binary)][..], &["sh", text(&script)]] {
        // The old group may do less than others; the old owner, too.
        for (old, expected) in [(0o604, 0o600), (0o646, 0o604), (0o664, 0o604), (0o444, 0o404), (0o466, 0o404)] {
            let _none = fs::remove_file(&dest);
            fs::write(&dest, "old").unwrap();
            chown(&dest, Some(12345), Some(23456)).unwrap();
            fs::set_permissions(&dest, fs::Permissions::from_mode(old)).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).args(by).arg(&dest);
            run(&mut command, &stream).ok();
            assert_eq!(mode(&dest), expected, "{by:?}, {old:o}: {:o}", mode(&dest));
        }
    }
}

#[test]
fn a_restricted_key_takes_over_no_acl() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    labelled(&dest);
    tool("setfacl", &["-m", "g::r--,m::rw", text(&dest)]);
    let mut command = Command::new(tools!().recv_hole);
    command.arg("--restrict").arg(fs.path());
    command.env("SSH_ORIGINAL_COMMAND", "exec sh -c '' recv-hole 1 0 -- 'out.img' 'x'");
    let outcome = run(&mut command, &pour(&tools!(), &[], &image)).ok();
    assert!(!String::from_utf8_lossy(&outcome.out).contains("cannot keep"));
    assert_eq!((mode(&dest), attributes(&dest)), (0o640, Vec::new()), "{}", acl(&dest));
    assert!(!acl(&dest).contains("65534"), "{}", acl(&dest));
}

#[test]
fn a_file_without_copy_on_write_stays_so() {
    requires(&["chattr", "lsattr"]);
    let fs = Filesystem::new(Fs::Btrfs, 512 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    disk().make(&image);
    let stream = pour(&tools!(), &["--hash"], &image);
    let is_nocow = |file: &Path| tool("lsattr", &[text(file)]).split(' ').next().unwrap().contains('C');
    fs::write(&dest, "").unwrap();
    tool("chattr", &["+C", text(&dest)]);
    fs::write(&dest, vec![7; 4 << 20]).unwrap();
    assert!(is_nocow(&dest));
    for args in [&["--reflink", "auto"][..], &["--hash", "--delta"], &["--reflink", "never"]] {
        let outcome = run(Command::new(tools!().xfer_hole).args(args).arg(&image).arg(&dest), b"").ok();
        assert!(!outcome.err.contains("cannot keep"), "{args:?} {}", outcome.err);
        assert!(is_nocow(&dest), "{args:?}");
        assert_same(&image, &dest);
    }
    recv_hole(&[], &dest, &stream).ok();
    assert!(is_nocow(&dest));
    // What an earlier transfer has left with copy on write can't be changed: that is told.
    recv_hole(&[], &dest, &stream[..stream.len() - 1000]).refused(&["out.img.part"]);
    assert!(is_nocow(&part_of(&dest)), "from its beginning on");
    let plain = fs.join("plain.img");
    recv_hole(&[], &plain, &stream).ok();
    assert!(!is_nocow(&plain));
}
