//! The gate: which files an image may name, what opens it wider, and what closes it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::stat::Mode;
use rig::{
    Filesystem, Fill, Fs, LoopDevice, Outcome, Qcow2, TestDisk, assert_as, assert_as_qemu, assert_refused, pour,
    requires, run, tools,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// A file system with folders `in`, for images, and `out`, which is not below it, with a raw disk in each; and `inn`, whose name
/// only begins as the first one's.
fn folders() -> Filesystem {
    let fs = Filesystem::new(Fs::Tmpfs, 128 * M);
    for folder in ["in", "in/below", "out", "out/below", "inn"] {
        fs::create_dir(fs.join(folder)).unwrap();
        TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join(folder).join("base.raw"));
    }
    fs
}

/// Makes `in/top.qcow2` over this name. It holds nothing, so that nobody opens what it names while it is made.
fn over(fs: &Filesystem, name: &str) {
    Qcow2::new(M).backing(name, Some("raw")).make(&fs.join("in/top.qcow2"));
}

#[test]
fn what_is_below_the_image_s_folder_is_let_in() {
    let (tools, fs) = (tools!(), folders());
    symlink("below/base.raw", fs.join("in/link.raw")).unwrap();
    symlink(fs.join("in/below"), fs.join("in/folder")).unwrap();
    let absolute = fs.join("in/below/base.raw").to_str().unwrap().to_owned();
    for name in [
        "base.raw",
        "below/base.raw",
        "./below/../base.raw",
        "link.raw",
        "folder/base.raw",
        "../in/base.raw",
        &absolute,
    ] {
        over(&fs, name);
        assert_as_qemu(&tools, &fs.join("in/top.qcow2"), &[]);
    }
    // Where the image itself is reached by a link, its folder is the link's.
    over(&fs, "base.raw");
    symlink("in", fs.join("also")).unwrap();
    assert_as_qemu(&tools, &fs.join("also/top.qcow2"), &[]);
}

#[test]
fn what_is_elsewhere_is_refused_and_the_flag_is_named() {
    let (tools, fs) = (tools!(), folders());
    symlink("../out/base.raw", fs.join("in/link.raw")).unwrap();
    symlink(fs.join("out"), fs.join("in/folder")).unwrap();
    let absolute = fs.join("out/base.raw").to_str().unwrap().to_owned();
    let names = [
        absolute.clone(),
        format!("file:{absolute}"),
        format!(r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"{absolute}"}}}}"#),
        "../out/base.raw".into(),
        "below/../../out/base.raw".into(),
        "link.raw".into(),
        "folder/base.raw".into(),
        "../inn/base.raw".into(),
        "/etc/passwd".into(),
        "/proc/version".into(),
    ];
    for name in &names {
        over(&fs, name);
        let said = assert_refused(&tools, &fs.join("in/top.qcow2"), &[], &["top.qcow2"]);
        assert!(said.contains("hint: ") && said.contains("--allow"), "{name}: {said}");
        let file = name.rsplit('/').next().unwrap().trim_matches(|c| "}\"".contains(c));
        assert!(said.contains(file), "{name}: {said}");
    }
}

#[test]
fn allow_widens_the_gate_by_whole_folders() {
    let (tools, fs) = (tools!(), folders());
    let image = fs.join("in/top.qcow2");
    let at = |name: &str| fs.join(name).to_str().unwrap().to_owned();
    symlink(fs.join("out"), fs.join("elsewhere")).unwrap();
    for name in ["../out/base.raw", &at("out/base.raw"), "../out/below/base.raw"] {
        over(&fs, name);
        for allowed in [&at("out")[..], &at("out/"), &at(""), "/", &at("elsewhere"), &at("in/../out")] {
            assert_as_qemu(&tools, &image, &["--allow", allowed]);
        }
        assert_as_qemu(&tools, &image, &["--allow", &at("inn"), "--allow", &at("out")]);
        for not_it in ["in", "inn", "in/below"] {
            assert_refused(&tools, &image, &["--allow", &at(not_it)], &["base.raw"]);
        }
    }
    over(&fs, "../out/base.raw");
    assert_refused(&tools, &image, &["--allow", &at("out/below")], &["base.raw"]);
    assert_refused(&tools, &image, &["--allow", &at("ou")], &[]);
    // A relative folder is one of where we are called.
    let stream = pour(&tools, &["--allow", &at("out")], &image);
    let mut command = Command::new(&tools.xfer_hole);
    command.args(["--allow", "out"]).arg(&image).current_dir(fs.path());
    assert!(run(&mut command, b"").ok().out == stream);
}

#[test]
fn each_layer_s_own_folder_counts() {
    let (tools, fs) = (tools!(), folders());
    let image = fs.join("in/top.qcow2");
    // The middle lies below the top's folder; its base lies beside the top, which is not below the middle's.
    Qcow2::new(M).backing("../base.raw", Some("raw")).make(&fs.join("in/below/middle.qcow2"));
    Qcow2::new(M).backing("below/middle.qcow2", Some("qcow2")).make(&image);
    let said = assert_refused(&tools, &image, &[], &["middle.qcow2", "base.raw"]);
    assert!(said.contains("--allow"), "{said}");
    assert_as_qemu(&tools, &image, &["--allow", fs.join("in").to_str().unwrap()]);
    // An allowed middle may name what is beside it.
    Qcow2::new(M).backing("base.raw", Some("raw")).make(&fs.join("out/middle.qcow2"));
    Qcow2::new(M).backing("../out/middle.qcow2", Some("qcow2")).make(&image);
    assert_as_qemu(&tools, &image, &["--allow", fs.join("out").to_str().unwrap()]);
}

