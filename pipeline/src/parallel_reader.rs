//! Reads a disk's work units on several threads and yields their batches in the order of the disk, within a fixed
//! memory limit.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use xfer_hole_image::Disk;
use xfer_hole_os::Result;

use crate::buffer_pool::BufferPool;
use crate::read_options::ReadOptions;
use crate::segment::SegmentBatch;
use crate::unit_reader::UnitReader;
use crate::work_unit::{WorkSplitter, WorkUnit};

/// Maximum memory of all batches together, in bytes: being read, waiting to be taken, and being used by the consumer.
const MEMORY: u64 = 32 << 20;
/// After this time without a batch an empty one is yielded, so that the consumer gets control regularly.
const PATIENCE: Duration = Duration::from_secs(1);

/// Yields the batches that [`crate::SerialReader`] yields, read by several threads.
///
/// An empty batch is yielded after a second without one. The consumer has to drop a batch before it asks for the next.
/// The iterator ends after the first error. Dropping the reader stops its threads.
pub struct ParallelReader<'a> {
    shared: Arc<ReaderShared<'a>>,
    /// Number of batches yielded.
    yielded: u64,
    over: bool,
}

/// State that all threads share.
struct ReaderShared<'a> {
    /// Locked while a thread takes a work unit, and while it waits for room for it.
    splitter: Mutex<SplitterState<'a>>,
    state: Mutex<ReaderState>,
    /// Notified when there is room for one more batch, or when the work has ended.
    room: Condvar,
    /// Notified when the requested batch is ready, or when none will come.
    ready: Condvar,
    /// Set when no more batches are wanted. It is changed only while `state` is locked.
    stop: Arc<AtomicBool>,
    /// Maximum number of batches at a time, counted from the one that the consumer uses.
    most: u64,
}

struct SplitterState<'a> {
    splitter: WorkSplitter<'a>,
    /// Number of work units taken.
    taken: u64,
}

#[derive(Default)]
struct ReaderState {
    /// Number of the requested batch: all before it were dropped.
    requested: u64,
    /// Finished batches by number.
    finished: BTreeMap<u64, Result<SegmentBatch>>,
    /// A batch failed: those after it need not be read.
    failed: bool,
    /// Number of running threads.
    working: usize,
}

impl<'a> ParallelReader<'a> {
    /// Starts up to `count` reading threads in this scope.
    ///
    /// # Errors
    ///
    /// If not even one thread can be started.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        image: &'a dyn Disk,
        options: ReadOptions,
        count: usize,
    ) -> io::Result<Self> {
        let memory = WorkSplitter::memory(image, &options);
        let buffers = Arc::new(BufferPool::new(usize::try_from(memory).unwrap_or(usize::MAX)));
        // One batch for the consumer, one for each thread, and some that are ready.
        let count = u64::try_from(count).unwrap_or(u64::MAX).clamp(1, (MEMORY / memory).max(1));
        let most = count.saturating_mul(2).saturating_add(2).min(MEMORY / memory).max(2);
        let shared = Arc::new(ReaderShared {
            splitter: Mutex::new(SplitterState { splitter: WorkSplitter::new(image, &options), taken: 0 }),
            state: Mutex::new(ReaderState::default()),
            room: Condvar::new(),
            ready: Condvar::new(),
            stop: Arc::new(AtomicBool::new(false)),
            most,
        });
        let parallel = Self { shared: Arc::clone(&shared), yielded: 0, over: false };
        for number in 0..count {
            let shared = Arc::clone(&shared);
            let mut reader = UnitReader::new(image, options, Arc::clone(&buffers), Arc::clone(&shared.stop));
            shared.state().working += 1;
            let counted = ReaderThread(Arc::clone(&shared));
            let work = move || {
                let counted = counted;
                counted.0.work(&mut reader);
            };
            match thread::Builder::new().spawn_scoped(scope, work) {
                Ok(_) => {}
                // `counted` is dropped with the closure, so that the number of running threads is right.
                Err(error) if number == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(parallel)
    }

    fn take(&mut self) -> Option<Result<SegmentBatch>> {
        let mut state = self.shared.state();
        state.requested = self.yielded;
        self.shared.room.notify_one();
        loop {
            if let Some(batch) = state.finished.remove(&self.yielded) {
                self.yielded += 1;
                return Some(batch);
            }
            if state.working == 0 || self.shared.stop.load(Ordering::Relaxed) {
                return None;
            }
            let (woken, waited) =
                self.shared.ready.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return Some(Ok(SegmentBatch::default()));
            }
            state = woken;
        }
    }
}

impl Iterator for ParallelReader<'_> {
    type Item = Result<SegmentBatch>;

    fn next(&mut self) -> Option<Result<SegmentBatch>> {
        if self.over {
            return None;
        }
        let batch = self.take();
        self.over = !matches!(batch, Some(Ok(_)));
        if self.over {
            self.shared.stop();
        }
        batch
    }
}

impl Drop for ParallelReader<'_> {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl ReaderShared<'_> {
    fn state(&self) -> MutexGuard<'_, ReaderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let state = self.state();
        self.stop.store(true, Ordering::Relaxed);
        drop(state);
        self.room.notify_all();
        self.ready.notify_all();
    }

    /// The loop of each reading thread.
    fn work(&self, reader: &mut UnitReader<'_>) {
        while let Some((number, unit)) = self.take() {
            let batch = unit.and_then(|unit| reader.read_unit(&unit));
            let mut state = self.state();
            state.failed |= batch.is_err();
            state.finished.insert(number, batch);
            if number == state.requested {
                self.ready.notify_one();
            }
        }
    }

    /// Waits for room and returns the next work unit and its number, or `None` at the end.
    fn take(&self) -> Option<(u64, Result<WorkUnit>)> {
        let mut splitter = self.splitter.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        loop {
            if state.failed || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if splitter.taken - state.requested.min(splitter.taken) < self.most {
                break;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let unit = splitter.splitter.unit().transpose()?;
        splitter.taken += 1;
        Some((splitter.taken - 1, unit))
    }
}

/// Counts a running thread. Dropping it, when the thread ends or could not be started, wakes the consumer.
struct ReaderThread<'a>(Arc<ReaderShared<'a>>);

impl Drop for ReaderThread<'_> {
    fn drop(&mut self) {
        self.0.state().working -= 1;
        self.0.ready.notify_one();
    }
}
