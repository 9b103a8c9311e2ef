//! An image goes to another machine by one command, where nothing is installed, whatever it is to be called there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rig::{
    FarEnd, Fill, HOST, LoopDevice, Op, Outcome, Qcow2, Setup, TestDisk, Toolbox, assert_same, holes, holes_within,
    part_of, qemu_disk, run, tool, tools,
};

const MIB: u64 = 1 << 20;

/// Names that a shell would make something else of.
const NAMES: [&[u8]; 15] = [
    b"plain.img",
    b"with spaces  and more ",
    b"it's \"quoted\" `twice`",
    b"$HOME ${x} $(touch hacked) `touch hacked`",
    b"new\nline\n\nand last\n",
    b"-rf",
    b"--help",
    b"./~",
    b"./~root",
    b"\xc3\xbcml\xc3\xa4ut \xff\xfe no UTF-8",
    b"back\\slash \\n \\0101 \\",
    b"*?[a-z]{a,b}",
    b"!! !$ !x ^a^b",
    b"a;b|c&d>e<f#g%h%s(i)",
    b"colon:in @name=1,2+3 \t\x01\x7f",
];

/// Data far apart, that any grain up to a mebibyte leaves as it is.
fn disk() -> TestDisk {
    TestDisk::empty(64 * MIB + 512).with(0, MIB, 1).with(20 * MIB, 2 * MIB, 2).with(64 * MIB, 512, 3)
}

/// Fails unless DEST is the image: its bytes, its holes, and the digest that was said, by reading DEST anew.
#[track_caller]
fn assert_arrived(pushed: Outcome, image: &Path, dest: &Path, what: &str) {
    assert_eq!(pushed.code, Some(0), "{what}: {}", pushed.err);
    assert_same(image, dest);
    assert_eq!(holes(dest), holes_within(image, 4096), "{what}");
    assert!(!part_of(dest).exists(), "{what}");
    let (interval, grain, fingerprint) = pushed.fingerprint();
    let mut again = Command::new(tools!().xfer_hole);
    again.args(["--hash", "--print-digest", "--hash-interval", &interval, "--min-hole", &grain]).arg(dest);
    assert_eq!(run(&mut again, b"").ok().fingerprint().2, fingerprint, "{what}");
}

/// Pushes to each name in a fresh account with this login shell: one connection each, and nothing there but the image afterwards.
fn names_arrive(far: &FarEnd, args: &[&str], names: &[&[u8]], what: &str) {
    let image = far.image("disk.img", &disk());
    let before = far.belongings();
    for name in names {
        let what = format!("{what} {:?}", String::from_utf8_lossy(name));
        let (name, connections) = (Path::new(OsStr::from_bytes(name)), far.sshd.connections());
        let pushed = far.push(&[&["--print-digest"], args].concat(), &image, name);
        let dest = far.account.home("").join(name);
        assert_arrived(pushed, &image, &dest, &what);
        assert_eq!(far.sshd.connections() - connections, 1, "{what}");
        assert_eq!(far.account.belongings().changed_since(&before), std::slice::from_ref(&dest), "{what}");
        fs::remove_file(dest).unwrap();
    }
}

/// The worst names in one.
fn worst() -> Vec<u8> {
    let mut worst = b"-~".to_vec();
    worst.extend(NAMES.concat().into_iter().filter(|&byte| byte != b'/'));
    worst.truncate(240);
    worst
}

#[test]
fn any_name_arrives_in_a_fresh_account() {
    names_arrive(&FarEnd::new(tools!(), "dash"), &[], &NAMES, "dash");
}

#[test]
fn any_login_shell_passes_the_worst_names_on() {
    let worst = worst();
    let names: [&[u8]; 4] = [&worst, b"-rf", b"./~x y", b"!!'\n"];
    thread::scope(|scope| {
        for shells in [["busybox", "fish", "mksh", "ksh93"], ["csh", "tcsh", "bash", "zsh"]] {
            scope.spawn(move || {
                for shell in shells {
                    let far = FarEnd::new(tools!(), shell);
                    names_arrive(&far, &[], &names, shell);
                }
            });
        }
    });
}

