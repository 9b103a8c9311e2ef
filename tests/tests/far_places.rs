//! Where things are at the far end: the home directory, the program that is to run, and accounts that run nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rig::{FarEnd, HOST, Outcome, Setup, TestDisk, assert_same, requires, run, tools};

const K: u64 = 1 << 10;

fn disk() -> TestDisk {
    TestDisk::empty(256 * K).with(8 * K, 5 * K, 1)
}

/// Puts a program into the account's home, where its owner may run it.
fn install(far: &FarEnd, program: &Path, name: &str) {
    let path = far.account.home(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(program, &path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An account whose logins begin in another folder than its home.
fn elsewhere(far: &FarEnd) {
    let rc = far.account.home(".bashrc");
    fs::write(&rc, "cd /\n").unwrap();
    chown(rc, Some(far.account.uid()), None).unwrap();
}

#[test]
fn a_tilde_is_the_home_directory_wherever_a_login_begins() {
    let far = FarEnd::new(tools!(), "bash");
    elsewhere(&far);
    let image = far.image("disk.img", &disk());
    install(&far, &tools!().recv_hole, ".cargo/bin/recv-hole");
    install(&far, &tools!().xfer_hole, ".local/bin/xfer-hole");
    fs::create_dir(far.account.home("~")).unwrap();
    chown(far.account.home("~"), Some(far.account.uid()), None).unwrap();
    for receiver in ["binary", "sh"] {
        let args = ["--receiver", receiver];
        for (path, dest) in [("~/x.img", "x.img"), ("~", "disk.img"), ("~//", "disk.img"), ("~/~/y", "~/y")] {
            far.push(&args, &image, path).ok();
            assert_same(&image, &far.account.home(dest));
            let near = far.near("pulled");
            far.pull(&[], format!("~/{dest}"), &near).ok();
            assert_same(&image, &near);
            fs::remove_file(near).unwrap();
            fs::remove_file(far.account.home(dest)).unwrap();
        }
        // What is really called so is named by a path.
        let home = far.account.home("~");
        far.push(&args, &image, &home).ok();
        assert_same(&image, &home.join("disk.img"));
        fs::remove_file(home.join("disk.img")).unwrap();
        far.push(&args, &image, "~/no/x.img").blamed(HOST, &["no such directory"]);
    }
}

#[test]
fn another_users_home_is_refused_with_what_to_type() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let pushed = far.push(&[], &image, "~root/x.img");
    let pulled = far.pull(&[], "~root/x.img", &far.near("x"));
    for outcome in [pushed, pulled] {
        assert!(outcome.err.contains("hint: give its whole path, ") && outcome.err.contains(":./~root/x.img"));
        outcome.refused(&["another user's home directory"]);
    }
    assert_eq!(far.sshd.connections(), 0);
}

#[test]
fn a_program_in_usual_places_or_by_its_path_is_run_through_every_login_shell() {
    for shell in ["dash", "bash", "zsh", "fish", "csh", "tcsh", "ksh93", "mksh", "yash"] {
        let far = FarEnd::new(tools!(), shell);
        let image = far.image("disk.img", &disk());
        let binary = |args: &[&str]| far.push(&[&["--receiver", "binary"], args].concat(), &image, "x.img");
        binary(&[]).blamed(HOST, &["no recv-hole is installed there"]);
        install(&far, &tools!().recv_hole, "my tools/it's recv!");
        install(&far, &tools!().xfer_hole, "my tools/it's xfer!");
        let whole = far.account.home("my tools/it's recv!");
        for path in ["~/my tools/it's recv!", whole.to_str().unwrap()] {
            binary(&["--remote-path", path]).ok();
            far.push(&["--remote-path", path, "-v"], &image, "x.img").ok();
            assert_same(&image, &far.account.home("x.img"));
        }
        let near = far.near("pulled");
        far.pull(&["--remote-path", "~/my tools/it's xfer!"], "x.img", &near).ok();
        assert_same(&image, &near);
        // One that isn't there isn't replaced by the script without a word.
        let pushed = far.push(&["--remote-path", "~/my tools/recv; touch hacked"], &image, "y.img");
        pushed.blamed(HOST, &["--remote-path"]);
        assert!(far.pull(&["--remote-path", "/no/xfer"], "x.img", &near).err.contains("not installed there"));
        assert!(!far.account.home("hacked").exists() && !far.account.home("y.img").exists(), "{shell}");
        install(&far, &tools!().recv_hole, ".local/bin/recv-hole");
        binary(&[]).ok();
    }
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let outcome = far.push(&["--remote-path", "x", "--receiver", "sh"], &image, "x.img");
    outcome.refused(&["--remote-path", "--receiver sh"]);
}

#[test]
fn a_terminal_that_ssh_is_told_to_ask_for_is_not_asked_for_and_another_is_named() {
    let client = " RequestTTY force\n";
    let far = FarEnd::with(tools!(), "dash", Setup { client, ..Setup::default() });
    install(&far, &tools!().xfer_hole, ".cargo/bin/xfer-hole");
    let image = far.image("disk.img", &disk());
    let near = far.near("pulled");
    for args in [&[][..], &["-e", "ssh -tt"], &["-o", "RequestTTY=force"]] {
        far.push(args, &image, "x.img").ok();
        assert_same(&image, &far.account.home("x.img"));
        far.pull(args, "x.img", &near).ok();
        assert_same(&image, &near);
    }
    // A program of one's own that has the far end run on a terminal.
    let rsh = far.near("rsh");
    let text = format!("#!/bin/sh\nexec ssh -tt -F '{}' \"$@\"\n", far.sshd.config().display());
    fs::write(&rsh, text).unwrap();
    fs::set_permissions(&rsh, fs::Permissions::from_mode(0o755)).unwrap();
    let (rsh, place) = (rsh.to_str().unwrap(), far.place("y.img"));
    let tools = tools!();
    let of = |program: &Path, words: &[&std::ffi::OsStr]| {
        run(std::process::Command::new("timeout").arg("60").arg(program).args(["-e", rsh]).args(words), b"")
    };
    let pushed = of(&tools.xfer_hole, &[image.as_os_str(), &place]);
    assert!(pushed.err.contains("a terminal is in between") && pushed.err.contains("ssh -T"), "{}", pushed.err);
    pushed.blamed(HOST, &["terminal"]);
    let pulled = of(&tools.recv_hole, &[far.place("x.img").as_os_str(), far.near("no").as_os_str()]);
    pulled.blamed(HOST, &["terminal"]);
    assert!(!far.account.home("y.img").exists() && !far.near("no").exists());
}

#[test]
fn an_account_that_runs_no_commands_is_named_with_what_it_said() {
    requires(&["rbash", "nologin", "git-shell"]);
    for (shell, said) in [
        ("rbash", "restricted"),
        ("nologin", "not available"),
        ("git-shell", "unrecognized command"),
        ("false", "exited with status 1"),
    ] {
        let far = FarEnd::new(tools!(), shell);
        let image = far.image("disk.img", &disk());
        for outcome in [far.push(&[], &image, "x.img"), far.pull(&[], "x.img", &far.near("x"))] {
            let Outcome { err, .. } = &outcome;
            assert!(err.contains("hint: the account needs a login shell that isn't restricted"), "{shell}: {err}");
            assert!(!err.contains("printf"), "{shell}: not the whole command: {err}");
            outcome.blamed(HOST, &["the account's shell or key there doesn't run the command: ", said]);
        }
        assert!(!far.account.home("x.img").exists() && !far.near("x").exists());
    }
}
