//! What is said of a DEST: its name, its format, and what becomes of what was there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{Cut, FarEnd, LoopDevice, Outcome, Setup, TestDisk, Toolbox, converse, pour, run, tool, tools};

const MIB: u64 = 1 << 20;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1).make(&image);
    (folder, image)
}

/// Another machine with both tools, which are there as long as the toolbox is.
fn far() -> (Toolbox, FarEnd) {
    let toolbox = Toolbox::new().with("xfer-hole", &tools!().xfer_hole).with("recv-hole", &tools!().recv_hole);
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&toolbox.path()), ..Setup::default() });
    (toolbox, far)
}

/// An empty image as QEMU makes it.
fn create(format: &str, dest: &Path, size: &str) {
    tool("qemu-img", &["create", "-q", "-f", format, dest.to_str().unwrap(), size]);
}

fn copy(args: &[&str], image: &Path, dest: &Path) -> Outcome {
    run(Command::new(tools!().xfer_hole).args(args).arg(image).arg(dest), b"").ok()
}

fn receive(args: &[&str], image: &Path, dest: &Path) -> Outcome {
    run(Command::new(tools!().recv_hole).args(args).arg(dest), &pour(&tools!(), &[], image)).ok()
}

/// Fails unless there is a warning with all of `words`.
#[track_caller]
fn warned(outcome: &Outcome, words: &[&str]) {
    let mut lines = outcome.err.lines().filter(|line| line.contains(": warning: "));
    let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
    assert!(found.is_some(), "no warning with {words:?}: {}", outcome.err);
}

/// The same, and a hint behind it.
#[track_caller]
fn warned_and_hinted(outcome: &Outcome, words: &[&str]) {
    warned(outcome, words);
    assert!(outcome.err.contains(": hint: "), "{}", outcome.err);
}

#[test]
fn a_raw_image_by_the_name_of_another_format_is_warned_of() {
    let (folder, image) = folder();
    for name in ["web.qcow2", "web.VMDK", "web.vdi", "web.vhdx", "a b.vhd"] {
        let dest = folder.path().join(name);
        let extension = dest.extension().unwrap().to_str().unwrap().to_lowercase();
        let format = if extension == "vhd" { "vpc" } else { &extension };
        let words = [name, "becomes a raw image", format];
        for args in [&["-n"][..], &["-q"], &["--in-place"]] {
            warned_and_hinted(&copy(args, &image, &dest), &words);
            warned_and_hinted(&receive(args, &image, &dest), &words);
        }
        assert_eq!(fs::metadata(&dest).unwrap().size(), 8 * MIB, "it is only a warning");
    }
    for name in ["web", "web.img", "web.raw", "qcow2", "web.qcow2.img"] {
        let dest = folder.path().join(name);
        assert!(!copy(&[], &image, &dest).err.contains("warning"), "{name}");
        assert!(!receive(&[], &image, &dest).err.contains("warning"), "{name}");
    }
}

#[test]
fn an_image_of_another_format_that_is_replaced_is_warned_of() {
    let (folder, image) = folder();
    for (name, format) in [("web.img", "qcow2"), ("web.qcow2", "qcow2"), ("web", "vmdk"), ("web.vdi", "vdi")] {
        let dest = folder.path().join(name);
        let words = [name, "takes the place of a", format];
        for args in [&["-n"][..], &["-q"], &["--in-place"]] {
            for receives in [copy, receive] {
                let _old = fs::remove_file(&dest);
                create(format, &dest, "8M");
                warned_and_hinted(&receives(args, &image, &dest), &words);
            }
        }
    }
    // A device may hold one, too.
    let device = LoopDevice::filled(8 * MIB, 0);
    create("qcow2", device.path(), "1M");
    warned(&copy(&["-n"], &image, device.path()), &["takes the place of a qcow2 image"]);
}

#[test]
fn a_push_and_a_pull_warn_of_formats_too() {
    let (_toolbox, far) = far();
    let (folder, image) = folder();
    let there = far.account.home("disk.img");
    fs::copy(&image, &there).unwrap();
    chown(&there, Some(far.account.uid()), None).unwrap();
    for name in ["web.qcow2", "web.img"] {
        let (home, near) = (far.account.home(name), folder.path().join(name));
        for dest in [&home, &near] {
            create("qcow2", dest, "8M");
        }
        chown(&home, Some(far.account.uid()), None).unwrap();
        for args in [&["-n"][..], &[]] {
            let pushed = far.push(args, &image, name).ok();
            warned(&pushed, &[name, "takes the place of a qcow2 image"]);
            let pulled = far.pull(args, "disk.img", &near).ok();
            warned(&pulled, &[name, "takes the place of a qcow2 image"]);
        }
    }
    // Towards recv-hole.sh it is the name that tells.
    let pushed = far.push(&["--receiver=sh", "-n"], &image, "new.vmdk").ok();
    warned(&pushed, &["new.vmdk", "becomes a raw image", "vmdk"]);
}

