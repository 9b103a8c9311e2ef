//! In a directory, a file that was made from an image of another name is not replaced unless that is said.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use rig::{
    Before, FarEnd, Filesystem, Fill, Fs, HOST, Outcome, Qcow2, Setup, TestDisk, Toolbox, assert_same, requires, run,
    tools,
};

const MIB: u64 = 1 << 20;

/// Images of one stem: what names of images end in.
fn images(folder: &Path) {
    for (seed, name) in [(1, "web.raw"), (2, "web.img"), (3, "web.vmdk")] {
        TestDisk::empty(4 * MIB).with(0, MIB, seed).make(&folder.join(name));
    }
    Qcow2::new(4 * MIB).write(0, MIB, Fill::Noise(9)).make(&folder.join("web.qcow2"));
    TestDisk::empty(4 * MIB).with(MIB, MIB, 5).make(&folder.join("disk"));
}

#[track_caller]
fn refused(outcome: Outcome, words: &[&str]) {
    assert_eq!(outcome.code, Some(2), "{}", outcome.err);
    let last = outcome.complaints().last().copied().unwrap_or_default().to_owned();
    assert!(words.iter().all(|word| last.contains(word)), "{}", outcome.err);
}

#[test]
fn a_copy_into_a_directory_replaces_only_what_came_from_its_image() {
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        let fs = Filesystem::new(kind, 512 * MIB);
        images(fs.path());
        let folder = fs.join("folder");
        let dest = folder.join("web.img");
        fs::create_dir(&folder).unwrap();
        let copy = |args: &[&str], image: &str, dest: &Path| {
            run(
                Command::new(tools!().xfer_hole).args(args).args(["--format", "raw"]).arg(fs.join(image)).arg(dest),
                b"",
            )
        };
        copy(&[], "web.raw", &folder).ok();
        // Night after night.
        copy(&[], "web.raw", &folder).ok();
        copy(&["--in-place"], "web.raw", &folder).ok();
        copy(&["--hash", "--delta"], "web.raw", &folder).ok();
        let before = Before::of(&dest);
        for image in ["web.vmdk", "web.qcow2", "web.img"] {
            for args in [&[][..], &["-n"], &["--in-place"]] {
                let outcome = copy(args, image, &folder).refused(&["web.img", "made from web.raw", image]);
                assert!(outcome.err.contains("--force") && outcome.err.contains("name the file"), "{}", outcome.err);
                before.untouched(image);
            }
        }
        // By its own name, and by force.
        copy(&[], "web.vmdk", &dest).ok();
        assert_same(&fs.join("web.vmdk"), &dest);
        copy(&[], "web.raw", &folder).refused(&["made from web.vmdk"]);
        copy(&["--force"], "web.raw", &folder).ok();
        copy(&[], "web.raw", &folder).ok();
        assert_same(&fs.join("web.raw"), &dest);
        // A file that nothing is known of is its own image's.
        fs::remove_file(&dest).unwrap();
        fs::write(&dest, "somebody's").unwrap();
        copy(&[], "web.raw", &folder).refused(&["web.img", "not known to be made from web.raw"]);
        copy(&[], "web.img", &folder).ok();
        // A name without a known ending stays.
        copy(&[], "disk", &folder).ok();
        assert_same(&fs.join("disk"), &folder.join("disk"));
        copy(&[], "disk", &folder).ok();
        assert!(!folder.join("disk.img").exists());
    }
}

#[test]
fn a_push_or_pull_into_a_directory_does_so_too() {
    requires(&["getfattr", "setfattr"]);
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    images(&far.near(""));
    for receiver in ["binary", "sh"] {
        let args = ["--receiver", receiver, "--format", "raw"];
        let there = far.account.home(receiver);
        fs::create_dir(&there).unwrap();
        chown(&there, Some(far.account.uid()), None).unwrap();
        let push =
            |more: &[&str], image: &str, dest: &str| far.push(&[&args[..], more].concat(), &far.near(image), dest);
        for _night in 0..2 {
            push(&[], "web.raw", receiver).ok();
        }
        let before = Before::of(&there.join("web.img"));
        for dest in [receiver.to_owned(), format!("{receiver}/")] {
            push(&[], "web.vmdk", &dest).blamed(HOST, &["made from", "web.img"]);
            push(&["-n"], "web.vmdk", &dest).blamed(HOST, &["made from"]);
            before.untouched(receiver);
        }
        push(&["--force"], "web.vmdk", receiver).ok();
        assert_same(&far.near("web.vmdk"), &there.join("web.img"));
        push(&[], "web.raw", receiver).blamed(HOST, &["made from"]);
        push(&[], "web.raw", &format!("{receiver}/web.img")).ok();
        push(&[], "web.raw", receiver).ok();
        push(&[], "disk", receiver).ok();
        assert_same(&far.near("disk"), &there.join("disk"));
        // A file that nothing is known of is its own image's.
        let unknown = there.join("web.img");
        fs::remove_file(&unknown).unwrap();
        fs::write(&unknown, "somebody's").unwrap();
        chown(&unknown, Some(far.account.uid()), None).unwrap();
        let before = Before::of(&unknown);
        for more in [&["-n"][..], &["--in-place"], &[]] {
            push(more, "web.raw", receiver).blamed(HOST, &["web.img", "not known to be made from web.raw"]);
        }
        before.untouched(receiver);
        push(&[], "web.img", receiver).ok();
    }
    // The images lie at the other side.
    images(&far.account.home(""));
    let here = far.near("here");
    fs::create_dir(&here).unwrap();
    let pull = |args: &[&str], image: &str| far.pull(&[args, &["-M", "--format=raw"]].concat(), image, &here);
    pull(&[], "web.raw").ok();
    pull(&[], "web.raw").ok();
    refused(pull(&[], "web.vmdk"), &["web.img", "made from web.raw"]);
    pull(&["--force"], "web.vmdk").ok();
    assert_same(&far.near("web.vmdk"), &here.join("web.img"));
}

#[test]
fn a_restricted_key_is_held_to_it_and_told_nothing() {
    let fs = Filesystem::new(Fs::Ext4, 128 * MIB);
    let dest = fs.join("folder/web.img");
    fs::create_dir(fs.join("folder")).unwrap();
    let ask = |source: &str, dest: &str| {
        let mut command = Command::new(tools!().recv_hole);
        command.arg("--restrict").arg(fs.path());
        let request = format!("exec sh -c '' recv-hole 1 0 'source={source}' -- '{dest}' 'web.img'");
        run(command.env("SSH_ORIGINAL_COMMAND", request), b"XFER-HOLE 1 4096\nHOLE 4096\nEND\n")
    };
    for dest in ["folder", "folder/", "folder"] {
        ask("web.raw", dest).ok();
    }
    let before = Before::of(&dest);
    for folder in ["folder", "folder/"] {
        let outcome = ask("web.qcow2", folder);
        let said = String::from_utf8(outcome.out).unwrap();
        assert!(outcome.code == Some(2) && said.contains("FAIL") && !said.contains("web.raw"), "{said}");
        before.untouched(folder);
    }
    ask("web.qcow2", "folder/web.img").ok();
}
