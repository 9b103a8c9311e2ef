//! What is noted, what of it is believed, and what is left alone.

use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::process;

use super::*;
use crate::{Target, TargetOptions};

fn fingerprint() -> Fingerprint {
    Fingerprint { sums: Sums::default(), digest: Digest::of(b"disk") }
}

/// A file that has been left alone for long enough.
fn image(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("xfer-hole-remember-{}-{name}", process::id()));
    fs::write(&path, [7; 5000]).unwrap();
    thread::sleep(SETTLED + Duration::from_millis(50));
    path
}

fn known(path: &Path) -> Option<Digest> {
    Identity::of_file(path).unwrap().recall(Sums::default())
}

#[test]
fn what_was_noted_is_known_until_anything_is_touched() {
    let path = image("touched");
    let before = Identity::of_file(&path).unwrap();
    assert_eq!(before.recall(Sums::default()), None);
    assert!(before.note(&fingerprint()).unwrap());
    assert_eq!(known(&path), Some(fingerprint().digest));
    assert_eq!(Identity::of_file(&path).unwrap().recall(Sums::new(4096, 4096).unwrap()), None);
    // An octet is changed, and the time of that put back.
    let file = File::options().write(true).open(&path).unwrap();
    let old = file.metadata().unwrap().modified().unwrap();
    file.write_at(&[8], 100).unwrap();
    file.set_modified(old).unwrap();
    assert_eq!(known(&path), None);
    forget(&path);
    assert!(!path.with_extension("fingerprint").exists() && places(&path).iter().all(|place| !place.exists()));
    fs::remove_file(path).unwrap();
}

