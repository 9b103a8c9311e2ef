//! A number field of an image, with its name and offset for error messages.

use std::fmt;

use xfer_hole_os::{DiskError, DiskErrorKind};

use crate::ImageFile;

/// A number field of a header or table entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderField {
    /// Its name in the qcow2 specification.
    pub(crate) name: &'static str,
    /// Its file offset in bytes.
    pub(crate) at: u64,
}

impl HeaderField {
    /// Creates a field of the header.
    pub(crate) const fn new(name: &'static str, at: u64) -> Self {
        Self { name, at }
    }

    /// Reads a field of four bytes. `header` begins at file offset 0.
    pub(crate) fn u32(self, header: &[u8]) -> u32 {
        be32(header, usize::try_from(self.at).unwrap_or(usize::MAX))
    }

    /// Reads a field of eight bytes. `header` begins at file offset 0.
    pub(crate) fn u64(self, header: &[u8]) -> u64 {
        be64(header, usize::try_from(self.at).unwrap_or(usize::MAX))
    }

    /// The error for an invalid count or similar value.
    pub(crate) fn bad(self, file: &ImageFile, value: impl fmt::Display, why: impl fmt::Display) -> DiskError {
        unusable(file, format!("{} at {:#x} is {value}: {why}", self.name, self.at))
    }

    /// The error for an invalid offset or set of bits, which the message shows in hexadecimal.
    pub(crate) fn bad_offset(self, file: &ImageFile, value: u64, why: impl fmt::Display) -> DiskError {
        self.bad(file, format_args!("{value:#x}"), why)
    }
}

/// The error for an image that is invalid, or needs an unsupported feature.
pub(crate) fn unusable(file: &ImageFile, what: impl Into<String>) -> DiskError {
    file.error(DiskErrorKind::Unsupported, what)
}

/// The big-endian number of four bytes at `at`. Zero if there are fewer bytes.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_be_bytes(*four))
}

/// The big-endian number of eight bytes at `at`. Zero if there are fewer bytes.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_be_bytes(*eight))
}

/// The big-endian number of two bytes at `at`. Zero if there are fewer bytes.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |two| u16::from_be_bytes(*two))
}

/// A string of the image up to its first NUL, where it ends in QEMU too.
pub(crate) fn string(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A string of the image, safe to print: control characters are escaped, and bytes that are not UTF-8 are replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    xfer_hole_os::shown(std::path::Path::new(&*String::from_utf8_lossy(bytes)))
}
