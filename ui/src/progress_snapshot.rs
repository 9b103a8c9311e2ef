//! The progress of a transfer at one moment, as the bar, JSON events and the status line show it.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use xfer_hole_pipeline::{Phase, ProgressCounters};

use crate::size::size_text;

/// The rate is the average over this time.
const WINDOW: Duration = Duration::from_secs(5);
/// Minimum time between two samples of the counters.
const STEP: Duration = Duration::from_millis(100);
/// Time after the start of data before a remaining time is estimated.
const EARLY: Duration = Duration::from_secs(1);

/// Returns the rate in bytes per second of `bytes` moved in `time`.
pub(crate) fn rate_of(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// Formats a duration for people, with decimals below 10 seconds.
pub(crate) fn time_text(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0 => format!("0.{:02} s", millis / 10),
        1..10 => format!("{seconds}.{} s", millis / 100),
        _ => seconds_text(time),
    }
}

/// Formats a duration for people, in whole seconds.
pub(crate) fn seconds_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The progress of a transfer at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgressSnapshot {
    pub phase: Phase,
    /// Size of the disk in bytes; `None` until it is known.
    pub size: Option<u64>,
    /// Bytes of the disk that are done; at most its size.
    pub disk: u64,
    /// Bytes of data that were moved.
    pub data: u64,
    /// Bytes of the disk that are allocated as data; `None` if unknown.
    pub data_size: Option<u64>,
    /// Bytes of the disk that the destination already had.
    pub kept: u64,
    /// Percentage done, by data if the total is known, else by disk size. It never falls.
    pub percent: Option<u64>,
    /// Bytes sent or received over the link.
    pub wire: u64,
    /// Time since the start.
    pub elapsed: Duration,
    /// Bytes of data per second, averaged over the last 5 seconds.
    pub rate: u64,
    /// Estimated time until the last byte is moved; `None` without an estimate.
    pub left: Option<Duration>,
}

impl ProgressSnapshot {
    /// Formats the data moved, and its total if that is known.
    pub(crate) fn data_text(&self) -> String {
        let data = size_text(self.data);
        self.data_size.map_or_else(|| data.clone(), |size| format!("{data} of {}", size_text(size)))
    }

    /// Returns true in a phase that moves data, so that a rate and a remaining time exist.
    pub(crate) fn moves(&self) -> bool {
        !matches!(self.phase, Phase::Preparing | Phase::Connecting | Phase::Syncing | Phase::ReadingBack)
    }
}

/// Formats the status line that SIGUSR1 requests.
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

/// Takes snapshots of progress counters. The caller supplies the time.
#[derive(Debug, Default)]
pub(crate) struct ProgressMeter {
    /// Time and data bytes of the samples in the window.
    seen: VecDeque<(Duration, u64)>,
    /// Time at which data began to move.
    moved: Option<Duration>,
    /// The previous snapshot.
    last: ProgressSnapshot,
}