#[test]
fn what_was_noted_too_soon_is_no_word() {
    let path = image("soon");
    let identity = Identity::of_file(&path).unwrap();
    assert!(identity.note(&fingerprint()).unwrap());
    let place = &places(&identity.top)[0];
    let text = fs::read_to_string(place).unwrap();
    let touched = identity.settled().unwrap() - Duration::from_nanos(1);
    let soon = format!("noted {}.{:09}\n", touched.as_secs(), touched.subsec_nanos());
    let at = text.find("noted").unwrap();
    fs::write(place, format!("{}{soon}", &text[..at])).unwrap();
    assert_eq!(identity.recall(Sums::default()), None);
    fs::write(place, &text[..text.len() - 1]).unwrap();
    assert_eq!(identity.recall(Sums::default()), None);
    fs::write(place, &text).unwrap();
    assert!(identity.recall(Sums::default()).is_some());
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn an_image_that_was_touched_just_before_it_was_read_is_not_noted() {
    let path = image("fresh");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_at(&[8], 100).unwrap();
    let identity = Identity::of_file(&path).unwrap();
    // However long the reading took.
    thread::sleep(SETTLED + Duration::from_millis(50));
    assert!(!identity.note(&fingerprint()).unwrap());
    assert!(places(&path).iter().all(|place| !place.exists()));
    assert!(Identity::of_file(&path).unwrap().note(&fingerprint()).unwrap());
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn what_is_no_note_is_never_replaced() {
    let path = image("foreign");
    let identity = Identity::of_file(&path).unwrap();
    let place = &places(&path)[0];
    let put = || put(place, "new", &fs::metadata(&path).unwrap()).is_err();
    for octets in [&b"mine"[..], b"\xff\xfe\x00", b"", b"XFER-HOLE-FINGERPRINT 2\n"] {
        fs::write(place, octets).unwrap();
        forget(&path);
        assert!(identity.note(&fingerprint()).is_ok() && put());
        assert_eq!(fs::read(place).unwrap(), octets);
    }
    fs::remove_file(place).unwrap();
    for target in [&path, Path::new("/nowhere/at/all")] {
        symlink(target, place).unwrap();
        forget(&path);
        assert!(put());
        assert_eq!(fs::read_link(place).unwrap(), target);
        fs::remove_file(place).unwrap();
    }
    nix::unistd::mkfifo(place, nix::sys::stat::Mode::S_IRWXU).unwrap();
    forget(&path);
    assert!(put() && !fs::symlink_metadata(place).unwrap().is_file());
    fs::remove_file(place).unwrap();
    fs::create_dir(place).unwrap();
    assert!(put());
    fs::remove_dir(place).unwrap();
    // One that is made between the look and the naming stays, too.
    let new = unfinished(place);
    fs::write(&new, "new").unwrap();
    fs::write(place, "mine").unwrap();
    assert!(name_new(&new, place).is_err());
    assert_eq!(fs::read(place).unwrap(), b"mine");
    for left in [place, &new] {
        fs::remove_file(left).unwrap();
    }
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn what_a_kill_has_left_of_a_note_does_not_keep_the_next_one_out() {
    let path = image("left");
    let identity = Identity::of_file(&path).unwrap();
    let place = &places(&path)[0];
    let new = unfinished(place);
    for left in ["", "XFER-HOLE", "XFER-HOLE-FINGERPRINT 1\nsha256:"] {
        fs::write(&new, left).unwrap();
        assert!(identity.note(&fingerprint()).unwrap());
        assert!(place.exists() && !new.exists(), "{left:?}");
        assert_eq!(known(&path), Some(fingerprint().digest));
    }
    fs::remove_file(place).unwrap();
    // What isn't one stays, and one that is being written.
    fs::write(&new, "mine").unwrap();
    assert!(identity.note(&fingerprint()).is_ok() && !place.exists());
    assert_eq!(fs::read(&new).unwrap(), b"mine");
    fs::remove_file(&new).unwrap();
    let _writing = open_new(&new, 0o600).unwrap();
    assert!(identity.note(&fingerprint()).is_ok() && !place.exists() && new.exists());
    fs::remove_file(&new).unwrap();
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_note_is_for_nobody_who_may_not_read_the_image() {
    let path = image("mode");
    for (mode, most) in [(0o600, 0o600), (0o640, 0o640), (0o777, 0o644)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        thread::sleep(SETTLED + Duration::from_millis(50));
        assert!(Identity::of_file(&path).unwrap().note(&fingerprint()).unwrap());
        let noted = fs::metadata(&places(&path)[0]).unwrap().mode() & 0o7777;
        assert_eq!(noted & !most, 0, "{noted:o} of {mode:o}");
        assert_eq!(noted & 0o600, 0o600);
    }
    forget(&path);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_target_that_somebody_else_changed_once_it_had_its_name_is_not_noted() {
    type Change = fn(&Path);
    let octet: Change = |path| {
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
        (Some(octet), false, false),
        (Some(octet), true, false),
        (Some(other), false, false),
        // What a power loss takes away was not there.
        (None, false, true),
    ] {
        let options = TargetOptions { in_place, no_sync, ..TargetOptions::default() };
        let sink = Target::find(&path, options).unwrap().open(Some(5000), None).unwrap();
        let mark = sink.mark();
        sink.data(0, &[9; 5000]).unwrap();
        sink.finish(5000).unwrap();
        // Times are told by the tick.
        thread::sleep(Duration::from_millis(20));
        change.into_iter().for_each(|change| change(&path));
        assert_eq!(mark.note(&path, &fingerprint()), None);
        assert_eq!(known(&path).is_some(), change.is_none() && !no_sync);
    }
    // Or while it is waited until it is settled.
    let sink = Target::find(&path, TargetOptions::default()).unwrap().open(Some(5000), None).unwrap();
    let mark = sink.mark();
    sink.finish(5000).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(SETTLED / 2);
            octet(&path);
        });
        assert_eq!(mark.note(&path, &fingerprint()), None);
    });
    thread::sleep(SETTLED);
    assert_eq!(known(&path), None);
    forget(&path);
    fs::remove_file(path).unwrap();
}
