//! Reads a disk's work units sequentially, on the calling thread: the specification of [`ParallelReader`](crate::ParallelReader).
//!
//! ```text
//! Plan ─▶ WorkSplitter ─▶ UnitReader ─▶ batches of segments, in order
//!         work units      reads the bytes of a unit (into a buffer, or through a window), ZeroDetector finds segments
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use xfer_hole_image::Disk;
use xfer_hole_os::Result;

use crate::buffer_pool::BufferPool;
use crate::read_options::ReadOptions;
use crate::segment::SegmentBatch;
use crate::unit_reader::UnitReader;
use crate::work_unit::WorkSplitter;

/// The blocks of a disk, in order, covering it once. An error is the last.
pub struct SerialReader<'a> {
    splitter: WorkSplitter<'a>,
    gather: UnitReader<'a>,
    failed: bool,
}

impl<'a> SerialReader<'a> {
    /// The blocks of this disk.
    #[must_use]
    pub fn new(image: &'a dyn Disk, shape: ReadOptions) -> Self {
        let memory = usize::try_from(WorkSplitter::memory(image, &shape)).unwrap_or(usize::MAX);
        let (buffers, stop) = (Arc::new(BufferPool::new(memory)), Arc::new(AtomicBool::new(false)));
        Self {
            splitter: WorkSplitter::new(image, &shape),
            gather: UnitReader::new(image, shape, buffers, stop),
            failed: false,
        }
    }
}

impl Iterator for SerialReader<'_> {
    type Item = Result<SegmentBatch>;

    fn next(&mut self) -> Option<Result<SegmentBatch>> {
        if self.failed {
            return None;
        }
        let unit = self.splitter.unit().transpose()?;
        let block = unit.and_then(|unit| self.gather.block(&unit));
        self.failed = block.is_err();
        Some(block)
    }
}
