//! Page-aligned memory. O_DIRECT requires it, and the kernel copies to and from it fastest.

use std::ops::{Deref, DerefMut};

use bytes::BytesMut;

/// Alignment of buffers in bytes. No device or file system requires more.
pub const ALIGN: usize = 4096;

/// A page-aligned buffer. Reading into a buffer that is not aligned takes a third more time.
#[derive(Debug)]
pub struct Aligned {
    buffer: Vec<u8>,
    /// Bytes before the first page boundary.
    skew: usize,
    len: usize,
}

impl Aligned {
    /// Creates a buffer of `len` zeros. The kernel allocates a page when it is first written.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let buffer = vec![0; len + ALIGN];
        let skew = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { buffer, skew, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.skew..self.skew + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.skew..self.skew + self.len]
    }
}

/// Creates a page-aligned [`BytesMut`] of `len` zeros, which can be split and shared.
pub fn aligned_bytes(len: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(len + ALIGN);
    let skew = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
    drop(buffer.split_to(skew));
    buffer.truncate(len);
    buffer
}
