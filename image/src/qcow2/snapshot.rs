//! Reads the snapshot table, in pieces, and finds the internal snapshot that a user names.
//!
//! qcow2 specification, "Snapshots". The limits are QEMU's, with its names.

use xfer_hole_os::{DiskError, DiskErrorKind, Result};
use xfer_hole_proto::LEN_MAX;

use super::buffered_range::BufferedRange;
use super::field::{HeaderField, be16, be32, be64, printable, string, unusable};
use super::geometry::HostOffset;
use super::header::{Header, L1Table};
use super::metadata_region::MetadataRegion;
use crate::ImageFile;

/// QEMU's QCOW_MAX_SNAPSHOT_EXTRA_DATA, in bytes.
const EXTRA_MAX: u32 = 1024;
/// QEMU's QCOW_MAX_SNAPSHOTS_SIZE: the maximum size of the table in bytes.
const TABLE_MAX: u64 = 64 << 20;
/// The maximum number of snapshots that a message names.
const NAMED: usize = 8;

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Its ID, which is mostly a number, in the bytes of the image.
    pub(crate) id: Box<[u8]>,
    /// Its name, in the bytes of the image.
    pub(crate) name: Box<[u8]>,
    /// Its L1 table, not yet checked. [`Snapshot::l1`] checks and returns it.
    unchecked_l1: L1Table,
    /// File offset of its entry in bytes.
    at: u64,
    /// Size of its virtual disk in bytes, a multiple of 512. The present size if the entry states none.
    pub(crate) disk_size: u64,
    /// The entry states the size of the disk.
    own_size: bool,
    /// Size of the saved state of the virtual machine in bytes; 0 if there is none.
    pub(crate) vm_state_size: u64,
    /// Time of its creation, in seconds since 1970.
    pub(crate) date_sec: u32,
    /// The nanoseconds of that time.
    pub(crate) date_nsec: u32,
    /// Run time of the virtual machine until then, in nanoseconds.
    pub(crate) vm_clock_nsec: u64,
    /// The number of instructions that the virtual machine had executed, if they were counted.
    pub(crate) icount: Option<u64>,
    /// The reason why the snapshot can't be read, although the image can.
    pub(crate) problem: Option<String>,
}

impl Snapshot {
    /// Checks and returns its L1 table. If the entry doesn't state the size of the disk, the disk may have been smaller
    /// then, so the table may be shorter; the disk beyond it is unallocated.
    pub(crate) fn l1(&self, file: &ImageFile, header: &Header) -> Result<L1Table> {
        let (offset, size) = (
            HeaderField::new("snapshot's l1_table_offset", self.at),
            HeaderField::new("snapshot's l1_size", self.at + 8),
        );
        let l1 = self.unchecked_l1;
        l1.check_len(file, size)?;
        if self.own_size {
            l1.check_covers(file, size, header.geometry, self.disk_size)?;
        }
        let region =
            MetadataRegion { name: "snapshot's L1 table", field: offset, offset: l1.offset.0, len: l1.entries * 8 };
        region.check(file, header.geometry, &header.regions())?;
        Ok(l1)
    }

    /// Its name and ID as messages show them.
    fn shown(&self) -> String {
        format!("\"{}\" (ID {})", printable(&self.name), printable(&self.id))
    }
}

/// The snapshots of an image, in the order of the table. An error ends the iteration.
pub(crate) struct Snapshots<'a> {
    file: &'a ImageFile,
    /// The remaining bytes of the table, up to its latest possible end. Beyond the end of the file it reads as zeros,
    /// as in QEMU.
    range: BufferedRange<'a>,
    /// The reason why no snapshot can be read.
    problem: Option<String>,
    /// The present size of the disk in bytes.
    size: u64,
    count: u32,
    next: u32,
}

impl<'a> Snapshots<'a> {
    /// Creates the iterator for the image with this header.
    pub(crate) fn new(file: &'a ImageFile, header: &Header) -> Self {
        let HostOffset(start) = header.snapshots.offset;
        let range = BufferedRange::new(file, start, start.saturating_add(TABLE_MAX));
        let problem = header.snapshots_problem.clone();
        Self { file, range, problem, size: header.size, count: header.snapshots.count, next: 0 }
    }

    /// Fails if QEMU refuses the table. Returns a warning if only reading a snapshot would fail.
    pub(crate) fn check(file: &'a ImageFile, header: &Header) -> Result<Option<String>> {
        let mut problem = None;
        for snapshot in Self::new(file, header) {
            problem = problem.or(snapshot?.problem);
        }
        // The header's warnings already report an error that concerns all snapshots.
        Ok(problem.filter(|_| header.snapshots_problem.is_none()).map(|problem| format!("{problem}: it can't be read")))
    }

