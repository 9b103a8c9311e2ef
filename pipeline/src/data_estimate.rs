//! How much data a disk has, found by its extents alone while it is transferred, and how much of that lies before an offset.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use xfer_hole_image::{BackingChain, ExtentMethod};

use crate::plan::{Action, Plan};

/// Points that are kept at most: a mebibyte of them.
const POINTS: usize = 64 << 10;
/// Steps between two looks at the clock.
const STEPS: u32 = 64;
/// The walk runs freely for so long, which suffices for most disks. Then it works a fifth of the time: the transfer goes first.
const FREE: Duration = Duration::from_millis(50);
const WORK: Duration = Duration::from_millis(2);
const REST: Duration = Duration::from_millis(8);

/// The data of a disk by its extents: for each offset, the bytes of data before it. Exact at the ends of extents as long as these are
/// some ten thousand, between kept points else.
#[derive(Clone, Debug, Default)]
pub struct DataEstimate {
    /// Disk offset, and bytes of data before it: both grow.
    points: Vec<(u64, u64)>,
    /// Of so many ends of extents one is kept.
    stride: u32,
    passed: u32,
    at: u64,
    data: u64,
    was_data: bool,
}

impl DataEstimate {
    /// Walks through all of a plan. `None` if it fails, or if `pause`, which is called now and then, says that it is not wanted.
    pub fn of(plan: Plan<'_>, mut pause: impl FnMut() -> bool) -> Option<Self> {
        let mut outlook = Self { stride: 1, ..Self::default() };
        let mut steps = 0;
        for step in plan {
            let step = step.ok()?;
            outlook.add(step.extent.len, step.want == Action::Copy);
            steps += 1;
            if steps == STEPS {
                steps = 0;
                if !pause() {
                    return None;
                }
            }
        }
        outlook.points.push((outlook.at, outlook.data));
        Some(outlook)
    }

    /// Walks through all of a plan within `most`, so that a little is known before a transfer begins. `None` if that is too short.
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

    /// The bytes of data of the whole disk.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.data
    }

    /// The bytes of data before this disk offset.
    #[must_use]
    pub fn before(&self, at: u64) -> u64 {
        let next = self.points.partition_point(|&(point, _)| point <= at);
        let (from, before) = next.checked_sub(1).map_or((0, 0), |index| self.points[index]);
        let Some(&(to, after)) = self.points.get(next) else { return self.data };
        let share = u128::from(after - before) * u128::from(at - from) / u128::from(to - from);
        before + u64::try_from(share).unwrap_or_default()
    }
}

/// What is known of the data of a disk ahead of its transfer, and whether it is to be found out.
#[derive(Debug, Default)]
pub struct DataEstimator {
    outlook: OnceLock<DataEstimate>,
    /// An estimate; 0 if there is none.
    expected: AtomicU64,
    state: Mutex<EstimatorState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct EstimatorState {
    wanted: bool,
    /// A thread can walk through the plan.
    walks: bool,
    over: bool,
}

impl DataEstimator {
    fn state(&self) -> MutexGuard<'_, EstimatorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found, once it was.
    pub fn outlook(&self) -> Option<&DataEstimate> {
        self.outlook.get()
    }

    /// Tells about how many bytes of data there are, where it isn't known better.
    pub fn expect(&self, data: u64) {
        self.expected.store(data, Ordering::Relaxed);
    }

    /// About how many bytes of data there are; `None` if unknown.
    pub fn expected(&self) -> Option<u64> {
        let told = self.expected.load(Ordering::Relaxed);
        self.outlook().map(DataEstimate::total).or((told > 0).then_some(told))
    }

    /// Has the walk begin.
    pub fn want(&self) {
        self.state().wanted = true;
        self.changed.notify_all();
    }

    /// True if it will be known soon.
    pub fn is_pending(&self) -> bool {
        let state = self.state();
        state.wanted && state.walks && !state.over && self.outlook().is_none()
    }

    /// Does the work on this disk, while its data is counted by the extents of the plan, if that is wanted.
    pub fn of_disk<T>(&self, disk: &BackingChain, plan: Plan<'_>, work: impl FnOnce() -> T) -> T {
        self.expect(disk.allocated());
        match disk.method() {
            // FIEMAP has one window onto the extents, which the reading threads need.
            Some(ExtentMethod::Fiemap) => work(),
            _ => self.during(plan, work),
        }
    }

    /// Does the work, while another thread walks through the plan if its result is wanted.
    pub fn during<T>(&self, plan: Plan<'_>, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            // A thread that isn't to be had is a figure less.
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
                let _first = self.outlook.set(found);
            }
            None => self.state().walks = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(runs: impl IntoIterator<Item = (u64, bool)>) -> DataEstimate {
        let mut outlook = DataEstimate { stride: 1, ..DataEstimate::default() };
        runs.into_iter().for_each(|(len, is_data)| outlook.add(len, is_data));
        outlook.points.push((outlook.at, outlook.data));
        outlook
    }

    #[test]
    fn what_lies_before_an_offset_is_exact_between_the_ends_of_extents() {
        let found = outlook([(100, true), (1000, false), (50, true), (50, true), (10_000, false)]);
        assert_eq!(found.total(), 200);
        for (at, data) in
            [(0, 0), (40, 40), (100, 100), (600, 100), (1100, 100), (1150, 150), (1200, 200), (11_200, 200)]
        {
            assert_eq!(found.before(at), data, "{at}");
        }
        let empty = outlook([(1000, false)]);
        assert_eq!((empty.total(), empty.before(500), empty.before(1000)), (0, 0, 0));
        assert_eq!(outlook([]).before(0), 0);
    }

    #[test]
    fn a_million_extents_take_no_more_than_a_mebibyte_and_stay_near_the_truth() {
        let runs = (0..2_000_000_u64).map(|n| (if n % 2 == 0 { 4096 } else { 4096 * (1 + n % 7) }, n % 2 == 0));
        let found = outlook(runs.clone());
        assert!(found.points.len() <= POINTS && found.total() == 1_000_000 * 4096);
        let (mut at, mut data, mut last) = (0, 0, 0);
        for (len, is_data) in runs {
            let before = found.before(at);
            assert!(before >= last && before.abs_diff(data) <= found.total() / 1000, "{before} and {data} at {at}");
            (at, last) = (at + len, before);
            data += if is_data { len } else { 0 };
        }
    }
}
