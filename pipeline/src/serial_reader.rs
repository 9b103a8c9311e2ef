//! Reads a disk's work units sequentially, on the calling thread: the specification of [`ParallelReader`](crate::ParallelReader).
//!
//! ```text
//! Plan ─▶ WorkSplitter ─▶ UnitReader ─▶ batches of segments, in order
//!         work units      reads the bytes of a unit; ZeroDetector finds its segments
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

/// Yields the batches of a disk, in order, covering it exactly once. The iterator ends after the first error.
pub struct SerialReader<'a> {
    splitter: WorkSplitter<'a>,
    reader: UnitReader<'a>,
    failed: bool,
}

impl<'a> SerialReader<'a> {
    /// Creates a reader of this disk.
    #[must_use]
    pub fn new(image: &'a dyn Disk, options: ReadOptions) -> Self {
        let memory = usize::try_from(WorkSplitter::memory(image, &options)).unwrap_or(usize::MAX);
        let (buffers, stop) = (Arc::new(BufferPool::new(memory)), Arc::new(AtomicBool::new(false)));
        Self {
            splitter: WorkSplitter::new(image, &options),
            reader: UnitReader::new(image, options, buffers, stop),
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
        let batch = unit.and_then(|unit| self.reader.read_unit(&unit));
        self.failed = batch.is_err();
        Some(batch)
    }
}
