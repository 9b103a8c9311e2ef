//! An image comes from another machine by one command.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rig::{
    Before, FarEnd, Filesystem, Fill, Fs, HOST, LoopDevice, Op, Qcow2, Setup, TestDisk, Toolbox, assert_same, holes,
    holes_within, mode, part_of, qemu_disk, run, tool, tools,
};

const MIB: u64 = 1 << 20;

fn disk() -> TestDisk {
    TestDisk::empty(64 * MIB + 512).with(0, MIB, 1).with(20 * MIB, 2 * MIB, 2).with(64 * MIB, 512, 3)
}

/// What is installed there, and what was called of it.
fn installed() -> Toolbox {
    Toolbox::new().with("xfer-hole", &tools!().xfer_hole)
}

fn far_with(toolbox: &Toolbox, shell: &str) -> FarEnd {
    FarEnd::with(tools!(), shell, Setup { path: Some(&toolbox.path()), ..Setup::default() })
}

/// An image in the account's home.
fn there(far: &FarEnd, name: impl AsRef<Path>, disk: &TestDisk) -> PathBuf {
    let image = far.account.home("").join(name);
    disk.make(&image);
    chown(&image, Some(far.account.uid()), None).unwrap();
    image
}

#[test]
fn any_name_comes_through_any_login_shell_by_one_connection() {
    let toolbox = installed();
    let worst = b"-~it's \"q\" $HOME `x` $(x) \\0101 \\ !! ^a^b *?[a]{b,c} ;&|<># \xff\xc3\xbc\nnew\n";
    for shell in ["dash", "busybox", "fish", "csh", "tcsh", "bash", "zsh"] {
        let far = far_with(&toolbox, shell);
        for name in [&worst[..], b"-rf", b"./~"] {
            let what = format!("{shell} {:?}", String::from_utf8_lossy(name));
            let image = there(&far, OsStr::from_bytes(name), &disk());
            let (before, connections) = (far.belongings(), far.sshd.connections());
            let dest = far.near("out.img");
            let pulled = far.pull(&["--print-digest"], OsStr::from_bytes(name), &dest);
            assert_eq!(pulled.code, Some(0), "{what}: {}", pulled.err);
            let _said = pulled.fingerprint();
            assert_same(&image, &dest);
            assert_eq!(holes(&dest), holes_within(&image, 4096), "{what}");
            assert_eq!(far.sshd.connections() - connections, 1, "{what}");
            assert_eq!(far.account.belongings().changed_since(&before), Vec::<PathBuf>::new(), "{what}");
            fs::remove_file(image).unwrap();
        }
    }
}

#[test]
fn a_chain_of_qcow2_comes_as_the_disk_that_it_is() {
    let toolbox = installed();
    let far = far_with(&toolbox, "dash");
    let base = Qcow2::new(48 * MIB).write(0, 3 * MIB, Fill::Noise(1)).op(Op::Compressed(8 * MIB, MIB, Fill::Text(2)));
    base.make(&far.account.home("base.qcow2"));
    let image = far.account.home("top.qcow2");
    let top = Qcow2::over("base.qcow2", "qcow2").write(MIB, MIB, Fill::Same(7)).snapshot("monday");
    top.write(4 * MIB, MIB, Fill::Same(8)).make(&image);
    for name in ["base.qcow2", "top.qcow2"] {
        chown(far.account.home(name), Some(far.account.uid()), None).unwrap();
    }
    let now = qemu_disk(&image);
    let dest = far.near("out.img");
    for args in [&[][..], &["--no-hash"]] {
        far.pull(args, "top.qcow2", &dest).ok();
        assert_same(&now, &dest);
        assert_eq!(holes(&dest), holes_within(&now, 4096), "{args:?}");
    }
    // An option for the sender there, in words that no shell may touch.
    for args in [["-M", "--snapshot=monday"], ["--remote-option", "--snapshot=monday"]] {
        far.pull(&args, "top.qcow2", &dest).ok();
        let monday = rig::gone_back(&image, "monday");
        assert_same(&qemu_disk(&monday), &dest);
    }
    far.pull(&["-M", "--snapshot=it's $HOME"], "top.qcow2", &dest).blamed(HOST, &["it's $HOME"]);
}

#[test]
fn it_goes_where_it_was_told_to() {
    let toolbox = installed();
    let far = far_with(&toolbox, "dash");
    let image = there(&far, "my disk.raw", &disk());
    // A folder.
    let folder = far.near("folder");
    fs::create_dir(&folder).unwrap();
    far.pull(&[], "my disk.raw", &folder).ok();
    assert_same(&image, &folder.join("my disk.img"));
    // Standard output, in full.
    let poured = far.pull(&[], "my disk.raw", "-".as_ref()).ok();
    assert!(poured.out == disk().bytes());
    // A device.
    let device = LoopDevice::filled(64 * MIB + 512, 0xee);
    far.pull(&[], "my disk.raw", device.path()).ok();
    tool("blockdev", &["--flushbufs", device.path().to_str().unwrap()]);
    assert!(fs::read(device.path()).unwrap() == disk().bytes());
    // Folders on the way, and a mode.
    let dest = far.near("a/b/c.img");
    far.pull(&["--mkpath", "--chmod", "600"], "my disk.raw", &dest).ok();
    assert_same(&image, &dest);
    assert_eq!(mode(&dest), 0o600);
    let before = Before::of(&dest);
    let refused = far.pull(&["--no-clobber"], "my disk.raw", &dest);
    assert!(refused.code == Some(2) && refused.err.contains("already"), "{}", refused.err);
    before.untouched("--no-clobber");
    let dry = far.near("dry.img");
    far.pull(&["--dry-run"], "my disk.raw", &dry).ok();
    assert!(!dry.exists() && !part_of(&dry).exists());
    // A URL.
    let word = format!("ssh://{}@{HOST}{}", far.account.name(), image.to_str().unwrap().replace(' ', "%20"));
    run(far.receiver().arg(word).arg(&dest), b"").ok();
    assert_same(&image, &dest);
}

