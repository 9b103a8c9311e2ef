//! A disk that goes into a sink on this machine: many pour at a time, in no order, and hold little more than a cache does.
//!
//! ```text
//! Plan ─▶ Dealer ─▶ each: stretches ─▶ window (read, judged) ─▶ Sink
//! ```
//!
//! What comes of it is what [`SerialReader`](super::Blocks) and [`Coalescer`](crate::Coalescer) give, put into a sink one after the other.

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

/// Bytes of the disk that are held at once: they are in the cache still when they are judged and written.
const WINDOW: u64 = 256 << 10;

/// The same past the page cache, where each window is a request to a device.
const DIRECT_WINDOW: u64 = 1 << 20;

/// Threads that copy, at most: more would wait for each other at the target.
pub const COPY_THREADS_MAX: usize = 8;

/// Threads for a copy whose data a processor has to look at: one for each processor, [`COPY_THREADS_MAX`] at most.
#[must_use]
pub fn copy_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(COPY_THREADS_MAX)
}

/// A disk, and where it is to go.
#[derive(Clone, Copy)]
pub struct ParallelCopy<'a> {
    /// The disk.
    pub image: &'a dyn Disk,
    /// How zeros are found: without digests, and without a shortest hole. Its holes are the sink's.
    pub shape: ReadOptions,
    /// Where it goes: a [positional](Sink::is_positional) one.
    pub sink: &'a dyn DiskWriter,
    /// What need not be looked at may be shared with the files of the disk, or copied by the kernel.
    pub share: bool,
    /// Is told of all that is done.
    pub counters: &'a ProgressCounters,
}

/// What all who pour share.
struct CopyShared<'a> {
    copy: ParallelCopy<'a>,
    splitter: Mutex<WorkSplitter<'a>>,
    /// Nothing more is to be dealt.
    over: AtomicBool,
    /// What failed, and at which deal: that nearest to the disk's beginning.
    failed: Mutex<Option<(u64, DiskError)>>,
}