#[test]
fn no_backing_closes_the_gate() {
    let (tools, fs) = (tools!(), folders());
    let image = fs.join("in/top.qcow2");
    over(&fs, "base.raw");
    assert_refused(&tools, &image, &["--no-backing"], &["top.qcow2", "base.raw", "--no-backing"]);
    Qcow2::new(M).write(0, K, Fill::Same(1)).make(&image);
    assert_as_qemu(&tools, &image, &["--no-backing"]);
    Qcow2::new(M).option("data_file=top.data").write(0, K, Fill::Same(1)).make(&image);
    assert_refused(&tools, &image, &["--no-backing"], &["top.qcow2", "top.data", "--no-backing"]);
}

#[test]
fn data_files_pass_the_same_gate() {
    let (tools, fs) = (tools!(), folders());
    let image = fs.join("in/top.qcow2");
    let at = |name: &str| fs.join(name).to_str().unwrap().to_owned();
    let cases = [
        ("below/top.data", true),
        (&at("in/abs.data")[..], true),
        ("../out/top.data", false),
        (&at("out/abs.data"), false),
    ];
    for (name, inside) in cases {
        let _not_there = fs::remove_file(&image);
        Qcow2::new(M).option(&format!("data_file={name}")).write(0, 100 * K, Fill::Noise(1)).make(&image);
        if inside {
            assert_as_qemu(&tools, &image, &[]);
        } else {
            let said =
                assert_refused(&tools, &image, &[], &["top.qcow2", "data file", name.rsplit('/').next().unwrap()]);
            assert!(said.contains("--allow"), "{said}");
            assert_as_qemu(&tools, &image, &["--allow", &at("out")]);
        }
    }
}

#[test]
fn what_is_no_file_is_refused_at_once_even_where_it_is_allowed() {
    let (tools, fs) = (tools!(), folders());
    nix::unistd::mkfifo(&fs.join("in/fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::create_dir(fs.join("in/folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fs.join("in/socket")).unwrap();
    for name in ["fifo", "folder", "socket", "/dev/zero", "/dev/tty"] {
        over(&fs, name);
        for args in [&[][..], &["--allow", "/"]] {
            assert_refused(&tools, &fs.join("in/top.qcow2"), args, &["top.qcow2", name]);
        }
    }
}

#[test]
fn a_block_device_may_be_a_base_where_it_is_allowed() {
    let (tools, fs, device) = (tools!(), folders(), LoopDevice::filled(M, 7));
    let image = fs.join("in/top.qcow2");
    for format in ["raw", "host_device"] {
        Qcow2::new(2 * M)
            .backing(device.path().to_str().unwrap(), Some(format))
            .write(K, K, Fill::Same(1))
            .make(&image);
        assert_refused(&tools, &image, &[], &["top.qcow2", device.path().to_str().unwrap()]);
        assert_as_qemu(&tools, &image, &["--allow", "/dev"]);
    }
}

#[test]
fn a_refused_file_is_not_even_opened_for_reading() {
    requires(&["strace"]);
    let (tools, fs) = (tools!(), folders());
    symlink("../out/base.raw", fs.join("in/link.raw")).unwrap();
    for name in ["../out/base.raw", "link.raw", fs.join("out/base.raw").to_str().unwrap()] {
        over(&fs, name);
        let log = fs.join("strace");
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-y", "-e", "trace=openat,openat2,open,read,pread64,mmap", "-o"]).arg(&log);
        let outcome: Outcome = run(traced.arg(&tools.xfer_hole).arg(fs.join("in/top.qcow2")), b"");
        outcome.refused(&["base.raw"]);
        let log = fs::read_to_string(log).unwrap();
        // Where -y shows a descriptor's file, or a call's result is one: only such as can't be read from.
        let touched = log.lines().filter(|line| line.contains("/out/base.raw>") && !line.contains("O_PATH"));
        assert_eq!(touched.collect::<Vec<_>>(), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn names_are_printed_so_that_they_can_do_no_harm() {
    let (tools, fs) = (tools!(), folders());
    for name in
        ["../out/\x1b[2Jred", "../out/a\nb", "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"\\u001b[2J\"}}", "\r"]
    {
        // qemu-img looks at its names: this one is written past it.
        Qcow2::new(M).backing(&"x".repeat(name.len()), Some("raw")).make(&fs.join("in/top.qcow2"));
        let at = rig::peek(&fs.join("in/top.qcow2"), rig::Field::BACKING_OFFSET);
        rig::write_at(&fs.join("in/top.qcow2"), at, name.as_bytes());
        let said = assert_refused(&tools, &fs.join("in/top.qcow2"), &[], &["top.qcow2"]);
        assert!(said.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{said:?}");
    }
}

#[test]
fn a_declared_but_not_allowed_base_is_no_matter_to_an_image_that_hides_it() {
    let (tools, fs) = (tools!(), folders());
    // All the same it is refused: what an image names is looked at before what it needs.
    Qcow2::new(M).backing("../out/base.raw", Some("raw")).write(0, M, Fill::Noise(1)).make(&fs.join("in/top.qcow2"));
    assert_refused(&tools, &fs.join("in/top.qcow2"), &[], &["base.raw"]);
    let allowed = fs.join("out").to_str().unwrap().to_owned();
    assert_eq!(assert_as(&tools, &fs.join("in/top.qcow2"), &["--allow", &allowed], &fs.join("in/top.qcow2")), "");
}
