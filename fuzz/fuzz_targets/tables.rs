//! The tables of an image whose header is right: entries of every kind, in clusters of 512 bytes and of 16 KiB with subclusters.

#![no_main]

mod place;

use std::fs;

use libfuzzer_sys::fuzz_target;
use place::PATH;
use xfer_hole_image::{BackingChain, BlockStatus, Disk, DiskOptions, Format};

/// A header (qcow2 specification, "Header") with the L1 table in cluster 1, the refcount table in cluster 2, and an L2 table in
/// each of clusters 3 and 4.
fn image(how: u8, words: &[u8]) -> Vec<u8> {
    let extended = how & 1 != 0;
    let zstd = how & 2 != 0;
    let bits = if extended { 14 } else { 9_u32 };
    let cluster = 1_u64 << bits;
    let mut image = Vec::new();
    let mut put = |bytes: &[u8]| image.extend_from_slice(bytes);
    put(b"QFI\xfb");
    put(&3_u32.to_be_bytes());
    put(&[0; 12]); // no backing file
    put(&bits.to_be_bytes());
    let covers = cluster * if extended { cluster / 16 } else { cluster / 8 };
    put(&(covers * 2).to_be_bytes());
    put(&[0; 4]); // not encrypted
    put(&2_u32.to_be_bytes());
    put(&cluster.to_be_bytes());
    put(&(2 * cluster).to_be_bytes());
    put(&1_u32.to_be_bytes());
    put(&[0; 12]); // no snapshots
    put(&(u64::from(extended) << 4 | u64::from(zstd) << 3).to_be_bytes());
    put(&[0; 16]);
    put(&4_u32.to_be_bytes());
    put(&112_u32.to_be_bytes());
    put(&[u8::from(zstd), 0, 0, 0, 0, 0, 0, 0]);
    image.resize(cluster as usize, 0);
    let mut l1 = (3 * cluster).to_be_bytes().to_vec();
    l1.extend_from_slice(&(4 * cluster).to_be_bytes());
    image.extend_from_slice(&l1);
    image.resize(3 * cluster as usize, 0);
    image.extend_from_slice(words);
    // Both tables begin in the file.
    image.resize(image.len().max(4 * cluster as usize + 1), 0);
    image
}

fuzz_target!(|bytes: &[u8]| {
    let [how, words @ ..] = bytes else { return };
    fs::write(&*PATH, image(*how, words)).expect("the image is written");
    let opening = DiskOptions { format: Some(Format::Qcow2), force_share: true, ..DiskOptions::default() };
    let chain = BackingChain::open(&PATH, &opening).expect("the header is right");
    let mut at = 0;
    while at < chain.size() {
        let Ok(extent) = chain.extent(at, chain.size() - at) else { return };
        assert!(extent.start == at && extent.len > 0 && extent.len <= chain.size() - at, "{extent:?}");
        if extent.status == BlockStatus::Data {
            let len = extent.len.min(64 << 10) as usize;
            let mut whole = vec![0; len];
            let read = chain.read(&extent, at, &mut whole);
            // In two parts it is the same, or it can't be read either.
            let mut parts = vec![0; len];
            let (head, tail) = parts.split_at_mut(len / 3);
            let both = chain.read(&extent, at, head).and_then(|()| chain.read(&extent, at + (len / 3) as u64, tail));
            assert_eq!(read.is_ok(), both.is_ok());
            assert!(read.is_err() || whole == parts, "reading in parts differs at {at}");
        }
        at += extent.len;
    }
});
