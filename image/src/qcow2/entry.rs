//! Decodes table entries.

use crate::qcow2::geometry::{Geometry, HostOffset};
use crate::qcow2::subcluster::Subclusters;

/// Bits 9 to 55 of an entry: an offset in the image file (qcow2 specification, "Cluster mapping").
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63, QCOW_OFLAG_COPIED: the reference count is exactly one.
const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard cluster descriptor: the cluster reads as zeros.
const ZERO: u64 = 1;

/// The error in an entry, as the end of a sentence.
pub(crate) type EntryFault = &'static str;

const RESERVED_BITS: EntryFault = "has reserved bits set";
const UNALIGNED: EntryFault = "has an offset that is no multiple of the cluster size";

/// An entry of an L1 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L1Entry(pub(crate) u64);

impl L1Entry {
    /// The offset of the L2 table, if the entry has one.
    pub(crate) fn table(self, geometry: Geometry) -> Result<Option<HostOffset>, EntryFault> {
        if self.0 & !(OFFSET | COPIED) != 0 {
            return Err(RESERVED_BITS);
        }
        aligned(self.0 & OFFSET, geometry)
    }
}

/// An entry of an L2 table, without the subcluster bitmap of extended entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L2Entry(pub(crate) u64);

/// The type of a cluster, according to its L2 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterType {
    /// A compressed cluster. The entry contains its descriptor.
    Compressed,
    /// Not allocated.
    Unallocated,
    /// Reads as zeros. It may be allocated at this offset.
    Zero(Option<HostOffset>),
    /// Data at this offset.
    Normal(HostOffset),
}

impl L2Entry {
    /// Decodes the entry. `external`: data is in an external file, where offset 0 is valid.
    pub(crate) fn cluster(self, geometry: Geometry, version: u32, external: bool) -> Result<ClusterType, EntryFault> {
        if self.0 & COMPRESSED != 0 {
            return if external {
                Err("is compressed, in an image with an external data file")
            } else {
                Ok(ClusterType::Compressed)
            };
        }
        let zero = self.0 & ZERO != 0;
        if self.0 & !(OFFSET | COPIED | ZERO) != 0 || (zero && geometry.extended_l2) {
            return Err(RESERVED_BITS);
        }
        if zero && version < 3 {
            return Err("is a zero cluster, which version 2 does not have");
        }
        let offset = aligned(self.0 & OFFSET, geometry)?;
        Ok(match offset {
            _ if zero => ClusterType::Zero(offset),
            Some(offset) => ClusterType::Normal(offset),
            None if external && self.0 & COPIED != 0 => ClusterType::Normal(HostOffset(0)),
            None => ClusterType::Unallocated,
        })
    }
}

fn aligned(offset: u64, geometry: Geometry) -> Result<Option<HostOffset>, EntryFault> {
    if geometry.misalignment(offset) != 0 {
        return Err(UNALIGNED);
    }
    Ok((offset != 0).then_some(HostOffset(offset)))
}

/// The mapping of a cluster or subcluster. Offsets apply to the file that contains the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Not allocated in this image. A subcluster has an offset all the same, if its cluster is allocated.
    Unallocated(Option<HostOffset>),
    /// Reads as zeros. It may be allocated at this offset.
    Zero(Option<HostOffset>),
    /// Data at this offset.
    Data(HostOffset),
    /// A compressed cluster, with its L2 entry.
    Compressed(u64),
}

impl Mapping {
    /// The mapping of the position `bytes` after the beginning of a run with this mapping.
    pub(crate) fn moved(self, bytes: u64) -> Self {
        let moved = |offset: HostOffset| HostOffset(offset.0 + bytes);
        match self {
            Self::Unallocated(offset) => Self::Unallocated(offset.map(moved)),
            Self::Zero(offset) => Self::Zero(offset.map(moved)),
            Self::Data(offset) => Self::Data(moved(offset)),
            Self::Compressed(word) => Self::Compressed(word),
        }
    }

    pub(crate) fn is_compressed(self) -> bool {
        matches!(self, Self::Compressed(_))
    }

