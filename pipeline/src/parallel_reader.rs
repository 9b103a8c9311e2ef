//! Blocks by many threads, in the order of the disk, and never more of them than memory has room for.

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

/// Bytes that all blocks may take together: those in work, those that lie ready, and the one in its taker's hand.
const MEMORY: u64 = 32 << 20;
/// After so long without a block there is an empty one, so that its taker isn't held up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The blocks that [`super::SerialReader`] gives, made by many at a time. After a second without any there is an empty one. Each has to
/// be let go of before the next is asked for. An error is the last; dropping this ends the threads.
pub struct ParallelReader<'a> {
    shared: Arc<ReaderShared<'a>>,
    /// Blocks that were given.
    given: u64,
    over: bool,
}

/// What all threads share.
struct ReaderShared<'a> {
    /// Whoever takes a deal holds this, also while there is no room for it.
    dealing: Mutex<SplitterState<'a>>,
    state: Mutex<ReaderState>,
    /// There is room for one more, or work has ended.
    room: Condvar,
    /// The block that is asked for lies ready, or none will come.
    ready: Condvar,
    /// Nobody wants a block any more. Changed only under `state`.
    stop: Arc<AtomicBool>,
    /// Blocks that may be there at a time, from the one in its taker's hand on.
    most: u64,
}

struct SplitterState<'a> {
    splitter: WorkSplitter<'a>,
    /// Deals that were taken.
    dealt: u64,
}

#[derive(Default)]
struct ReaderState {
    /// The number of the block that is asked for: all before it are gone.
    asked: u64,
    /// Blocks that are finished.
    places: BTreeMap<u64, Result<SegmentBatch>>,
    /// A block failed: those behind it need not be begun.
    failed: bool,
    /// Threads.
    working: usize,
}

impl<'a> ParallelReader<'a> {
    /// Starts up to `count` threads in this scope. Fails only if there is not even one to be had.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        image: &'a dyn Disk,
        shape: ReadOptions,
        count: usize,
    ) -> io::Result<Self> {
        let memory = WorkSplitter::memory(image, &shape);
        let buffers = Arc::new(BufferPool::new(usize::try_from(memory).unwrap_or(usize::MAX)));
        // One in its taker's hand, and one for each thread, and some that lie ready.
        let count = u64::try_from(count).unwrap_or(u64::MAX).clamp(1, (MEMORY / memory).max(1));
        let most = count.saturating_mul(2).saturating_add(2).min(MEMORY / memory).max(2);
        let shared = Arc::new(ReaderShared {
            dealing: Mutex::new(SplitterState { splitter: WorkSplitter::new(image, &shape), dealt: 0 }),
            state: Mutex::new(ReaderState::default()),
            room: Condvar::new(),
            ready: Condvar::new(),
            stop: Arc::new(AtomicBool::new(false)),
            most,
        });
        let workers = Self { shared: Arc::clone(&shared), given: 0, over: false };
        for number in 0..count {
            let shared = Arc::clone(&shared);
            let mut gather = UnitReader::new(image, shape, Arc::clone(&buffers), Arc::clone(&shared.stop));
            shared.state().working += 1;
            let present = ReaderThread(Arc::clone(&shared));
            let work = move || {
                let present = present;
                present.0.work(&mut gather);
            };
            match thread::Builder::new().spawn_scoped(scope, work) {
                Ok(_) => {}
                // `present` is dropped with the closure, so that nobody waits for it.
                Err(error) if number == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(workers)
    }

    fn take(&mut self) -> Option<Result<SegmentBatch>> {
        let mut state = self.shared.state();
        state.asked = self.given;
        self.shared.room.notify_one();
        loop {
            if let Some(block) = state.places.remove(&self.given) {
                self.given += 1;
                return Some(block);
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
        let block = self.take();
        self.over = !matches!(block, Some(Ok(_)));
        if self.over {
            self.shared.stop();
        }
        block
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

    /// What each thread does.
    fn work(&self, gather: &mut UnitReader<'_>) {
        while let Some((number, unit)) = self.take() {
            let block = unit.and_then(|unit| gather.block(&unit));
            let mut state = self.state();
            state.failed |= block.is_err();
            state.places.insert(number, block);
            if number == state.asked {
                self.ready.notify_one();
            }
        }
    }

    /// The next deal and its number, once there is room for it. None at the end.
    fn take(&self) -> Option<(u64, Result<WorkUnit>)> {
        let mut dealing = self.dealing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        loop {
            if state.failed || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if dealing.dealt - state.asked.min(dealing.dealt) < self.most {
                break;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let unit = dealing.splitter.unit().transpose()?;
        dealing.dealt += 1;
        Some((dealing.dealt - 1, unit))
    }
}

/// A thread that is there. When it has ended, or couldn't be started, its taker has to know.
struct ReaderThread<'a>(Arc<ReaderShared<'a>>);

impl Drop for ReaderThread<'_> {
    fn drop(&mut self) {
        self.0.state().working -= 1;
        self.0.ready.notify_one();
    }
}
