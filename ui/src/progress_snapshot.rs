//! How far a transfer is, at a moment: what bar, JSON and status line tell, each in its way.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use xfer_hole_pipeline::{Phase, ProgressCounters};

use crate::size::size_text;

/// The rate is that of the last seconds.
const WINDOW: Duration = Duration::from_secs(5);
/// Samples of the counters are this far apart, at least.
const STEP: Duration = Duration::from_millis(100);
/// So long nothing is foretold.
const EARLY: Duration = Duration::from_secs(1);

/// Bytes moved in so much time, a second.
pub(crate) fn rate_of(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// A length of time, as people read it.
pub(crate) fn time_text(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0 => format!("0.{:02} s", millis / 10),
        1..10 => format!("{seconds}.{} s", millis / 100),
        _ => seconds_text(time),
    }
}

/// The same in whole seconds, for what changes while it is read.
pub(crate) fn seconds_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Where a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgressSnapshot {
    pub phase: Phase,
    /// The disk's bytes; `None` until they are known.
    pub size: Option<u64>,
    /// Bytes of the disk that are done: never more than its size.
    pub disk: u64,
    pub data: u64,
    /// The bytes of the disk that its extents call data; `None` if unknown.
    pub data_size: Option<u64>,
    /// Bytes of the disk that were kept as they were.
    pub kept: u64,
    /// How far it is: by data where that is known, else by the disk's bytes. Never falls.
    pub percent: Option<u64>,
    pub wire: u64,
    pub elapsed: Duration,
    /// Bytes of data a second, of late.
    pub rate: u64,
    /// Until the last byte is moved; `None` while nobody can tell.
    pub left: Option<Duration>,
}

impl ProgressSnapshot {
    /// The data that was moved, and of how much, where that is known.
    pub(crate) fn data_text(&self) -> String {
        let data = size_text(self.data);
        self.data_size.map_or_else(|| data.clone(), |size| format!("{data} of {}", size_text(size)))
    }

    /// True in a phase in which the disk moves, so that there are a rate and an end in sight.
    pub(crate) fn moves(&self) -> bool {
        !matches!(self.phase, Phase::Preparing | Phase::Connecting | Phase::Syncing | Phase::ReadingBack)
    }
}

/// The line that SIGUSR1 asks for.
impl Display for ProgressSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase.word(), size_text(self.disk))?;
        if let (Some(size), Some(percent)) = (self.size, self.percent) {
            write!(f, " of {} ({percent} %)", size_text(size))?;
        }
        write!(f, ", {} data, {} wire", self.data_text(), size_text(self.wire))?;
        if self.moves() {
            write!(f, ", {}/s", size_text(self.rate))?;
        }
        match self.left {
            Some(left) => write!(f, ", {} left", seconds_text(left)),
            None => write!(f, ", {} so far", seconds_text(self.elapsed)),
        }
    }
}

/// Looks at a counters again and again. Its clock is its caller's.
#[derive(Debug, Default)]
pub(crate) struct ProgressMeter {
    /// When it was looked at, and the data of then: as long as the window.
    seen: VecDeque<(Duration, u64)>,
    /// When the disk began to move.
    moved: Option<Duration>,
    /// What was told last.
    last: ProgressSnapshot,
}

impl ProgressMeter {
    /// What is to be told `elapsed` after the beginning.
    pub(crate) fn look(&mut self, counters: &ProgressCounters, elapsed: Duration) -> ProgressSnapshot {
        // The parts are read one after the other while they grow: what is part of another is read before it, and nothing falls.
        let phase = counters.phase();
        let (data, disk, wire, size) = (counters.data(), counters.disk(), counters.wire(), counters.size());
        let size = (size > 0).then_some(size);
        let disk = disk.max(self.last.disk);
        let mut status = ProgressSnapshot {
            phase,
            size,
            disk: size.map_or(disk, |size| disk.min(size)),
            data: data.max(self.last.data),
            data_size: counters.ahead().expected(),
            kept: counters.kept().max(self.last.kept),
            percent: None,
            wire: wire.max(self.last.wire),
            elapsed,
            rate: 0,
            left: None,
        };
        let (done, all) = share(&status, counters);
        status.percent = size.map(|_| percent(done, all).max(self.last.percent.unwrap_or_default()));
        if status.moves() {
            let since = *self.moved.get_or_insert(elapsed);
            status.rate = self.rate(elapsed, status.data);
            status.left = left((done, all), elapsed.saturating_sub(since)).filter(|_| size.is_some());
        } else {
            self.seen.clear();
        }
        self.last = status;
        status
    }

    fn rate(&mut self, now: Duration, data: u64) -> u64 {
        // The last sample that is older than the window stays, so that the window is full.
        while self.seen.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.seen.pop_front();
        }
        if self.seen.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= STEP) {
            self.seen.push_back((now, data));
        }
        let first = self.seen.front().filter(|(at, _)| *at < now);
        first.map_or(0, |(at, then)| rate_of(data - then, now.saturating_sub(*at)))
    }
}

/// How much is done, and of how much: data, if it is known how much there is, else the disk's bytes.
fn share(status: &ProgressSnapshot, counters: &ProgressCounters) -> (u64, u64) {
    let size = status.size.unwrap_or_default();
    if status.disk >= size {
        return (size, size);
    }
    if let Some(outlook) = counters.ahead().outlook().filter(|outlook| outlook.total() > 0) {
        return (outlook.before(status.disk), outlook.total());
    }
    match status.data_size {
        // Zeros that were found in data, and what was kept, aren't counted as data: no more can follow than the rest of the disk.
        Some(data_size) if status.kept == 0 => {
            let rest = data_size.saturating_sub(status.data).min(size - status.disk);
            (status.data, status.data.saturating_add(rest))
        }
        _ => (status.disk, size),
    }
}

