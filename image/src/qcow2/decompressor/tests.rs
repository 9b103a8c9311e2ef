//! Tests of decompression: clusters that qemu-img compressed, and streams that are longer, shorter or invalid.

use proptest::prelude::*;

use super::super::geometry::{Geometry, GuestOffset, HostOffset};
use super::super::header::Header;
use super::super::test_images::{TestImage, qemu_img, read_by_qemu};
use super::*;
use crate::qcow2::field::be64;

/// Text, random bytes and repeated bytes, as compressible as a guest's disk.
fn content(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(state >> 33).unwrap();
        match pick % 3 {
            0 => bytes.extend_from_slice(b"the quick brown fox jumps over the lazy dog"),
            1 => bytes.extend_from_slice(&state.to_be_bytes()),
            _ => bytes.resize(bytes.len() + pick % 97, b'r'),
        }
    }
    bytes.truncate(len);
    bytes
}

/// A compressed image that qemu-img makes of a disk, and that disk.
fn compressed(options: &str, len: usize) -> (TestImage, Vec<u8>) {
    let image = TestImage::made("compat=1.1", "1M");
    let (raw, path) = (image.dir().join("disk.raw"), image.path());
    let disk = content(len);
    std::fs::write(&raw, &disk).unwrap();
    let (raw, path) = (raw.to_str().unwrap(), path.to_str().unwrap());
    qemu_img(&["convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path]);
    (image, disk)
}

/// The compressed clusters of an image, with their numbers.
fn clusters(file: &ImageFile) -> (Header, Vec<(u64, CompressedEntry)>) {
    let header = Header::read(file).unwrap();
    let geometry = header.geometry;
    let mut found = Vec::new();
    for number in 0..header.size.div_ceil(geometry.cluster_size()) {
        let guest = GuestOffset(number * geometry.cluster_size());
        let mut word = [0; 8];
        file.read_at(header.l1.offset.0 + geometry.l1_index(guest) * 8, &mut word).unwrap();
        let l2 = be64(&word, 0) & 0x00ff_ffff_ffff_fe00;
        file.read_at(l2 + geometry.l2_index(guest) * geometry.l2_entry_size(), &mut word).unwrap();
        if l2 != 0 && be64(&word, 0) >> 62 & 1 == 1 {
            found.push((number, CompressedEntry::parse(be64(&word, 0), geometry)));
        }
    }
    (header, found)
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut out = vec![0; compressor.deflate_compress_bound(content.len())];
    let len = compressor.deflate_compress(content, &mut out).unwrap();
    out.truncate(len);
    out
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; zstd_safe::compress_bound(content.len())];
    let len = zstd_safe::compress(&mut out[..], content, 3).unwrap();
    out.truncate(len);
    out
}

/// Decompresses to a cluster of 4096 bytes.
fn inflated(compression: Compression, src: &[u8]) -> std::result::Result<Vec<u8>, DecompressError> {
    let mut dst = vec![0xaa; 4096];
    ClusterDecompressor::default().inflate(compression, src, &mut dst).map(|()| dst)
}

#[test]
fn clusters_of_qemu_img_decompress_whole_and_in_parts() {
    for options in [
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=64k",
        "cluster_size=2M",
        "cluster_size=4k,compression_type=zstd",
        "cluster_size=64k,compression_type=zstd",
        "cluster_size=2M,compression_type=zstd",
        "cluster_size=16k,extended_l2=on",
        "compat=0.10,cluster_size=64k",
    ] {
        let (image, disk) = compressed(options, 5_000_000 / 512 * 512);
        let file = image.host();
        let (header, found) = clusters(&file);
        let cluster_size = usize_of(header.geometry.cluster_size());
        assert!(found.len() * cluster_size > disk.len() / 2, "{options}: {} compressed", found.len());
        let decompressors = DecompressorPool::default();
        for (number, entry) in found {
            let Header { geometry, compression, .. } = header;
            let source = CompressedSource { file: &file, layer: 0, compression, geometry, entry };
            let mut whole = vec![0xaa; cluster_size];
            decompressors.read(&source, 0, &mut whole).unwrap();
            let mut expected = disk[usize_of(number) * cluster_size..].to_vec();
            expected.resize(cluster_size, 0);
            assert!(whole == expected, "{options}: cluster {number}");
            if number % 16 == 0 {
                let mut parts = vec![0xaa; cluster_size];
                for (index, part) in parts.chunks_mut(cluster_size / 3).enumerate() {
                    decompressors.read(&source, (index * (cluster_size / 3)) as u64, part).unwrap();
                }
                assert!(parts == expected, "{options}: parts of cluster {number}");
            }
        }
        assert_eq!(decompressors.0.lock().unwrap().len(), 1);
    }
}

#[test]
fn decompressed_cluster_is_reused_within_its_layer_only() {
    let (image, disk) = compressed("cluster_size=64k", 1 << 20);
    let (other, _) = compressed("cluster_size=64k", 1 << 19);
    other.put(0x50000, &[0xff; 0x10000]);
    let (file, other) = (image.host(), other.host());
    let (header, found) = clusters(&file);
    let Header { geometry, compression, .. } = header;
    let source = CompressedSource { file: &file, layer: 0, compression, geometry, entry: found[0].1 };
    let decompressors = DecompressorPool::default();
    let mut part = [0; 100];
    decompressors.read(&source, 0, &mut part).unwrap();
    assert_eq!(part, disk[..100]);
    // The file is now empty, and the cluster comes from the buffer.
    image.cut(0);
    decompressors.read(&source, 65436, &mut part).unwrap();
    assert_eq!(part, disk[65436..65536]);
    let mut whole = vec![0; 65536];
    decompressors.read(&source, 0, &mut whole).unwrap();
    assert!(whole == disk[..65536]);
    // A failed cluster doesn't replace the cluster in the buffer.
    let entry = CompressedEntry { offset: HostOffset(0x50000), ..found[0].1 };
    let bad = CompressedSource { file: &other, layer: 1, entry, ..source };
    let error = decompressors.read(&bad, 0, &mut part).unwrap_err().to_string();
    let words = format!("compressed cluster at 0x50000, in {} bytes: is not sound zlib of 65536 bytes", entry.len());
    assert!(error.ends_with(&words), "{error}");
    assert!(decompressors.read(&CompressedSource { layer: 1, ..source }, 0, &mut part).is_err());
    assert!(decompressors.read(&source, 0, &mut part).is_err(), "forgotten");
}

#[test]
fn the_last_cluster_may_end_with_the_file() {
    let (image, disk) = compressed("cluster_size=64k", 65536);
    let file = image.host();
    let (header, found) = clusters(&file);
    let entry = found[0].1;
    let stream = usize_of(entry.len());
    let mut bytes = vec![0; stream];
    file.read_at(entry.offset.0, &mut bytes).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    image.cut(entry.offset.0 + used);
    let (file, Header { geometry, compression, .. }) = (image.host(), header);
    let mut whole = vec![0; 65536];
    DecompressorPool::default()
        .read(&CompressedSource { file: &file, layer: 0, compression, geometry, entry }, 0, &mut whole)
        .unwrap();
    assert!(whole == disk);
}

#[test]
fn deflate_is_accepted_as_qemu_accepts_it() {
    let disk = content(5000);
    let exact = deflated(&disk[..4096]);
    assert!(inflated(Compression::Zlib, &exact).unwrap() == disk[..4096]);
    let trailed = [&exact[..], &[0xff; 700]].concat();
    assert!(inflated(Compression::Zlib, &trailed).unwrap() == disk[..4096], "garbage behind it");
    assert!(inflated(Compression::Zlib, &deflated(&disk)).unwrap() == disk[..4096], "too long");
    // Two stored blocks that fill the cluster, neither of which is marked as the last.
    let block = |bytes: &[u8]| [&[0, 0, 8, 0xff, 0xf7], bytes].concat();
    let endless = [block(&disk[..2048]), block(&disk[2048..4096])].concat();
    assert!(inflated(Compression::Zlib, &endless).unwrap() == disk[..4096], "without an end");
    assert_eq!(inflated(Compression::Zlib, &deflated(&disk[..4095])), Err(DecompressError::Short));
    assert_eq!(inflated(Compression::Zlib, &endless[..4000]), Err(DecompressError::Short));
    assert_eq!(inflated(Compression::Zlib, &[]), Err(DecompressError::Short));
    assert_eq!(inflated(Compression::Zlib, &[0xff; 512]), Err(DecompressError::Damaged));
    // After a full cluster without an end, the following bytes must be valid deflate.
    let spoilt = [&endless[..], &[0xff; 100]].concat();
    assert_eq!(inflated(Compression::Zlib, &spoilt), Err(DecompressError::Damaged));
}

#[test]
fn zstd_is_accepted_as_qemu_accepts_it() {
    let disk = content(5000);
    let exact = zstd(&disk[..4096]);
    assert!(inflated(Compression::Zstd, &exact).unwrap() == disk[..4096]);
    let trailed = [&exact[..], &[0xff; 700]].concat();
    assert!(inflated(Compression::Zstd, &trailed).unwrap() == disk[..4096], "garbage behind it");
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    let frames = [&skippable[..], &zstd(&disk[..1000]), &zstd(b""), &zstd(&disk[1000..4096]), &[1; 30]].concat();
    assert!(inflated(Compression::Zstd, &frames).unwrap() == disk[..4096], "frame after frame");
    for (bad, why) in [
        (zstd(&disk), DecompressError::Damaged),
        (zstd(&disk[..4095]), DecompressError::Short),
        ([zstd(&disk[..4000]), zstd(&disk[4000..4200])].concat(), DecompressError::Damaged),
        ([&zstd(&disk[..4000])[..], &[0; 300]].concat(), DecompressError::Damaged),
        (exact[..exact.len() - 1].to_vec(), DecompressError::Damaged),
        (vec![], DecompressError::Short),
        (vec![0; 512], DecompressError::Damaged),
        (skippable.repeat(40), DecompressError::Short),
    ] {
        assert_eq!(inflated(Compression::Zstd, &bad), Err(why));
    }
}

#[test]
fn large_zstd_window_takes_no_memory() {
    // A frame without a single segment and without a content size: one raw block of 4096 bytes, marked as the last.
    let disk = content(4096);
    for window_log in [27, 30] {
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
        let block = (4096u32 << 3 | 1).to_be_bytes();
        let frame = [&header[..], &[block[3], block[2], block[1]], &disk].concat();
        assert!(inflated(Compression::Zstd, &frame).unwrap() == disk);
    }
}

#[test]
fn buffer_for_an_oversized_cluster_is_not_kept() {
    let image = TestImage::v3();
    image.put32(20, 21).cut(64 << 20);
    let geometry = Geometry { cluster_bits: 21, extended_l2: false };
    let file = image.host();
    let entry = CompressedEntry { offset: HostOffset(1 << 21), sectors: 8192 };
    let source = CompressedSource { file: &file, layer: 0, compression: Compression::Zlib, geometry, entry };
    let mut decompressor = ClusterDecompressor::default();
    assert!(decompressor.read(&source, 0, &mut [0; 512]).is_err());
    assert_eq!(decompressor.source.capacity(), 0);
    let entry = CompressedEntry { sectors: 4096, ..entry };
    assert!(decompressor.read(&CompressedSource { entry, ..source }, 0, &mut [0; 512]).is_err());
    assert_eq!(decompressor.source.len(), 2 << 20);
}

/// Damaged copies of valid streams.
fn spoilt(sound: &[Vec<u8>], count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let spoil = |index: usize| {
        let mut stream = sound[index % sound.len()].clone();
        for _ in 0..1 + random(3) {
            // Most of the damage is in the tables and headers.
            let at = match random(2) {
                0 => random(stream.len()),
                _ => random(stream.len().min(90)),
            };
            stream[at] = u8::try_from(random(256)).unwrap();
        }
        stream.truncate(stream.len() - random(3));
        stream
    };
    (0..count).map(spoil).collect()
}

#[test]
fn damaged_streams_are_accepted_as_by_qemu() {
    let disk = content(9000);
    let (short, exact, long) = (&disk[..4000], &disk[..4096], &disk);
    for seed in 0..4 {
        for (compression, sound) in [
            (Compression::Zlib, [exact, short, long].map(deflated)),
            (Compression::Zstd, [exact, short, long].map(zstd)),
        ] {
            let streams = spoilt(&sound, 300, seed);
            let image = TestImage::of_streams(compression, &streams);
            let theirs = read_by_qemu(&image, streams.len());
            for (index, (stream, accepted)) in streams.iter().zip(theirs).enumerate() {
                assert_eq!(inflated(compression, stream).is_ok(), accepted, "{compression:?} {index} {stream:x?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_stream_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..4)) {
        for (compression, mut sound) in [
            (Compression::Zlib, deflated(&content(4096))),
            (Compression::Zstd, zstd(&content(4096))),
        ] {
            let _whatever = inflated(compression, &bytes);
            for &(at, byte) in &flips {
                let at = at % sound.len();
                sound[at] = byte;
            }
            let _whatever = inflated(compression, &sound);
        }
    }
}
