//! Backing chains: any depth, bases of all kinds and sizes, names of all kinds; what is refused of them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rig::{
    Field, Filesystem, Fill, Fs, Op, Qcow2, Running, TestDisk, assert_as, assert_as_qemu, assert_refused, merged,
    our_map, peek, pour, qemu_img, records, tools, write_at,
};
use xfer_hole_proto::Record;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

fn tmpfs() -> Filesystem {
    Filesystem::new(Fs::Tmpfs, 512 * M)
}

/// What a layer writes over the layers below it, different from layer to layer.
fn layer_ops(layer: u64, size: u64) -> Vec<Op> {
    let place = |n: u64| (layer * 7 + n * 13) * 40 * K % (size - 128 * K) / 512 * 512;
    vec![
        Op::Write(place(0), 30 * K, Fill::Noise(layer)),
        Op::Write(place(1), 512, Fill::Same(u8::try_from(layer % 255).unwrap() + 1)),
        Op::Zero(place(2), 70 * K),
        Op::Unmap(place(3), 64 * K),
        Op::Discard(place(4), 64 * K),
    ]
}

#[test]
fn chains_of_one_to_twenty_layers_are_read() {
    let (tools, fs) = (tools!(), tmpfs());
    let options = ["", "cluster_size=4k", "cluster_size=512", "extended_l2=on", "cluster_size=2M", "compat=v2"];
    let name = |layer: usize| format!("layer{layer}.qcow2");
    TestDisk::empty(4 * M).with(0, M, 1).with(3 * M + 100, 5000, 2).make(&fs.join("layer0.raw"));
    for layer in 1..=20 {
        let image = fs.join(&name(layer));
        // Each size differs from those next to it.
        let size = 4 * M + 40 * K * [0, 7, 3, 11, 5][layer % 5];
        let disk = Qcow2::new(size).option(options[layer % options.len()]);
        let disk = match layer {
            1 => disk.backing("layer0.raw", Some("raw")),
            _ => disk.backing(&name(layer - 1), Some("qcow2")),
        };
        disk.ops(layer_ops(layer as u64, 4 * M)).make(&image);
        assert_as_qemu(&tools, &image, &[]);
    }
}

#[test]
fn bases_may_be_shorter_longer_and_of_other_geometry() {
    let (tools, fs) = (tools!(), tmpfs());
    let (base, top) = (fs.join("base.img"), fs.join("top.qcow2"));
    let written = |disk: Qcow2, size: u64| {
        let disk = disk.write(0, 5 * K, Fill::Noise(1)).write(size / 2, 12 * K, Fill::Noise(2));
        disk.op(Op::Zero(size / 3 / 512 * 512, 9 * K)).write(size - 3 * K, 3 * K, Fill::Noise(3))
    };
    let sizes = [64 * K + 512, M - 512, M, M + 512, 3 * M + 36 * K];
    let geometries = ["", "cluster_size=4k", "cluster_size=512", "extended_l2=on", "cluster_size=1M"];
    for (turn, size) in sizes.into_iter().enumerate() {
        for (n, below) in geometries.into_iter().enumerate() {
            let above = geometries[(turn + n + 1) % geometries.len()];
            written(Qcow2::new(size).option(below), size).make(&base);
            let disk = Qcow2::new(M + 40 * K).option(above).backing("base.img", Some("qcow2"));
            disk.write(30 * K, 3 * K, Fill::Same(1)).write(M, 40 * K, Fill::Same(2)).make(&top);
            assert_as_qemu(&tools, &top, &[]);
        }
    }
}

#[test]
fn small_clusters_below_large_ones_lose_nothing() {
    let (tools, fs) = (tools!(), tmpfs());
    for (below, above) in [("4k", "64k"), ("64k", "4k"), ("512", "2M"), ("2M", "512")] {
        // A single small cluster of data, at each place a large one has for it.
        let disk = Qcow2::new(4 * M + 4 * K).option(&format!("cluster_size={below}"));
        let places = (0..17).map(|n| Op::Write(n * 68 * K, 4 * K, Fill::Noise(n)));
        disk.ops(places).write(4 * M, 4 * K, Fill::Noise(99)).make(&fs.join("base.qcow2"));
        let disk = Qcow2::over("base.qcow2", "qcow2").option(&format!("cluster_size={above}"));
        disk.write(200 * K, 512, Fill::Same(1)).make(&fs.join("top.qcow2"));
        assert_as_qemu(&tools, &fs.join("top.qcow2"), &[]);
        assert_as_qemu(&tools, &fs.join("top.qcow2"), &["--hash", "--hash-interval", "8K"]);
    }
}

