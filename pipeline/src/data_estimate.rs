//! Estimates how much data a disk has, in total and before a given offset, from its extents alone, while the transfer
//! runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use xfer_hole_image::{BackingChain, ExtentMethod};

use crate::plan::{Action, Plan};

/// Maximum number of points kept: 1 MiB of memory.
const POINTS: usize = 64 << 10;
/// Number of steps between two readings of the clock.
const STEPS: u32 = 64;
/// Time for which the walk runs at full speed: long enough for most disks.
const FREE: Duration = Duration::from_millis(50);
/// Time that the walk works between two rests, after `FREE`.
const WORK: Duration = Duration::from_millis(2);
/// Time that the walk rests, so that it takes a fifth of the time and doesn't slow the transfer down.
const REST: Duration = Duration::from_millis(8);

/// The data of a disk by its extents: for each offset, the number of bytes of data before it.
///
/// The figures are exact while the disk has fewer than about 65,000 extent boundaries. With more, they are interpolated
/// between the points that are kept.
#[derive(Clone, Debug, Default)]
pub struct DataEstimate {
    /// Pairs of a disk offset and the bytes of data before it. Both increase.
    points: Vec<(u64, u64)>,
    /// One of this many extent boundaries is kept as a point.
    stride: u32,
    passed: u32,
    at: u64,
    data: u64,
    was_data: bool,
}

impl DataEstimate {
    /// Walks through a whole plan and calls `pause` every 64 steps. Returns `None` if the plan fails or `pause` returns
    /// false.
    pub fn of(plan: Plan<'_>, mut pause: impl FnMut() -> bool) -> Option<Self> {
        let mut estimate = Self { stride: 1, ..Self::default() };
        let mut steps = 0;
        for step in plan {
            let step = step.ok()?;
            estimate.add(step.extent.len, step.want == Action::Copy);
            steps += 1;
            if steps == STEPS {
                steps = 0;
                if !pause() {
                    return None;
                }
            }
        }
        estimate.points.push((estimate.at, estimate.data));
        Some(estimate)
    }

    /// Walks through a whole plan, so that an estimate is known before a transfer begins. Returns `None` if that takes
    /// longer than `most`.
    #[must_use]
    pub fn within(plan: Plan<'_>, most: Duration) -> Option<Self> {
        let begun = Instant::now();
        Self::of(plan, || begun.elapsed() < most)
    }

    fn add(&mut self, len: u64, is_data: bool) {
        if is_data != self.was_data {
            self.was_data = is_data;
            self.passed += 1;
            if self.passed >= self.stride {
                self.passed = 0;
                self.points.push((self.at, self.data));
            }
        }
        self.at += len;
        self.data += if is_data { len } else { 0 };
        if self.points.len() >= POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
    }

    /// Returns the bytes of data of the whole disk.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.data
    }

    /// Returns the bytes of data before disk offset `at`.
    #[must_use]
    pub fn before(&self, at: u64) -> u64 {
        let next = self.points.partition_point(|&(point, _)| point <= at);
        let (from, before) = next.checked_sub(1).map_or((0, 0), |index| self.points[index]);
        let Some(&(to, after)) = self.points.get(next) else { return self.data };
        let share = u128::from(after - before) * u128::from(at - from) / u128::from(to - from);
        before + u64::try_from(share).unwrap_or_default()
    }
}

/// Computes a [`DataEstimate`] on a thread of its own while a transfer runs, if it is requested, and holds figures
/// known in advance.
#[derive(Debug, Default)]
pub struct DataEstimator {
    estimate: OnceLock<DataEstimate>,
    /// Bytes of data that were announced; 0 if none were.
    expected: AtomicU64,
    state: Mutex<EstimatorState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct EstimatorState {
    /// True once the estimate was requested.
    wanted: bool,
    /// True while a thread can walk through the plan.
    walks: bool,
    /// True once the transfer has ended.
    over: bool,
}

impl DataEstimator {
    fn state(&self) -> MutexGuard<'_, EstimatorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the estimate, once it is computed.
    pub fn outlook(&self) -> Option<&DataEstimate> {
        self.estimate.get()
    }

