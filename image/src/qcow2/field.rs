//! A number in an image, with its name and place, so that a refusal can say both.

use std::fmt;

use xfer_hole_os::{DiskError, DiskErrorKind};

use crate::ImageFile;

/// A number of a header or table entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderField {
    /// As the qcow2 specification calls it.
    pub(crate) name: &'static str,
    /// Bytes from the file's beginning.
    pub(crate) at: u64,
}

impl HeaderField {
    /// A field of the header.
    pub(crate) const fn new(name: &'static str, at: u64) -> Self {
        Self { name, at }
    }

    /// Four bytes of `header`, which begins where the file does.
    pub(crate) fn u32(self, header: &[u8]) -> u32 {
        be32(header, usize::try_from(self.at).unwrap_or(usize::MAX))
    }

    /// Eight bytes of `header`, which begins where the file does.
    pub(crate) fn u64(self, header: &[u8]) -> u64 {
        be64(header, usize::try_from(self.at).unwrap_or(usize::MAX))
    }

    /// The refusal of its value, which is a count or the like.
    pub(crate) fn bad(self, host: &ImageFile, value: impl fmt::Display, why: impl fmt::Display) -> DiskError {
        unusable(host, format!("{} at {:#x} is {value}: {why}", self.name, self.at))
    }

    /// The refusal of its value, which is an offset or a set of bits.
    pub(crate) fn bad_offset(self, host: &ImageFile, value: u64, why: impl fmt::Display) -> DiskError {
        self.bad(host, format_args!("{value:#x}"), why)
    }
}

/// An image that isn't as the format wants it, or wants more than we can do.
pub(crate) fn unusable(host: &ImageFile, what: impl Into<String>) -> DiskError {
    host.error(DiskErrorKind::Unsupported, what)
}

/// The big-endian number at `at`; zero where there are too few bytes.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_be_bytes(*four))
}

/// The same of eight bytes.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_be_bytes(*eight))
}

/// The same of two.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |two| u16::from_be_bytes(*two))
}

/// A string of the image up to its first NUL, where QEMU's strings end too.
pub(crate) fn string(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A string of the image that is safe to print: control characters escaped, what isn't UTF-8 replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    xfer_hole_os::shown(std::path::Path::new(&*String::from_utf8_lossy(bytes)))
}
