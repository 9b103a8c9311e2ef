//! Reads the directory of persistent bitmaps, which lists them. [`crate::changes::dirty_bitmap`] reads their content.
//!
//! qcow2 specification, "Bitmaps" and "Bitmap directory". The limits are QEMU's, with its names. The checks are those
//! of QEMU's `bitmap_list_load` and `check_dir_entry`.

use xfer_hole_os::{DiskError, DiskErrorKind, Result};

use super::buffered_range::BufferedRange;
use super::extension::BitmapDirectory;
use super::field::{be16, be32, be64, printable, string, unusable};
use super::geometry::{Geometry, HostOffset};
use super::header::Header;
use crate::ImageFile;

/// Size of an entry in bytes, without its name.
const ENTRY: u32 = 24;
/// QEMU's BME_MAX_TABLE_SIZE, in entries.
const TABLE_MAX: u32 = 0x800_0000;
/// QEMU's BME_MAX_PHYS_SIZE, in bytes.
const BITMAP_MAX: u64 = 0x2000_0000;
/// QEMU's BME_MIN_GRANULARITY_BITS and BME_MAX_GRANULARITY_BITS.
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
/// QEMU's BME_MAX_NAME_SIZE, in bytes.
const NAME_MAX: u16 = 1023;
/// The maximum number of bitmaps that a message names.
const NAMED: usize = 8;
/// The only type of bitmap that the specification defines: dirty tracking.
const DIRTY_TRACKING: u8 = 1;

/// A persistent bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bitmap {
    /// Its name, safe to print.
    pub(crate) name: String,
    /// The number of bytes of the disk per bit.
    pub(crate) granularity: u64,
    /// A program was writing to it and didn't write it back, so its content is not reliable.
    pub(crate) in_use: bool,
    /// A program that opens the image for writing must update it.
    pub(crate) auto: bool,
}

/// The location of a bitmap's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BitmapTableRef {
    /// The bitmap's name, in the bytes of the image.
    name: Box<[u8]>,
    /// Offset of its table in the file: a multiple of the cluster size, after the header.
    pub(crate) table: u64,
    /// The number of entries of the table. They cover the disk, unless the bitmap is in use.
    pub(crate) entries: u32,
}

/// The bitmaps of an image, in the order of the directory. An error ends the iteration.
pub(crate) struct Bitmaps<'a> {
    file: &'a ImageFile,
    geometry: Geometry,
    range: BufferedRange<'a>,
    /// Size of the disk in bytes.
    size: u64,
    count: u32,
    next: u32,
    failed: bool,
}

impl<'a> Bitmaps<'a> {
    /// The bitmaps of the image with this header. None if the bitmaps extension is not current.
    pub(crate) fn new(file: &'a ImageFile, header: &Header) -> Result<Self> {
        let none = BitmapDirectory { count: 0, offset: HostOffset(0), len: 0 };
        let BitmapDirectory { count, offset: HostOffset(offset), len } = header.extensions.bitmaps.unwrap_or(none);
        let end = offset.saturating_add(len);
        if end > file.len() {
            let what = format!("the bitmap directory at {offset:#x}, of {len} bytes, runs past the end of the file");
            return Err(unusable(file, what));
        }
        let range = BufferedRange::new(file, offset, end);
        Ok(Self { file, geometry: header.geometry, range, size: header.size, count, next: 0, failed: false })
    }

