//! A generated disk that consists of parts of two files, compressed bytes and zeros, with arbitrary boundaries. It
//! covers everything that a backing chain may return, and more.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use proptest::prelude::*;
use tempfile::TempDir;
use xfer_hole_image::{BlockStatus, Disk, Extent, ImageFile};
use xfer_hole_os::{DiskError, DiskErrorKind, Result};

/// Where a part of the disk lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Location {
    /// In the file of a layer. If `next` is true, directly after the part that was added before.
    Flat { depth: u32, next: bool },
    /// After the end of the file, where zeros are read.
    Behind,
    /// In no file: it can be read only by `read`.
    Compressed,
    /// Zeros without an offset, because no layer has them.
    Zero,
    /// Zeros with an offset, where the file has other bytes.
    Preallocated,
    /// Data by the image's tables, a hole in the file.
    Unwritten,
}

/// The kind of bytes of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Data,
    Zeros,
    /// Mostly zeros.
    Sprinkled,
}

/// A part of the disk: where it lies, the kind of its bytes, its length in bytes, and a seed.
pub(crate) type Wish = (Location, Content, u64, u8);

/// The generated disk.
pub(crate) struct Mixed {
    /// All bytes of the disk, to compare with.
    pub(crate) bytes: Vec<u8>,
    extents: Vec<Extent>,
    files_of_layers: [ImageFile; 2],
    chunk: u64,
    /// Disk offset of a byte that can't be read.
    pub(crate) broken: Option<u64>,
    /// Disk offset of a byte whose extent can't be read.
    pub(crate) lost: Option<u64>,
    /// The memory that compressed bytes were read into: address to end.
    pub(crate) memory_ranges: Mutex<BTreeMap<usize, usize>>,
    _folder: TempDir,
}

pub(crate) fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let location = prop_oneof![
        4 => (0..2_u32, any::<bool>()).prop_map(|(depth, next)| Location::Flat { depth, next }),
        1 => Just(Location::Behind),
        3 => Just(Location::Compressed),
        2 => Just(Location::Zero),
        1 => Just(Location::Preallocated),
        1 => Just(Location::Unwritten),
    ];
    let content = prop_oneof![3 => Just(Content::Data), 1 => Just(Content::Zeros), 2 => Just(Content::Sprinkled)];
    let lens = prop_oneof![
        4 => (1..40_u64).prop_map(|blocks| blocks * 4096),
        2 => (1..40_u64).prop_map(|blocks| blocks * 512),
        3 => 1..100_000_u64,
        1 => 1..3_000_000_u64,
        1 => (1..4_u64).prop_map(|chunks| chunks << 20),
    ];
    prop::collection::vec((location, content, lens, 1..=255_u8), 0..24)
}

impl Mixed {
    pub(crate) fn make(wishes: &[Wish], chunk: u64) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let paths = [folder.path().join("top"), folder.path().join("base")];
        let files = paths.clone().map(|path| File::create(path).unwrap());
        // Gaps between the parts, so that no two of them are adjacent by chance.
        let mut ends = [777_u64; 2];
        let (mut bytes, mut extents) = (Vec::<u8>::new(), Vec::new());
        for &(location, content, len, seed) in wishes {
            let start = bytes.len() as u64;
            let zeros =
                matches!(location, Location::Zero | Location::Preallocated | Location::Unwritten | Location::Behind);
            let byte = |index: u64| match content {
                _ if zeros => 0,
                Content::Zeros => 0,
                Content::Data => u8::try_from((index.wrapping_mul(0x9e37_79b9) >> 7) % 255).unwrap() + 1,
                Content::Sprinkled if index % 5003 == u64::from(seed) => seed,
                Content::Sprinkled => 0,
            };
            bytes.extend((start..start + len).map(byte));
            let mut put = |depth: usize, next: bool, what: &[u8]| {
                let at = ends[depth] + if next { 0 } else { u64::from(seed) * 512 };
                files[depth].write_all_at(what, at).unwrap();
                ends[depth] = at + what.len() as u64;
                at
            };
            let new = &bytes[usize::try_from(start).unwrap()..];
            let depth = if let Location::Flat { depth, .. } = location { depth } else { u32::from(seed % 2) };
            let host = match location {
                Location::Flat { depth, next } => Some(put(depth as usize, next, new)),
                Location::Behind => Some((1 << 40) + start),
                Location::Preallocated => Some(put(depth as usize, false, &[0xee; 4096])),
                Location::Unwritten => Some(1 << 30),
                Location::Compressed | Location::Zero => None,
            };
            let status = match location {
                Location::Flat { .. } | Location::Behind | Location::Compressed => BlockStatus::Data,
                Location::Zero | Location::Preallocated => BlockStatus::Zero,
                Location::Unwritten => BlockStatus::Unwritten,
            };
            let (compressed, present) = (matches!(location, Location::Compressed), !matches!(location, Location::Zero));
            extents.push(Extent { start, len, status, depth, present, compressed, host });
        }
        let files_of_layers = paths.map(|path| ImageFile::open(&path).unwrap());
        let memory_ranges = Mutex::default();
        Self { bytes, extents, files_of_layers, chunk, broken: None, lost: None, memory_ranges, _folder: folder }
    }
}

fn broken(at: u64) -> DiskError {
    DiskError::new(DiskErrorKind::Io, "mixed", format!("cannot read byte {at}"))
}

impl Disk for Mixed {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn extent(&self, at: u64, max: u64) -> Result<Extent> {
        let index = self.extents.partition_point(|extent| extent.end() <= at);
        let extent = self.extents[index];
        let (passed, len) = (at - extent.start, (extent.end() - at).min(max));
        match self.lost {
            Some(lost) if (at..at + len).contains(&lost) => Err(broken(lost)),
            _ => Ok(Extent { start: at, len, host: extent.host.map(|host| host + passed), ..extent }),
        }
    }

    fn read(&self, extent: &Extent, at: u64, buf: &mut [u8]) -> Result<()> {
        let end = at + buf.len() as u64;
        assert!(extent.status == BlockStatus::Data, "{extent:?} need not be read");
        assert!(at >= extent.start && end <= extent.end(), "{at}..{end} is not in {extent:?}");
        if let Some(byte) = self.broken.filter(|byte| (at..end).contains(byte)) {
            return Err(broken(byte));
        }
        if let Some(host) = extent.host {
            return self.files_of_layers[extent.depth as usize].read_at(host + (at - extent.start), buf);
        }
        let from = buf.as_ptr().addr();
        let mut memory_ranges = self.memory_ranges.lock().unwrap();
        let to = memory_ranges.entry(from).or_default();
        *to = (*to).max(from + buf.len());
        drop(memory_ranges);
        buf.copy_from_slice(&self.bytes[usize::try_from(at).unwrap()..usize::try_from(end).unwrap()]);
        Ok(())
    }

    fn host(&self, depth: u32) -> Option<&ImageFile> {
        self.files_of_layers.get(depth as usize)
    }

    fn chunk(&self) -> u64 {
        self.chunk
    }

    fn check_unchanged(&self, _live: bool) -> Result<()> {
        Ok(())
    }
}
