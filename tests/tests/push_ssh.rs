//! The way to the other machine is the user's own ssh, with all that its configuration and its flags can do.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::process::Command;

use rig::{FarEnd, HOST, Outcome, Setup, Sshd, TestDisk, Toolbox, assert_same, run, tools};

const MIB: u64 = 1 << 20;

fn disk() -> TestDisk {
    TestDisk::empty(8 * MIB).with(MIB, MIB, 1)
}

/// `xfer-hole WORDS`, killed after two minutes, without `-F`.
fn sender(words: &[&str]) -> Outcome {
    let mut guarded = Command::new("timeout");
    guarded.args(["-s", "KILL", "120"]).arg(tools!().xfer_hole).args(words);
    run(&mut guarded, b"")
}

#[test]
fn port_key_and_options_reach_ssh() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let (image, port) = (image.to_str().unwrap(), far.sshd.port().to_string());
    let (key, known) = (far.sshd.key(), format!("UserKnownHostsFile={}", far.sshd.known_hosts().display()));
    let to = format!("{}@127.0.0.1:x", far.account.name());
    let base = ["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"];
    let short = ["-P", &port, "-i", key.to_str().unwrap(), "-o", &known, "-C", "-4"];
    let long = ["--port", &port, "--identity", key.to_str().unwrap(), "--ssh-option", &known, "--compress", "--ipv4"];
    for words in [short, long] {
        sender(&[&base[..], &words, &[image, &to]].concat()).ok();
        assert_same(image.as_ref(), &far.account.home("x"));
        fs::remove_file(far.account.home("x")).unwrap();
    }
    // Each of them is needed: without any of these it isn't let in.
    for missing in [0, 2, 4] {
        let words: Vec<_> = (0..6).filter(|at| at / 2 != missing / 2).map(|at| short[at]).collect();
        let refused = sender(&[&base[..], &words, &["-o", "StrictHostKeyChecking=yes", image, &to]].concat());
        // No server listens at the usual port, which may be so for a while only.
        if missing == 0 {
            refused.blamed_for_now("127.0.0.1", &[])
        } else {
            refused.blamed("127.0.0.1", &[])
        };
    }
    assert_eq!(far.sshd.said("Accepted publickey"), 2);
}

#[test]
fn a_jump_host_is_passed_through() {
    let far = FarEnd::new(tools!(), "dash");
    let jump = Sshd::with(Setup { host: "jump", ..Setup::default() });
    let image = far.image("disk.img", &disk());
    let config = far.near("config");
    let both = [far.sshd.config(), jump.config()].map(|file| fs::read_to_string(file).unwrap());
    // The jump host's part comes first, without the address that both have.
    fs::write(&config, format!("{}{}", both[1].replace("Host jump 127.0.0.1", "Host jump"), both[0])).unwrap();
    let to = far.place("x");
    for flag in ["-J", "--jump"] {
        let words = ["-F", config.to_str().unwrap(), flag, "jump", image.to_str().unwrap(), to.to_str().unwrap()];
        let before = (far.sshd.connections(), jump.connections());
        sender(&words).ok();
        assert_eq!((far.sshd.connections(), jump.connections()), (before.0 + 1, before.1 + 1));
        assert_same(&image, &far.account.home("x"));
        fs::remove_file(far.account.home("x")).unwrap();
    }
}

#[test]
fn a_master_connection_is_used_and_outlives_the_transfer() {
    let sockets = tempfile::tempdir().unwrap();
    let client = format!("ControlMaster auto\nControlPersist 600\nControlPath {}/%C\n", sockets.path().display());
    let far = FarEnd::with(tools!(), "dash", Setup { client: &client, ..Setup::default() });
    let image = far.image("disk.img", &disk());
    // The first makes the master, which stays behind and must not be waited for; the others use it.
    for _ in 0..3 {
        far.push(&[], &image, "x").ok();
        assert_same(&image, &far.account.home("x"));
        fs::remove_file(far.account.home("x")).unwrap();
    }
    far.push(&[], &image, "no/such/folder").blamed(HOST, &["no such"]);
    assert_eq!(far.sshd.connections(), 1);
    let mut exit = Command::new("ssh");
    exit.arg("-F").arg(far.sshd.config()).args(["-O", "exit", &format!("{}@{HOST}", far.account.name())]);
    run(&mut exit, b"").ok();
}

#[test]
fn another_program_takes_the_place_of_ssh() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let config = far.sshd.config();
    let toolbox = Toolbox::new().script("my rsh", &format!("shift; exec ssh -F '{}' \"$@\"", config.display()));
    let wrapper = format!("'{}' word", toolbox.program("my rsh"));
    let ssh = format!("ssh -F '{}' -o \"SendEnv=x y\"", config.display());
    let to = far.place("it's x");
    for (flag, rsh) in [("-e", &wrapper), ("--rsh", &wrapper), ("-e", &ssh)] {
        sender(&[flag, rsh, image.to_str().unwrap(), to.to_str().unwrap()]).ok();
        assert_same(&image, &far.account.home("it's x"));
        fs::remove_file(far.account.home("it's x")).unwrap();
    }
    let calls = toolbox.calls();
    let called = format!("my rsh word {}@{HOST} exec sh -c", far.account.name());
    assert_eq!(calls.iter().filter(|call| call.starts_with(&called)).count(), 2, "{calls:#?}");
    sender(&["-e", "/no/such/program", image.to_str().unwrap(), to.to_str().unwrap()])
        .refused(&["/no/such/program", "no such file"]);
}

#[test]
fn a_configuration_that_is_not_for_transfers_does_no_harm() {
    let client = "RequestTTY force\nRemoteCommand echo hello\nForwardAgent yes\nLocalForward 127.0.0.1:1 127.0.0.1:1\n\
                  ServerAliveInterval 7\nConnectTimeout 9\nStdinNull no\n";
    let far = FarEnd::with(tools!(), "dash", Setup { client, ..Setup::default() });
    let image = far.image("disk.img", &disk());
    far.push(&[], &image, "x").ok();
    assert_same(&image, &far.account.home("x"));
}

#[test]
fn a_rate_limit_holds() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &TestDisk::empty(16 * MIB).with(0, 6 * MIB, 1));
    let start = std::time::Instant::now();
    far.push(&["--bwlimit", "2M"], &image, "x").ok();
    // 6 MiB at 2 MiB a second, but for what a bucket may hold at first.
    assert!(start.elapsed().as_secs_f64() > 2.0, "{:?}", start.elapsed());
    assert_same(&image, &far.account.home("x"));
}

#[test]
fn a_rate_limit_is_not_taken_for_a_dead_link() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let image = far.image("disk.img", &TestDisk::empty(16 * MIB).with(0, MIB, 1).with(8 * MIB, MIB, 2));
    for receiver in ["binary", "sh"] {
        far.push(&["--receiver", receiver, "--bwlimit", "256K", "--timeout", "3"], &image, "x").ok();
        assert_same(&image, &far.account.home("x"));
    }
}
