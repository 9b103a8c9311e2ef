//! Decodes L2 entries of compressed clusters.
//!
//! qcow2 specification, "Compressed Clusters Descriptor".

use super::geometry::{Geometry, HostOffset};

/// Size in bytes of the sectors that a descriptor counts, whatever the disk's sector size: QEMU's
/// QCOW2_COMPRESSED_SECTOR_SIZE.
const SECTOR: u64 = 512;

/// The compression method of an image's compressed clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Raw deflate, without a zlib header.
    Zlib,
    /// zstd frames.
    Zstd,
}

impl Compression {
    /// The name of the method in QEMU.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// The location of a compressed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CompressedEntry {
    /// The file offset of its first byte, without alignment.
    pub(crate) offset: HostOffset,
    /// The number of 512-byte sectors that contain its data, at most those of two clusters. The next compressed cluster
    /// may begin in the last sector.
    pub(crate) sectors: u64,
}

impl CompressedEntry {
    /// Decodes an L2 entry with bit 62 set. Every value is valid.
    pub(crate) const fn parse(word: u64, geometry: Geometry) -> Self {
        let offset_bits = 62 - (geometry.cluster_bits - 8);
        let offset = word & ((1 << offset_bits) - 1);
        let additional = (word >> offset_bits) & ((1 << (62 - offset_bits)) - 1);
        Self { offset: HostOffset(offset), sectors: additional + 1 }
    }

    /// The number of bytes up to the end of its last sector, 1 to two clusters. The compressed data has at most this
    /// length.
    pub(crate) const fn len(self) -> u64 {
        self.sectors * SECTOR - self.offset.0 % SECTOR
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_at_the_specified_bits() {
        let geometry = Geometry { cluster_bits: 16, extended_l2: false };
        let entry = CompressedEntry::parse(1 << 62 | 3 << 54 | 0x5_0123, geometry);
        assert_eq!(entry, CompressedEntry { offset: HostOffset(0x5_0123), sectors: 4 });
        assert_eq!(entry.len(), 4 * 512 - 0x123);
        let small = Geometry { cluster_bits: 9, extended_l2: false };
        let entry = CompressedEntry::parse(1 << 62 | 1 << 61 | 511, small);
        assert_eq!((entry.sectors, entry.len()), (2, 513));
    }

    proptest! {
        #[test]
        fn every_descriptor_has_at_most_two_clusters(word: u64, cluster_bits in 9u32..=21) {
            let geometry = Geometry { cluster_bits, extended_l2: false };
            let entry = CompressedEntry::parse(word, geometry);
            prop_assert!((1..=2 * geometry.cluster_size()).contains(&entry.len()));
            prop_assert!((entry.offset.0 + entry.len()).is_multiple_of(512) && entry.offset.0 + entry.len() <= 1 << 62);
        }
    }
}
