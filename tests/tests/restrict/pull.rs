//! `xfer-hole --restrict`: disks from beneath one directory, and nothing else, whatever is asked for.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use rig::{Outcome, Sshd, run, tool, tools};
use xfer_hole_transport::pull_command;

use crate::place::{ENV, Place, request};

/// What recv-hole asks for, but for the image.
const WORDS: [&str; 3] = ["--converse", "--hash", "--timeout=60"];

fn asking(options: &[&str], image: &[u8]) -> String {
    let words = options.iter().map(OsString::from).chain(["--".into(), OsStr::from_bytes(image).into()]);
    pull_command(None, false, &words.collect::<Vec<_>>())
}

fn pulling(image: &str) -> String {
    asking(&WORDS, image.as_bytes())
}

/// A receiver that is ready, and then goes away.
fn ask(place: &Place, request: &str) -> Outcome {
    let mut command = Command::new(tools!().xfer_hole);
    command.arg("--restrict").arg(place.at("dir")).current_dir(place.at("outside")).env(ENV, request);
    run(&mut command, b"XFER-HOLE-READY 1\n")
}

#[track_caller]
fn refused(place: &Place, request: &str) -> String {
    let outcome = ask(place, request);
    // What is no request is told to the user, and the reason why there is no stream to the receiver: nothing else, and no byte of a disk.
    let said = String::from_utf8_lossy(&outcome.out).into_owned();
    assert_eq!(outcome.code, Some(2), "{request}: {said}{}", outcome.err);
    if said.is_empty() {
        return outcome.err;
    }
    assert!(
        said.starts_with("FAIL ") && said.lines().count() == 1 && outcome.err.is_empty(),
        "{request}: {said}{}",
        outcome.err
    );
    said
}

#[test]
fn a_read_only_key_pulls_what_is_beneath_its_directory() {
    let (place, sshd) = (Place::new(), Sshd::start());
    fs::write(place.at("dir/sub/a disk.img"), &place.bytes).unwrap();
    let (program, dir) = (tools!().xfer_hole.display().to_string(), place.at("dir").display().to_string());
    let keys = sshd.config().with_file_name("authorized_keys");
    let key = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, format!("restrict,command=\"{program} --restrict {dir}\" {key}")).unwrap();
    let before = place.all();
    let near = tempfile::tempdir().unwrap();
    let pull = |args: &[&str], path: &str| {
        let dest = near.path().join("out.img");
        let mut recv = sshd.reach(&tools!().recv_hole);
        run(recv.args(args).arg(format!("far-end:{path}")).arg(dest), b"")
    };
    let whole = format!("{dir}/sub/a disk.img");
    for args in [&[][..], &["--no-hash"], &["--delta"], &["--direct"], &["-M", "--format=raw"], &["--bwlimit", "1G"]] {
        for path in ["sub/a disk.img", "~/sub/a disk.img", "./sub//a disk.img", &whole] {
            pull(args, path).ok();
            assert!(fs::read(near.path().join("out.img")).unwrap() == place.bytes, "{args:?} {path}");
        }
    }
    let (image, disk) = (place.at("dir/sub/layer.qcow2"), place.at("outside/layer.img"));
    let base = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "a disk.img", image.to_str().unwrap()];
    tool("qemu-img", &base);
    tool("qemu-img", &["convert", "-O", "raw", image.to_str().unwrap(), disk.to_str().unwrap()]);
    let before_layer = place.all();
    pull(&[], "sub/layer.qcow2").ok();
    assert!(fs::read(near.path().join("out.img")).unwrap() == fs::read(&disk).unwrap());
    assert!(place.all() == before_layer, "no note beside it");
    fs::remove_file(image).unwrap();
    fs::remove_file(disk).unwrap();
    for (args, path) in [
        (&[][..], "../outside/precious"),
        (&[], "/etc/passwd"),
        (&[], "window"),
        (&["-M", "--allow=/"], "sub/a disk.img"),
    ] {
        let outcome = pull(args, path);
        assert_eq!(outcome.code, Some(2), "{path}");
        assert!(outcome.err.contains("allowed here") || outcome.err.contains("\"..\""), "{path}: {}", outcome.err);
    }
    // It sends nothing there.
    let image = near.path().join("out.img");
    let pushed = run(sshd.reach(&tools!().xfer_hole).arg(&image).arg("far-end:new.img"), b"");
    assert_eq!(pushed.code, Some(2));
    assert!(pushed.err.contains("it is no pull"), "{}", pushed.err);
    assert!(run(sshd.ssh().arg("id"), b"").out.is_empty());
    assert!(place.all() == before, "nothing is written there, not even a note");
}

