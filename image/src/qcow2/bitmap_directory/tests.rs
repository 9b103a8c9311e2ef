//! Tests of bitmap directories: those that qemu-img creates, and each kind that is refused.

use super::super::test_images::{TestImage, qemu_img, refusal};
use super::*;

fn list(image: &TestImage) -> Result<Vec<Bitmap>> {
    let file = image.host();
    Bitmaps::new(&file, &Header::read(&file)?)?.collect()
}

/// An image with one bitmap `b` of granularity 64 KiB. The directory is the third cluster, with space for another
/// bitmap.
fn one() -> TestImage {
    let image = TestImage::v3();
    image.put64(88, 1).extension(104, 0x2385_2875, &[0; 24]);
    image.put32(112, 1).put64(120, 32).put64(128, 2 << 16);
    image.put64(0x20000, 0x10000).put32(0x20008, 1).put32(0x2000c, 2);
    image.put(0x20010, &[1, 16, 0, 1, 0, 0, 0, 0, b'b']);
    image
}

#[test]
fn bitmaps_of_qemu_img_are_listed() {
    let image = TestImage::made("compat=1.1", "1M");
    let path = image.path();
    let path = path.to_str().unwrap();
    qemu_img(&["bitmap", "--add", path, "first"]);
    qemu_img(&["bitmap", "--add", "--disable", "-g", "512", path, "sécond"]);
    let found = list(&image).unwrap();
    let expected = [("first", 65536, true), ("sécond", 512, false)];
    let found = found.iter().map(|one| (&*one.name, one.granularity, one.auto, one.in_use)).collect::<Vec<_>>();
    assert_eq!(found, expected.map(|(name, granularity, auto)| (name, granularity, auto, false)));
    // The bitmaps are stale: a program that doesn't support them has written to the image.
    image.put64(88, 0);
    assert_eq!(list(&image).unwrap(), []);
}

#[test]
fn handwritten_directory_is_read() {
    let bitmap = Bitmap { name: "b".into(), granularity: 65536, in_use: false, auto: true };
    assert_eq!(list(&one()).unwrap(), [bitmap]);
    // A bitmap in use may be too short, because the disk has grown.
    let image = one();
    image.put32(0x2000c, 1).put64(24, 1 << 36).put32(36, 128);
    assert!(list(&image).unwrap()[0].in_use);
    assert_eq!(list(&TestImage::v3()).unwrap(), []);
}

#[test]
fn bad_directories_are_refused_by_offset() {
    type Alter = fn(&TestImage) -> &TestImage;
    let cases: &[(&str, Alter)] = &[
        ("bitmap 1 of 1, at 0x20000: its table has 0 entries, not 1 to those of a bitmap of 536870912 bytes", |i| {
            i.put32(0x20008, 0)
        }),
        ("bitmap 1 of 1, at 0x20000: its table has 8193 entries, not 1 to those of a bitmap of 536870912 bytes", |i| {
            i.put32(0x20008, 8193)
        }),
        (
            "bitmap 1 of 1, at 0x20000: its table has 4294967295 entries, not 1 to those of a bitmap of 536870912 bytes",
            |i| i.put32(0x20008, u32::MAX),
        ),
        ("bitmap 1 of 1, at 0x20000: its table at 0x0 is not at a cluster behind the header", |i| i.put64(0x20000, 0)),
        ("bitmap 1 of 1, at 0x20000: its table at 0x1 is not at a cluster behind the header", |i| i.put64(0x20000, 1)),
        ("bitmap 1 of 1, at 0x20000: its flags 0x4 are unknown", |i| i.put32(0x2000c, 4)),
        ("bitmap 1 of 1, at 0x20000: its type 2 is unknown", |i| i.put(0x20010, &[2])),
        ("bitmap 1 of 1, at 0x20000: its granularity is 2^8, not 2^9 to 2^31 bytes", |i| i.put(0x20011, &[8])),
        ("bitmap 1 of 1, at 0x20000: its granularity is 2^255, not 2^9 to 2^31 bytes", |i| i.put(0x20011, &[255])),
        ("bitmap 1 of 1, at 0x20000: its name has 1024 bytes, 1023 are the most", |i| i.put(0x20012, &[4, 0])),
        ("bitmap 1 of 1, at 0x20000: has 8 bytes of extra data, which are unknown", |i| i.put32(0x20014, 8)),
        ("bitmap 1 of 1, at 0x20000: runs past the end of the directory", |i| i.put(0x20012, &[0, 9])),
        ("bitmap 2 of 2, at 0x20020: runs past the end of the directory", |i| i.put32(112, 2)),
        ("the bitmap directory goes on at 0x20020, behind its 1 bitmaps", |i| i.put64(120, 33)),
        ("the bitmap directory at 0x20000, of 67107840 bytes, runs past the end of the file", |i| {
            i.put64(120, 1024 * 65535)
        }),
        ("bitmap 1 of 1, at 0x20000: covers 34359738368 bytes of a disk of 68719476736", |i| {
            i.put64(24, 1 << 36).put32(36, 128)
        }),
    ];
    for (words, alter) in cases {
        let image = one();
        alter(&image);
        assert_eq!(&refusal(list(&image).map(drop)), words);
    }
}