#[test]
fn a_short_layer_hides_what_is_longer_below_it() {
    let (tools, fs) = (tools!(), tmpfs());
    Qcow2::new(3 * M).write(0, 3 * M, Fill::Noise(1)).make(&fs.join("base.qcow2"));
    for middle in [512, 64 * K - 512, M, M + 512, 2 * M] {
        Qcow2::new(middle).backing("base.qcow2", Some("qcow2")).make(&fs.join("middle.qcow2"));
        Qcow2::new(3 * M).backing("middle.qcow2", Some("qcow2")).make(&fs.join("top.qcow2"));
        assert_as_qemu(&tools, &fs.join("top.qcow2"), &[]);
        let lines = merged(&our_map(&tools, &[], &fs.join("top.qcow2")));
        assert!(lines.iter().filter(|line| line.start >= middle).all(|line| line.zero && !line.data), "{lines:?}");
    }
}

#[test]
fn a_raw_base_of_odd_size_is_read_to_its_last_byte_and_by_its_holes() {
    let (tools, fs) = (tools!(), tmpfs());
    let (base, top) = (fs.join("base.raw"), fs.join("top.qcow2"));
    for size in [1, 511, 513, 70_000, M + 1] {
        TestDisk::empty(size).with(0, size, 3).make(&base);
        for options in ["", "cluster_size=512", "extended_l2=on"] {
            let disk = Qcow2::new(M + 64 * K).option(options).backing("base.raw", Some("raw"));
            disk.write(128 * K, 4 * K, Fill::Same(7)).make(&top);
            assert_as_qemu(&tools, &top, &[]);
            Qcow2::over("base.raw", "raw").option(options).make(&top);
            assert_as_qemu(&tools, &top, &[]);
        }
    }
    TestDisk::empty(64 * M).with(M, 64 * K, 1).with(40 * M, 5000, 2).make(&base);
    Qcow2::over("base.raw", "raw").make(&top);
    assert_as_qemu(&tools, &top, &[]);
    let data: u64 = records(&pour(&tools, &["--detect-zeroes=off"], &top)).iter().map(Record::payload_len).sum();
    assert_eq!(data, 64 * K + 8 * K, "holes of the base are holes without a look at their bytes");
}

#[test]
fn compressed_zeroed_and_discarded_layers_answer_for_themselves() {
    let (tools, fs) = (tools!(), tmpfs());
    for method in ["zlib", "zstd"] {
        let disk = Qcow2::new(2 * M).option(&format!("compression_type={method},cluster_size=16k"));
        disk.ops((0..64).map(|n| Op::Compressed(n * 32 * K, 16 * K, Fill::Text(n)))).make(&fs.join("base.qcow2"));
        let disk = Qcow2::over("base.qcow2", "qcow2").option("extended_l2=on,cluster_size=64k");
        let ops = [
            Op::Write(10 * K, 2 * K, Fill::Same(1)),
            Op::Zero(100 * K, 70 * K),
            Op::Unmap(256 * K, 64 * K),
            Op::Discard(512 * K, 64 * K),
            Op::Compressed(M, 64 * K, Fill::Text(100)),
        ];
        disk.ops(ops).make(&fs.join("middle.qcow2"));
        let disk = Qcow2::over("middle.qcow2", "qcow2").option("compat=v2,cluster_size=8k");
        disk.write(12 * K, 512, Fill::Same(2)).op(Op::Discard(M, 64 * K)).make(&fs.join("top.qcow2"));
        assert_as_qemu(&tools, &fs.join("middle.qcow2"), &[]);
        assert_as_qemu(&tools, &fs.join("top.qcow2"), &[]);
    }
}

