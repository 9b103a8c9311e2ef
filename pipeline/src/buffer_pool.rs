//! Page-aligned buffers of one size that hold the bytes of batches. A buffer is reused once its batch was dropped.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use xfer_hole_os::aligned_bytes;

/// A pool of page-aligned buffers. It holds all buffers except those that are being filled.
pub(crate) struct BufferPool {
    /// Size of each buffer, in bytes.
    size: usize,
    /// Buffers of finished batches. Some of them may still be referenced by a payload.
    kept: Mutex<Vec<Bytes>>,
}

impl BufferPool {
    /// Creates an empty pool for buffers of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, kept: Mutex::new(Vec::new()) }
    }

    /// Returns a buffer of at least `bytes` bytes, or an empty one for 0 bytes. Its content is unspecified: it may hold
    /// bytes of an earlier batch.
    pub(crate) fn take(&self, bytes: usize) -> BytesMut {
        if bytes == 0 {
            return BytesMut::new();
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let free = kept.iter().position(Bytes::is_unique).map(|free| kept.swap_remove(free));
        let free = free.and_then(|free| free.try_into_mut().ok());
        // `bytes` never exceeds the pool's size. Pages of a buffer that are never written take no memory.
        free.filter(|free| free.len() >= bytes).unwrap_or_else(|| aligned_bytes(self.size.max(bytes)))
    }

    /// Returns a buffer to the pool. It is reused once no payload references it.
    pub(crate) fn give_back(&self, buffer: Bytes) {
        if !buffer.is_empty() {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xfer_hole_os::ALIGN;

    #[test]
    fn buffer_is_reused_only_when_unreferenced() {
        let buffers = BufferPool::new(8192);
        let first = buffers.take(10).freeze();
        let held = first.slice(5..6);
        let address = first.as_ptr();
        buffers.give_back(first);
        let second = buffers.take(8192);
        assert_ne!(second.as_ptr(), address);
        assert!(address.align_offset(ALIGN) == 0 && second.as_ptr().align_offset(ALIGN) == 0);
        drop(held);
        assert_eq!(buffers.take(1).as_ptr(), address);
        assert_eq!(buffers.take(0).len(), 0);
    }
}
