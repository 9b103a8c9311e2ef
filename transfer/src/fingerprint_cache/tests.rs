//! What is noted, what of it is believed, and what is left alone.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::{process, thread};

use xfer_hole_target::fingerprint_store::forget;
use xfer_hole_target::{Target, TargetOptions};

use super::*;

fn fingerprint() -> Fingerprint {
    Fingerprint { sums: HashParams::default(), digest: Digest::of(b"disk") }
}

/// A file that has been left alone for long enough.
fn image(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("xfer-hole-remember-{}-{name}", process::id()));
    fs::write(&path, [7; 5000]).unwrap();
    thread::sleep(SETTLED + Duration::from_millis(50));
    path
}

fn place(path: &Path) -> PathBuf {
    fingerprint_store::place(&fs::canonicalize(path).unwrap()).unwrap()
}

fn known(path: &Path) -> Option<Digest> {
    CacheKey::of_file(path).unwrap().recall(HashParams::default())
}

/// True if notes can't be had where temporary files are, which is said of ext4, XFS and btrfs by other tests.
fn is_told() -> bool {
    sys::is_told_of_stores(&File::open(std::env::temp_dir()).unwrap())
}

#[test]
fn what_was_noted_is_known_until_anything_is_touched() {
    let path = image("touched");
    let Some(before) = CacheKey::of_file(&path) else { return assert!(!is_told()) };
    assert_eq!(before.recall(HashParams::default()), None);
    assert!(before.note(&fingerprint()).unwrap());
    assert_eq!(known(&path), Some(fingerprint().digest));
    // One for each pair of parameters.
    let short = Fingerprint { sums: HashParams::new(4096, 4096).unwrap(), digest: Digest::of(b"short") };
    assert_eq!(CacheKey::of_file(&path).unwrap().recall(short.sums), None);
    assert!(before.note(&short).unwrap());
    assert_eq!(CacheKey::of_file(&path).unwrap().recall(short.sums), Some(short.digest));
    assert_eq!(known(&path), Some(fingerprint().digest));
    // A byte is changed, and the time of that put back.
    let file = File::options().write(true).open(&path).unwrap();
    let old = file.metadata().unwrap().modified().unwrap();
    file.write_at(&[8], 100).unwrap();
    file.set_modified(old).unwrap();
    assert_eq!(known(&path), None);
    assert!(place(&path).exists());
    forget(&path);
    assert!(!place(&path).exists());
    // Nothing lies beside the image.
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let beside = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(beside.filter(|other| other.to_string_lossy().starts_with(&name)).count(), 1);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_copy_or_another_file_by_the_same_name_is_not_known() {
    let path = image("copied");
    let Some(identity) = CacheKey::of_file(&path) else { return assert!(!is_told()) };
    assert!(identity.note(&fingerprint()).unwrap());
    let (copy, times) = (path.with_extension("copy"), fs::metadata(&path).unwrap());
    fs::copy(&path, &copy).unwrap();
    File::options().write(true).open(&copy).unwrap().set_modified(times.modified().unwrap()).unwrap();
    assert_eq!(known(&copy), None);
    fs::rename(&copy, &path).unwrap();
    assert_eq!(known(&path), None);
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn an_image_that_was_touched_just_before_it_was_read_is_not_noted() {
    let path = image("fresh");
    fs::write(&path, [8; 5000]).unwrap();
    let Some(fresh) = CacheKey::of_file(&path) else { return assert!(!is_told()) };
    // However long the reading takes.
    thread::sleep(SETTLED + Duration::from_millis(50));
    assert!(!fresh.note(&fingerprint()).unwrap());
    let settled = CacheKey::of_file(&path).unwrap();
    fs::write(&path, [9; 5000]).unwrap();
    assert!(!settled.note(&fingerprint()).unwrap());
    assert!(!place(&path).exists());
    fs::remove_file(path).unwrap();
}

#[test]
fn a_note_of_an_earlier_run_of_the_system_or_of_somebody_else_is_no_word() {
    let path = image("foreign");
    let Some(identity) = CacheKey::of_file(&path) else { return assert!(!is_told()) };
    assert!(identity.note(&fingerprint()).unwrap());
    let place = place(&path);
    let text = fs::read_to_string(&place).unwrap();
    let known = || identity.recall(HashParams::default()).is_some();
    assert!(known());
    let boot = sys::boot().unwrap();
    let other = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&place, text.replacen(from, to, 1)).unwrap();
        assert!(!known(), "{from} as {to}");
    };
    other(&boot, &boot.chars().rev().collect::<String>());
    other("PRINT 2", "PRINT 1");
    other("disk 5000", "disk 5001");
    // What is cut, or is no file of ours.
    for cut in [0, 10, text.len() / 2, text.len() - 1] {
        fs::write(&place, &text[..cut]).unwrap();
        assert!(!known(), "{cut} bytes of it");
    }
    fs::write(&place, &text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(!known());
    let elsewhere = path.with_extension("note");
    fs::write(&elsewhere, &text).unwrap();
    fs::remove_file(&place).unwrap();
    symlink(&elsewhere, &place).unwrap();
    assert!(!known());
    // The next one takes its place, and is private.
    assert!(identity.note(&fingerprint()).unwrap());
    assert!(known());
    assert_eq!(fs::symlink_metadata(&place).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), text);
    fs::remove_file(elsewhere).unwrap();
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_target_that_somebody_else_changed_once_it_had_its_name_is_not_noted() {
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
        // At once: it needs no time to be told.
        (Some(byte), false, false),
        (Some(byte), true, false),
        (Some(other), false, false),
        // What a power loss takes away was not there.
        (None, false, true),
    ] {
        let options = TargetOptions { in_place, no_sync, ..TargetOptions::default() };
        let target = Target::find(&path, options).unwrap();
        let noting = TargetNote::of(&target);
        let sink = target.open(Some(5000), None).unwrap();
        let noting = noting.of_sink(sink.as_ref());
        sink.write_at(0, &[9; 5000]).unwrap();
        sink.commit(5000).unwrap();
        change.into_iter().for_each(|change| change(&path));
        assert_eq!(noting.note(Some(&fingerprint())), None);
        let known = CacheKey::of_file(&path).and_then(|identity| identity.recall(HashParams::default()));
        assert_eq!(known.is_some(), change.is_none() && !no_sync && is_told(), "{in_place} {no_sync}");
    }
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_time_is_past_when_the_next_change_has_another() {
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
