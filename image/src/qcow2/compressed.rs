//! Compressed clusters: what their L2 entry says of where they lie.
//!
//! qcow2 specification, "Compressed Clusters Descriptor".

use super::geometry::{Geometry, HostOffset};

/// Bytes of the sectors that a descriptor counts, whatever the disk's are: QEMU's QCOW2_COMPRESSED_SECTOR_SIZE.
const SECTOR: u64 = 512;

/// How an image's clusters are compressed, if they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Raw deflate, without a zlib header.
    Zlib,
    /// zstd frames.
    Zstd,
}

impl Compression {
    /// Its name in QEMU.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// Where a compressed cluster lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CompressedEntry {
    /// Where it begins: at any byte.
    pub(crate) offset: HostOffset,
    /// Sectors of 512 bytes that it touches; the last may be shared with the next one. At most those of two clusters.
    pub(crate) sectors: u64,
}

impl CompressedEntry {
    /// Reads an L2 entry whose bit 62 is set. Every word has a meaning: nothing is to be refused here.
    pub(crate) const fn parse(word: u64, geometry: Geometry) -> Self {
        let offset_bits = 62 - (geometry.cluster_bits - 8);
        let offset = word & ((1 << offset_bits) - 1);
        let additional = (word >> offset_bits) & ((1 << (62 - offset_bits)) - 1);
        Self { offset: HostOffset(offset), sectors: additional + 1 }
    }

    /// Bytes up to the end of its last sector: it has as many, or fewer. 1 to two clusters.
    pub(crate) const fn len(self) -> u64 {
        self.sectors * SECTOR - self.offset.0 % SECTOR
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fields_lie_where_the_specification_has_them() {
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
        fn no_word_is_longer_than_two_clusters(word: u64, cluster_bits in 9u32..=21) {
            let geometry = Geometry { cluster_bits, extended_l2: false };
            let entry = CompressedEntry::parse(word, geometry);
            prop_assert!((1..=2 * geometry.cluster_size()).contains(&entry.len()));
            prop_assert!((entry.offset.0 + entry.len()).is_multiple_of(512) && entry.offset.0 + entry.len() <= 1 << 62);
        }
    }
}