    /// The mapping of subcluster `index` of this cluster (qcow2 specification, "Extended L2 Entries").
    pub(crate) fn of_subcluster(
        cluster: ClusterType,
        bits: Subclusters,
        index: u32,
        geometry: Geometry,
    ) -> Result<Self, EntryFault> {
        let within = u64::from(index) * geometry.subcluster_size();
        let offset = match cluster {
            ClusterType::Normal(offset) => Some(HostOffset(offset.0 + within)),
            ClusterType::Unallocated | ClusterType::Zero(_) | ClusterType::Compressed => None,
        };
        Ok(match (bits.is_zero(index), bits.is_allocated(index)) {
            (true, true) => return Err("has a subcluster that is both zeros and data"),
            (true, false) => Self::Zero(offset),
            (false, true) => Self::Data(offset.ok_or("has a subcluster with data, but no cluster for it")?),
            (false, false) => Self::Unallocated(offset),
        })
    }
}

impl From<ClusterType> for Mapping {
    /// The mapping of a cluster in an image without subclusters. That of a compressed cluster is only its L2 entry.
    fn from(cluster: ClusterType) -> Self {
        match cluster {
            ClusterType::Unallocated | ClusterType::Compressed => Self::Unallocated(None),
            ClusterType::Zero(offset) => Self::Zero(offset),
            ClusterType::Normal(offset) => Self::Data(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Geometry = Geometry { cluster_bits: 16, extended_l2: false };
    const EXTENDED: Geometry = Geometry { cluster_bits: 16, extended_l2: true };

    #[test]
    fn l1_entry_has_only_an_offset_and_a_flag() {
        let table = |word| L1Entry(word).table(PLAIN);
        assert_eq!(table(0), Ok(None));
        assert_eq!(table(COPIED), Ok(None));
        assert_eq!(table(COPIED | 0x5_0000), Ok(Some(HostOffset(0x5_0000))));
        assert_eq!(table(0x5_0200), Err(UNALIGNED));
        for bit in (0..9).chain(56..63) {
            assert_eq!(table(0x5_0000 | 1 << bit), Err(RESERVED_BITS), "bit {bit}");
        }
    }

    #[test]
    fn l2_entry_meaning_depends_on_version_and_data_file() {
        let of = |word, version, external| L2Entry(word).cluster(PLAIN, version, external);
        assert_eq!(of(0, 3, false), Ok(ClusterType::Unallocated));
        assert_eq!(of(COPIED, 3, false), Ok(ClusterType::Unallocated));
        assert_eq!(of(COPIED, 3, true), Ok(ClusterType::Normal(HostOffset(0))));
        assert_eq!(of(0, 3, true), Ok(ClusterType::Unallocated));
        assert_eq!(of(0x5_0000, 2, false), Ok(ClusterType::Normal(HostOffset(0x5_0000))));
        assert_eq!(of(ZERO, 3, false), Ok(ClusterType::Zero(None)));
        assert_eq!(of(ZERO | 0x5_0000, 3, false), Ok(ClusterType::Zero(Some(HostOffset(0x5_0000)))));
        assert_eq!(of(COMPRESSED | 0x123, 2, false), Ok(ClusterType::Compressed));
        assert!(of(ZERO, 2, false).is_err() && of(COMPRESSED, 3, true).is_err());
        assert_eq!(of(0x5_0200, 3, false), Err(UNALIGNED));
        for bit in (1..9).chain(56..62) {
            assert_eq!(of(0x5_0000 | 1 << bit, 3, false), Err(RESERVED_BITS), "bit {bit}");
        }
        assert_eq!(L2Entry(ZERO).cluster(EXTENDED, 3, false), Err(RESERVED_BITS));
    }

    #[test]
    fn only_data_subclusters_need_an_allocated_cluster() {
        let of = |cluster, bits, index| Mapping::of_subcluster(cluster, Subclusters(bits), index, EXTENDED);
        let normal = ClusterType::Normal(HostOffset(0x5_0000));
        assert_eq!(of(normal, 1 << 3, 3), Ok(Mapping::Data(HostOffset(0x5_0000 + 3 * 2048))));
        assert_eq!(of(normal, 1 << 35, 3), Ok(Mapping::Zero(Some(HostOffset(0x5_0000 + 3 * 2048)))));
        assert_eq!(of(normal, 1 << 3, 4), Ok(Mapping::Unallocated(Some(HostOffset(0x5_0000 + 4 * 2048)))));
        assert!(of(normal, 1 << 3 | 1 << 35, 3).is_err());
        assert_eq!(of(ClusterType::Unallocated, 1 << 32, 0), Ok(Mapping::Zero(None)));
        assert_eq!(of(ClusterType::Unallocated, 0, 31), Ok(Mapping::Unallocated(None)));
        assert!(of(ClusterType::Unallocated, 1, 0).is_err());
    }
}
