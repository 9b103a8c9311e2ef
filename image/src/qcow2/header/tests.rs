//! Tests of headers: valid ones, and each kind that is refused.

use proptest::prelude::*;

use super::super::test_images::{TestImage, qemu_img};
use super::*;

#[test]
fn a_header_written_by_hand_is_read() {
    let header = TestImage::v3().header().unwrap();
    assert_eq!((header.version, header.geometry.cluster_bits, header.geometry.extended_l2), (3, 16, false));
    assert_eq!((header.size, header.stated_size, header.refcount_order), (1 << 20, 1 << 20, 4));
    assert_eq!(header.l1, L1Table { offset: HostOffset(3 << 16), entries: 1 });
    assert_eq!(header.refcount_table, RefcountTable { offset: HostOffset(1 << 16), clusters: 1 });
    assert_eq!(header.snapshots, SnapshotTable { offset: HostOffset(0), count: 0 });
    assert_eq!((header.backing_name.as_ref(), header.compression), (None, Compression::Zlib));
    assert_eq!(header.features, Features::default());
    assert_eq!(header.extensions, Extensions::default());
    assert_eq!(header.warnings(), Vec::<String>::new());
}

#[test]
fn version_2_ends_at_byte_72() {
    let image = TestImage::v2();
    // Version 2 has extensions where version 3 has further fields.
    let next = image.extension(72, 0xe279_2aca, b"raw");
    image.put64(next, 0).put64(8, next + 8).put32(16, 8).put(next + 8, b"base.raw");
    let header = image.header().unwrap();
    assert_eq!((header.version, header.refcount_order, header.features), (2, 4, Features::default()));
    assert_eq!(header.backing_name.as_deref(), Some(b"base.raw".as_slice()));
    assert_eq!(header.extensions.backing_format.as_deref(), Some("raw"));
}

#[test]
fn headers_of_qemu_img_are_read() {
    for (options, version, bits, order) in [
        ("compat=0.10", 2, 16, 4),
        ("compat=1.1,cluster_size=512,refcount_bits=1", 3, 9, 0),
        ("cluster_size=2M,refcount_bits=64", 3, 21, 6),
        ("lazy_refcounts=on,compression_type=zstd", 3, 16, 4),
        ("extended_l2=on,cluster_size=16k", 3, 14, 4),
    ] {
        for size in ["0", "1000k", "3G"] {
            let header = TestImage::made(options, size).header().unwrap();
            let found = (header.version, header.geometry.cluster_bits, header.refcount_order);
            assert_eq!(found, (version, bits, order), "{options} {size}");
            assert_eq!(
                header.size,
                match size {
                    "0" => 0,
                    "3G" => 3 << 30,
                    _ => 1000 << 10,
                }
            );
            assert_eq!(header.features.lazy_refcounts(), options.contains("lazy"));
            assert_eq!(header.compression == Compression::Zstd, options.contains("zstd"));
            assert_eq!(header.geometry.extended_l2, options.contains("extended"));
            assert_eq!(header.extensions.unknown, [0u32; 0]);
        }
    }
}

#[test]
fn backing_and_data_files_of_qemu_img_are_named() {
    let image = TestImage::made("compat=1.1", "1M");
    let top = image.dir().join("top.qcow2");
    let top = top.to_str().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", top]);
    let header = Header::read(&ImageFile::open(top.as_ref()).unwrap()).unwrap();
    assert_eq!(header.backing_name.as_deref(), Some(b"disk.qcow2".as_slice()));
    assert_eq!(header.extensions.backing_format.as_deref(), Some("qcow2"));

    let data = image.dir().join("data.raw");
    let options = format!("data_file={},data_file_raw=on", data.display());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, top, "1M"]);
    let header = Header::read(&ImageFile::open(top.as_ref()).unwrap()).unwrap();
    assert!(header.features.has_data_file() && header.features.data_file_raw());
    assert_eq!(header.extensions.data_file.as_deref(), Some(data.to_str().unwrap().as_bytes()));
}