#[test]
fn a_pulled_private_image_stays_private_and_others_have_the_umask() {
    let toolbox = installed();
    let far = far_with(&toolbox, "dash");
    let base = Qcow2::new(8 * MIB).write(0, MIB, Fill::Noise(1));
    base.make(&far.account.home("base.qcow2"));
    Qcow2::over("base.qcow2", "qcow2").write(MIB, MIB, Fill::Same(7)).make(&far.account.home("top.qcow2"));
    there(&far, "disk.img", &disk());
    for name in ["base.qcow2", "top.qcow2"] {
        chown(far.account.home(name), Some(far.account.uid()), None).unwrap();
    }
    // The file whose mode counts, and the modes of that file and of what is made.
    for (private, name, source, made) in [
        ("disk.img", "disk.img", 0o600, 0o600),
        ("disk.img", "disk.img", 0o640, 0o600),
        ("disk.img", "disk.img", 0o644, 0o644),
        ("base.qcow2", "top.qcow2", 0o600, 0o600),
        ("base.qcow2", "top.qcow2", 0o644, 0o644),
    ] {
        set_mode(&far.account.home(private), source);
        let dest = far.near("out.img");
        for args in [&[][..], &["--no-hash"], &["--delta"]] {
            let what = format!("{name} {source:o} {args:?}");
            far.pull(args, name, &dest).ok();
            assert_eq!(mode(&dest), made, "{what}");
            // One that is there keeps its own.
            set_mode(&dest, 0o660);
            far.pull(args, name, &dest).ok();
            assert_eq!(mode(&dest), 0o660, "{what}");
            fs::remove_file(&dest).unwrap();
        }
        // What is asked for goes before all, and a directory is private where its file is.
        far.pull(&["--chmod=664"], name, &dest).ok();
        assert_eq!(mode(&dest), 0o664, "{name} {source:o}");
        fs::remove_file(&dest).unwrap();
        let folder = far.near("made");
        far.pull(&["--mkpath"], name, &folder.join("out.img")).ok();
        let modes = (mode(&folder.join("out.img")), mode(&folder));
        assert_eq!(modes, (made, if made == 0o600 { 0o700 } else { 0o755 }), "{name} {source:o}");
        fs::remove_dir_all(&folder).unwrap();
        set_mode(&far.account.home(private), 0o644);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn what_fails_there_is_the_reason_and_the_old_disk_stays() {
    let toolbox = installed();
    let far = far_with(&toolbox, "dash");
    there(&far, "disk.img", &disk());
    fs::write(far.account.home("secret"), "x").unwrap();
    set_mode(&far.account.home("secret"), 0o600);
    let dest = far.near("out.img");
    fs::write(&dest, "the old disk").unwrap();
    let before = Before::of(&dest);
    for (name, reason) in [("missing", "no such file"), ("secret", "permission denied"), (".", "directory")] {
        far.pull(&[], name, &dest).blamed(HOST, &[reason]);
        before.untouched(reason);
        let _left = fs::remove_file(part_of(&dest));
    }
    // Said by the parser of the command line there, in some lines.
    let refused = far.pull(&["-M", "--no-such-option"], "disk.img", &dest).blamed(HOST, &[]);
    assert!(refused.err.contains("unexpected argument '--no-such-option'"), "{}", refused.err);
    before.untouched("no such option");
    // What fails here is not blamed on the other side.
    let full = Filesystem::new(Fs::Tmpfs, MIB);
    let refused = far.pull(&[], "disk.img", &full.join("out.img"));
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.to_lowercase().contains("no space left on device"), "{}", refused.err);
    assert!(!refused.err.to_lowercase().contains("broken pipe"), "{}", refused.err);
    rig::wait_until("the far end has ended", || far.account.processes().is_empty());
}

#[test]
fn a_far_end_without_a_sender_is_the_reason() {
    for shell in ["dash", "fish", "csh"] {
        let far = FarEnd::new(tools!(), shell);
        there(&far, "disk.img", &disk());
        let dest = far.near("out.img");
        far.pull(&[], "disk.img", &dest).blamed(HOST, &["xfer-hole", "not found"]);
        assert!(!dest.exists());
        far.sshd.forge();
        far.pull(&[], "disk.img", &dest).blamed(HOST, &["host key verification failed"]);
        assert!(!dest.exists());
    }
}

#[test]
fn a_quiet_pull_foretells_its_end_by_the_data_and_never_falls_back() {
    let toolbox = installed();
    let far = far_with(&toolbox, "dash");
    // Most of the data is in the first hundredth of the disk, the rest at its end.
    let disk = TestDisk::empty(40 << 30).with(0, 16 * MIB, 1).with(100 * MIB, 8 * MIB, 2).with(39 << 30, 8 * MIB, 3);
    there(&far, "disk.img", &disk);
    let pulled = far.pull(&["--progress=json", "--bwlimit=4M"], "disk.img", &far.near("out.img")).ok();
    rig::foretold(&pulled, 32 * MIB);
}
