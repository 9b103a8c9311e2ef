//! Images for tests: headers written by hand, and images that qemu-img creates.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xfer_hole_os::Result;

use super::compressed::Compression;
use super::header::Header;
use crate::ImageFile;

/// An image whose numbers tests set one by one.
pub(crate) struct TestImage {
    dir: TempDir,
}

impl TestImage {
    /// A valid image of 4 clusters of 64 KiB, with a disk of 1 MiB: header, refcount table, unused cluster, L1 table.
    pub(crate) fn v3() -> Self {
        let image = Self { dir: tempfile::tempdir().unwrap() };
        let file = File::create(image.path()).unwrap();
        file.set_len(4 << 16).unwrap();
        file.write_all_at(b"QFI\xfb", 0).unwrap();
        image.put32(4, 3).put32(20, 16).put64(24, 1 << 20).put32(36, 1).put64(40, 3 << 16);
        image.put64(48, 1 << 16).put32(56, 1).put32(96, 4).put32(100, 104);
        image
    }

    /// A valid image like that of [`Self::v3`], in version 2.
    pub(crate) fn v2() -> Self {
        let image = Self::v3();
        image.put32(4, 2).put32(96, 0).put32(100, 0);
        image
    }

    /// An image that qemu-img creates with these options and size.
    pub(crate) fn made(options: &str, size: &str) -> Self {
        let image = Self { dir: tempfile::tempdir().unwrap() };
        let path = image.path();
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, path.to_str().unwrap(), size]);
        image
    }

    /// An image with clusters of 4096 bytes, which consists of these compressed streams.
    pub(crate) fn of_streams(compression: Compression, streams: &[Vec<u8>]) -> Self {
        const CLUSTER: u64 = 4096;
        assert!(streams.len() <= 512);
        let image = Self::v3();
        image.put32(20, 12).put64(24, CLUSTER * streams.len() as u64).put64(40, 2 * CLUSTER).put64(48, CLUSTER);
        if compression == Compression::Zstd {
            image.put64(72, 1 << 3).put32(100, 112).put(104, &[1]);
        }
        image.put64(2 * CLUSTER, 3 * CLUSTER);
        for (at, stream) in (0..).zip(streams) {
            // The stream ends at the end of a sector, so that no bytes follow it.
            let (slot, sectors) = (0x1_0000 + at * 3 * CLUSTER, (stream.len() as u64).div_ceil(512).max(1));
            let offset = slot + sectors * 512 - stream.len() as u64;
            image.put(offset, stream).put64(3 * CLUSTER + at * 8, 1 << 62 | (sectors - 1) << 58 | offset);
        }
        image.cut(0x1_0000 + streams.len() as u64 * 3 * CLUSTER);
        image
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk.qcow2")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) -> &Self {
        File::options().write(true).open(self.path()).unwrap().write_all_at(bytes, at).unwrap();
        self
    }

    pub(crate) fn put32(&self, at: u64, value: u32) -> &Self {
        self.put(at, &value.to_be_bytes())
    }

    pub(crate) fn put64(&self, at: u64, value: u64) -> &Self {
        self.put(at, &value.to_be_bytes())
    }

    /// Writes a header extension with padding. Returns the offset of the next one.
    pub(crate) fn extension(&self, at: u64, kind: u32, data: &[u8]) -> u64 {
        self.put32(at, kind).put32(at + 4, u32::try_from(data.len()).unwrap()).put(at + 8, data);
        at + 8 + (data.len() as u64).next_multiple_of(8)
    }

    pub(crate) fn cut(&self, len: u64) -> &Self {
        File::options().write(true).open(self.path()).unwrap().set_len(len).unwrap();
        self
    }

    pub(crate) fn host(&self) -> ImageFile {
        ImageFile::open(&self.path()).unwrap()
    }

    pub(crate) fn header(&self) -> Result<Header> {
        Header::read(&self.host())
    }

    /// The error for this image, without the file's name.
    pub(crate) fn refusal(&self) -> String {
        refusal(self.header().map(drop))
    }
}

/// The text of an error after the file's name, which must be one line.
pub(crate) fn refusal(result: Result<()>) -> String {
    let words = result.expect_err("is refused").to_string();
    assert!(!words.contains('\n'), "{words}");
    words.split_once("disk.qcow2: ").expect("names the file").1.to_owned()
}

/// For each of the clusters of 4096 bytes, whether QEMU can read it.
pub(crate) fn read_by_qemu(image: &TestImage, clusters: usize) -> Vec<bool> {
    let mut qemu_io = Command::new("qemu-io");
    qemu_io.args(["-r", "-f", "qcow2"]);
    for cluster in 0..clusters {
        qemu_io.args(["-c", &format!("read {} 4096", cluster * 4096)]);
    }
    let run = qemu_io.arg(image.path()).output().expect("qemu-io is installed");
    // Each command prints that it read, with a second line of statistics, or that it failed.
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    let read = |line: &str| {
        if line.starts_with("read 4096/4096") { Some(line.rsplit(' ').next().unwrap().parse().unwrap()) } else { None }
    };
    let read = said.lines().filter_map(read).collect::<Vec<usize>>();
    let failed = said.lines().filter(|line| line.contains("read failed")).count();
    assert_eq!(read.len() + failed, clusters, "{said}");
    (0..clusters).map(|cluster| read.contains(&(cluster * 4096))).collect()
}

/// Runs qemu-img. The test fails if it isn't installed.
pub(crate) fn qemu_img(args: &[&str]) -> String {
    let run = Command::new("qemu-img").args(args).output().expect("qemu-img is installed");
    assert!(run.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}