#[test]
fn longer_header_is_accepted_with_its_compression_type() {
    let image = TestImage::v3();
    image.put32(100, 4096).put32(4096, 0).put(104, &[1]).put64(72, 1 << 3).put(112, &[0xff; 100]);
    assert_eq!(image.header().unwrap().compression, Compression::Zstd);
    // A header of 104 bytes doesn't contain the field; its bytes are an extension.
    let image = TestImage::v3();
    image.extension(104, 0x0100_0000, b"");
    let header = image.header().unwrap();
    assert_eq!((header.compression, header.extensions.unknown), (Compression::Zlib, vec![0x0100_0000]));
}

#[test]
fn unknown_compatible_and_autoclear_bits_are_ignored() {
    let image = TestImage::v3();
    image.put64(80, u64::MAX).put64(88, !3);
    assert!(image.header().unwrap().features.lazy_refcounts());
}

#[test]
fn dirty_corrupt_and_odd_sizes_cause_warnings() {
    let image = TestImage::v3();
    image.put64(72, 3).put64(24, 1000);
    let header = image.header().unwrap();
    assert_eq!((header.size, header.stated_size), (512, 1000));
    assert_eq!(
        header.warnings(),
        [
            "its dirty bit is set: it was not closed cleanly, or is in use",
            "its corrupt bit is set: what is read of it may be wrong",
            "its size of 1000 bytes is no multiple of 512: the last 488 are left out, as QEMU does",
        ]
    );
}

#[test]
fn a_backing_name_is_any_bytes_up_to_a_nul() {
    let image = TestImage::v3();
    image.put64(8, 1024).put32(16, 1023).put(1024, b"ba\xffse\nname\0rest");
    assert_eq!(image.header().unwrap().backing_name.as_deref(), Some(b"ba\xffse\nname".as_slice()));
    image.put(1024, &[b'x'; 1023]);
    assert_eq!(image.header().unwrap().backing_name.unwrap().len(), 1023);
    // An empty name means no backing file, as in QEMU. The length is ignored if the offset is zero.
    assert_eq!(TestImage::v3().put64(8, 1024).header().unwrap().backing_name, None);
    assert_eq!(TestImage::v3().put32(16, u32::MAX).header().unwrap().backing_name, None);
    assert_eq!(TestImage::v3().put64(8, 65536).header().unwrap().backing_name, None);
}

#[test]
fn tables_may_end_beyond_the_end_of_the_file() {
    let image = TestImage::v3();
    image.put64(24, 32 << 30).put32(36, 64).cut((3 << 16) + 8);
    assert_eq!(image.header().unwrap().l1.entries, 64);
    image.put32(36, 0).put64(24, 0).put64(40, 0);
    assert_eq!(image.header().unwrap().l1, L1Table { offset: HostOffset(0), entries: 0 });
}

