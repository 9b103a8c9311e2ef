//! Formats of images: which are read, which are known and refused by name, and what settles it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{
    Field, Filesystem, Fill, Fs, Qcow2, Receiver, TestDisk, assert_as_qemu, assert_refused, assert_same, peek, poke,
    qemu_img, run, send_to, tool, tools, write_at,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

fn tmpfs() -> Filesystem {
    Filesystem::new(Fs::Tmpfs, 256 * M)
}

/// Fails unless the image arrives as the file that it is.
#[track_caller]
fn assert_as_file(args: &[&str], image: &Path) {
    let dest = image.with_extension("out");
    let (sent, received) = send_to(&tools!(), args, image, Receiver::Binary, &dest);
    assert_eq!((sent.ok().err.as_str(), received.ok().err.as_str()), ("", ""));
    assert_same(image, &dest);
    fs::remove_file(dest).unwrap();
}

#[test]
fn other_formats_are_refused_with_the_line_that_converts_them() {
    let (tools, fs) = (tools!(), tmpfs());
    TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join("raw"));
    for format in ["vmdk", "vdi", "vhdx", "vpc", "parallels", "qed", "qcow"] {
        // The name doesn't matter, and may need quoting.
        for name in ["disk.img", "a disk.img", "it's a disk.img"] {
            let image = fs.join(name);
            qemu_img(&["convert", "-f", "raw", "-O", format, "raw"], &image);
            let said = assert_refused(&tools, &image, &[], &[name, format]);
            let hint = said.lines().find(|line| line.contains("hint: ")).unwrap();
            let line = &hint[hint.find("qemu-img convert").unwrap()..];
            assert!(line.contains(&format!("-f {format}")), "{said}");
            // As far as the line goes, it is one that a shell and qemu-img take.
            let line = line.split(" or ").next().unwrap().trim_end_matches(|c| ",;: ".contains(c));
            run(Command::new("sh").args(["-ec", line]).current_dir(fs.path()), b"").ok();
            assert_as_file(&["--format", "raw"], &image);
        }
    }
    let image = fs.join("stream.vmdk");
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "raw"], &image);
    assert_refused(&tools, &image, &[], &["stream.vmdk", "vmdk"]);
    fs::write(fs.join("text.vmdk"), "# Disk DescriptorFile\nversion=1\nCID=1\n").unwrap();
    assert_refused(&tools, &fs.join("text.vmdk"), &[], &["text.vmdk", "vmdk"]);
}

#[test]
fn an_iso_image_and_what_begins_like_nothing_are_raw() {
    let fs = tmpfs();
    let image = fs.join("disk.img");
    TestDisk::empty(M).with(0, 100 * K, 1).make(&image);
    assert_as_file(&[], &image);
    write_at(&image, 0x8001, b"CD001");
    assert_as_file(&[], &image);
    for short in [&b""[..], b"Q", b"QFI", b"QED", b"vhdxfil", b"KDM", b"LUKS\xba"] {
        fs::write(&image, short).unwrap();
        assert_as_file(&[], &image);
    }
}

#[test]
fn format_settles_what_an_image_is() {
    let (tools, fs) = (tools!(), tmpfs());
    let (image, raw) = (fs.join("disk.qcow2"), fs.join("disk.raw"));
    Qcow2::new(4 * M).write(0, M, Fill::Noise(1)).make(&image);
    assert_as_qemu(&tools, &image, &["--format", "auto"]);
    assert_as_qemu(&tools, &image, &["--format", "qcow2"]);
    assert_as_file(&["--format", "raw"], &image);
    TestDisk::empty(M).with(0, 100 * K, 1).make(&raw);
    assert_refused(&tools, &raw, &["--format", "qcow2"], &["disk.raw", "qcow2"]);
    for (file, format) in [(&image, "qcow2"), (&raw, "raw")] {
        let said = run(Command::new(&tools.xfer_hole).arg("-v").arg(file), b"").ok().err;
        assert!(said.lines().any(|line| line.contains("format") && line.contains(format)), "{said}");
    }
}

#[test]
fn encrypted_images_are_refused_by_name_and_no_ciphertext_is_sent() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for (format, word) in [("aes", "aes"), ("luks", "luks")] {
        let options = format!("encrypt.format={format},encrypt.key-secret=s0");
        let options = if format == "luks" { options + ",encrypt.iter-time=10" } else { options };
        let secret = "secret,id=s0,data=open sesame";
        let name = image.to_str().unwrap();
        tool("qemu-img", &["create", "-q", "-f", "qcow2", "--object", secret, "-o", &options, name, "4M"]);
        let sent = run(Command::new(&tools.xfer_hole).arg(&image), b"");
        assert!(sent.out.is_empty(), "{format}");
        assert_refused(&tools, &image, &[], &["disk.qcow2", "encrypt", word]);
        assert_as_file(&["--format", "raw"], &image);
    }
    let luks = fs.join("disk.luks");
    let options = ["--object", "secret,id=s0,data=x", "-o", "key-secret=s0,iter-time=10"];
    tool("qemu-img", &[&["create", "-q", "-f", "luks"], &options[..], &[luks.to_str().unwrap(), "1M"]].concat());
    assert_refused(&tools, &luks, &[], &["disk.luks", "luks"]);
    // A method that nobody knows.
    Qcow2::new(M).make(&image);
    poke(&image, Field::CRYPT_METHOD, 3);
    assert_refused(&tools, &image, &[], &["disk.qcow2", "encrypt", "3"]);
}

#[test]
fn unknown_features_are_refused_by_the_name_that_the_image_gives_them() {
    let (tools, fs) = (tools!(), tmpfs());
    let image = fs.join("disk.qcow2");
    for (bit, word) in [(5, "5"), (17, "17"), (63, "63")] {
        Qcow2::new(M).make(&image);
        poke(&image, Field::INCOMPATIBLE, 1 << bit);
        assert_refused(&tools, &image, &[], &["disk.qcow2", "feature", word]);
        // A name of 46 bytes at most, for an incompatible bit, over one that is there.
        let bytes = fs::read(&image).unwrap();
        let table = bytes.windows(4).position(|bytes| bytes == [0x68, 0x03, 0xf8, 0x57]).unwrap() as u64 + 8;
        let mut entry = vec![0, bit];
        entry.extend(b"warp drive \x1b[2J");
        entry.resize(48, 0);
        write_at(&image, table, &entry);
        let said = assert_refused(&tools, &image, &[], &["disk.qcow2", "warp drive"]);
        assert!(!said.contains('\x1b'), "{said:?}");
    }
    Qcow2::new(M).option("compression_type=zstd").make(&image);
    assert_eq!(peek(&image, Field::INCOMPATIBLE), 8);
    for value in [2, 255] {
        poke(&image, Field::COMPRESSION_TYPE, value);
        assert_refused(&tools, &image, &[], &["disk.qcow2", "compression", &value.to_string()]);
    }
    // The type and the bit that announces it have to agree.
    poke(&image, Field::COMPRESSION_TYPE, 0);
    assert_refused(&tools, &image, &[], &["disk.qcow2", "compression"]);
    Qcow2::new(M).make(&image);
    poke(&image, Field::COMPRESSION_TYPE, 1);
    assert_refused(&tools, &image, &[], &["disk.qcow2", "compression"]);
    for version in [0, 4, 5, u64::from(u32::MAX)] {
        Qcow2::new(M).make(&image);
        poke(&image, Field::VERSION, version);
        assert_refused(&tools, &image, &[], &["disk.qcow2", "version", &version.to_string()]);
    }
}