#[test]
fn an_appliance_that_has_nothing_but_busybox_receives() {
    let toolbox = Toolbox::busybox();
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "busybox", Setup { path: Some(&path), ..Setup::default() });
    names_arrive(&far, &[], &[b"it's $HOME.img"], "busybox alone");
    names_arrive(&far, &["--receiver", "sh"], &[b"-x"], "busybox alone");
}

#[test]
fn what_is_installed_receives_if_it_speaks_our_version() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    for shell in ["dash", "fish", "csh"] {
        let far = FarEnd::with(tools!(), shell, Setup { path: Some(&path), ..Setup::default() });
        for (args, used) in [(&[][..], true), (&["--receiver", "binary"], true), (&["--receiver", "sh"], false)] {
            let before = toolbox.calls().len();
            let worst = worst();
            names_arrive(&far, args, &[&worst, b"new\n"], shell);
            let calls = &toolbox.calls()[before..];
            let received = calls.iter().filter(|call| call.contains("--request")).count();
            assert_eq!(received, if used { 2 } else { 0 }, "{shell} {args:?}: {calls:#?}");
        }
    }
}

#[test]
fn what_is_installed_is_passed_by_if_it_does_not_speak_our_version() {
    for old in ["exit 2", "echo 'recv-hole 0.0.1'; exit 2", "echo unknown flag >&2; exit 64", "exit 127"] {
        let toolbox = Toolbox::new().script("recv-hole", old);
        let path = toolbox.path();
        let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
        names_arrive(&far, &[], &[b"x"], old);
        let image = far.image("disk.img", &disk());
        far.push(&["--receiver", "binary"], &image, "y").blamed(HOST, &["recv-hole"]);
        assert!(!far.account.home("y").exists());
    }
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    far.push(&["--receiver", "binary"], &image, "y").blamed(HOST, &["recv-hole"]);
}

#[test]
fn words_before_the_conversation_are_passed_over_and_too_many_are_not() {
    let far = FarEnd::new(tools!(), "bash");
    let image = far.image("disk.img", &disk());
    let greeting = far.account.home(".bashrc");
    fs::write(&greeting, "echo 'Welcome to the far end!'; echo DONE; printf 'no end of line'").unwrap();
    assert_arrived(far.push(&["--print-digest"], &image, "x"), &image, &far.account.home("x"), "greeted");
    fs::write(&greeting, "head -c 60000 /dev/zero | tr '\\0' x; echo").unwrap();
    assert_arrived(far.push(&["--print-digest"], &image, "y"), &image, &far.account.home("y"), "60000 bytes");
    fs::write(&greeting, "yes | head -c 1000000").unwrap();
    far.push(&[], &image, "z").blamed(HOST, &[]);
    assert!(!far.account.home("z").exists());
}

#[test]
fn a_chain_of_qcow2_arrives_as_the_disk_that_it_is_with_digests_and_without() {
    let far = FarEnd::new(tools!(), "dash");
    let base = Qcow2::new(48 * MIB).write(0, 3 * MIB, Fill::Noise(1)).op(Op::Compressed(8 * MIB, MIB, Fill::Text(2)));
    base.make(&far.near("base.qcow2"));
    let image = far.near("top.qcow2");
    Qcow2::over("base.qcow2", "qcow2").write(MIB, MIB, Fill::Same(7)).op(Op::Zero(2 * MIB, MIB)).make(&image);
    let disk = qemu_disk(&image);
    for args in [&[][..], &["--no-hash"]] {
        for receiver in ["auto", "sh"] {
            let what = format!("{args:?} {receiver}");
            let pushed = far.push(&[args, &["--receiver", receiver]].concat(), &image, "out.img");
            assert_eq!(pushed.code, Some(0), "{what}: {}", pushed.err);
            assert_same(&disk, &far.account.home("out.img"));
            assert_eq!(holes(&far.account.home("out.img")), holes_within(&disk, 4096), "{what}");
        }
    }
}