#[test]
fn unsupported_values_are_refused_by_field_and_offset() {
    type Alter = fn(&TestImage) -> &TestImage;
    let cases: &[(&str, Alter)] = &[
        ("not a qcow2 image: it doesn't begin with \"QFI\\xfb\"", |i| i.put(0, b"QFI\xfa")),
        ("not a qcow2 image: it doesn't begin with \"QFI\\xfb\"", |i| i.cut(0)),
        ("version at 0x4 is 0: only versions 2 and 3 of qcow2 can be read", |i| i.cut(4)),
        ("version at 0x4 is 1: only versions 2 and 3 of qcow2 can be read", |i| i.put32(4, 1)),
        ("version at 0x4 is 4: only versions 2 and 3 of qcow2 can be read", |i| i.put32(4, 4)),
        ("cluster_bits at 0x14 is 8: clusters can have 2^9 to 2^21 bytes", |i| i.put32(20, 8)),
        ("cluster_bits at 0x14 is 22: clusters can have 2^9 to 2^21 bytes", |i| i.put32(20, 22)),
        ("cluster_bits at 0x14 is 4294967295: clusters can have 2^9 to 2^21 bytes", |i| i.put32(20, u32::MAX)),
        ("header_length at 0x64 is 103: can be 104 bytes to a cluster of 65536", |i| i.put32(100, 103)),
        ("header_length at 0x64 is 65537: can be 104 bytes to a cluster of 65536", |i| i.put32(100, 65537)),
        (
            "backing_file_offset at 0x8 is 0x67: not between the header's end at 0x68 and its cluster's at 0x10000",
            |i| i.put64(8, 103),
        ),
        (
            "backing_file_offset at 0x8 is 0x10001: not between the header's end at 0x68 and its cluster's at 0x10000",
            |i| i.put64(8, 65537),
        ),
        ("backing_file_size at 0x10 is 1024: the backing file's name has room for 1023 bytes", |i| {
            i.put64(8, 1024).put32(16, 1024)
        }),
        ("backing_file_size at 0x10 is 11: the backing file's name has room for 10 bytes", |i| {
            i.put64(8, 65526).put32(16, 11)
        }),
        ("crypt_method at 0x20 is 1: the image is encrypted (AES), which can't be read", |i| i.put32(32, 1)),
        ("crypt_method at 0x20 is 2: the image is encrypted (LUKS), which can't be read", |i| i.put32(32, 2)),
        ("crypt_method at 0x20 is 3: an unknown encryption", |i| i.put32(32, 3)),
        ("incompatible_features at 0x48 is 0x21: unknown features: incompatible bit 5", |i| i.put64(72, 0x21)),
        (
            "incompatible_features at 0x48 is 0x8000000000000020: unknown features: \"teleport\" (incompatible bit 5), \
             incompatible bit 63",
            |i| {
                i.put64(72, 1 << 63 | 1 << 5).extension(
                    104,
                    0x6803_f857,
                    &[b"\0\x05teleport".as_slice(), &[0; 38]].concat(),
                );
                i
            },
        ),
        ("incompatible_features at 0x48 is 0x20: unknown features: incompatible bit 5", |i| {
            i.put64(72, 1 << 5).put64(104, u64::MAX)
        }),
        (
            "incompatible_features at 0x48 is 0x4: guest data lies in an external data file, which the image doesn't name",
            |i| i.put64(72, 1 << 2),
        ),
        (
            "incompatible_features at 0x48 is 0x4: guest data lies in an external data file, which the image doesn't name",
            |i| {
                i.put64(72, 1 << 2).extension(104, 0x4441_5441, b"\0name");
                i
            },
        ),
        ("autoclear_features at 0x58 is 0x2: a raw external data file, but there is no external data file", |i| {
            i.put64(88, 2)
        }),
        ("compression_type at 0x68 is 0: zlib, but incompatible bit 3 says that it isn't", |i| {
            i.put32(100, 112).put64(72, 1 << 3)
        }),
        ("compression_type at 0x68 is 0: zlib, but incompatible bit 3 says that it isn't", |i| i.put64(72, 1 << 3)),
        ("compression_type at 0x68 is 1: zstd, but incompatible bit 3, which says so, is not set", |i| {
            i.put32(100, 112).put(104, &[1])
        }),
        ("compression_type at 0x68 is 2: an unknown compression, only zlib (0) and zstd (1) can be read", |i| {
            i.put32(100, 112).put(104, &[2]).put64(72, 1 << 3)
        }),
        ("cluster_bits at 0x14 is 13: too small for extended L2 entries (incompatible bit 4)", |i| {
            i.put64(72, 1 << 4).put32(20, 13)
        }),
        ("refcount_order at 0x60 is 7: reference counts have at most 2^6 bits", |i| i.put32(96, 7)),
        ("refcount_table_clusters at 0x38 is 0: there is no refcount table", |i| i.put32(56, 0)),
        ("refcount_table_clusters at 0x38 is 129: a refcount table of more than 8388608 bytes", |i| i.put32(56, 129)),
        ("refcount_table_clusters at 0x38 is 4294967295: a refcount table of more than 8388608 bytes", |i| {
            i.put32(56, u32::MAX)
        }),
        ("nb_snapshots at 0x3c is 65537: more than 65536 snapshots", |i| i.put32(60, 65537)),
        ("nb_snapshots at 0x3c is 4294967295: more than 65536 snapshots", |i| i.put32(60, u32::MAX)),
        ("l1_size at 0x24 is 4194305: an L1 table of more than 33554432 bytes", |i| i.put32(36, (4 << 20) + 1)),
        ("l1_size at 0x24 is 4294967295: an L1 table of more than 33554432 bytes", |i| i.put32(36, u32::MAX)),
        ("size at 0x18 is 9223372036854775808: more bytes than a disk can have", |i| i.put64(24, 1 << 63)),
        ("size at 0x18 is 18446744073709551615: more bytes than a disk can have", |i| i.put64(24, u64::MAX)),
        ("l1_size at 0x24 is 1: a disk of 536870913 bytes needs 2 L1 entries", |i| i.put64(24, (512 << 20) + 1)),
        ("l1_size at 0x24 is 0: a disk of 1 bytes needs 1 L1 entries", |i| i.put64(24, 1).put32(36, 0)),
        ("l1_table_offset at 0x28 is 0x30200: not a multiple of the cluster size of 65536 bytes", |i| {
            i.put64(40, 0x30200)
        }),
        ("l1_table_offset at 0x28 is 0x0: the L1 table overlaps the header's cluster", |i| i.put64(40, 0)),
        (
            "l1_table_offset at 0x28 is 0x40000: the L1 table begins past the end of the file, which has 262144 bytes",
            |i| i.put64(40, 0x40000),
        ),
        (
            "l1_table_offset at 0x28 is 0xffffffffffff0000: the L1 table lies beyond the end of the largest possible file",
            |i| i.put64(40, !0xffff),
        ),
        ("refcount_table_offset at 0x30 is 0x8: not a multiple of the cluster size of 65536 bytes", |i| i.put64(48, 8)),
        ("snapshots_offset at 0x40 is 0x8: not a multiple of the cluster size of 65536 bytes", |i| i.put64(64, 8)),
        (
            "snapshots_offset at 0x40 is 0x8000000000000000: the snapshot table lies beyond the end of the largest possible file",
            |i| i.put64(64, 1 << 63),
        ),
        (
            "refcount_table_offset at 0x30 is 0x8000000000000000: the refcount table lies beyond the end of the largest possible file",
            |i| i.put64(48, 1 << 63),
        ),
        ("refcount_table_offset at 0x30 is 0x30000: the refcount table overlaps the L1 table at 0x30000", |i| {
            i.put64(48, 0x30000)
        }),
        ("refcount_table_offset at 0x30 is 0x10000: the refcount table overlaps the L1 table at 0x30000", |i| {
            i.put32(56, 3)
        }),
        ("refcount_table_offset at 0x30 is 0x30000: the refcount table overlaps the L1 table at 0x20000", |i| {
            i.put64(40, 0x20000).put32(36, 8193).put64(48, 0x30000)
        }),
        ("snapshots_offset at 0x40 is 0x20000: the snapshot table overlaps the L1 table at 0x30000", |i| {
            i.put32(60, 1639).put64(64, 0x20000)
        }),
    ];
    for (refusal, alter) in cases {
        let image = TestImage::v3();
        alter(&image);
        assert_eq!(&image.refusal(), refusal);
    }
}

