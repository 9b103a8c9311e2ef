//! The first bytes of an image, and what they point at, as `info` reads them: header, extensions, snapshots, bitmaps.

#![no_main]

mod place;

use std::fs;

use libfuzzer_sys::fuzz_target;
use place::PATH;
use xfer_hole_image::{BackingChain, DiskOptions, Format, Info};

fuzz_target!(|bytes: &[u8]| {
    // Always the magic and a version, so that nothing is spent on finding them.
    let mut image = b"QFI\xfb\0\0\0".to_vec();
    image.push(if bytes.first().is_some_and(|byte| byte % 4 == 0) { 2 } else { 3 });
    image.extend_from_slice(bytes.get(8..).unwrap_or_default());
    fs::write(&*PATH, &image).expect("the image is written");
    let opening = DiskOptions { format: Some(Format::Qcow2), force_share: true, ..DiskOptions::default() };
    let _info = Info::read(&PATH, &opening);
    for snapshot in ["1", "snap"] {
        let _chain = BackingChain::open(&PATH, &DiskOptions { snapshot: Some(snapshot.into()), ..opening.clone() });
    }
});
