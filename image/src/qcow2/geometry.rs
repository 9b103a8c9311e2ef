//! Where an offset of the disk falls in an image's tables: clusters, subclusters, table entries.
//!
//! qcow2 specification, "Cluster mapping" and "Extended L2 Entries".

/// The smallest cluster is 2^9 bytes: QEMU's MIN_CLUSTER_BITS, and the specification's.
pub(crate) const CLUSTER_BITS_MIN: u32 = 9;
/// The largest is 2^21 bytes: QEMU's MAX_CLUSTER_BITS.
pub(crate) const CLUSTER_BITS_MAX: u32 = 21;
/// Subclusters of a cluster where L2 entries are extended: QEMU's QCOW_EXTL2_SUBCLUSTERS_PER_CLUSTER.
const SUBCLUSTERS: u32 = 32;

/// An offset of the virtual disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GuestOffset(pub(crate) u64);

/// An offset of a file that holds the image's tables or data, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostOffset(pub(crate) u64);

/// The shifts of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// A cluster has 2^this bytes. Within the two limits above: the header's reader has seen to that.
    pub(crate) cluster_bits: u32,
    /// L2 entries have a second word, which tells of each of 32 subclusters.
    pub(crate) extended_l2: bool,
}

impl Geometry {
    /// Bytes of a cluster. A whole L2 table is as long.
    pub(crate) const fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry.
    pub(crate) const fn l2_entry_size(self) -> u64 {
        1 << self.l2_entry_bits()
    }

    const fn l2_entry_bits(self) -> u32 {
        if self.extended_l2 { 4 } else { 3 }
    }

    /// Entries of an L2 table.
    pub(crate) const fn l2_entries(self) -> u64 {
        1 << self.l2_bits()
    }

    const fn l2_bits(self) -> u32 {
        self.cluster_bits - self.l2_entry_bits()
    }

    /// Subclusters of a cluster.
    pub(crate) const fn subclusters(self) -> u32 {
        if self.extended_l2 { SUBCLUSTERS } else { 1 }
    }

    /// Bytes of a subcluster.
    pub(crate) const fn subcluster_size(self) -> u64 {
        self.cluster_size() / self.subclusters() as u64
    }

    /// Bytes of the disk that an L1 entry, which is one L2 table, speaks for.
    pub(crate) const fn l1_span(self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// Entries of the L1 table that speaks for `size` bytes of disk.
    pub(crate) const fn l1_entries(self, size: u64) -> u64 {
        size.div_ceil(self.l1_span())
    }

    /// The L1 entry that speaks for this offset.
    pub(crate) const fn l1_index(self, guest: GuestOffset) -> u64 {
        guest.0 / self.l1_span()
    }

    /// The entry in its L2 table.
    pub(crate) const fn l2_index(self, guest: GuestOffset) -> u64 {
        (guest.0 >> self.cluster_bits) & (self.l2_entries() - 1)
    }

    /// Bytes between the cluster's beginning and this offset.
    pub(crate) const fn in_cluster(self, guest: GuestOffset) -> u64 {
        self.misalignment(guest.0)
    }

    /// The subcluster of its cluster that this offset lies in, from 0.
    pub(crate) const fn subcluster(self, guest: GuestOffset) -> u32 {
        // Below 32, so that nothing is lost.
        #[allow(clippy::cast_possible_truncation)]
        let index = (self.in_cluster(guest) / self.subcluster_size()) as u32;
        index
    }

    /// Bytes by which an offset misses the beginning of a cluster.
    pub(crate) const fn misalignment(self, offset: u64) -> u64 {
        offset & (self.cluster_size() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clusters_of_64_kib_have_the_numbers_that_everyone_knows() {
        let plain = Geometry { cluster_bits: 16, extended_l2: false };
        assert_eq!((plain.cluster_size(), plain.l2_entries(), plain.l1_span()), (65536, 8192, 512 << 20));
        assert_eq!((plain.subclusters(), plain.subcluster_size()), (1, 65536));
        let extended = Geometry { cluster_bits: 16, extended_l2: true };
        assert_eq!((extended.l2_entry_size(), extended.l2_entries(), extended.l1_span()), (16, 4096, 256 << 20));
        assert_eq!((extended.subclusters(), extended.subcluster_size()), (32, 2048));
        assert_eq!(extended.subcluster(GuestOffset(65536 + 2048 * 31 + 5)), 31);
        assert_eq!(plain.l1_entries(0), 0);
        assert_eq!(plain.l1_entries(1), 1);
        assert_eq!(plain.l1_entries(512 << 20), 1);
        assert_eq!(plain.l1_entries((512 << 20) + 1), 2);
    }

    proptest! {
        #[test]
        fn the_indices_of_an_offset_add_up_to_it(
            cluster_bits in CLUSTER_BITS_MIN..=CLUSTER_BITS_MAX, extended_l2: bool, at: u64
        ) {
            let geometry = Geometry { cluster_bits, extended_l2 };
            let guest = GuestOffset(at);
            let (l1, l2) = (geometry.l1_index(guest), geometry.l2_index(guest));
            prop_assert!(l2 < geometry.l2_entries());
            prop_assert!(geometry.subcluster(guest) < geometry.subclusters());
            prop_assert_eq!(l1 * geometry.l1_span() + l2 * geometry.cluster_size() + geometry.in_cluster(guest), at);
            prop_assert!(geometry.l1_entries(at) <= l1 + 1);
        }
    }
}
