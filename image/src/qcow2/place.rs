//! Where a table lies, and whether it may lie there.

use super::field::Field;
use super::geometry::Geometry;
use crate::{Host, Result};

/// A table that a field of the header, or of a snapshot, points at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// What it is called in messages.
    pub(crate) name: &'static str,
    /// The field that holds its offset.
    pub(crate) field: Field,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Octets, as far as they are known. A table without any lies nowhere.
    pub(crate) len: u64,
}

impl Place {
    /// Refuses a place that is not at a cluster, or begins behind the end of the file, or overlaps the header's cluster or one of
    /// `others`. Its own end may lie behind the end of the file: what isn't there reads as zeros.
    pub(crate) fn check(&self, host: &Host, geometry: Geometry, others: &[Self]) -> Result<()> {
        let bad = |why: String| Err(self.field.bad_offset(host, self.offset, why));
        let (cluster_size, name) = (geometry.cluster_size(), self.name);
        if geometry.misalignment(self.offset) != 0 {
            return bad(format!("not a multiple of the cluster size of {cluster_size} octets"));
        }
        if self.len == 0 {
            return Ok(());
        }
        if self.offset < cluster_size {
            return bad(format!("the {name} overlaps the header's cluster"));
        }
        if self.offset >= host.len() {
            return bad(format!("the {name} begins past the end of the file, which has {} octets", host.len()));
        }
        match others.iter().find(|other| self.overlaps(other)) {
            Some(other) => bad(format!("the {name} overlaps the {} at {:#x}", other.name, other.offset)),
            None => Ok(()),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let before = |one: &Self, two: &Self| one.offset.saturating_add(one.len) <= two.offset;
        self.len > 0 && other.len > 0 && !before(self, other) && !before(other, self)
    }
}