#[test]
fn a_directory_gets_the_image_under_its_own_name() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let folder = far.account.home("my images");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(far.account.uid()), None).unwrap();
    let raw = far.image("it's a disk.raw", &disk());
    let qcow2 = far.near("vm 1.2.qcow2");
    Qcow2::new(8 * MIB).write(MIB, MIB, Fill::Noise(1)).make(&qcow2);
    let bare = far.image("vm-1.2", &disk());
    for receiver in ["auto", "sh"] {
        let args = ["--receiver", receiver];
        let (home, absolute) = (far.account.home(""), folder.clone());
        let cases: [(&Path, PathBuf, PathBuf); 5] = [
            (&raw, "".into(), home.join("it's a disk.img")),
            (&raw, "my images/".into(), folder.join("it's a disk.img")),
            (&qcow2, "my images".into(), folder.join("vm 1.2.img")),
            (&bare, absolute, folder.join("vm-1.2")),
            (&raw, ".".into(), home.join("it's a disk.img")),
        ];
        for (image, given, made) in cases {
            far.push(&args, image, &given).ok();
            let source = if image == qcow2 { qemu_disk(image) } else { image.to_owned() };
            assert_same(&source, &made);
            fs::remove_file(made).unwrap();
        }
    }
}

#[test]
fn a_path_is_taken_from_home_or_from_the_root_or_out_of_a_url() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let (user, port) = (far.account.name(), far.sshd.port());
    let absolute = far.account.home("a b.img");
    let coded = absolute.to_str().unwrap().replace(' ', "%20");
    let config = ["-o".to_owned(), format!("User={user}")];
    let words: [(&[String], String); 5] = [
        (&[], format!("{user}@{HOST}:a b.img")),
        (&[], format!("{user}@{HOST}:{}", absolute.display())),
        (&[], format!("ssh://{user}@{HOST}{coded}")),
        (&[], format!("ssh://{user}@127.0.0.1:{port}{coded}")),
        (&config, format!("{HOST}:./a b.img")),
    ];
    for (args, word) in words {
        run(far.sender().args(args).arg(&image).arg(&word), b"").ok();
        assert_same(&image, &absolute);
        fs::remove_file(&absolute).unwrap();
    }
}

#[test]
fn a_block_device_is_written_as_one() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let image = far.image("disk.img", &disk());
    for receiver in ["auto", "sh"] {
        let device = LoopDevice::filled(64 * MIB + 512, 0xee);
        let word = format!("{HOST}:{}", device.path().display());
        run(far.sender().args(["--receiver", receiver]).arg(&image).arg(word), b"").ok();
        tool("blockdev", &["--flushbufs", device.path().to_str().unwrap()]);
        assert!(fs::read(device.path()).unwrap() == disk().bytes(), "{receiver}");
        assert!(!part_of(device.path()).exists());
        let small = LoopDevice::filled(MIB, 0xee);
        let word = format!("{HOST}:{}", small.path().display());
        let refused = run(far.sender().args(["--receiver", receiver]).arg(&image).arg(word), b"");
        refused.blamed(HOST, &["too small"]);
        assert!(fs::read(small.path()).unwrap().iter().all(|&byte| byte == 0xee), "{receiver}");
    }
}

#[test]
fn one_line_tells_what_was_moved_unless_nothing_is_to_be_said() {
    let far = FarEnd::new(tools!(), "dash");
    let image = far.image("disk.img", &disk());
    let said = far.push(&[], &image, "x").ok().err;
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in [":x: new raw image; disk 64", ", data 3", "MiB, wire 3", "/s"] {
        assert!(said.contains(word), "\"{word}\" is not in {said}");
    }
    assert_eq!(far.push(&["-q"], &image, "x").ok().err, "");
}
