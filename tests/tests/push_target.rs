//! What is made at the far end: folders on the way, modes and owners, nothing over what is there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use rig::{Before, FarEnd, HOST, Setup, TestDisk, Toolbox, assert_same, mode, run, tools};

const MIB: u64 = 1 << 20;

/// Calls `each` with an account where `recv-hole` is installed, for both receivers.
fn with_both(each: impl Fn(&FarEnd, &[&str])) {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    for receiver in ["binary", "sh"] {
        each(&far, &["--receiver", receiver]);
    }
}

fn disk() -> TestDisk {
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1)
}

#[test]
fn folders_on_the_way_are_made_where_that_was_asked_for() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        far.push(args, &image, "a/it's b/c.img").blamed(HOST, &["no such"]);
        assert!(!far.account.home("a").exists());
        far.push(&[args, &["--mkpath"]].concat(), &image, "a/it's b/c.img").ok();
        assert_same(&image, &far.account.home("a/it's b/c.img"));
        assert_eq!(fs::metadata(far.account.home("a/it's b")).unwrap().uid(), far.account.uid());
        fs::remove_dir_all(far.account.home("a")).unwrap();
        far.push(&[args, &["--mkpath"]].concat(), &image, "-a/b/").ok();
        assert_same(&image, &far.account.home("-a/b/disk.img"));
        fs::remove_dir_all(far.account.home("-a")).unwrap();
    });
}

#[test]
fn what_is_there_stays_where_that_was_asked_for() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let args = [args, &["--no-clobber"]].concat();
        for name in ["x.img", "disk.img"] {
            let dest = far.account.home(name);
            fs::write(&dest, "old").unwrap();
            let before = Before::of(&dest);
            // By its name, and by its folder's.
            far.push(&args, &image, if name == "x.img" { name } else { "." }).blamed(HOST, &[name, "already"]);
            before.untouched(name);
            fs::remove_file(dest).unwrap();
        }
        far.push(&args, &image, "x.img").ok();
        assert_same(&image, &far.account.home("x.img"));
        fs::remove_file(far.account.home("x.img")).unwrap();
    });
}

#[test]
fn mode_and_owner_are_as_they_were_asked_for() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("x.img");
        for bits in ["640", "0600", "444"] {
            far.push(&[args, &["--chmod", bits]].concat(), &image, "x.img").ok();
            assert_eq!(mode(&dest), u32::from_str_radix(bits, 8).unwrap());
        }
        fs::remove_file(&dest).unwrap();
        // Root may give away.
        for (owner, ids) in
            [("12345", (12345, None)), ("nobody:daemon", (65534, Some(1))), ("12345:23456", (12345, Some(23456)))]
        {
            let word = format!("{HOST}:{}", dest.display());
            run(far.sender().args(args).args(["--chown", owner, "--chmod=600"]).arg(&image).arg(word), b"").ok();
            let stat = fs::metadata(&dest).unwrap();
            assert_eq!((stat.uid(), ids.1.map(|_| stat.gid()), mode(&dest)), (ids.0, ids.1, 0o600), "{owner}");
            fs::remove_file(&dest).unwrap();
        }
        // Others may not, and are told before anything is made.
        far.push(&[args, &["--chown", "root"]].concat(), &image, "x.img").blamed(HOST, &["not permitted"]);
        assert!(!dest.exists());
        far.push(&[args, &["--chown", "no-such-user"]].concat(), &image, "x.img").blamed(HOST, &["no-such-user"]);
        assert!(!dest.exists());
    });
}

#[test]
fn an_old_image_keeps_its_mode_and_owner() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("x.img");
        fs::write(&dest, "old").unwrap();
        chown(&dest, Some(far.account.uid()), Some(65534)).unwrap();
        fs::set_permissions(&dest, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
        far.push(args, &image, "x.img").ok();
        let stat = fs::metadata(&dest).unwrap();
        assert_eq!((mode(&dest), stat.uid()), (0o604, far.account.uid()));
        assert_same(&image, &dest);
        fs::remove_file(&dest).unwrap();
    });
}

#[test]
fn a_file_is_updated_in_place_where_that_was_asked_for() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        let dest = far.account.home("x.img");
        fs::write(&dest, vec![0xee; 9 << 20]).unwrap();
        chown(&dest, Some(far.account.uid()), None).unwrap();
        let inode = fs::metadata(&dest).unwrap().ino();
        far.push(&[args, &["--in-place"]].concat(), &image, "x.img").ok();
        assert_eq!(fs::metadata(&dest).unwrap().ino(), inode);
        assert_same(&image, &dest);
        fs::remove_file(&dest).unwrap();
    });
}

#[test]
fn a_dry_run_says_what_would_fail_and_changes_nothing() {
    with_both(|far, args| {
        let image = far.image("disk.img", &disk());
        fs::write(far.account.home("old.img"), "old").unwrap();
        chown(far.account.home("old.img"), Some(far.account.uid()), None).unwrap();
        let before = far.belongings();
        let args = [args, &["--dry-run"]].concat();
        far.push(&args, &image, "new.img").ok();
        far.push(&args, &image, "old.img").ok();
        far.push(&args, &image, "no/such/folder").blamed(HOST, &["no such"]);
        far.push(&[&args[..], &["--no-clobber"]].concat(), &image, "old.img").blamed(HOST, &["already"]);
        assert_eq!(far.account.belongings().changed_since(&before), Vec::<std::path::PathBuf>::new());
        fs::remove_file(far.account.home("old.img")).unwrap();
    });
}