    /// Finds the snapshot with this ID, else the one with this name.
    pub(crate) fn find(self, wanted: &[u8]) -> Result<Snapshot> {
        let (file, count) = (self.file, self.count as usize);
        let (mut named, mut again, mut known) = (None, false, Vec::new());
        if let Some(problem) = self.problem {
            return Err(unusable(file, problem));
        }
        for snapshot in self {
            let snapshot = snapshot?;
            if let Some(problem) = snapshot.problem {
                return Err(unusable(file, problem));
            }
            if *snapshot.id == *wanted {
                return Ok(snapshot);
            }
            if known.len() < NAMED {
                known.push(snapshot.shown());
            }
            if *snapshot.name == *wanted {
                again = named.is_some();
                named = named.or(Some(snapshot));
            }
        }
        let refused = |what: String| DiskError::new(DiskErrorKind::Refused, file.path(), what);
        let wanted = printable(wanted);
        match named {
            Some(_) if again => Err(refused(format!("more than one snapshot has the name \"{wanted}\""))
                .hint("name it by its ID, which xfer-hole info lists")),
            Some(snapshot) => Ok(snapshot),
            None if count == 0 => Err(refused(format!("there is no snapshot \"{wanted}\": the image has none"))),
            None => {
                let more =
                    if count > known.len() { format!(" and {} more", count - known.len()) } else { String::new() };
                Err(refused(format!("there is no snapshot \"{wanted}\", there are {}{more}", known.join(", "))))
            }
        }
    }

    fn read(&mut self) -> Result<Snapshot> {
        self.range.align();
        let at = self.range.at();
        let fixed = self.take(at, 40)?;
        let (l1_offset, l1_entries) = (be64(fixed, 0), be32(fixed, 8));
        let (id_len, name_len) = (be16(fixed, 12), be16(fixed, 14));
        let (date_sec, date_nsec, vm_clock_nsec) = (be32(fixed, 16), be32(fixed, 20), be64(fixed, 24));
        let (short_state_size, extra_len) = (be32(fixed, 32), be32(fixed, 36));
        if extra_len > EXTRA_MAX {
            let why = format_args!("more than {EXTRA_MAX} bytes");
            return Err(HeaderField::new("snapshot's extra_data_size", at + 36).bad(self.file, extra_len, why));
        }
        let today = self.size;
        let extra = self.take(at, extra_len)?;
        let field = |at: usize| extra.get(at..at + 8).map(|bytes| be64(bytes, 0));
        let vm_state_size = field(0).unwrap_or(u64::from(short_state_size));
        let (own_size, icount) = (field(8), field(16).filter(|&count| count != u64::MAX));
        let stated = own_size.unwrap_or(today);
        let too_large = (stated > LEN_MAX).then(|| {
            let why = "more bytes than a disk can have";
            HeaderField::new("snapshot's disk size", at + 48).bad(self.file, stated, why).what().to_owned()
        });
        let id = string(self.take(at, u32::from(id_len))?).into();
        let name = string(self.take(at, u32::from(name_len))?).into();
        let (index, count, len) = (self.next, self.count, self.file.len());
        let cut = (self.range.at() > len).then(|| {
            format!("snapshot {index} of {count}, at {at:#x}: runs past the end of the file, which has {len} bytes")
        });
        Ok(Snapshot {
            id,
            name,
            problem: cut.or(too_large),
            unchecked_l1: L1Table { offset: HostOffset(l1_offset), entries: u64::from(l1_entries) },
            at,
            disk_size: stated / 512 * 512,
            own_size: own_size.is_some(),
            vm_state_size,
            date_sec,
            date_nsec,
            vm_clock_nsec,
            icount,
        })
    }

    /// Takes the next bytes of the entry that begins at file offset `entry`.
    fn take(&mut self, entry: u64, len: u32) -> Result<&[u8]> {
        let (file, index, count) = (self.file, self.next, self.count);
        self.range.take(len)?.ok_or_else(|| {
            let why = format!("makes the table longer than {TABLE_MAX} bytes");
            unusable(file, format!("snapshot {index} of {count}, at {entry:#x}: {why}"))
        })
    }
}

impl Iterator for Snapshots<'_> {
    type Item = Result<Snapshot>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        self.next += 1;
        let snapshot = self.read();
        if snapshot.is_err() {
            self.next = self.count;
        }
        Some(snapshot)
    }
}

#[cfg(test)]
mod tests;
