//! Detects preallocated images: their reference counts show clusters in use for which the file has no blocks.

use xfer_hole_os::Result;

use crate::ImageFile;
use crate::qcow2::buffered_range::BufferedRange;
use crate::qcow2::field::be64;
use crate::qcow2::header::Header;

/// The maximum number of bytes of refcount blocks that are read.
const ENOUGH: u64 = 512 << 20;
/// Bits 9 to 63 of a refcount table entry: the offset of a refcount block (qcow2 specification, "Host cluster
/// management").
const OFFSET: u64 = !0x1ff;

/// True if the reference counts show about a tenth more clusters in use than the file has blocks for. Data clusters may
/// then be unwritten, so the holes of the file are taken into account. The decision is that of QEMU's
/// qcow2_detect_metadata_preallocation, so that maps agree. False if the reference counts are invalid.
pub(crate) fn is_preallocated(file: &ImageFile, header: &Header) -> bool {
    header.refcount_problem.is_none() && counts(file, header).unwrap_or(false)
}

fn counts(file: &ImageFile, header: &Header) -> Result<bool> {
    let cluster_size = header.geometry.cluster_size();
    let real = file.allocated()? / cluster_size;
    let threshold = (real * 10 / 9).max(real + 2);
    let end = file.len().div_ceil(cluster_size);
    if end < threshold {
        return Ok(false);
    }
    let block_clusters = (cluster_size * 8) >> header.refcount_order;
    let table = header.refcount_table;
    let table_end = table.offset.0 + u64::from(table.clusters) * cluster_size;
    let mut entries = BufferedRange::new(file, table.offset.0, table_end.min(file.len()));
    let (mut clusters, mut used, mut read) = (end, 0, 0);
    let mut buffer = vec![0; 64 << 10];
    while let Some(word) = entries.take(8)?.filter(|_| clusters > 0 && read < ENOUGH) {
        let block = be64(word, 0) & OFFSET;
        if !block.is_multiple_of(cluster_size) {
            return Ok(false);
        }
        let here = clusters.min(block_clusters);
        // Reference counts beyond the end of the file are zero.
        if block != 0 && block < file.len() {
            let bytes = (here << header.refcount_order).div_ceil(8);
            for start in (0..bytes).step_by(buffer.len()) {
                let len = (bytes - start).min(buffer.len() as u64);
                let piece = &mut buffer[..usize::try_from(len).unwrap_or_default()];
                file.read_at(block + start, piece)?;
                // A minimum per block limits the number of reads of small blocks.
                read += len.max(16 << 10);
                used += used_clusters(piece, header.refcount_order);
                if used >= threshold {
                    return Ok(true);
                }
            }
        }
        clusters -= here;
    }
    Ok(false)
}

/// The number of these reference counts, of 2^order bits each, that are not zero.
fn used_clusters(bytes: &[u8], order: u32) -> u64 {
    match order.checked_sub(3) {
        Some(order) => {
            bytes.chunks_exact(1 << order).filter(|count| count.iter().any(|&byte| byte != 0)).count() as u64
        }
        None => {
            let width = 1 << order;
            let mask = u8::MAX >> (8 - width);
            let used = |byte: &u8| (0..8).step_by(width).filter(|bit| byte >> bit & mask != 0).count();
            bytes.iter().map(|byte| used(byte) as u64).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::test_images::TestImage;

    #[test]
    fn refcounts_of_every_width_are_counted() {
        assert_eq!(used_clusters(&[0b1000_0101, 0], 0), 3);
        assert_eq!(used_clusters(&[0b1000_0101, 0], 1), 3);
        assert_eq!(used_clusters(&[0b1000_0101, 0b1_0000], 2), 3);
        assert_eq!(used_clusters(&[0b1000_0101, 0, 1], 3), 2);
        assert_eq!(used_clusters(&[0, 1, 0, 0, 1, 0], 4), 2);
        assert_eq!(used_clusters(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 6), 2);
    }

    #[test]
    fn used_clusters_without_blocks_are_preallocated() {
        let image = TestImage::v3();
        let detected = || is_preallocated(&image.host(), &image.header().unwrap());
        assert!(!detected());
        for block in [0xffff_ffff_ffff_0000, 0x8000_0000_0000_0000, 4 << 16, 0x200] {
            image.put64(1 << 16, block);
            assert!(!detected(), "{block:#x}");
        }
        image.put64(1 << 16, 2 << 16).put64(2 << 16, 0x0001_0001_0001_0001);
        assert!(detected());
    }
}
