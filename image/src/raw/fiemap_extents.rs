//! Determines a file's extents by FIEMAP: up to 512 per call, of which only those of the last call are kept.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use xfer_hole_os::sys::{self, FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_UNWRITTEN, FiemapReply};

use crate::layer::Allocation;

/// The extents of a part of a file, which moves as other offsets are asked for. A file of a million extents takes no
/// more memory than one of 512.
#[derive(Debug, Default)]
pub(crate) struct FiemapExtents {
    batch: Mutex<FiemapBatch>,
}

#[derive(Debug, Default)]
struct FiemapBatch {
    covers: Range<u64>,
    /// The extents without gaps. Adjacent extents with equal status are merged.
    extents: Vec<FiemapExtent>,
    raw: Vec<FiemapReply>,
}

impl FiemapExtents {
    /// The status at offset `at` in a file of `size` bytes, and the number of bytes with that status.
    pub(crate) fn extent(&self, file: &File, at: u64, size: u64) -> io::Result<(Allocation, u64)> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if !batch.covers.contains(&at) {
            batch.move_to(file, at, size)?;
        }
        let next = batch.extents.partition_point(|extent| extent.start <= at);
        let extent = next.checked_sub(1).and_then(|index| batch.extents.get(index));
        let extent = extent.ok_or_else(|| io::Error::other("FIEMAP gave extents that go nowhere"))?;
        Ok((extent.allocation, extent.start + extent.len - at))
    }
}

/// An extent of data or of zeros.
#[derive(Clone, Copy, Debug)]
struct FiemapExtent {
    start: u64,
    len: u64,
    allocation: Allocation,
}

impl FiemapBatch {
    fn move_to(&mut self, file: &File, at: u64, size: u64) -> io::Result<()> {
        let mut raw = std::mem::take(&mut self.raw);
        let called = sys::fiemap(file, at, size - at, &mut raw);
        let filled = self.fill(&raw, at, size);
        self.raw = raw;
        called?;
        filled?;
        if self.covers.contains(&at) { Ok(()) } else { Err(io::Error::other("FIEMAP gave extents that go nowhere")) }
    }

    fn fill(&mut self, raw: &[FiemapReply], at: u64, size: u64) -> io::Result<()> {
        self.extents.clear();
        self.covers = at..at;
        let mut reached = at;
        let mut last = raw.is_empty();
        for extent in raw {
            // Only the first extent may begin before the requested offset.
            if extent.logical < reached && reached > at {
                return Err(io::Error::other("FIEMAP gave extents that go backwards"));
            }
            let start = extent.logical.clamp(reached, size);
            let end = extent.logical.saturating_add(extent.length).clamp(start, size);
            // Extents with DELALLOC, UNKNOWN, ENCODED, INLINE or other flags are data, which must be read.
            let unwritten = extent.flags & FIEMAP_EXTENT_UNWRITTEN != 0;
            self.push(reached, start, Allocation::Zero);
            self.push(start, end, if unwritten { Allocation::Zero } else { Allocation::Data });
            reached = end;
            last |= extent.flags & FIEMAP_EXTENT_LAST != 0;
        }
        if last {
            self.push(reached, size, Allocation::Zero);
            reached = size;
        }
        self.covers = at..reached;
        Ok(())
    }

    fn push(&mut self, start: u64, end: u64, allocation: Allocation) {
        if start == end {
            return;
        }
        match self.extents.last_mut() {
            Some(before) if before.allocation == allocation => before.len += end - start,
            _ => self.extents.push(FiemapExtent { start, len: end - start, allocation }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(logical: u64, length: u64, flags: u32) -> FiemapReply {
        FiemapReply { logical, length, flags, ..FiemapReply::default() }
    }

    fn seen(raw: &[FiemapReply], at: u64, size: u64) -> (Vec<(u64, u64, Allocation)>, Range<u64>) {
        let mut batch = FiemapBatch::default();
        batch.fill(raw, at, size).unwrap();
        let extents = batch.extents.iter().map(|extent| (extent.start, extent.len, extent.allocation)).collect();
        (extents, batch.covers)
    }

    #[test]
    fn gaps_and_unwritten_extents_are_merged_as_zeros() {
        let raw = [
            extent(4096, 4096, 0),
            extent(8192, 4096, 0x4), // DELALLOC
            extent(12288, 4096, FIEMAP_EXTENT_UNWRITTEN),
            extent(20480, 8192, FIEMAP_EXTENT_LAST),
        ];
        let expected = vec![
            (0, 4096, Allocation::Zero),
            (4096, 8192, Allocation::Data),
            (12288, 8192, Allocation::Zero),
            (20480, 4096, Allocation::Data),
        ];
        assert_eq!(seen(&raw, 0, 24576), (expected, 0..24576));
    }

    #[test]
    fn reply_without_last_flag_covers_only_its_extents() {
        assert_eq!(seen(&[extent(0, 4096, 0)], 0, 1 << 40), (vec![(0, 4096, Allocation::Data)], 0..4096));
    }

    #[test]
    fn extents_in_descending_order_are_refused() {
        let mut batch = FiemapBatch::default();
        for second in [0, 8191] {
            assert!(batch.fill(&[extent(4096, 8192, 0), extent(second, 4096, 1)], 4096, 65536).is_err());
            assert!(batch.covers.is_empty());
        }
    }

    #[test]
    fn file_without_extents_is_one_hole() {
        assert_eq!(seen(&[], 4096, 8192), (vec![(4096, 4096, Allocation::Zero)], 4096..8192));
    }

    #[test]
    fn early_or_overflowing_extent_is_clipped() {
        assert_eq!(
            seen(&[extent(0, 8192, 1)], 4096, 16384).0,
            vec![(4096, 4096, Allocation::Data), (8192, 8192, Allocation::Zero)]
        );
        assert_eq!(seen(&[extent(8192, u64::MAX, 1)], 4096, 16384).0[1], (8192, 8192, Allocation::Data));
    }
}
