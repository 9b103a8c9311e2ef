//! Test disks: their data and holes, and the files made from them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xfer_hole_os::sys;

/// A hole: start and length in bytes.
pub type Hole = (u64, u64);

/// A test disk: its size, and its data as (start, length, seed) in bytes. Seed 0 writes zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestDisk {
    /// The size in bytes.
    pub size: u64,
    /// The ranges of data: start, length, seed.
    pub data: Vec<(u64, u64, u8)>,
}

impl TestDisk {
    /// A disk of one hole.
    pub fn empty(size: u64) -> Self {
        Self { size, data: Vec::new() }
    }

    /// Adds `len` bytes of data at `at`. No byte is zero unless the seed is 0.
    #[must_use]
    pub fn with(mut self, at: u64, len: u64, seed: u8) -> Self {
        self.data.push((at, len, seed));
        self
    }

    /// Creates the file, replacing an existing one.
    pub fn make(&self, path: &Path) {
        let _not_there = fs::remove_file(path);
        let file = File::create(path).unwrap();
        file.set_len(self.size).unwrap();
        self.write(&file);
        file.sync_all().unwrap();
    }

    /// All bytes of the disk, which must be small.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size).unwrap()];
        for &(start, len, seed) in &self.data {
            for at in start..start + len {
                bytes[usize::try_from(at).unwrap()] = byte(at, seed);
            }
        }
        bytes
    }

    /// Writes the data ranges into an existing file.
    pub fn write(&self, file: &File) {
        for &(start, len, seed) in &self.data {
            let mut at = start;
            while at < start + len {
                let piece = (start + len - at).min(1 << 20);
                let bytes: Vec<u8> = (at..at + piece).map(|at| byte(at, seed)).collect();
                file.write_all_at(&bytes, at).unwrap();
                at += piece;
            }
        }
    }
}

/// The byte at an offset: zero for seed 0, else a nonzero byte that varies with the offset.
fn byte(at: u64, seed: u8) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ u64::from(seed).wrapping_mul(0x1000_0001b3);
    if seed == 0 { 0 } else { u8::try_from(mixed % 255).unwrap() + 1 }
}

/// The holes of a file by SEEK_HOLE: start and length in bytes.
pub fn holes(path: &Path) -> Vec<Hole> {
    gaps(path).unwrap().0
}

/// The data ranges of a file by SEEK_DATA: start and length in bytes.
pub fn extents(path: &Path) -> Vec<(u64, u64)> {
    gaps(path).unwrap().1
}

/// The holes and the data ranges of a file.
type Gaps = (Vec<Hole>, Vec<(u64, u64)>);

fn gaps(path: &Path) -> io::Result<Gaps> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let (mut holes, mut extents, mut at) = (Vec::new(), Vec::new(), 0);
    while at < size {
        let data = sys::seek_data(&file, at)?.unwrap_or(size);
        if data > at {
            holes.push((at, data - at));
        }
        at = data;
        if at < size {
            let hole = sys::seek_hole(&file, at)?.unwrap_or(size);
            extents.push((at, hole - at));
            at = hole;
        }
    }
    Ok((holes, extents))
}

/// The canonical holes of a file's content: maximal runs of zero blocks of `grain` bytes, found by reading. A
/// receiver must make each of them a hole.
pub fn holes_within(path: &Path, grain: u64) -> Vec<Hole> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut found: Vec<Hole> = Vec::new();
    let mut push = |at: u64, len: u64| match found.last_mut() {
        Some((start, before)) if *start + *before == at => *before += len,
        _ if len > 0 => found.push((at, len)),
        _ => {}
    };
    let mut at = 0;
    let mut block = vec![0; usize::try_from(grain).unwrap()];
    while at < size {
        // Holes of the file are not read.
        let data = sys::seek_data(&file, at).unwrap().unwrap_or(size);
        let skip = if data == size { size } else { data / grain * grain };
        if skip > at {
            push(at, skip - at);
            at = skip;
            continue;
        }
        let len = grain.min(size - at);
        let block = &mut block[..usize::try_from(len).unwrap()];
        file.read_exact_at(block, at).unwrap();
        if block.iter().all(|&byte| byte == 0) {
            push(at, len);
        }
        at += len;
    }
    found
}