#[test]
fn invalid_offsets_of_unneeded_tables_cause_warnings() {
    type Alter = fn(&TestImage) -> &TestImage;
    let refcounts: &[(&str, Alter)] = &[
        ("refcount_table_offset at 0x30 is 0x0: the refcount table overlaps the header's cluster", |i| i.put64(48, 0)),
        (
            "refcount_table_offset at 0x30 is 0x40000: the refcount table begins past the end of the file, which has 262144 \
             bytes",
            |i| i.put64(48, 0x40000),
        ),
    ];
    let snapshots: &[(&str, Alter)] = &[
        ("snapshots_offset at 0x40 is 0x0: the snapshot table overlaps the header's cluster", |i| i.put32(60, 1)),
        (
            "snapshots_offset at 0x40 is 0x50000: the snapshot table begins past the end of the file, which has 262144 bytes",
            |i| i.put32(60, 1).put64(64, 0x50000),
        ),
        ("snapshots_offset at 0x40 is 0x10000: the snapshot table overlaps the refcount table at 0x10000", |i| {
            i.put32(60, 1).put64(64, 0x10000)
        }),
    ];
    for (cases, rest) in [(refcounts, "it is not needed to read the disk"), (snapshots, "no snapshot can be read")] {
        for (problem, alter) in cases {
            let image = TestImage::v3();
            alter(&image);
            let header = image.header().unwrap();
            assert_eq!(header.warnings(), [format!("{problem}: {rest}")]);
            assert_eq!(header.regions().len(), 2);
        }
    }
}