impl ProgressMeter {
    /// Takes a snapshot of `counters`, `elapsed` after the start.
    pub(crate) fn snapshot(&mut self, counters: &ProgressCounters, elapsed: Duration) -> ProgressSnapshot {
        // The counters grow while they are read. A part is read before its whole, so that it never exceeds it.
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
        // The newest sample older than the window stays, so that the samples cover the whole window.
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

/// Returns the bytes done and the total: of data if its total is known, else of the disk.
fn share(status: &ProgressSnapshot, counters: &ProgressCounters) -> (u64, u64) {
    let size = status.size.unwrap_or_default();
    if status.disk >= size {
        return (size, size);
    }
    if let Some(estimate) = counters.ahead().outlook().filter(|estimate| estimate.total() > 0) {
        return (estimate.before(status.disk), estimate.total());
    }
    match status.data_size {
        // Zeros found in data are not counted as moved data. At most the rest of the disk can follow.
        Some(data_size) if status.kept == 0 => {
            let rest = data_size.saturating_sub(status.data).min(size - status.disk);
            (status.data, status.data.saturating_add(rest))
        }
        _ => (status.disk, size),
    }
}

/// Returns the percentage done, 0 to 100.
fn percent(done: u64, all: u64) -> u64 {
    if all == 0 {
        return 100;
    }
    u64::try_from(u128::from(done) * 100 / u128::from(all)).unwrap_or(100).min(100)
}

/// Estimates the remaining time from the average rate since data began to move.
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
    fn rate_is_of_the_last_seconds_and_time_left_by_disk_size() {
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        let first = meter.snapshot(&counters, at(0));
        assert_eq!((first.size, first.percent, first.rate, first.left), (None, None, 0, None));
        counters.set_size(1000 * MIB);
        counters.set_phase(Phase::Sending);
        assert_eq!(meter.snapshot(&counters, at(3000)).left, None, "nothing has been moved");
        for second in 1..=10 {
            // 10 MiB per second, then 100 MiB per second.
            let data = if second <= 4 { 10 * MIB } else { 100 * MIB };
            counters.add_data(data);
            counters.add_disk(data);
            let status = meter.snapshot(&counters, at(3000 + 1000 * second));
            if second == 4 {
                assert_eq!((status.rate, status.left), (10 * MIB, Some(Duration::from_secs(96))));
            }
            if second == 10 {
                assert_eq!((status.rate, status.left), (100 * MIB, Some(Duration::from_secs(5))));
                assert_eq!(status.percent, Some(64));
            }
        }
        counters.set_phase(Phase::Syncing);
        let last = meter.snapshot(&counters, at(14_000));
        assert_eq!((last.rate, last.left), (0, None), "nothing moves while it is synced");
    }

    #[test]
    fn figures_never_fall_and_never_exceed_the_total() {
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_phase(Phase::Receiving);
        // The size becomes known at the end, and is smaller than the bytes counted.
        counters.add_disk(5000);
        assert_eq!(meter.snapshot(&counters, at(10)).percent, None);
        counters.set_size(4000);
        assert_eq!(
            (meter.snapshot(&counters, at(20)).disk, meter.snapshot(&counters, at(20)).percent),
            (4000, Some(100))
        );
        let mut before = ProgressSnapshot::default();
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_size(u64::MAX);
        for step in 0..100 {
            counters.add_disk(u64::MAX / 90);
            counters.add_data(7);
            let status = meter.snapshot(&counters, at(step));
            assert!(status.disk >= before.disk && status.data >= before.data && status.percent >= before.percent);
            before = status;
            if step == 88 {
                break;
            }
        }
    }

    #[test]
    fn time_left_is_by_data_once_its_total_is_known() {
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_size(1000 * MIB);
        counters.set_phase(Phase::Receiving);
        meter.snapshot(&counters, at(0));
        // 100 MiB of data at the beginning, then a hole.
        counters.expect_data(100 * MIB);
        for tenth in 1..=9 {
            counters.add_data(10 * MIB);
            counters.add_disk(10 * MIB);
            let status = meter.snapshot(&counters, at(2000 * tenth));
            assert_eq!((status.percent, status.left), (Some(10 * tenth), Some(Duration::from_secs(20 - 2 * tenth))));
        }
        // The expected total shrinks, then grows.
        counters.expect_data(80 * MIB);
        assert_eq!(meter.snapshot(&counters, at(19_000)).percent, Some(100));
        counters.expect_data(500 * MIB);
        assert_eq!(meter.snapshot(&counters, at(19_500)).percent, Some(100));
        // Zeros were found in data: at most the rest of the disk can follow.
        let (counters, mut meter) = (ProgressCounters::default(), ProgressMeter::default());
        counters.set_size(1000 * MIB);
        counters.set_phase(Phase::Receiving);
        counters.expect_data(1000 * MIB);
        counters.add_data(100 * MIB);
        counters.add_disk(900 * MIB);
        assert_eq!(meter.snapshot(&counters, at(2000)).percent, Some(50));
        // Kept bytes are not counted as data, so the percentage is by disk size.
        counters.add_kept(50 * MIB);
        counters.add_disk(50 * MIB);
        assert_eq!(meter.snapshot(&counters, at(3000)).percent, Some(95));
    }

    #[test]
    fn the_status_line_shows_every_figure() {
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
    fn durations_are_formatted_for_people() {
        let texts =
            [40, 999, 3250, 9999, 59_900, 60_000, 3_599_000, 3_600_000, 100_000_000].map(|ms| time_text(at(ms)));
        let expected =
            ["0.04 s", "0.99 s", "3.2 s", "9.9 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "27 h 46 min"];
        assert_eq!(texts, expected);
    }
}
