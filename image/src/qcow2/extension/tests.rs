//! Tests of header extensions that are accepted, ignored and refused.

use proptest::prelude::*;

use super::super::test_images::{TestImage, qemu_img};
use super::*;
use crate::qcow2::header::Header;

const BITMAPS_BIT: u64 = 1;

fn bitmaps(count: u32, reserved: u32, len: u64, offset: u64) -> Vec<u8> {
    [&count.to_be_bytes()[..], &reserved.to_be_bytes(), &len.to_be_bytes(), &offset.to_be_bytes()].concat()
}

#[test]
fn extensions_are_read_up_to_the_end_marker() {
    let image = TestImage::v3();
    let next = image.extension(104, 0x1234_5678, &[7; 5]);
    let next = image.extension(next, BACKING_FORMAT, b"qcow2");
    let next = image.extension(next, DATA_FILE, b"data\xff.raw\0rest");
    let next = image.extension(next, END, b"");
    image.extension(next, BACKING_FORMAT, b"raw");
    let found = image.header().unwrap().extensions;
    assert_eq!(found.backing_format.as_deref(), Some("qcow2"));
    assert_eq!(found.data_file.as_deref(), Some(b"data\xff.raw".as_slice()));
    assert_eq!(found.unknown, [0x1234_5678]);
}

#[test]
fn extensions_may_end_at_the_backing_name_without_a_marker() {
    let image = TestImage::v3();
    image.extension(104, BACKING_FORMAT, b"raw");
    image.put64(8, 115).put32(16, 4).put(115, b"base");
    let header = image.header().unwrap();
    assert_eq!(header.extensions.backing_format.as_deref(), Some("raw"));
    assert_eq!(header.backing_name.as_deref(), Some(b"base".as_slice()));
}

#[test]
fn empty_format_counts_as_none() {
    let image = TestImage::v3();
    image.extension(104, BACKING_FORMAT, b"\0raw");
    assert_eq!(image.header().unwrap().extensions.backing_format, None);
}

#[test]
fn many_unknown_extensions_take_bounded_memory() {
    let image = TestImage::v3();
    image.put(104, &[0, 0, 0, 9, 0, 0, 0, 0].repeat((65536 - 104) / 8));
    assert_eq!(image.header().unwrap().extensions.unknown.len(), UNKNOWN_KEPT);
}

#[test]
fn bitmaps_are_used_only_if_they_are_current() {
    let image = TestImage::v3();
    image.extension(104, BITMAPS, &bitmaps(0, 1, 2, 3));
    assert_eq!(image.header().unwrap().extensions.bitmaps, None);
    image.put64(88, BITMAPS_BIT).extension(104, BITMAPS, &bitmaps(2, 0, 64, 0x20000));
    let directory = BitmapDirectory { count: 2, offset: HostOffset(0x20000), len: 64 };
    assert_eq!(image.header().unwrap().extensions.bitmaps, Some(directory));
}

#[test]
fn feature_names_of_qemu_img_are_used() {
    let image = TestImage::made("compat=1.1", "1M");
    let names = image.header().unwrap().extensions.names;
    assert_eq!(names.of(1 << 1), "\"corrupt bit\" (incompatible bit 1)");
}

#[test]
fn luks_is_refused_before_its_extension_is_read() {
    let image = TestImage::made("compat=1.1", "1M");
    let path = image.path();
    let path = path.to_str().unwrap();
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    qemu_img(&["create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", options, path, "1M"]);
    assert!(image.refusal().contains("encrypted (LUKS)"));
}

#[test]
fn bad_extensions_are_refused_by_offset() {
    type Alter = fn(&TestImage) -> &TestImage;
    let cases: &[(&str, Alter)] = &[
        ("at 0x68: its 4294967295 bytes run past 0x10000, where the area of extensions ends", |i| {
            i.put32(104, 1).put32(108, u32::MAX)
        }),
        ("at 0x68: its 65425 bytes run past 0x10000, where the area of extensions ends", |i| {
            i.put32(104, 1).put32(108, 65536 - 112 + 1)
        }),
        ("at 0x68: its 9 bytes run past 0x78, where the area of extensions ends", |i| {
            i.put32(104, 1).put32(108, 9).put64(8, 120)
        }),
        ("at 0x68: its 1 bytes run past 0x70, where the area of extensions ends", |i| {
            // The length of the end marker is checked too, as in QEMU.
            i.put32(104, 0).put32(108, 1).put64(8, 112)
        }),
        ("at 0x70: only 4 bytes are left for it, up to 0x74", |i| i.put32(104, 1).put64(8, 116)),
        ("at 0x68: a backing format's name of 16 bytes, 15 are the most", |i| {
            i.extension(104, BACKING_FORMAT, &[b'x'; 16]);
            i
        }),
        ("at 0x68: an encryption header, though crypt_method says that there is no encryption", |i| {
            i.extension(104, CRYPTO, &[0; 16]);
            i
        }),
        ("at 0x68: a bitmaps extension of 23 bytes, not 24", |i| {
            i.extension(104, BITMAPS, &[0; 23]);
            i
        }),
        ("at 0x68: the reserved field of the bitmaps extension is 0x1, not 0", |i| {
            i.extension(104, BITMAPS, &bitmaps(1, 1, 32, 0x20000));
            i
        }),
        ("at 0x68: nb_bitmaps is 0: can be 1 to 65535", |i| {
            i.extension(104, BITMAPS, &bitmaps(0, 0, 32, 0x20000));
            i
        }),
        ("at 0x68: nb_bitmaps is 65536: can be 1 to 65535", |i| {
            i.extension(104, BITMAPS, &bitmaps(65536, 0, 32, 0x20000));
            i
        }),
        ("at 0x68: bitmap_directory_size is 0: can be 1 to 67107840 bytes", |i| {
            i.extension(104, BITMAPS, &bitmaps(1, 0, 0, 0x20000));
            i
        }),
        ("at 0x68: bitmap_directory_size is 67107841: can be 1 to 67107840 bytes", |i| {
            i.extension(104, BITMAPS, &bitmaps(1, 0, DIRECTORY_MAX + 1, 0x20000));
            i
        }),
        ("at 0x68: bitmap_directory_offset is 0x20200: not at a cluster behind the header", |i| {
            i.extension(104, BITMAPS, &bitmaps(1, 0, 32, 0x20200));
            i
        }),
        ("at 0x68: bitmap_directory_offset is 0x0: not at a cluster behind the header", |i| {
            i.extension(104, BITMAPS, &bitmaps(1, 0, 32, 0));
            i
        }),
    ];
    for (refusal, alter) in cases {
        let image = TestImage::v3();
        image.put64(88, BITMAPS_BIT);
        alter(&image);
        assert_eq!(image.refusal(), format!("header extension {refusal}"));
    }
}

proptest! {
    #[test]
    fn no_extensions_panic(
        some in proptest::collection::vec(
            (prop_oneof![Just(BACKING_FORMAT), Just(FEATURE_NAMES), Just(BITMAPS), Just(DATA_FILE), any::<u32>()],
             proptest::collection::vec(any::<u8>(), 0..100), -9i32..9),
            0..20),
        end in 104u64..2000,
    ) {
        let image = TestImage::v3();
        let mut at = 104;
        for (kind, data, off) in some {
            let next = image.extension(at, kind, &data);
            let len = i32::try_from(data.len()).unwrap();
            image.put32(at + 4, u32::try_from((len + off).max(0)).unwrap());
            at = next;
        }
        image.put64(88, BITMAPS_BIT).put64(8, end);
        let _whatever = Header::read(&image.host());
    }
}