/// A valid header with some random fields and extensions.
fn altered(seed: u64) -> TestImage {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let image = if random(4) == 0 { TestImage::v2() } else { TestImage::v3() };
    let extensions = if random(2) == 0 { 104 } else { 72 };
    image.extension(
        extensions,
        [0xe279_2aca, 0x2385_2875, 0x6803_f857, 7][random(4)],
        &vec![b'q'; [5, 15, 16, 24, 48][random(5)]],
    );
    for _ in 0..1 + random(3) {
        let field = random(28) as u64 * 4;
        let value =
            [0, 1, 2, 3, 4, 8, 9, 14, 21, 22, 104, 112, 127, 128, 129, 511, 512, 1000, 1023, 1024, 0x1_0000, 0x2_0000];
        image.put32(field, value[random(value.len())]);
    }
    image
}

#[test]
fn accepted_headers_are_accepted_by_qemu() {
    let mut taken = 0;
    for seed in 0..200 {
        let image = altered(seed);
        let Ok(header) = image.header() else { continue };
        let (path, size) = (image.path(), format!("\"virtual-size\": {},", header.size));
        let said = qemu_img(&["info", "-f", "qcow2", "--output=json", path.to_str().unwrap()]);
        assert!(said.contains(&size), "seed {seed}: {said}");
        taken += 1;
    }
    assert!(taken > 10, "{taken}");
}

proptest! {
    #[test]
    fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 4096), fields: [bool; 5]) {
        let image = TestImage::v3();
        // Fields that are always refused would hide errors in the fields after them.
        image.put(8, &bytes[8..]);
        for (at, keep) in [(20, 16), (32, 0), (36, 1), (56, 1), (60, 0)].into_iter().zip(fields) {
            if keep { image.put32(at.0, at.1); }
        }
        let _whatever = image.header();
        image.put(0, &bytes);
        let _whatever = image.header();
    }

    #[test]
    fn no_alteration_of_a_sound_header_panics(
        words in proptest::collection::vec((0u64..28, prop_oneof![any::<u32>(), 0u32..70, Just(u32::MAX), Just(1 << 31)]), 1..6)
    ) {
        let image = TestImage::v3();
        for (word, value) in words {
            image.put32(word * 4, value);
        }
        if let Ok(header) = image.header() {
            let _whatever = header.warnings();
            prop_assert!(header.size <= header.stated_size && header.l1.entries * 8 <= L1_MAX);
        }
    }
}