#[test]
fn the_summary_and_a_dry_run_say_name_format_and_what_becomes_of_it() {
    let (folder, image) = folder();
    let directory = folder.path().join("images");
    fs::create_dir(&directory).unwrap();
    let dest = directory.join("disk.img");
    let shown = dest.display();
    let says = |outcome: &Outcome, words: &str| assert!(outcome.err.contains(words), "{words}: {}", outcome.err);
    says(&copy(&["-n"], &image, &directory), &format!("to {shown}, a new raw image"));
    says(&receive(&["-n"], &image, &dest), &format!("would write {shown}, a new raw image"));
    says(&copy(&[], &image, &directory), &format!("xfer-hole: {shown}: new raw image; disk 8 MiB, data 1 MiB in "));
    says(&copy(&["-n"], &image, &dest), &format!("to {shown}, a raw image that replaces the file there"));
    says(&copy(&[], &image, &dest), &format!("{shown}: raw image, replaced the old file; disk 8 MiB"));
    says(
        &receive(&["-v"], &image, &dest),
        &format!("recv-hole: {shown}: raw image, replaced the old file; disk 8 MiB"),
    );
    says(&copy(&["--in-place"], &image, &dest), &format!("{shown}: raw image, updated in place; "));
    says(&copy(&["--hash", "--delta"], &image, &dest), &format!("{shown}: unchanged; disk 8 MiB, "));
    says(&copy(&["--hash", "--delta", "--in-place"], &image, &dest), &format!("{shown}: unchanged; disk 8 MiB, "));
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1).with(4 * MIB, 4096, 3).make(&image);
    says(
        &copy(&["--hash", "--delta"], &image, &dest),
        "raw image, replaced the old file; disk 8 MiB, 7.94 MiB of it there already, data 4 KiB",
    );
    let device = LoopDevice::filled(8 * MIB, 1);
    says(&copy(&[], &image, device.path()), &format!("{}: device, overwritten; disk 8 MiB", device.path().display()));
    let piped = run(Command::new(tools!().xfer_hole).arg("-v").arg(&image), b"").ok();
    says(&piped, "xfer-hole: disk 8 MiB, data ");
}

#[test]
fn a_push_says_what_became_of_it_there() {
    let (_toolbox, far) = far();
    let (_folder, image) = folder();
    let says = |outcome: Outcome, words: &str| assert!(outcome.err.contains(words), "{words}: {}", outcome.err);
    says(far.push(&["-n"], &image, ".").ok(), "disk.img, a new raw image");
    says(far.push(&[], &image, ".").ok(), "disk.img: new raw image; disk 8 MiB, data 1 MiB, wire ");
    says(far.push(&["-n"], &image, "disk.img").ok(), "disk.img, a raw image that replaces the file there");
    says(far.push(&[], &image, "disk.img").ok(), "disk.img: raw image, replaced the old file; ");
    says(far.push(&["--delta"], &image, "disk.img").ok(), "disk.img: unchanged; disk 8 MiB, ");
    let sh = |args: &[&str], dest: &str| far.push(&[&["--receiver=sh"], args].concat(), &image, dest).ok();
    says(sh(&["-n"], "disk.img"), "disk.img, a raw image that replaces the file there");
    says(sh(&[], "disk.img"), "disk.img: raw image, replaced the old file; disk 8 MiB, ");
    says(sh(&["-n"], "."), "disk.img, a raw image that replaces the file there");
    says(sh(&["--in-place", "-n"], "."), "disk.img, a raw image, updated in place");
    says(sh(&["--in-place"], "disk.img"), "disk.img: raw image, updated in place; disk 8 MiB, ");
    fs::remove_file(far.account.home("disk.img")).unwrap();
    says(sh(&["-n"], "."), "disk.img, a new raw image");
    says(sh(&[], "."), "disk.img: new raw image; disk 8 MiB, ");
}

#[test]
fn a_resume_says_how_much_was_there() {
    let (folder, image) = folder();
    TestDisk::empty(64 * MIB).with(0, 16 * MIB, 1).make(&image);
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let toolbox = toolbox.with("xfer-hole", &tools!().xfer_hole);
    let path = format!("{}:{}", toolbox.path(), std::env::var("PATH").unwrap());
    let elsewhere = ["-e", "sh -c 'exec sh -c \"$2\"' sh"];
    for pushes in [true, false] {
        let dest = folder.path().join(if pushes { "pushed.img" } else { "pulled.img" });
        let (sent, _, _) = converse(&tools!(), &[], &image, &[], &dest, Cut::Link(9_000_000));
        assert_ne!(sent.code, Some(0));
        let there = |path: &Path| format!("here:{}", path.display());
        let mut again = Command::new(if pushes { tools!().xfer_hole } else { tools!().recv_hole });
        again.args(elsewhere).env("PATH", &path);
        match pushes {
            true => again.arg(&image).arg(there(&dest)),
            false => again.arg(there(&image)).arg(&dest),
        };
        let resumed = run(&mut again, b"").ok();
        assert!(resumed.err.contains("d.img: new raw image; disk 64 MiB, "), "{}", resumed.err);
        assert!(resumed.err.contains(" of it there already, data "), "{}", resumed.err);
    }
}