#[test]
fn hostile_pulls_are_refused_without_a_byte() {
    let place = Place::new();
    let before = place.all();
    let dir = place.at("dir").display().to_string();
    let mut hostile: Vec<String> = Vec::new();
    for image in [
        "..",
        "../outside/precious",
        "sub/../../outside/precious",
        "sub/..",
        "/",
        "/etc/passwd",
        "/dev/null",
        "/proc/self/environ",
        "door/precious",
        "window",
        "dangling",
        "alias",
        "inner/old.img",
        "root/etc/passwd",
        "cwd/precious",
        "fifo",
        "null",
        "loop",
        "socket",
        "sub",
        ".",
        "./",
        "old.img/x",
        "no/such",
        "-",
        "--help",
        "-rf",
        "~root",
        "map",
        "host:disk.img",
        "ssh://host/x",
    ] {
        hostile.push(pulling(image));
    }
    for image in
        [format!("{dir}-2/precious"), format!("{dir}/../outside/precious"), format!("{dir}/window"), format!("{dir}x")]
    {
        hostile.push(pulling(&image));
    }
    for option in [
        "--allow=/",
        "--since-base=/etc/passwd",
        "-v",
        "-U",
        "--force-share",
        "--progress=json",
        "--rsh=id",
        "--remote-path=id",
        "--print-receiver",
        "--print-digest",
        "--classic",
        "--receiver=sh",
        "--in-place",
        "--mkpath",
        "--output=x",
        "--restrict=/",
        "--speaks=1",
        "--timeout=x",
        "--timeout",
        "--timeout=60",
        "--format=vmdk",
        "--snapshot",
        "--format",
        "raw",
        "--hash-interval=7",
        "--",
        "old.img",
        "",
        "--live=1",
        "--detect-zeroes",
    ] {
        let words = [&WORDS[..], &[option]].concat();
        hostile.push(match option {
            // A word that is none can't be coded.
            "" => asking(&WORDS, b"old.img").replace(" '--hash'", " ''"),
            _ => asking(&words, b"old.img"),
        });
    }
    let good = pulling("old.img");
    hostile.extend([
        asking(&["--hash", "--converse"], b"old.img"),
        asking(&["--hash"], b"old.img"),
        good.replace(" '--' ", " "),
        format!("{good} 'more'"),
        format!("{good};id"),
        format!("{good} "),
        format!("{good}\n"),
        good.replace("'old.img'", "old.img"),
        good.replace("'old.img'", "'$(id)'"),
        good.replace("'old.img'", "'old.img\\0000'"),
        good.replace("old.img", "\\0057etc\\0057passwd"),
        good.replace(" xfer-hole ", " recv-hole "),
        good.replacen("exec sh", "exec  sh", 1),
        request(&[], b"new.img", b"disk.img"),
        "id".into(),
        "xfer-hole --converse -- old.img".into(),
        "/usr/lib/openssh/sftp-server".into(),
        "scp -f old.img".into(),
        String::new(),
        "x".repeat(70_000),
    ]);
    for request in &hostile {
        let said = refused(&place, request);
        assert!(!said.contains("precious") || request.contains("precious"), "{request}: {said}");
        assert!(said.lines().filter(|line| !line.contains(": hint: ")).count() == 1, "{request}: {said}");
    }
    // What isn't there, and what is there outside, are one.
    let answer = |image: &str| refused(&place, &pulling(image)).replace(image, "IMAGE");
    assert_eq!(answer("no-such"), answer("window"));
    assert_eq!(answer("no-such"), answer("dangling"));
    // No shell either.
    let mut shell = Command::new(tools!().xfer_hole);
    let outcome = run(shell.arg("--restrict").arg(place.at("dir")).env_remove(ENV), b"id\n");
    assert_eq!((outcome.code, outcome.out.as_slice()), (Some(2), &b""[..]));
    assert!(place.all() == before);
    assert!(ask(&place, &good).out.starts_with(b"XFER-HOLE 1 8 sha256"), "the measure of all these");
}

#[test]
fn files_that_an_image_names_are_read_within_bounds_only() {
    let place = Place::new();
    let at = |name: &str| place.at(name).display().to_string();
    let make = |name: &str, base: &str| {
        let path = at(&format!("dir/{name}"));
        tool("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", base, &path, "1M"]);
    };
    fs::write(place.at("dir/sub/base"), vec![b'i'; 4096]).unwrap();
    fs::write(place.at("outside/base"), vec![b'O'; 4096]).unwrap();
    symlink("sub/base", place.at("dir/sub-base")).unwrap();
    symlink("../outside/base", place.at("dir/out-base")).unwrap();
    for (name, base) in [
        ("one.qcow2", "sub/base"),
        ("two.qcow2", "./sub/../sub/base"),
        ("three.qcow2", &*at("dir/sub/base")),
        ("four.qcow2", "sub-base"),
        ("sub/deep/five.qcow2", "../../sub/base"),
    ] {
        make(name, base);
        let outcome = ask(&place, &pulling(name));
        assert!(outcome.out.starts_with(b"XFER-HOLE 1 1048576 sha256"), "{name}: {}", outcome.err);
    }
    for base in [
        "../outside/base",
        &*at("outside/base"),
        "out-base",
        "door/base",
        "sub/../../outside/base",
        "/etc/passwd",
        "fifo",
        "null",
        "root/etc/passwd",
        "no-such",
        "sub",
        "/proc/self/fd/0",
    ] {
        make("bad.qcow2", base);
        let said = refused(&place, &pulling("bad.qcow2"));
        assert!(said.contains("is not there, or is no regular file within the directory"), "{base}: {said}");
        fs::remove_file(place.at("dir/bad.qcow2")).unwrap();
    }
}
