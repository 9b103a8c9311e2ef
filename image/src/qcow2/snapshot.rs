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
    pub(crate) flaw: Option<String>,
}

impl Snapshot {
    /// Checks and returns its L1 table. If the entry doesn't state the size of the disk, the disk may have been smaller
    /// then, so the table may be shorter; the disk beyond it is unallocated.
    pub(crate) fn l1(&self, host: &ImageFile, header: &Header) -> Result<L1Table> {
        let (offset, size) = (
            HeaderField::new("snapshot's l1_table_offset", self.at),
            HeaderField::new("snapshot's l1_size", self.at + 8),
        );
        let l1 = self.unchecked_l1;
        l1.check_len(host, size)?;
        if self.own_size {
            l1.check_covers(host, size, header.geometry, self.disk_size)?;
        }
        let place =
            MetadataRegion { name: "snapshot's L1 table", field: offset, offset: l1.offset.0, len: l1.entries * 8 };
        place.check(host, header.geometry, &header.places())?;
        Ok(l1)
    }

    /// Its name and ID as messages show them.
    fn shown(&self) -> String {
        format!("\"{}\" (ID {})", printable(&self.name), printable(&self.id))
    }
}

/// The snapshots of an image, in the order of the table. An error ends the iteration.
pub(crate) struct Snapshots<'a> {
    host: &'a ImageFile,
    /// The remaining bytes of the table, up to its latest possible end. Beyond the end of the file it reads as zeros,
    /// as in QEMU.
    window: BufferedRange<'a>,
    /// The reason why no snapshot can be read.
    flaw: Option<String>,
    /// The present size of the disk in bytes.
    size: u64,
    count: u32,
    next: u32,
}

impl<'a> Snapshots<'a> {
    /// Creates the iterator for the image with this header.
    pub(crate) fn new(host: &'a ImageFile, header: &Header) -> Self {
        let HostOffset(start) = header.snapshots.offset;
        let window = BufferedRange::new(host, start, start.saturating_add(TABLE_MAX));
        let flaw = header.snapshots_flaw.clone();
        Self { host, window, flaw, size: header.size, count: header.snapshots.count, next: 0 }
    }

    /// Fails if QEMU refuses the table. Returns a warning if only reading a snapshot would fail.
    pub(crate) fn check(host: &'a ImageFile, header: &Header) -> Result<Option<String>> {
        let mut flaw = None;
        for snapshot in Self::new(host, header) {
            flaw = flaw.or(snapshot?.flaw);
        }
        // The header's warnings already report an error that concerns all snapshots.
        Ok(flaw.filter(|_| header.snapshots_flaw.is_none()).map(|flaw| format!("{flaw}: it can't be read")))
    }

    /// Finds the snapshot with this ID, else the one with this name.
    pub(crate) fn find(self, wanted: &[u8]) -> Result<Snapshot> {
        let (host, count) = (self.host, self.count as usize);
        let (mut named, mut again, mut known) = (None, false, Vec::new());
        if let Some(flaw) = self.flaw {
            return Err(unusable(host, flaw));
        }
        for snapshot in self {
            let snapshot = snapshot?;
            if let Some(flaw) = snapshot.flaw {
                return Err(unusable(host, flaw));
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
        let refused = |what: String| DiskError::new(DiskErrorKind::Refused, host.path(), what);
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
        self.window.align();
        let at = self.window.at();
        let fixed = self.take(at, 40)?;
        let (l1_offset, l1_entries) = (be64(fixed, 0), be32(fixed, 8));
        let (id_len, name_len) = (be16(fixed, 12), be16(fixed, 14));
        let (date_sec, date_nsec, vm_clock_nsec) = (be32(fixed, 16), be32(fixed, 20), be64(fixed, 24));
        let (short_state_size, extra_len) = (be32(fixed, 32), be32(fixed, 36));
        if extra_len > EXTRA_MAX {
            let why = format_args!("more than {EXTRA_MAX} bytes");
            return Err(HeaderField::new("snapshot's extra_data_size", at + 36).bad(self.host, extra_len, why));
        }
        let today = self.size;
        let extra = self.take(at, extra_len)?;
        let field = |at: usize| extra.get(at..at + 8).map(|bytes| be64(bytes, 0));
        let vm_state_size = field(0).unwrap_or(u64::from(short_state_size));
        let (own_size, icount) = (field(8), field(16).filter(|&count| count != u64::MAX));
        let stated = own_size.unwrap_or(today);
        let too_large = (stated > LEN_MAX).then(|| {
            let why = "more bytes than a disk can have";
            HeaderField::new("snapshot's disk size", at + 48).bad(self.host, stated, why).what().to_owned()
        });
        let id = string(self.take(at, u32::from(id_len))?).into();
        let name = string(self.take(at, u32::from(name_len))?).into();
        let (index, count, len) = (self.next, self.count, self.host.len());
        let cut = (self.window.at() > len).then(|| {
            format!("snapshot {index} of {count}, at {at:#x}: runs past the end of the file, which has {len} bytes")
        });
        Ok(Snapshot {
            id,
            name,
            flaw: cut.or(too_large),
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
        let (host, index, count) = (self.host, self.next, self.count);
        self.window.take(len)?.ok_or_else(|| {
            let why = format!("makes the table longer than {TABLE_MAX} bytes");
            unusable(host, format!("snapshot {index} of {count}, at {entry:#x}: {why}"))
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
