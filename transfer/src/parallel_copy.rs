//! Copies a disk into a [`DiskWriter`] on this machine, with several threads, in any order. Each thread holds one small
//! buffer, whose size fits the processor's cache.
//!
//! ```text
//! Plan ─▶ WorkSplitter ─▶ threads: work unit ─▶ buffer (read, searched for zeros) ─▶ DiskWriter
//! ```
//!
//! The result equals that of a [`SerialReader`](xfer_hole_pipeline::SerialReader) and a
//! [`Coalescer`](xfer_hole_pipeline::Coalescer) whose pieces are written in order.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use xfer_hole_image::Disk;
use xfer_hole_os::sys::Spliced;
use xfer_hole_os::{Aligned, DiskError, DiskErrorKind, Result};
use xfer_hole_pipeline::{
    Payload, PayloadPart, Plan, ProgressCounters, ReadOptions, UnitPart, UnitSource, WorkSplitter, WorkUnit,
    ZeroDetector,
};
use xfer_hole_target::DiskWriter;

/// Bytes of the disk that a thread reads at once. They are still in the processor's cache when they are searched for
/// zeros and written.
const BUFFER: u64 = 256 << 10;

/// Bytes that a thread reads at once with direct I/O, where each read is a request to a device.
const DIRECT_BUFFER: u64 = 1 << 20;

/// Maximum number of copying threads: more would wait for each other at the target.
pub const COPY_THREADS_MAX: usize = 8;

/// Returns the number of threads for a copy whose data is searched for zeros: one for each processor, at most
/// [`COPY_THREADS_MAX`].
#[must_use]
pub fn copy_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(COPY_THREADS_MAX)
}

/// A disk, and the writer that it is copied to.
#[derive(Clone, Copy)]
pub struct ParallelCopy<'a> {
    /// The disk.
    pub image: &'a dyn Disk,
    /// How zeros are found. Digests and a minimum hole length are not supported: the writer decides about holes.
    pub shape: ReadOptions,
    /// The [positional](DiskWriter::is_positional) writer.
    pub sink: &'a dyn DiskWriter,
    /// True if data that isn't searched for zeros may be shared with the disk's files, or copied by the kernel.
    pub share: bool,
    /// Counters of the progress.
    pub counters: &'a ProgressCounters,
}

/// State that all copying threads share.
struct CopyShared<'a> {
    copy: ParallelCopy<'a>,
    splitter: Mutex<WorkSplitter<'a>>,
    /// True if no more work units are to be taken.
    over: AtomicBool,
    /// The error, and the disk offset of its work unit. Of several errors, it is the one with the lowest offset.
    failed: Mutex<Option<(u64, DiskError)>>,
}

impl ParallelCopy<'_> {
    /// Copies the whole disk, or what changed since the older state that it is compared with, with up to `count`
    /// threads including the calling one.
    ///
    /// # Errors
    ///
    /// Read and write errors. It is the error that a single thread would have met first.
    pub fn all(self, count: usize) -> Result<()> {
        self.by(Plan::changed(self.image, 1), count)
    }

    /// Copies what the disk's layers have over what the writer holds, with up to `count` threads. Bytes that no layer
    /// has are left unchanged.
    ///
    /// # Errors
    ///
    /// Read and write errors. It is the error that a single thread would have met first.
    pub fn over(self, count: usize) -> Result<()> {
        self.by(Plan::over(self.image), count)
    }

    fn by(self, plan: Plan<'_>, count: usize) -> Result<()> {
        let splitter = Mutex::new(WorkSplitter::for_copy(plan, self.image, &self.shape));
        let shared = CopyShared { copy: self, splitter, over: AtomicBool::new(false), failed: Mutex::new(None) };
        thread::scope(|scope| {
            for _ in 1..count {
                // If a thread can't be started, the copy runs with fewer.
                let _started = thread::Builder::new().spawn_scoped(scope, || shared.work());
            }
            shared.work();
        });
        let failed = shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl CopyShared<'_> {
    fn work(&self) {
        let mut worker = CopyWorker::new(self.copy);
        while !self.over.load(Ordering::Relaxed) {
            // Units are taken in order: when one fails, all before it were taken and will be finished.
            let drawn = self.splitter.lock().unwrap_or_else(PoisonError::into_inner).unit();
            let (start, copied) = match drawn {
                Ok(Some(unit)) => (unit.start, worker.copy(&unit)),
                Ok(None) => return,
                Err(error) => (u64::MAX, Err(error)),
            };
            if let Err(error) = copied {
                self.over.store(true, Ordering::Relaxed);
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(first, _)| start < *first) {
                    *failed = Some((start, error));
                }
            }
        }
    }
}