#[test]
fn overlays_of_images_with_external_data_files_are_read() {
    let (tools, fs) = (tools!(), tmpfs());
    for options in ["", "data_file_raw=on"] {
        let _not_there = fs::remove_file(fs.join("base.data"));
        let disk = Qcow2::new(2 * M).option("data_file=base.data").option(options);
        disk.write(100 * K, 300 * K, Fill::Noise(1)).make(&fs.join("base.qcow2"));
        Qcow2::over("base.qcow2", "qcow2").write(0, 120 * K, Fill::Noise(2)).make(&fs.join("top.qcow2"));
        assert_as_qemu(&tools, &fs.join("top.qcow2"), &[]);
    }
}

/// Names a base in an image that was made over another one.
fn rename_base(top: &Path, name: &str, format: &str) {
    qemu_img(&["rebase", "-u", "-b", name, "-F", format], top);
}

#[test]
fn bases_are_found_by_every_kind_of_name() {
    let (tools, fs) = (tools!(), tmpfs());
    fs::create_dir(fs.join("below")).unwrap();
    let top = fs.join("top.qcow2");
    for (base, format) in [("base.qcow2", "qcow2"), ("base.raw", "raw"), ("below/base.raw", "raw")] {
        match format {
            "raw" => TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join(base)),
            _ => Qcow2::new(M).write(5 * K, 100 * K, Fill::Noise(1)).make(&fs.join(base)),
        }
        let absolute = fs.join(base).to_str().unwrap().to_owned();
        let names = [
            base.to_owned(),
            format!("./{base}"),
            absolute.clone(),
            format!("file:{absolute}"),
            format!(r#"json:{{"driver":"{format}","file":{{"driver":"file","filename":"{absolute}"}}}}"#),
            format!(r#"json:{{"driver":"{format}","file.driver":"file","file.filename":"{absolute}"}}"#),
            format!(r#"json:{{"file":{{"filename":"{absolute}","driver":"file"}}, "driver": "{format}"}}"#),
        ];
        for name in names {
            Qcow2::new(M).backing(base, Some(format)).write(M / 2, 512, Fill::Same(5)).make(&top);
            rename_base(&top, &name, format);
            assert_as_qemu(&tools, &top, &[]);
        }
    }
    // With a colon and other things that names may have.
    for base in ["a: b.raw", "späße ☃.raw", "name with 'quotes' and \"more\".raw", "%n%s\\x.raw"] {
        TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join(base));
        Qcow2::new(M).backing(&format!("./{base}"), Some("raw")).make(&top);
        assert_as_qemu(&tools, &top, &[]);
    }
}

#[test]
fn a_name_is_bytes_and_need_not_be_text() {
    let (tools, fs) = (tools!(), tmpfs());
    let top = fs.join("top.qcow2");
    TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.path().join(OsStr::from_bytes(b"b\xffse.raw")));
    Qcow2::new(M).backing("b?se.raw", Some("raw")).make(&top);
    write_at(&top, peek(&top, Field::BACKING_OFFSET) + 1, b"\xff");
    assert_as_qemu(&tools, &top, &[]);
}

#[test]
fn a_base_that_changes_while_it_is_sent_is_told_of() {
    let (tools, fs) = (tools!(), tmpfs());
    let (base, top) = (fs.join("base.raw"), fs.join("top.qcow2"));
    for (args, code) in [(&[][..], Some(2)), (&["--live"], Some(0))] {
        TestDisk::empty(8 * M).with(0, 8 * M, 1).make(&base);
        Qcow2::over("base.raw", "raw").write(0, 64 * K, Fill::Same(1)).make(&top);
        let (mut read, write) = io::pipe().unwrap();
        let sender = Running::between(Stdio::null(), Command::new(&tools.xfer_hole).args(args).arg(&top), write);
        read.read_exact(&mut [0]).unwrap();
        write_at(&base, 7 * M, &[9; 512]);
        io::copy(&mut read, &mut io::sink()).unwrap();
        let outcome = sender.end();
        assert_eq!(outcome.code, code, "{args:?} {}", outcome.err);
        if code == Some(2) {
            outcome.refused(&["base.raw", "changed"]);
        }
    }
}

