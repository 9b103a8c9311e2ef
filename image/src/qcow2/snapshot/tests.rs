//! Tests of snapshot tables: those that qemu-img creates, and each kind that is refused.

use super::super::geometry::Geometry;
use super::super::test_images::{TestImage, qemu_img, refusal};
use super::*;

fn list(image: &TestImage) -> Result<Vec<Snapshot>> {
    let file = image.host();
    Snapshots::new(&file, &Header::read(&file)?).collect()
}

fn find(image: &TestImage, wanted: &str) -> Result<Snapshot> {
    let file = image.host();
    Snapshots::new(&file, &Header::read(&file)?).find(wanted.as_bytes())
}

/// An image whose snapshot table is the third cluster, with these IDs, names and extra data. The fifth cluster is the
/// L1 table of the snapshots.
fn table(entries: &[(&str, &str, &[u8])]) -> TestImage {
    let image = TestImage::v3();
    image.cut(5 << 16).put32(60, u32::try_from(entries.len()).unwrap()).put64(64, 2 << 16);
    let mut at = 2 << 16;
    for (id, name, extra) in entries {
        let len = |text: &str| u32::try_from(text.len()).unwrap();
        image.put64(at, 4 << 16).put32(at + 8, 1).put32(at + 12, len(id) << 16 | len(name));
        image.put32(at + 16, 1000).put32(at + 20, 5).put64(at + 24, 77).put32(at + 32, 9);
        image.put32(at + 36, u32::try_from(extra.len()).unwrap());
        image.put(at + 40, &[extra, id.as_bytes(), name.as_bytes()].concat());
        at = (at + 40 + (extra.len() + id.len() + name.len()) as u64).next_multiple_of(8);
    }
    image.cut((5 << 16).max(at));
    image
}

#[test]
fn snapshots_of_qemu_img_are_listed_and_found() {
    for options in ["compat=0.10", "compat=1.1"] {
        let image = TestImage::made(options, "1M");
        let path = image.path();
        let path = path.to_str().unwrap();
        for name in ["before", "2", "ünïcode name"] {
            qemu_img(&["snapshot", "-c", name, path]);
        }
        if options == "compat=1.1" {
            qemu_img(&["resize", "-q", path, "3G"]);
        }
        let snapshots = list(&image).unwrap();
        let names = snapshots.iter().map(|found| (&*found.id, &*found.name)).collect::<Vec<_>>();
        let expected = [("1", "before"), ("2", "2"), ("3", "ünïcode name")];
        assert_eq!(names, expected.map(|(id, name)| (id.as_bytes(), name.as_bytes())));
        assert!(
            snapshots
                .iter()
                .all(|found| found.disk_size == 1 << 20 && found.own_size && found.date_sec > 1_700_000_000)
        );
        assert!(
            snapshots.iter().all(|found| (found.vm_state_size, found.vm_clock_nsec, found.icount) == (0, 0, Some(0)))
        );
        let file = image.host();
        let header = Header::read(&file).unwrap();
        assert!(snapshots.iter().all(|found| found.l1(&file, &header).unwrap().entries == 1));
        assert_eq!(find(&image, "before").unwrap(), snapshots[0]);
        assert_eq!(find(&image, "3").unwrap(), snapshots[2]);
        assert_eq!(
            refusal(find(&image, "after").map(drop)),
            r#"there is no snapshot "after", there are "before" (ID 1), "2" (ID 2), "ünïcode name" (ID 3)"#
        );
    }
}