/// Copies work units, one at a time.
struct CopyWorker<'a> {
    copy: ParallelCopy<'a>,
    /// Size of the buffer in bytes, a power of two. It is at least a chunk of the image, so that no chunk is read
    /// twice.
    size: u64,
    buffer: Aligned,
    /// Disk offset of the first byte in the buffer; `at` is the disk offset after the last one.
    from: u64,
    at: u64,
    detector: ZeroDetector,
    /// Start and length in bytes of a hole that may continue.
    hole: (u64, u64),
    /// True until the kernel refuses to share or copy.
    share: bool,
}

impl<'a> CopyWorker<'a> {
    fn new(copy: ParallelCopy<'a>) -> Self {
        let buffer = if copy.image.is_direct() { DIRECT_BUFFER } else { BUFFER };
        let size = buffer.max(copy.shape.grain()).max(copy.image.chunk());
        let share = copy.share && !copy.shape.detects_zeros();
        let detector = ZeroDetector::new(0, copy.shape.grain(), copy.shape.interval());
        let buffer = Aligned::zeroed(length(size));
        Self { copy, size, buffer, from: 0, at: 0, detector, hole: (0, 0), share }
    }

    fn copy(&mut self, unit: &WorkUnit) -> Result<()> {
        self.begin(unit.start);
        for part in &unit.parts {
            match part.source {
                UnitSource::Zero => self.zeros(part.len)?,
                UnitSource::Keep => self.keep(part.len)?,
                UnitSource::File { offset, .. } if self.share => self.copy_part(part, offset)?,
                UnitSource::File { extent, .. } | UnitSource::Memory(extent) => {
                    self.bytes(part.len, |image, at, bytes| image.read(&extent, at, bytes))?;
                }
            }
        }
        self.flush()?;
        self.close_hole()
    }

    /// Empties the buffer and sets the disk offset that it begins at.
    fn begin(&mut self, at: u64) {
        (self.from, self.at) = (at, at);
        self.detector = ZeroDetector::new(at, self.copy.shape.grain(), self.copy.shape.interval());
    }

    /// Adds `len` zero bytes.
    fn zeros(&mut self, len: u64) -> Result<()> {
        let grain = self.copy.shape.grain();
        let end = self.at + len;
        if self.at > self.from {
            // First, the rest of a grain that has begun.
            self.fill(self.at.next_multiple_of(grain).min(end))?;
        }
        let whole = end - end % grain;
        if self.at < whole {
            self.flush()?;
            self.add_hole(self.at, whole - self.at)?;
            self.begin(whole);
        }
        self.fill(end)
    }

    /// Leaves `len` bytes of the target unchanged.
    fn keep(&mut self, len: u64) -> Result<()> {
        self.flush()?;
        self.close_hole()?;
        self.copy.sink.keep_existing(self.at, len)?;
        self.done(len, 0);
        self.copy.counters.add_kept(len);
        self.begin(self.at + len);
        Ok(())
    }

    /// Adds zeros to the buffer up to disk offset `end`, which is at most the end of the grain.
    fn fill(&mut self, end: u64) -> Result<()> {
        let len = end - self.at;
        if len == 0 {
            return Ok(());
        }
        self.bytes(len, |_, _, bytes| {
            bytes.fill(0);
            Ok(())
        })
    }