#[test]
fn names_are_relative_to_the_image_that_names_them() {
    let (tools, fs) = (tools!(), tmpfs());
    fs::create_dir_all(fs.join("one/two")).unwrap();
    TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join("one/two/base.raw"));
    // The wrong one, if names were relative to the top.
    TestDisk::empty(M).with(0, 100 * K, 2).make(&fs.join("base.raw"));
    Qcow2::new(M).backing("base.raw", Some("raw")).make(&fs.join("one/two/middle.qcow2"));
    Qcow2::new(M).backing("one/two/middle.qcow2", Some("qcow2")).make(&fs.join("top.qcow2"));
    assert_as_qemu(&tools, &fs.join("top.qcow2"), &[]);
    // From wherever the tool is called.
    let stream = pour(&tools, &[], &fs.join("top.qcow2"));
    for (folder, name) in [(".", "top.qcow2"), ("one", "../top.qcow2"), ("one/two", "./../../top.qcow2")] {
        let mut command = Command::new(&tools.xfer_hole);
        assert!(rig::run(command.arg(name).current_dir(fs.join(folder)), b"").ok().out == stream, "{folder}");
    }
}

#[test]
fn a_base_on_another_file_system_is_read_where_that_is_allowed() {
    let (tools, fs, other) = (tools!(), tmpfs(), Filesystem::new(Fs::Ext4, 64 * M));
    let base = other.join("base.raw");
    TestDisk::empty(8 * M).with(M, 100 * K, 1).with(5 * M, 3000, 2).make(&base);
    Qcow2::over(base.to_str().unwrap(), "raw").write(0, 4 * K, Fill::Same(3)).make(&fs.join("top.qcow2"));
    assert_as_qemu(&tools, &fs.join("top.qcow2"), &["--allow", other.path().to_str().unwrap()]);
    assert_refused(&tools, &fs.join("top.qcow2"), &[], &["top.qcow2", "base.raw"]);
}

#[test]
fn a_base_without_a_declared_format_is_not_probed() {
    let (tools, fs) = (tools!(), tmpfs());
    let (top, declared) = (fs.join("top.qcow2"), fs.join("declared.qcow2"));
    // In a base that is qcow2 as in one that is raw.
    Qcow2::new(M).write(0, 100 * K, Fill::Noise(1)).make(&fs.join("base.img"));
    for version in ["v2", "v3"] {
        Qcow2::new(M).option(&format!("compat={version}")).backing("base.img", None).make(&top);
        let said = assert_refused(&tools, &top, &[], &["top.qcow2", "base.img", "format"]);
        assert!(said.contains("hint: ") && said.contains("--backing-format"), "{said}");
        for format in ["raw", "qcow2"] {
            fs::copy(&top, &declared).unwrap();
            rename_base(&declared, "base.img", format);
            assert_eq!(assert_as(&tools, &top, &["--backing-format", format], &declared), "");
        }
    }
}

#[test]
fn a_declared_format_is_believed_whatever_the_base_looks_like() {
    let (tools, fs) = (tools!(), tmpfs());
    // A guest's raw disk, on which it wrote a qcow2 header that names a file of the host.
    TestDisk::empty(M).with(0, M, 7).make(&fs.join("secret"));
    Qcow2::new(M).backing("secret", Some("raw")).make(&fs.join("base.raw"));
    Qcow2::over("base.raw", "raw").make(&fs.join("top.qcow2"));
    assert_as_qemu(&tools, &fs.join("top.qcow2"), &[]);
    let plain = fs::metadata(fs.join("base.raw")).unwrap().len();
    let size: u64 = merged(&our_map(&tools, &[], &fs.join("top.qcow2"))).iter().map(|line| line.length).sum();
    assert_eq!(size, plain.next_multiple_of(512), "the disk is the file itself");
    // And what is no qcow2 is not read as one.
    TestDisk::empty(M).with(0, M, 7).make(&fs.join("noise"));
    Qcow2::new(M).backing("noise", Some("qcow2")).make(&fs.join("top.qcow2"));
    assert_refused(&tools, &fs.join("top.qcow2"), &[], &["noise", "qcow2"]);
}

