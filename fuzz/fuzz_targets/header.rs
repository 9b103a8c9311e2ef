//! The first octets of an image, and what they point at, as `info` reads them: header, extensions, snapshots, bitmaps.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xfer_hole_image::{Chain, Format, Info, Opening};

/// The image under test, alone in a folder of its own, in memory.
static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/xfer-hole-fuzz.{}", std::process::id()));
    fs::create_dir_all(&folder).expect("/dev/shm is needed");
    folder.join("image.qcow2")
});

fuzz_target!(|octets: &[u8]| {
    // Always the magic and a version, so that nothing is spent on finding them.
    let mut image = b"QFI\xfb\0\0\0".to_vec();
    image.push(if octets.first().is_some_and(|octet| octet % 4 == 0) { 2 } else { 3 });
    image.extend_from_slice(octets.get(8..).unwrap_or_default());
    fs::write(&*PATH, &image).expect("the image is written");
    let opening = Opening { format: Some(Format::Qcow2), force_share: true, ..Opening::default() };
    let _info = Info::read(&PATH, &opening);
    for snapshot in ["1", "snap"] {
        let _chain = Chain::open(&PATH, &Opening { snapshot: Some(snapshot.into()), ..opening.clone() });
    }
});
