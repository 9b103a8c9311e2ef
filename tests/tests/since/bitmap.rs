//! What changed since a dirty bitmap was begun.

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{Field, Filesystem, Fill, Fs, Op, Qcow2, TestDisk, peek, poke, qemu_disk, run, tools, write_at};

use crate::{K, M, assert_since, kept, stream};

/// `qemu-img bitmap ARGS IMAGE NAME`
pub(crate) fn bitmap(args: &[&str], image: &Path, name: &str) {
    // Where it looks for data files.
    let folder = image.parent().unwrap();
    run(Command::new("qemu-img").current_dir(folder).arg("bitmap").args(args).arg(image).arg(name), b"").ok();
}

/// What these operations leave unchanged, in whole granules.
fn untouched(ops: &[Op], size: u64, granularity: u64) -> Vec<(u64, u64)> {
    let mut clean = vec![true; usize::try_from(size.div_ceil(granularity)).unwrap()];
    for op in ops {
        let (Op::Write(at, len, _)
        | Op::Compressed(at, len, _)
        | Op::Zero(at, len)
        | Op::Unmap(at, len)
        | Op::Discard(at, len)) = *op;
        let touched = at / granularity..(at + len).div_ceil(granularity);
        touched.for_each(|granule| clean[usize::try_from(granule).unwrap()] = false);
    }
    let mut found = Vec::<(u64, u64)>::new();
    for (granule, _) in clean.iter().enumerate().filter(|(_, clean)| **clean) {
        let (start, end) = (granule as u64 * granularity, ((granule as u64 + 1) * granularity).min(size));
        match found.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => found.push((start, end)),
        }
    }
    found
}