#[test]
fn id_precedes_name_and_ambiguous_name_is_refused() {
    let image = table(&[("1", "2", b""), ("2", "x", b""), ("3", "x", b""), ("4", "only", b"")]);
    assert_eq!(&*find(&image, "2").unwrap().name, b"x");
    assert_eq!(&*find(&image, "only").unwrap().id, b"4");
    let error = find(&image, "x").unwrap_err();
    assert!(error.to_string().ends_with(r#"more than one snapshot has the name "x""#), "{error}");
    assert!(error.hint_text().unwrap().contains("by its ID"));
    let none = refusal(find(&TestImage::v3(), "x").map(drop));
    assert_eq!(none, r#"there is no snapshot "x": the image has none"#);
}

#[test]
fn many_and_unprintable_names_make_one_line() {
    let many = (0..20).map(|n| (n.to_string(), format!("n{n}\n\x1b[2J"))).collect::<Vec<_>>();
    let image = table(&many.iter().map(|(id, name)| (&**id, &**name, b"".as_slice())).collect::<Vec<_>>());
    let words = refusal(find(&image, "x\ny").map(drop));
    assert!(words.starts_with(r#"there is no snapshot "x\ny", there are "n0\n\u{1b}[2J" (ID 0), "#), "{words}");
    assert!(words.ends_with(" and 12 more"), "{words}");
}

#[test]
fn extra_data_length_determines_its_fields() {
    let (state, size, icount) = (5_000_000_000u64.to_be_bytes(), (3u64 << 20).to_be_bytes(), 42u64.to_be_bytes());
    let all = [state, size, icount].concat();
    let more = [&all[..], &[7; 1000]].concat();
    let image = table(&[
        ("0", "none", b""),
        ("1", "state", &state),
        ("2", "size", &all[..16]),
        ("3", "icount", &all),
        ("4", "more", &more),
        ("5", "odd", &all[..13]),
    ]);
    let found = list(&image).unwrap();
    let told = found.iter().map(|one| (one.vm_state_size, one.disk_size, one.own_size, one.icount)).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            (9, 1 << 20, false, None),
            (5_000_000_000, 1 << 20, false, None),
            (5_000_000_000, 3 << 20, true, None),
            (5_000_000_000, 3 << 20, true, Some(42)),
            (5_000_000_000, 3 << 20, true, Some(42)),
            (5_000_000_000, 1 << 20, false, None),
        ]
    );
    assert_eq!((found[0].date_sec, found[0].date_nsec, found[0].vm_clock_nsec), (1000, 5, 77));
    assert_eq!(found.iter().map(|one| &*one.name).collect::<Vec<_>>()[4..], [b"more".as_slice(), b"odd"]);
}

#[test]
fn bad_entries_are_refused_by_offset() {
    type Alter = fn(&TestImage) -> &TestImage;
    let cases: &[(&str, Alter)] = &[
        ("snapshot's extra_data_size at 0x20024 is 1025: more than 1024 bytes", |i| i.put32(0x20024, 1025)),
        ("snapshot's extra_data_size at 0x20024 is 4294967295: more than 1024 bytes", |i| i.put32(0x20024, u32::MAX)),
        ("snapshot's disk size at 0x20030 is 9223372036854775808: more bytes than a disk can have", |i| {
            i.put32(0x20024, 16).put64(0x20030, 1 << 63)
        }),
        ("snapshot 1 of 2, at 0x20000: runs past the end of the file, which has 131112 bytes", |i| i.cut(0x20028)),
        ("snapshot 2 of 2, at 0x20030: runs past the end of the file, which has 131152 bytes", |i| i.cut(0x20050)),
    ];
    for (words, alter) in cases {
        let image = table(&[("1", "a", b""), ("2", "b", b"")]);
        // A disk of size 0 has no L1 table, so the table can't be too short.
        image.put64(24, 0).put32(36, 0);
        alter(&image);
        assert_eq!(&refusal(find(&image, "2").map(drop)), words);
        // Reading the disk needs no snapshot, and reads what QEMU reads.
        let (file, by_qemu) = (image.host(), !words.contains("extra_data_size"));
        let problem = Snapshots::check(&file, &Header::read(&file).unwrap());
        assert_eq!(problem.as_ref().ok().cloned().flatten(), by_qemu.then(|| format!("{words}: it can't be read")));
        assert_eq!(problem.is_ok(), by_qemu);
    }
}

#[test]
fn l1_table_of_a_snapshot_is_checked_like_the_disks() {
    let sized = [0u64.to_be_bytes(), (1u64 << 30).to_be_bytes()].concat();
    let l1_table = |extra: &[u8], offset: u64, entries: u32| {
        let image = table(&[("1", "a", extra)]);
        image.put64(0x20000, offset).put32(0x20008, entries);
        let file = image.host();
        let header = Header::read(&file).unwrap();
        list(&image).unwrap()[0].l1(&file, &header)
    };
    assert_eq!(l1_table(&sized, 0x40000, 2).unwrap(), L1Table { offset: HostOffset(0x40000), entries: 2 });
    // If the entry states no size, the disk may have grown since.
    assert_eq!(l1_table(b"", 0x40000, 0).unwrap().entries, 0);
    for (extra, offset, entries, words) in [
        (&sized[..], 0x40000, 1, "snapshot's l1_size at 0x20008 is 1: a disk of 1073741824 bytes needs 2 L1 entries"),
        (
            b"",
            0x40000,
            u32::MAX,
            "snapshot's l1_size at 0x20008 is 4294967295: an L1 table of more than 33554432 bytes",
        ),
        (
            b"",
            0x40008,
            1,
            "snapshot's l1_table_offset at 0x20000 is 0x40008: not a multiple of the cluster size of 65536 bytes",
        ),
        (
            b"",
            0,
            1,
            "snapshot's l1_table_offset at 0x20000 is 0x0: the snapshot's L1 table overlaps the header's cluster",
        ),
        (
            b"",
            0x20000,
            1,
            "snapshot's l1_table_offset at 0x20000 is 0x20000: the snapshot's L1 table overlaps the snapshot table at 0x20000",
        ),
        (
            b"",
            0x30000,
            1,
            "snapshot's l1_table_offset at 0x20000 is 0x30000: the snapshot's L1 table overlaps the L1 table at 0x30000",
        ),
        (
            b"",
            0x50000,
            1,
            "snapshot's l1_table_offset at 0x20000 is 0x50000: the snapshot's L1 table begins past the end of the file, which has 327680 bytes",
        ),
    ] {
        assert_eq!(refusal(l1_table(extra, offset, entries).map(drop)), words);
    }
}

#[test]
fn table_of_more_than_64_mib_is_refused() {
    let image = TestImage::v3();
    image.cut(1 << 30).put32(60, 65536).put64(64, 4 << 16);
    // Entries of 2048 bytes. The others are copies of the first.
    let mut entry = vec![0; 2048];
    entry[12..16].copy_from_slice(&[7, 0, 0, 216]);
    let piece = entry.repeat(512);
    for n in 0..65 {
        image.put((4 << 16) + n * (1 << 20), &piece);
    }
    let file = image.host();
    let header = Header::read(&file).unwrap();
    assert_eq!(header.geometry, Geometry { cluster_bits: 16, extended_l2: false });
    let (mut sound, mut errors) = (0, Vec::new());
    for snapshot in Snapshots::new(&file, &header) {
        match snapshot {
            Ok(_) => sound += 1,
            Err(error) => errors.push(error.to_string()),
        }
    }
    assert_eq!((sound, errors.len()), (32768, 1));
    let words = "snapshot 32769 of 65536, at 0x4040000: makes the table longer than 67108864 bytes";
    assert!(errors[0].ends_with(words), "{errors:?}");
}