#[test]
fn other_protocols_and_formats_are_refused_by_name() {
    let (tools, fs) = (tools!(), tmpfs());
    let top = fs.join("top.qcow2");
    let names = [
        ("nbd:localhost:10809", "nbd"),
        ("nbd://localhost/disk", "nbd"),
        ("nbd+unix:///disk?socket=sock", "nbd"),
        ("http://localhost/disk.raw", "http"),
        ("https://localhost/disk.raw", "https"),
        ("ssh://localhost/disk.raw", "ssh"),
        ("rbd:pool/disk", "rbd"),
        ("fat:/etc", "fat"),
        ("blkdebug::base.raw", "blkdebug"),
        (r#"json:{"driver":"raw","file":{"driver":"nbd","host":"localhost"}}"#, "nbd"),
        (r#"json:{"driver":"raw","file":{"driver":"https","url":"https://localhost/x"}}"#, "https"),
        (r#"json:{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"base.raw"}}"#, "offset"),
        (r#"json:{"driver":"blkverify","test":{"driver":"file","filename":"base.raw"}}"#, "blkverify"),
        (r#"json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"}"#, "json"),
    ];
    TestDisk::empty(M).with(0, 100 * K, 1).make(&fs.join("base.raw"));
    for (name, word) in names {
        Qcow2::new(M).make(&top);
        rename_base(&top, name, "raw");
        assert_refused(&tools, &top, &[], &["top.qcow2", word]);
    }
    for format in ["vmdk", "vdi", "luks", "nonsense"] {
        Qcow2::new(M).make(&top);
        rename_base_bytes(&top, format);
        assert_refused(&tools, &top, &[], &["top.qcow2", format]);
    }
}

/// Names a base of a format that qemu-img would not write there: by the bytes of the extension.
fn rename_base_bytes(top: &Path, format: &str) {
    rename_base(top, "base.raw", "qcow2");
    let bytes = fs::read(top).unwrap();
    let at = bytes.windows(8).position(|bytes| bytes == [0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 5]).unwrap() as u64;
    let mut padded = format.as_bytes().to_vec();
    padded.resize(8, 0);
    write_at(top, at + 4, &u32::try_from(format.len()).unwrap().to_be_bytes());
    write_at(top, at + 8, &padded);
}

#[test]
fn loops_are_refused() {
    let (tools, fs) = (tools!(), tmpfs());
    let chain = |name: &str, base: &str| {
        Qcow2::new(M).make(&fs.join(name));
        rename_base(&fs.join(name), base, "qcow2");
    };
    chain("self.qcow2", "self.qcow2");
    chain("a.qcow2", "b.qcow2");
    chain("b.qcow2", "a.qcow2");
    chain("one.qcow2", "two.qcow2");
    chain("two.qcow2", "three.qcow2");
    chain("three.qcow2", "./two.qcow2");
    // By another name for the same file.
    chain("real.qcow2", "link.qcow2");
    fs::hard_link(fs.join("real.qcow2"), fs.join("link.qcow2")).unwrap();
    chain("pointed.qcow2", "pointer.qcow2");
    std::os::unix::fs::symlink("pointed.qcow2", fs.join("pointer.qcow2")).unwrap();
    for name in ["self.qcow2", "a.qcow2", "b.qcow2", "one.qcow2", "real.qcow2", "pointed.qcow2"] {
        assert_refused(&tools, &fs.join(name), &[], &["loop"]);
    }
    // The same base twice in a chain is a loop only if it is below itself: two images over one base are none.
    Qcow2::new(M).write(0, K, Fill::Same(1)).make(&fs.join("base.qcow2"));
    chain("left.qcow2", "base.qcow2");
    assert_as_qemu(&tools, &fs.join("left.qcow2"), &[]);
}

#[test]
fn a_base_that_is_missing_or_broken_is_named_together_with_who_names_it() {
    let (tools, fs) = (tools!(), tmpfs());
    Qcow2::new(M).backing("missing.qcow2", Some("qcow2")).make(&fs.join("top.qcow2"));
    assert_refused(&tools, &fs.join("top.qcow2"), &[], &["top.qcow2", "missing.qcow2", "no such file"]);
    Qcow2::new(M).backing("top.qcow2", Some("qcow2")).make(&fs.join("over.qcow2"));
    assert_refused(&tools, &fs.join("over.qcow2"), &[], &["top.qcow2", "missing.qcow2"]);
    File::create(fs.join("missing.qcow2")).unwrap();
    assert_refused(&tools, &fs.join("top.qcow2"), &[], &["missing.qcow2"]);
}