impl ParallelCopy<'_> {
    /// Pours all of the disk, or what changed since the older state that it is compared with, by up to `count` threads, of which the
    /// caller is one. The error is the one that one thread would have met first.
    pub fn all(self, count: usize) -> Result<()> {
        self.by(Plan::changed(self.image, 1), count)
    }

    /// The same of what the disk's layers have, over what the sink holds: what none of them has is kept.
    pub fn over(self, count: usize) -> Result<()> {
        self.by(Plan::over(self.image), count)
    }

    fn by(self, plan: Plan<'_>, count: usize) -> Result<()> {
        let splitter = Mutex::new(WorkSplitter::for_copy(plan, self.image, &self.shape));
        let shared = CopyShared { copy: self, splitter, over: AtomicBool::new(false), failed: Mutex::new(None) };
        thread::scope(|scope| {
            for _ in 1..count {
                // A thread that isn't to be had is one less.
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
            // Dealt in order: when one fails, all before it have been taken, and are finished.
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

/// One who pours, deal by deal.
struct CopyWorker<'a> {
    copy: ParallelCopy<'a>,
    /// Bytes that a window has at most, a power of two: no chunk of the image is read twice.
    size: u64,
    window: Aligned,
    /// Disk offsets: what is in the window, from its beginning.
    from: u64,
    at: u64,
    detector: ZeroDetector,
    /// Zeros that more may follow: start and length in bytes.
    hole: (u64, u64),
    /// Until the kernel refuses.
    share: bool,
}

impl<'a> CopyWorker<'a> {
    fn new(copy: ParallelCopy<'a>) -> Self {
        let window = if copy.image.is_direct() { DIRECT_WINDOW } else { WINDOW };
        let size = window.max(copy.shape.grain()).max(copy.image.chunk());
        let share = copy.share && !copy.shape.detects_zeros();
        let detector = ZeroDetector::new(0, copy.shape.grain(), copy.shape.interval());
        let window = Aligned::zeroed(length(size));
        Self { copy, size, window, from: 0, at: 0, detector, hole: (0, 0), share }
    }

    fn copy(&mut self, unit: &WorkUnit) -> Result<()> {
        self.begin(unit.start);
        for part in &unit.parts {
            match part.source {
                UnitSource::Zero => self.zeros(part.len)?,
                UnitSource::Keep => self.keep(part.len)?,
                UnitSource::File { offset, .. } if self.share => self.range(part, offset)?,
                UnitSource::File { extent, .. } | UnitSource::Memory(extent) => {
                    self.bytes(part.len, |image, at, bytes| image.read(&extent, at, bytes))?;
                }
            }
        }
        self.empty()?;
        self.close_hole()
    }

    /// An empty window at this disk offset.
    fn begin(&mut self, at: u64) {
        (self.from, self.at) = (at, at);
        self.detector = ZeroDetector::new(at, self.copy.shape.grain(), self.copy.shape.interval());
    }

    /// The next `len` bytes are zeros.
    fn zeros(&mut self, len: u64) -> Result<()> {
        let grain = self.copy.shape.grain();
        let end = self.at + len;
        if self.at > self.from {
            // The rest of a grain that is begun.
            self.fill(self.at.next_multiple_of(grain).min(end))?;
        }
        let whole = end - end % grain;
        if self.at < whole {
            self.empty()?;
            self.add_hole(self.at, whole - self.at)?;
            self.begin(whole);
        }
        self.fill(end)
    }

    /// The next `len` bytes are the sink's already.
    fn keep(&mut self, len: u64) -> Result<()> {
        self.empty()?;
        self.close_hole()?;
        self.copy.sink.keep_existing(self.at, len)?;
        self.done(len, 0);
        self.copy.counters.add_kept(len);
        self.begin(self.at + len);
        Ok(())
    }

    /// Zeros in the window up to this offset, which is not beyond the grain.
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

    /// The next `len` bytes are those that `read` gives.
    fn bytes(&mut self, len: u64, read: impl Fn(&dyn Disk, u64, &mut [u8]) -> Result<()>) -> Result<()> {
        let end = self.at + len;
        while self.at < end {
            let last = self.from - self.from % self.size + self.size;
            let piece = length(last.min(end) - self.at);
            let place = self.place(self.at);
            let bytes = &mut self.window[place..place + piece];
            read(self.copy.image, self.at, bytes)?;
            match self.copy.shape.detects_zeros() {
                true => self.detector.bytes(bytes),
                false => self.detector.data(piece as u64),
            }
            self.at += piece as u64;
            if self.at == last {
                self.empty()?;
            }
        }
        Ok(())
    }

    /// Where in the window an offset of the disk is held.
    fn place(&self, at: u64) -> usize {
        length(at - self.from)
    }

    /// A stretch that lies at `host` of a file, and that nobody looks at.
    fn range(&mut self, part: &UnitPart, offset: u64) -> Result<()> {
        self.empty()?;
        let (UnitSource::File { extent, .. } | UnitSource::Memory(extent)) = part.source else { return Ok(()) };
        let file = self.copy.image.host(extent.depth);
        let mut moved = 0;
        while let Some(file) = file.filter(|_| self.share && moved < part.len) {
            // Behind the length that the file had at the beginning it reads as zeros.
            let most = (part.len - moved).min(file.len().saturating_sub(offset + moved));
            if most == 0 {
                break;
            }
            self.close_hole()?;
            match self.copy.sink.data_from_file(self.at, file.file(), offset + moved, most)? {
                // Reading says why.
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

    /// Puts the window into the sink, and begins the next behind it.
    fn empty(&mut self) -> Result<()> {
        let next = ZeroDetector::new(self.at, self.copy.shape.grain(), self.copy.shape.interval());
        let runs = std::mem::replace(&mut self.detector, next).finish();
        let mut at = self.from;
        for (len, data) in runs {
            if data {
                self.close_hole()?;
                let place = self.place(at);
                self.copy.sink.preallocate_hint(at, len);
                self.copy.sink.write_at(at, &self.window[place..place + length(len)])?;
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

/// A length of what is in memory.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Puts a payload into a sink, in order: what is in memory, and what lies in the files of the image's layers, read by `buffer`.
pub fn put(image: &dyn Disk, payload: &Payload, sink: &dyn DiskWriter, at: u64, buffer: &mut Vec<u8>) -> Result<()> {
    let mut at = at;
    for part in payload.parts() {
        match part {
            PayloadPart::Bytes(bytes) => sink.write_at(at, bytes)?,
            PayloadPart::Range { depth, at: from, len } => {
                let none = || DiskError::new(DiskErrorKind::Io, "extents", format!("layer {depth} has no file"));
                let file = image.host(*depth).ok_or_else(none)?;
                sink.preallocate_hint(at, *len);
                let mut moved = 0;
                while moved < *len {
                    let piece = WINDOW.min(len - moved);
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