#[test]
fn what_a_bitmap_is_set_for_is_sent_and_all_else_is_kept() {
    let fs = Filesystem::new(Fs::Tmpfs, 512 * M);
    let (image, older) = (fs.join("disk.qcow2"), fs.join("older.img"));
    let size = 20 * M + 512;
    let cases = [
        ("cluster_size=512", "512"),
        ("cluster_size=4k", "64k"),
        ("", "4k"),
        ("extended_l2=on", "65536"),
        ("cluster_size=2M", "2M"),
        ("data_file=disk.data", "32k"),
    ];
    for (options, granularity) in cases {
        TestDisk::empty(5 * M).with(0, 5 * M, 1).make(&fs.join("base.raw"));
        let disk = Qcow2::new(size).option(options);
        let outside = options.starts_with("data_file");
        let disk = if outside { disk } else { disk.backing("base.raw", Some("raw")) };
        disk.write(M, 2 * M, Fill::Noise(1)).write(10 * M, M, Fill::Noise(2)).make(&image);
        bitmap(&["--add", "-g", granularity], &image, "monday");
        bitmap(&["--add", "-g", "512"], &image, "other");
        fs::rename(qemu_disk(&image), &older).unwrap();
        let ops = [
            Op::Write(M + 700, 9000, Fill::Same(4)),
            Op::Zero(2 * M, 64 * K),
            Op::Discard(10 * M, 128 * K),
            Op::Unmap(4 * M, 64 * K),
            Op::Write(size - 512, 512, Fill::Same(5)),
            Op::Write(15 * M, 10 * K, Fill::Noise(6)),
        ];
        Qcow2::new(size).ops(ops).live(&image);
        let newer = qemu_disk(&image);
        let kept = assert_since(&["--bitmap", "monday"], &image, &older, &newer);
        let granularity = match granularity {
            "512" => 512,
            "4k" => 4 * K,
            "32k" => 32 * K,
            "2M" => 2 * M,
            _ => 64 * K,
        };
        assert_eq!(kept, untouched(&ops, size, granularity), "{options}");
        for file in [&image, &older, &newer] {
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn a_disabled_bitmap_is_warned_of() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let image = fs.join("disk.qcow2");
    Qcow2::new(M).write(0, M, Fill::Same(1)).make(&image);
    bitmap(&["--add"], &image, "b");
    bitmap(&["--disable"], &image, "b");
    let outcome = run(Command::new(tools!().xfer_hole).args(["--trust-base", "--bitmap", "b"]).arg(&image), b"").ok();
    assert!(outcome.err.starts_with("xfer-hole: warning: ") && outcome.err.contains("is disabled"), "{}", outcome.err);
}

/// Where the directory entry of an image's only bitmap lies, and its table.
fn bitmap_at(image: &Path) -> (u64, u64) {
    let mut at = peek(image, Field::HEADER_LENGTH);
    while peek(image, Field(at, 4)) != 0x2385_2875 {
        at += 8 + peek(image, Field(at + 4, 4)).next_multiple_of(8);
    }
    let directory = peek(image, Field(at + 8 + 16, 8));
    (directory, peek(image, Field(directory, 8)))
}

#[test]
fn entries_that_stand_for_bits_all_alike_are_understood() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let image = fs.join("disk.qcow2");
    // A cluster of 512 bytes has the bits of 2 MiB.
    Qcow2::new(7 * M).option("cluster_size=512").write(0, 7 * M, Fill::Noise(1)).make(&image);
    bitmap(&["--add", "-g", "512"], &image, "b");
    Qcow2::new(7 * M).write(5 * M, 512, Fill::Same(1)).live(&image);
    let (_, table) = bitmap_at(&image);
    assert_eq!(peek(&image, Field(table, 8)), 0);
    poke(&image, Field(table + 8, 8), 1);
    let (older, newer) = (fs.join("older.img"), qemu_disk(&image));
    TestDisk::empty(7 * M).make(&older);
    let disk = fs::read(&newer).unwrap();
    // What is kept has to be there; what is not is sent.
    let (changed, kept) = (2 * M..4 * M, kept(&stream(&["--bitmap", "b"], &image)));
    assert_eq!(kept, [(0, 2 * M), (4 * M, 5 * M), (5 * M + 512, 7 * M)]);
    for (start, end) in &kept {
        write_at(&older, *start, &disk[usize::try_from(*start).unwrap()..usize::try_from(*end).unwrap()]);
    }
    assert!(changed.contains(&(3 * M)));
    assert_since(&["--bitmap", "b"], &image, &older, &newer);
}

#[test]
fn a_bitmap_that_is_not_sound_or_marked_as_in_use_is_refused_before_the_first_byte() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let (good, image) = (fs.join("good.qcow2"), fs.join("disk.qcow2"));
    Qcow2::new(7 * M).option("cluster_size=512").write(0, M, Fill::Noise(1)).make(&good);
    bitmap(&["--add", "-g", "512"], &good, "b");
    Qcow2::new(7 * M).write(0, 512, Fill::Same(1)).write(5 * M, 512, Fill::Same(1)).live(&good);
    let (directory, table) = bitmap_at(&good);
    let bits = peek(&good, Field(table, 8));
    let end = fs::metadata(&good).unwrap().len().next_multiple_of(512);
    assert!(bits != 0 && peek(&good, Field(table + 16, 8)) != 0);
    let cases: &[(u64, u64, &[&str])] = &[
        (table, bits | 1, &["reserved bits"]),
        (table, bits | 2, &["reserved bits"]),
        (table, 1 << 56, &["reserved bits"]),
        (table, 1 << 40, &["past the end of the file"]),
        (table, end, &["past the end of the file"]),
        (table + 16, bits, &["two bitmap table entries"]),
        (table + 8, peek(&good, Field::L1_OFFSET), &["where the l1 table is"]),
        (table + 8, peek(&good, Field::REFCOUNT_OFFSET), &["where the refcount table is"]),
        (table + 8, directory, &["where the bitmap directory is"]),
        (table + 8, table, &["where the bitmap table is"]),
        (directory, peek(&good, Field::L1_OFFSET), &["where the l1 table is"]),
        (directory, end, &["past the end of the file"]),
        (directory, directory, &["where the bitmap directory is"]),
    ];
    let send =
        |image: &Path| run(Command::new(tools!().xfer_hole).args(["--trust-base", "--bitmap", "b"]).arg(image), b"");
    for (at, value, words) in cases {
        fs::copy(&good, &image).unwrap();
        poke(&image, Field(*at, 8), *value);
        let outcome = send(&image).refused(&["disk.qcow2"]);
        let said = outcome.err.to_lowercase();
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} not in: {said}");
        assert!(outcome.out.is_empty(), "{words:?}");
    }
    // The flags stand behind the table's offset and size. Others than these two are nothing anybody knows.
    fs::copy(&good, &image).unwrap();
    poke(&image, Field(directory + 12, 4), 3);
    let outcome = send(&image).refused(&["disk.qcow2", "bitmap \"b\"", "in use"]);
    assert!(outcome.err.contains("hint: ") && outcome.out.is_empty(), "{}", outcome.err);
    poke(&image, Field(directory + 12, 4), 2 | 1 << 7);
    assert!(send(&image).refused(&["disk.qcow2", "flags"]).out.is_empty());
    // One that a program which doesn't know bitmaps has made stale.
    fs::copy(&good, &image).unwrap();
    poke(&image, Field::AUTOCLEAR, 0);
    assert!(send(&image).refused(&["disk.qcow2", "\"b\"", "up to date"]).out.is_empty());
}

#[test]
fn a_bitmap_that_qemu_has_not_written_back_is_refused() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * M);
    let image = fs.join("disk.qcow2");
    Qcow2::new(M).write(0, M, Fill::Noise(1)).make(&image);
    bitmap(&["--add"], &image, "b");
    // Killed while it had the image open.
    let image_name = image.to_str().unwrap().to_owned();
    let kill = r#"qemu-io -f qcow2 -c "write 0 512" -c "sigraise 9" "$0"; [ $? = 137 ]"#;
    run(Command::new("sh").args(["-c", kill, &image_name]), b"").ok();
    let send = run(Command::new(tools!().xfer_hole).args(["--trust-base", "--bitmap", "b"]).arg(&image), b"");
    assert!(send.refused(&["disk.qcow2", "bitmap \"b\"", "in use"]).out.is_empty());
}
