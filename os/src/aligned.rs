//! Memory that begins at a page: what O_DIRECT asks for, and what the kernel copies fastest from and to.

use std::ops::{Deref, DerefMut};

use bytes::BytesMut;

/// Buffers begin at a multiple of this, in bytes: no device or file system asks for more.
pub const ALIGN: usize = 4096;

/// A buffer that begins at a page. What is read into one that doesn't costs a third more.
#[derive(Debug)]
pub struct Aligned {
    buffer: Vec<u8>,
    /// Bytes ahead of the first page.
    skew: usize,
    len: usize,
}

impl Aligned {
    /// A buffer of `len` zeros. Pages that nobody touches are none.
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

/// The same as a buffer that can be shared.
pub fn aligned_bytes(len: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(len + ALIGN);
    let skew = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
    drop(buffer.split_to(skew));
    buffer.truncate(len);
    buffer
}
