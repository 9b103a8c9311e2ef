//! A whole small image: opened, walked by its extents, read. No panic, no hang, extents that cover the disk, and what blocks make of
//! it is what reading gives.

#![no_main]

mod place;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use place::PATH;
use xfer_hole_image::{BackingChain, BlockStatus, Disk, DiskOptions, Format, ImplicitOpenGate};
use xfer_hole_pipeline::{Payload, ReadOptions, Segment, SerialReader};

/// Extents looked at, and bytes read, of images that claim more.
const EXTENTS: usize = 512;
const BYTES: u64 = 256 << 10;

fuzz_target!(|bytes: &[u8]| {
    fs::write(&*PATH, bytes).expect("the image is written");
    let opening = DiskOptions {
        format: Some(Format::Qcow2),
        backing_format: Some(Format::Raw),
        gate: ImplicitOpenGate::default(),
        force_share: true,
        ..DiskOptions::default()
    };
    let Ok(chain) = BackingChain::open(&PATH, &opening) else { return };
    let size = chain.size();
    assert!(size <= i64::MAX as u64);
    let mut at = 0;
    for _ in 0..EXTENTS {
        if at == size {
            break;
        }
        let Ok(extent) = chain.extent(at, size - at) else { return };
        assert!(extent.start == at && extent.len > 0 && extent.len <= size - at, "{extent:?} at {at} of {size}");
        let again = chain.extent(at, 1).expect("what was found is found again");
        assert_eq!((again.len, again.status, again.host), (1, extent.status, extent.host));
        if extent.status == BlockStatus::Data {
            let mut bytes = vec![0; extent.len.min(4096) as usize];
            let _bytes = chain.read(&extent, at, &mut bytes);
        }
        at += extent.len;
    }
    // What is wrong far from the beginning isn't found by this part; it is only a small disk that is read whole.
    if size > BYTES {
        return;
    }
    let mut whole = vec![0; size as usize];
    if chain.read_at(0, &mut whole).is_err() {
        return;
    }
    let mut rebuilt = Vec::with_capacity(whole.len());
    let file = File::open(&*PATH).expect("the image is there");
    for block in SerialReader::new(&chain, ReadOptions::plain(true, 1)) {
        for run in block.expect("what was read can be read").runs {
            match run {
                Segment::Zero(len) | Segment::Keep(len) => rebuilt.resize(rebuilt.len() + len as usize, 0),
                Segment::Data(payload, _) => pour(&payload, &file, &mut rebuilt),
            }
        }
    }
    assert!(rebuilt == whole, "blocks and reading differ");
});

/// The bytes of a payload.
fn pour(payload: &Payload, file: &File, into: &mut Vec<u8>) {
    for part in payload.parts() {
        match part {
            xfer_hole_pipeline::PayloadPart::Bytes(bytes) => into.extend_from_slice(bytes),
            xfer_hole_pipeline::PayloadPart::Range { at, len, .. } => {
                let start = into.len();
                into.resize(start + *len as usize, 0);
                // Behind the end of the file are zeros.
                let mut done = start;
                while let Ok(bytes @ 1..) = file.read_at(&mut into[done..], at + (done - start) as u64) {
                    done += bytes;
                }
            }
        }
    }
}