    /// Finds the bitmap with this name, which must have been written back.
    pub(crate) fn find(mut self, wanted: &[u8]) -> Result<(Bitmap, BitmapTableRef)> {
        let file = self.file;
        let refused = |what: String| DiskError::new(DiskErrorKind::Refused, file.path(), what);
        let (mut known, count) = (Vec::new(), self.count);
        while self.next < count {
            self.next += 1;
            let (bitmap, table_ref) = self.read()?;
            if *table_ref.name != *wanted {
                known.extend((known.len() < NAMED).then(|| format!("\"{}\"", bitmap.name)));
                continue;
            }
            if bitmap.in_use {
                let what = "is marked as in use: it was not written back, and may lack changes";
                return Err(refused(format!("bitmap \"{}\" {what}", bitmap.name))
                    .hint("send the whole disk once, and begin with a new bitmap: qemu-img bitmap --remove, --add"));
            }
            return Ok((bitmap, table_ref));
        }
        let wanted = printable(wanted);
        Err(match count as usize {
            0 => refused(format!("there is no bitmap \"{wanted}\": the image has none that is up to date")),
            count => {
                let more =
                    if count > known.len() { format!(" and {} more", count - known.len()) } else { String::new() };
                refused(format!("there is no bitmap \"{wanted}\", there are {}{more}", known.join(", ")))
            }
        })
    }

    fn read(&mut self) -> Result<(Bitmap, BitmapTableRef)> {
        let at = self.range.at();
        let (file, count, index) = (self.file, self.count, self.next);
        let broken = |what: String| unusable(file, format!("bitmap {index} of {count}, at {at:#x}: {what}"));
        let cut = || broken("runs past the end of the directory".into());
        let fixed = self.range.take(ENTRY)?.ok_or_else(cut)?;
        let (offset, entries, flags) = (be64(fixed, 0), be32(fixed, 8), be32(fixed, 12));
        let (kind, granularity_bits, name_len) = (fixed[16], fixed[17], be16(fixed, 18));
        let extra_len = be32(fixed, 20);
        let in_use = flags & 1 != 0;
        if extra_len != 0 {
            return Err(broken(format!("has {extra_len} bytes of extra data, which are unknown")));
        }
        if kind != DIRTY_TRACKING {
            return Err(broken(format!("its type {kind} is unknown")));
        }
        if flags & !3 != 0 {
            return Err(broken(format!("its flags {flags:#x} are unknown")));
        }
        if !GRANULARITY_BITS.contains(&granularity_bits) {
            return Err(broken(format!("its granularity is 2^{granularity_bits}, not 2^9 to 2^31 bytes")));
        }
        if name_len > NAME_MAX {
            return Err(broken(format!("its name has {name_len} bytes, {NAME_MAX} are the most")));
        }
        if offset == 0 || self.geometry.misalignment(offset) != 0 {
            return Err(broken(format!("its table at {offset:#x} is not at a cluster behind the header")));
        }
        let bytes = u64::from(entries) << self.geometry.cluster_bits;
        if entries == 0 || entries > TABLE_MAX || bytes > BITMAP_MAX {
            return Err(broken(format!(
                "its table has {entries} entries, not 1 to those of a bitmap of {BITMAP_MAX} bytes"
            )));
        }
        // No overflow: 2^29 bytes of 8 bits, each for at most 2^31 bytes.
        let covered = (bytes * 8) << granularity_bits;
        if !in_use && covered < self.size {
            return Err(broken(format!("covers {covered} bytes of a disk of {}", self.size)));
        }
        let stands = self.range.take(u32::from(name_len))?.ok_or_else(cut)?;
        let (name, stands) = (printable(string(stands)), stands.into());
        self.range.align();
        let bitmap = Bitmap { name, granularity: 1 << granularity_bits, in_use, auto: flags & 2 != 0 };
        Ok((bitmap, BitmapTableRef { name: stands, table: offset, entries }))
    }
}

impl Iterator for Bitmaps<'_> {
    type Item = Result<Bitmap>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.next == self.count {
            self.failed = !self.range.is_empty();
            let what =
                || format!("the bitmap directory goes on at {:#x}, behind its {} bitmaps", self.range.at(), self.count);
            return self.failed.then(|| Err(unusable(self.file, what())));
        }
        self.next += 1;
        let bitmap = self.read().map(|(bitmap, _)| bitmap);
        self.failed = bitmap.is_err();
        Some(bitmap)
    }
}

#[cfg(test)]
mod tests;
