//! Maps offsets of the disk to clusters, subclusters and table entries.
//!
//! qcow2 specification, "Cluster mapping" and "Extended L2 Entries".

/// The smallest cluster has 2^9 bytes: QEMU's MIN_CLUSTER_BITS, as in the specification.
pub(crate) const CLUSTER_BITS_MIN: u32 = 9;
/// The largest cluster has 2^21 bytes: QEMU's MAX_CLUSTER_BITS.
pub(crate) const CLUSTER_BITS_MAX: u32 = 21;
/// The number of subclusters per cluster if L2 entries are extended: QEMU's QCOW_EXTL2_SUBCLUSTERS_PER_CLUSTER.
const SUBCLUSTERS: u32 = 32;

/// An offset of the virtual disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GuestOffset(pub(crate) u64);

/// An offset of the file that contains the image's tables or data, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostOffset(pub(crate) u64);

/// The sizes of an image's clusters and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The logarithm of the cluster size, from [`CLUSTER_BITS_MIN`] to [`CLUSTER_BITS_MAX`]. Reading the header checks
    /// it.
    pub(crate) cluster_bits: u32,
    /// L2 entries have a second word, with bits for each of 32 subclusters.
    pub(crate) extended_l2: bool,
}

impl Geometry {
    /// Size of a cluster in bytes. An L2 table has the same size.
    pub(crate) const fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Size of an L2 entry in bytes.
    pub(crate) const fn l2_entry_size(self) -> u64 {
        1 << self.l2_entry_bits()
    }

    const fn l2_entry_bits(self) -> u32 {
        if self.extended_l2 { 4 } else { 3 }
    }

    /// The number of entries of an L2 table.
    pub(crate) const fn l2_entries(self) -> u64 {
        1 << self.l2_bits()
    }

    const fn l2_bits(self) -> u32 {
        self.cluster_bits - self.l2_entry_bits()
    }

    /// The number of subclusters of a cluster.
    pub(crate) const fn subclusters(self) -> u32 {
        if self.extended_l2 { SUBCLUSTERS } else { 1 }
    }

    /// Size of a subcluster in bytes.
    pub(crate) const fn subcluster_size(self) -> u64 {
        self.cluster_size() / self.subclusters() as u64
    }

    /// The number of bytes of the disk that an L1 entry, and so an L2 table, covers.
    pub(crate) const fn l1_span(self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// The number of L1 entries that cover `size` bytes of the disk.
    pub(crate) const fn l1_entries(self, size: u64) -> u64 {
        size.div_ceil(self.l1_span())
    }

    /// The index of the L1 entry for this offset.
    pub(crate) const fn l1_index(self, guest: GuestOffset) -> u64 {
        guest.0 / self.l1_span()
    }

    /// The index of the entry in the L2 table for this offset.
    pub(crate) const fn l2_index(self, guest: GuestOffset) -> u64 {
        (guest.0 >> self.cluster_bits) & (self.l2_entries() - 1)
    }

    /// The distance in bytes between the beginning of the cluster and this offset.
    pub(crate) const fn in_cluster(self, guest: GuestOffset) -> u64 {
        self.misalignment(guest.0)
    }

    /// The index of the subcluster that contains this offset, from 0.
    pub(crate) const fn subcluster(self, guest: GuestOffset) -> u32 {
        // No truncation: the index is below 32.
        #[allow(clippy::cast_possible_truncation)]
        let index = (self.in_cluster(guest) / self.subcluster_size()) as u32;
        index
    }

    /// The distance in bytes between an offset and the last cluster boundary before it.
    pub(crate) const fn misalignment(self, offset: u64) -> u64 {
        offset & (self.cluster_size() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clusters_of_64_kib_have_the_known_table_sizes() {
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