    /// Sets an approximate number of bytes of data, used until the estimate is computed.
    pub fn expect(&self, data: u64) {
        self.expected.store(data, Ordering::Relaxed);
    }

    /// Returns the approximate number of bytes of data, or `None` if it is unknown.
    pub fn expected(&self) -> Option<u64> {
        let announced = self.expected.load(Ordering::Relaxed);
        self.outlook().map(DataEstimate::total).or((announced > 0).then_some(announced))
    }

    /// Requests the estimate: the walk begins.
    pub fn want(&self) {
        self.state().wanted = true;
        self.changed.notify_all();
    }

    /// Returns true if the estimate was requested and is being computed.
    pub fn is_pending(&self) -> bool {
        let state = self.state();
        state.wanted && state.walks && !state.over && self.outlook().is_none()
    }

    /// Runs `work` on this disk. If the estimate is requested meanwhile, another thread walks through the plan. Disks
    /// whose extents come from FIEMAP are not walked.
    pub fn of_disk<T>(&self, disk: &BackingChain, plan: Plan<'_>, work: impl FnOnce() -> T) -> T {
        self.expect(disk.allocated());
        match disk.method() {
            // There is one cache of FIEMAP extents, and the reading threads need it.
            Some(ExtentMethod::Fiemap) => work(),
            _ => self.during(plan, work),
        }
    }

    /// Runs `work`. If the estimate is requested meanwhile, another thread walks through the plan.
    pub fn during<T>(&self, plan: Plan<'_>, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            // If no thread can be started, there is no estimate; the transfer is unaffected.
            let walks = thread::Builder::new().spawn_scoped(scope, || self.walk(plan)).is_ok();
            self.state().walks = walks;
            let done = work();
            self.state().over = true;
            self.changed.notify_all();
            done
        })
    }

    fn walk(&self, plan: Plan<'_>) {
        let idle = |state: &mut EstimatorState| !state.wanted && !state.over;
        drop(self.changed.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner));
        let begun = Instant::now();
        let mut working = begun;
        let found = DataEstimate::of(plan, || {
            if begun.elapsed() >= FREE && working.elapsed() >= WORK {
                let resting = self.changed.wait_timeout_while(self.state(), REST, |state| !state.over);
                drop(resting.unwrap_or_else(PoisonError::into_inner));
                working = Instant::now();
            }
            !self.state().over
        });
        match found {
            Some(found) => {
                let _first = self.estimate.set(found);
            }
            None => self.state().walks = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(segments: impl IntoIterator<Item = (u64, bool)>) -> DataEstimate {
        let mut estimate = DataEstimate { stride: 1, ..DataEstimate::default() };
        segments.into_iter().for_each(|(len, is_data)| estimate.add(len, is_data));
        estimate.points.push((estimate.at, estimate.data));
        estimate
    }

    #[test]
    fn data_before_an_offset_is_exact_with_few_extents() {
        let found = estimate([(100, true), (1000, false), (50, true), (50, true), (10_000, false)]);
        assert_eq!(found.total(), 200);
        for (at, data) in
            [(0, 0), (40, 40), (100, 100), (600, 100), (1100, 100), (1150, 150), (1200, 200), (11_200, 200)]
        {
            assert_eq!(found.before(at), data, "{at}");
        }
        let empty = estimate([(1000, false)]);
        assert_eq!((empty.total(), empty.before(500), empty.before(1000)), (0, 0, 0));
        assert_eq!(estimate([]).before(0), 0);
    }

    #[test]
    fn a_million_extents_are_estimated_within_one_mebibyte() {
        let segments = (0..2_000_000_u64).map(|n| (if n % 2 == 0 { 4096 } else { 4096 * (1 + n % 7) }, n % 2 == 0));
        let found = estimate(segments.clone());
        assert!(found.points.len() <= POINTS && found.total() == 1_000_000 * 4096);
        let (mut at, mut data, mut last) = (0, 0, 0);
        for (len, is_data) in segments {
            let before = found.before(at);
            assert!(before >= last && before.abs_diff(data) <= found.total() / 1000, "{before} and {data} at {at}");
            (at, last) = (at + len, before);
            data += if is_data { len } else { 0 };
        }
    }
}
