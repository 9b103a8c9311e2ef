//! Checks the location of tables in the file.

use xfer_hole_os::{DiskError, Result};
use xfer_hole_proto::LEN_MAX;

use super::field::HeaderField;
use super::geometry::Geometry;
use crate::ImageFile;

/// A table that a field of the header, or of a snapshot, points to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetadataRegion {
    /// The name of the table in messages.
    pub(crate) name: &'static str,
    /// The field that contains its offset.
    pub(crate) field: HeaderField,
    /// Its file offset.
    pub(crate) offset: u64,
    /// Its length in bytes, as far as it is known. An empty table overlaps nothing.
    pub(crate) len: u64,
}

impl MetadataRegion {
    /// Fails if the offset is invalid, or the table overlaps the header or one of `others`.
    pub(crate) fn check(&self, file: &ImageFile, geometry: Geometry, others: &[Self]) -> Result<()> {
        self.check_number(file, geometry)?;
        self.problem(file, geometry).or_else(|| self.overlap(file, others)).map_or(Ok(()), Err)
    }

    /// Fails if the offset is no multiple of the cluster size, or exceeds the largest file, as QEMU's
    /// `qcow2_validate_table` does. The offset of an empty table is checked too.
    pub(crate) fn check_number(&self, file: &ImageFile, geometry: Geometry) -> Result<()> {
        let bad = |why: String| Err(self.field.bad_offset(file, self.offset, why));
        if geometry.misalignment(self.offset) != 0 {
            return bad(format!("not a multiple of the cluster size of {} bytes", geometry.cluster_size()));
        }
        // Tables must end below QEMU's BDRV_MAX_LENGTH.
        let most = if self.len == 0 { LEN_MAX } else { LEN_MAX >> 30 << 30 };
        if self.offset > most - self.len.min(most) {
            return bad(format!("the {} lies beyond the end of the largest possible file", self.name));
        }
        Ok(())
    }

    /// The error of a table that begins beyond the end of the file, or overlaps the header's cluster. A table may end
    /// beyond the end of the file, where it reads as zeros.
    pub(crate) fn problem(&self, file: &ImageFile, geometry: Geometry) -> Option<DiskError> {
        let bad = |why: String| Some(self.field.bad_offset(file, self.offset, why));
        match self.offset {
            _ if self.len == 0 => None,
            offset if offset < geometry.cluster_size() => {
                bad(format!("the {} overlaps the header's cluster", self.name))
            }
            offset if offset >= file.len() => {
                let len = file.len();
                bad(format!("the {} begins past the end of the file, which has {len} bytes", self.name))
            }
            _ => None,
        }
    }

    /// The error of a table that overlaps one of `others`.
    pub(crate) fn overlap(&self, file: &ImageFile, others: &[Self]) -> Option<DiskError> {
        let other = others.iter().find(|other| self.overlaps(other))?;
        let why = format!("the {} overlaps the {} at {:#x}", self.name, other.name, other.offset);
        Some(self.field.bad_offset(file, self.offset, why))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let before = |one: &Self, two: &Self| one.offset.saturating_add(one.len) <= two.offset;
        self.len > 0 && other.len > 0 && !before(self, other) && !before(other, self)
    }
}