    /// Adds `len` bytes that `read` puts into the buffer.
    fn bytes(&mut self, len: u64, read: impl Fn(&dyn Disk, u64, &mut [u8]) -> Result<()>) -> Result<()> {
        let end = self.at + len;
        while self.at < end {
            let last = self.from - self.from % self.size + self.size;
            let piece = length(last.min(end) - self.at);
            let position = self.position(self.at);
            let bytes = &mut self.buffer[position..position + piece];
            read(self.copy.image, self.at, bytes)?;
            match self.copy.shape.detects_zeros() {
                true => self.detector.bytes(bytes),
                false => self.detector.data(piece as u64),
            }
            self.at += piece as u64;
            if self.at == last {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Returns the position of a disk offset in the buffer.
    fn position(&self, at: u64) -> usize {
        length(at - self.from)
    }

    /// Copies a part that lies at `offset` in a file, through the kernel if possible, and without a search for zeros.
    fn copy_part(&mut self, part: &UnitPart, offset: u64) -> Result<()> {
        self.flush()?;
        let (UnitSource::File { extent, .. } | UnitSource::Memory(extent)) = part.source else { return Ok(()) };
        let file = self.copy.image.host(extent.depth);
        let mut moved = 0;
        while let Some(file) = file.filter(|_| self.share && moved < part.len) {
            // Bytes after the length that the file had at the beginning read as zeros.
            let most = (part.len - moved).min(file.len().saturating_sub(offset + moved));
            if most == 0 {
                break;
            }
            self.close_hole()?;
            match self.copy.sink.data_from_file(self.at, file.file(), offset + moved, most)? {
                // The following read returns the error.
                Spliced::Moved(0) => break,
                Spliced::Moved(bytes) => {
                    moved += bytes;
                    self.done(bytes, bytes);
                    self.begin(self.at + bytes);
                }
                Spliced::Refused => self.share = false,
            }
        }
        self.bytes(part.len - moved, |image, at, bytes| image.read(&extent, at, bytes))
    }

    /// Writes the buffer, and begins the next one at the offset reached.
    fn flush(&mut self) -> Result<()> {
        let next = ZeroDetector::new(self.at, self.copy.shape.grain(), self.copy.shape.interval());
        let segments = std::mem::replace(&mut self.detector, next).finish();
        let mut at = self.from;
        for (len, data) in segments {
            if data {
                self.close_hole()?;
                let position = self.position(at);
                self.copy.sink.preallocate_hint(at, len);
                self.copy.sink.write_at(at, &self.buffer[position..position + length(len)])?;
                self.done(len, len);
            } else {
                self.add_hole(at, len)?;
            }
            at += len;
        }
        self.from = self.at;
        Ok(())
    }

    fn add_hole(&mut self, at: u64, len: u64) -> Result<()> {
        if self.hole.0 + self.hole.1 != at {
            self.close_hole()?;
            self.hole.0 = at;
        }
        self.hole.1 += len;
        Ok(())
    }

    fn close_hole(&mut self) -> Result<()> {
        let (at, len) = std::mem::take(&mut self.hole);
        if len > 0 {
            self.copy.sink.zero_range(at, len)?;
            self.done(len, 0);
        }
        Ok(())
    }

    fn done(&self, disk: u64, data: u64) {
        self.copy.counters.add_disk(disk);
        self.copy.counters.add_data(data);
    }
}

/// Converts a length of bytes in memory.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Writes a payload at disk offset `at`: bytes in memory, and ranges of the files of the disk's layers, which are read
/// into `buffer`.
///
/// # Errors
///
/// Read and write errors.
pub fn put(image: &dyn Disk, payload: &Payload, sink: &dyn DiskWriter, at: u64, buffer: &mut Vec<u8>) -> Result<()> {
    let mut at = at;
    for part in payload.parts() {
        match part {
            PayloadPart::Bytes(bytes) => sink.write_at(at, bytes)?,
            PayloadPart::Range { depth, at: from, len } => {
                let no_file = || DiskError::new(DiskErrorKind::Io, "extents", format!("layer {depth} has no file"));
                let file = image.host(*depth).ok_or_else(no_file)?;
                sink.preallocate_hint(at, *len);
                let mut moved = 0;
                while moved < *len {
                    let piece = BUFFER.min(len - moved);
                    buffer.resize(length(piece), 0);
                    file.read_at(from + moved, buffer)?;
                    sink.write_at(at + moved, buffer)?;
                    moved += piece;
                }
            }
        }
        at += part.len();
    }
    Ok(())
}
