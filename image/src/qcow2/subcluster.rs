//! The bitmap of an extended L2 entry (qcow2 specification, "Extended L2 Entries").

/// Bit n: subcluster n is allocated. Bit 32 + n: subcluster n reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subclusters(pub(crate) u64);

impl Subclusters {
    pub(crate) fn is_allocated(self, index: u32) -> bool {
        self.0 >> index & 1 != 0
    }

    pub(crate) fn is_zero(self, index: u32) -> bool {
        self.0 >> (32 + index) & 1 != 0
    }
}
