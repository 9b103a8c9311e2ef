//! The memory that blocks' bytes are held in: buffers of one size that begin at a page, used again once their block is gone.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use xfer_hole_os::aligned_bytes;

/// All the buffers there are, but for those in work.
pub(crate) struct BufferPool {
    /// Bytes of each.
    size: usize,
    /// Those of finished blocks, of which some may still be held.
    kept: Mutex<Vec<Bytes>>,
}

impl BufferPool {
    /// None yet; each will have this many bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, kept: Mutex::new(Vec::new()) }
    }

    /// A buffer with room for `bytes`. What an earlier block left in it is nobody's.
    pub(crate) fn take(&self, bytes: usize) -> BytesMut {
        if bytes == 0 {
            return BytesMut::new();
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let free = kept.iter().position(Bytes::is_unique).map(|free| kept.swap_remove(free));
        let free = free.and_then(|free| free.try_into_mut().ok());
        // Nothing asks for more than the size. Pages that nobody touches are none.
        free.filter(|free| free.len() >= bytes).unwrap_or_else(|| aligned_bytes(self.size.max(bytes)))
    }

    /// The block that took this buffer is finished.
    pub(crate) fn keep(&self, buffer: Bytes) {
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
    fn a_buffer_is_taken_again_when_nobody_holds_it_and_not_before() {
        let buffers = BufferPool::new(8192);
        let first = buffers.take(10).freeze();
        let held = first.slice(5..6);
        let place = first.as_ptr();
        buffers.keep(first);
        let second = buffers.take(8192);
        assert_ne!(second.as_ptr(), place);
        assert!(place.align_offset(ALIGN) == 0 && second.as_ptr().align_offset(ALIGN) == 0);
        drop(held);
        assert_eq!(buffers.take(1).as_ptr(), place);
        assert_eq!(buffers.take(0).len(), 0);
    }
}