/// Whole percents, 0 to 100.
fn percent(done: u64, all: u64) -> u64 {
    if all == 0 {
        return 100;
    }
    u64::try_from(u128::from(done) * 100 / u128::from(all)).unwrap_or(100).min(100)
}

/// The rest, as fast as it went so far.
fn left((done, all): (u64, u64), moved: Duration) -> Option<Duration> {
    let rest = all.checked_sub(done)?;
    if moved < EARLY || (done == 0 && all > 0) {
        return None;
    }
    let seconds = u128::from(rest) * moved.as_millis() / u128::from(done.max(1)) / 1000;
    Some(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_the_end_is_foretold_by_the_disk() {
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        let first = meter.look(&counters, at(0));
        assert_eq!((first.size, first.percent, first.rate, first.left), (None, None, 0, None));
        counters.set_size(1000 * MIB);
        counters.set_phase(Phase::Sending);
        assert_eq!(meter.look(&counters, at(3000)).left, None, "nothing has been moved");
        for second in 1..=10 {
            // Ten a second, and then a hundred.
            let data = if second <= 4 { 10 * MIB } else { 100 * MIB };
            counters.add_data(data);
            counters.add_disk(data);
            let status = meter.look(&counters, at(3000 + 1000 * second));
            if second == 4 {
                assert_eq!((status.rate, status.left), (10 * MIB, Some(Duration::from_secs(96))));
            }
            if second == 10 {
                assert_eq!((status.rate, status.left), (100 * MIB, Some(Duration::from_secs(5))));
                assert_eq!(status.percent, Some(64));
            }
        }
        counters.set_phase(Phase::Syncing);
        let last = meter.look(&counters, at(14_000));
        assert_eq!((last.rate, last.left), (0, None), "nothing moves while it is synced");
    }

    #[test]
    fn nothing_is_ever_more_than_the_whole_or_less_than_before() {
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_phase(Phase::Receiving);
        // A size that is told at the end, and a disk that was counted twice.
        counters.add_disk(5000);
        assert_eq!(meter.look(&counters, at(10)).percent, None);
        counters.set_size(4000);
        assert_eq!((meter.look(&counters, at(20)).disk, meter.look(&counters, at(20)).percent), (4000, Some(100)));
        let mut before = ProgressSnapshot::default();
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_size(u64::MAX);
        for step in 0..100 {
            counters.add_disk(u64::MAX / 90);
            counters.add_data(7);
            let status = meter.look(&counters, at(step));
            assert!(status.disk >= before.disk && status.data >= before.data && status.percent >= before.percent);
            before = status;
            if step == 88 {
                break;
            }
        }
    }

    #[test]
    fn the_end_is_foretold_by_data_where_that_is_known_and_nothing_falls_when_it_becomes_known() {
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_size(1000 * MIB);
        counters.set_phase(Phase::Receiving);
        meter.look(&counters, at(0));
        // A hundred of data at the beginning, then a hole: of the disk that is little.
        counters.expect_data(100 * MIB);
        for tenth in 1..=9 {
            counters.add_data(10 * MIB);
            counters.add_disk(10 * MIB);
            let status = meter.look(&counters, at(2000 * tenth));
            assert_eq!((status.percent, status.left), (Some(10 * tenth), Some(Duration::from_secs(20 - 2 * tenth))));
        }
        // There is less than was told, then more.
        counters.expect_data(80 * MIB);
        assert_eq!(meter.look(&counters, at(19_000)).percent, Some(100));
        counters.expect_data(500 * MIB);
        assert_eq!(meter.look(&counters, at(19_500)).percent, Some(100));
        // Where zeros are found in data, the rest of the disk is the most that can follow.
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_size(1000 * MIB);
        counters.set_phase(Phase::Receiving);
        counters.expect_data(1000 * MIB);
        counters.add_data(100 * MIB);
        counters.add_disk(900 * MIB);
        assert_eq!(meter.look(&counters, at(2000)).percent, Some(50));
        // Parts that are kept come by no rate of data.
        counters.add_kept(50 * MIB);
        counters.add_disk(50 * MIB);
        assert_eq!(meter.look(&counters, at(3000)).percent, Some(95));
    }

    #[test]
    fn the_line_that_was_asked_for_says_all_in_words() {
        let mut status = ProgressSnapshot {
            phase: Phase::Sending,
            size: Some(8 << 30),
            disk: (1 << 30) + (205 << 20),
            data: 300 * MIB,
            percent: Some(15),
            wire: 310 * MIB,
            elapsed: at(4000),
            rate: 335 * MIB,
            left: Some(at(12_300)),
            ..ProgressSnapshot::default()
        };
        let line = "sending: 1.20 GiB of 8 GiB (15 %), 300 MiB data, 310 MiB wire, 335 MiB/s, 12 s left";
        assert_eq!(status.to_string(), line);
        status.data_size = Some(600 * MIB);
        assert!(status.to_string().contains("(15 %), 300 MiB of 600 MiB data, 310 MiB wire"), "{status}");
        status = ProgressSnapshot { phase: Phase::Preparing, elapsed: at(75_000), ..ProgressSnapshot::default() };
        assert_eq!(status.to_string(), "preparing: 0 B, 0 B data, 0 B wire, 1 min 15 s so far");
    }

    #[test]
    fn times_are_told_as_people_read_them() {
        let texts =
            [40, 999, 3250, 9999, 59_900, 60_000, 3_599_000, 3_600_000, 100_000_000].map(|ms| time_text(at(ms)));
        let told =
            ["0.04 s", "0.99 s", "3.2 s", "9.9 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "27 h 46 min"];
        assert_eq!(texts, told);
    }
}
