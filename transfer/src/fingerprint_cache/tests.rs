//! Tests which fingerprints are noted and which notes are used.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::{process, thread};

use xfer_hole_target::fingerprint_store::forget;
use xfer_hole_target::{Target, TargetOptions};

use super::*;

fn fingerprint() -> Fingerprint {
    Fingerprint { sums: HashParams::default(), digest: Digest::of(b"disk") }
}

/// Creates a file and waits until it counts as settled.
fn image(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("xfer-hole-remember-{}-{name}", process::id()));
    fs::write(&path, [7; 5000]).unwrap();
    thread::sleep(SETTLED + Duration::from_millis(50));
    path
}

fn place(path: &Path) -> PathBuf {
    fingerprint_store::place(&fs::canonicalize(path).unwrap()).unwrap()
}

fn noted_digest(path: &Path) -> Option<Digest> {
    CacheKey::of_file(path).unwrap().recall(HashParams::default())
}

/// Returns true if the file system of temporary files supports notes. Other tests cover ext4, XFS and btrfs.
fn is_supported() -> bool {
    sys::is_told_of_stores(&File::open(std::env::temp_dir()).unwrap())
}

#[test]
fn note_is_used_until_anything_changes() {
    let path = image("touched");
    let Some(before) = CacheKey::of_file(&path) else { return assert!(!is_supported()) };
    assert_eq!(before.recall(HashParams::default()), None);
    assert!(before.note(&fingerprint()).unwrap());
    assert_eq!(noted_digest(&path), Some(fingerprint().digest));
    // Each pair of hash parameters has its own fingerprint.
    let short = Fingerprint { sums: HashParams::new(4096, 4096).unwrap(), digest: Digest::of(b"short") };
    assert_eq!(CacheKey::of_file(&path).unwrap().recall(short.sums), None);
    assert!(before.note(&short).unwrap());
    assert_eq!(CacheKey::of_file(&path).unwrap().recall(short.sums), Some(short.digest));
    assert_eq!(noted_digest(&path), Some(fingerprint().digest));
    // One byte changes, and the modification time is restored.
    let file = File::options().write(true).open(&path).unwrap();
    let old = file.metadata().unwrap().modified().unwrap();
    file.write_at(&[8], 100).unwrap();
    file.set_modified(old).unwrap();
    assert_eq!(noted_digest(&path), None);
    assert!(place(&path).exists());
    forget(&path);
    assert!(!place(&path).exists());
    // No file is created next to the image.
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let beside = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(beside.filter(|other| other.to_string_lossy().starts_with(&name)).count(), 1);
    fs::remove_file(path).unwrap();
}

#[test]
fn copies_and_replaced_files_have_no_note() {
    let path = image("copied");
    let Some(key) = CacheKey::of_file(&path) else { return assert!(!is_supported()) };
    assert!(key.note(&fingerprint()).unwrap());
    let (copy, times) = (path.with_extension("copy"), fs::metadata(&path).unwrap());
    fs::copy(&path, &copy).unwrap();
    File::options().write(true).open(&copy).unwrap().set_modified(times.modified().unwrap()).unwrap();
    assert_eq!(noted_digest(&copy), None);
    fs::rename(&copy, &path).unwrap();
    assert_eq!(noted_digest(&path), None);
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn recently_changed_image_is_not_noted() {
    let path = image("fresh");
    fs::write(&path, [8; 5000]).unwrap();
    let Some(fresh) = CacheKey::of_file(&path) else { return assert!(!is_supported()) };
    // The time that reading takes makes no difference.
    thread::sleep(SETTLED + Duration::from_millis(50));
    assert!(!fresh.note(&fingerprint()).unwrap());
    let settled = CacheKey::of_file(&path).unwrap();
    fs::write(&path, [9; 5000]).unwrap();
    assert!(!settled.note(&fingerprint()).unwrap());
    assert!(!place(&path).exists());
    fs::remove_file(path).unwrap();
}

#[test]
fn notes_of_another_boot_or_owner_are_not_used() {
    let path = image("foreign");
    let Some(key) = CacheKey::of_file(&path) else { return assert!(!is_supported()) };
    assert!(key.note(&fingerprint()).unwrap());
    let place = place(&path);
    let text = fs::read_to_string(&place).unwrap();
    let noted_digest = || key.recall(HashParams::default()).is_some();
    assert!(noted_digest());
    let boot = sys::boot().unwrap();
    let other = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&place, text.replacen(from, to, 1)).unwrap();
        assert!(!noted_digest(), "{from} as {to}");
    };
    other(&boot, &boot.chars().rev().collect::<String>());
    other("PRINT 2", "PRINT 1");
    other("disk 5000", "disk 5001");
    // Incomplete notes, and files that belong to others.
    for cut in [0, 10, text.len() / 2, text.len() - 1] {
        fs::write(&place, &text[..cut]).unwrap();
        assert!(!noted_digest(), "{cut} bytes of it");
    }
    fs::write(&place, &text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(!noted_digest());
    let elsewhere = path.with_extension("note");
    fs::write(&elsewhere, &text).unwrap();
    fs::remove_file(&place).unwrap();
    symlink(&elsewhere, &place).unwrap();
    assert!(!noted_digest());
    // A new note replaces it and is private.
    assert!(key.note(&fingerprint()).unwrap());
    assert!(noted_digest());
    assert_eq!(fs::symlink_metadata(&place).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), text);
    fs::remove_file(elsewhere).unwrap();
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn target_changed_after_its_commit_is_not_noted() {
    type Change = fn(&Path);
    let byte: Change = |path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_at(&[8], 100).unwrap();
    };
    let other: Change = |path| {
        let new = path.with_extension("other");
        let (file, old) = (File::create(&new).unwrap(), fs::metadata(path).unwrap());
        file.set_len(old.len()).unwrap();
        file.set_modified(old.modified().unwrap()).unwrap();
        fs::rename(new, path).unwrap();
    };
    let path = image("target");
    for (change, in_place, no_sync) in [
        (None, false, false),
        (None, true, false),
        // The change comes immediately after the commit.
        (Some(byte), false, false),
        (Some(byte), true, false),
        (Some(other), false, false),
        // Without a sync, the file could be lost in a power failure.
        (None, false, true),
    ] {
        let options = TargetOptions { in_place, no_sync, ..TargetOptions::default() };
        let target = Target::find(&path, options).unwrap();
        let note = TargetNote::of(&target);
        let writer = target.open(Some(5000), None).unwrap();
        let note = note.of_sink(writer.as_ref());
        writer.write_at(0, &[9; 5000]).unwrap();
        writer.commit(5000).unwrap();
        change.into_iter().for_each(|change| change(&path));
        assert_eq!(note.note(Some(&fingerprint())), None);
        let noted_digest = CacheKey::of_file(&path).and_then(|key| key.recall(HashParams::default()));
        assert_eq!(noted_digest.is_some(), change.is_none() && !no_sync && is_supported(), "{in_place} {no_sync}");
    }
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn stamp_is_past_once_the_clock_has_advanced() {
    let path = image("clock");
    let file = File::options().write(true).open(&path).unwrap();
    let stamp = |times: Duration| {
        file.set_modified(SystemTime::UNIX_EPOCH + times).unwrap();
        Stamp::of(&file.metadata().unwrap())
    };
    let later = |duration: Duration| SystemTime::UNIX_EPOCH.elapsed().unwrap() + duration;
    let ahead = later(Duration::from_secs(1000));
    let now = stamp(ahead);
    assert!(!now.is_past(ahead) && now.is_past(ahead + Duration::from_nanos(1)));
    fs::remove_file(path).unwrap();
}
