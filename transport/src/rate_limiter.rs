//! Limits the bandwidth of a stream.

use std::thread;
use std::time::{Duration, Instant};

/// The longest lag behind the rate that a stream may catch up. A longer one would cause a burst.
const CREDIT: Duration = Duration::from_millis(100);

/// Limits the rate of a stream by blocking the thread that moves its bytes.
#[derive(Debug)]
pub struct RateLimiter {
    bucket: TokenBucket,
    began: Instant,
}

impl RateLimiter {
    /// Creates a limiter for `rate` bytes per second. A rate of 0 means 1.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self { bucket: TokenBucket::new(rate), began: Instant::now() }
    }

    /// Returns the maximum number of bytes to move at once: about a tenth of a second at the rate.
    #[must_use]
    pub fn piece(&self) -> u64 {
        self.bucket.piece()
    }

    /// Records that `bytes` were moved, and blocks until the next may be moved.
    pub fn passed(&mut self, bytes: u64) {
        let pause = self.bucket.passed(self.began.elapsed(), bytes);
        if !pause.is_zero() {
            wait_until(Instant::now() + pause);
        }
    }
}

/// Blocks until `due`. The remaining time is computed again after each early wake-up, so that signals do not prolong it.
fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

/// A token bucket. The caller supplies the time.
#[derive(Debug)]
struct TokenBucket {
    /// Bytes per second.
    rate: u64,
    /// Time at which all bytes so far are within the rate.
    due: Duration,
}

impl TokenBucket {
    fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), due: Duration::ZERO }
    }

    fn piece(&self) -> u64 {
        // At least 4096 bytes, to limit the number of system calls, but at most a quarter of a second.
        let least = (self.rate / 4).clamp(1, 4096);
        (self.rate / 10).max(least)
    }

    /// Returns how long to wait at `now` after `bytes` were moved.
    fn passed(&mut self, now: Duration, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.due = self.due.max(now.saturating_sub(CREDIT)).saturating_add(time);
        self.due.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves pieces for `time`. Each takes `each` without a limit. Returns the time and the bytes of each piece.
    fn move_pieces(rate: u64, time: Duration, each: Duration) -> Vec<(Duration, u64)> {
        let mut bucket = TokenBucket::new(rate);
        let (mut now, mut moved) = (Duration::ZERO, Vec::new());
        while now < time {
            now += each;
            moved.push((now, bucket.piece()));
            now += bucket.passed(now, bucket.piece());
        }
        moved
    }

    const RATES: [u64; 7] = [1000, 5000, 64 << 10, 1 << 20, 10_000_000, 1 << 30, 40 << 30];

    #[test]
    fn the_average_is_the_rate_within_five_percent() {
        for rate in RATES {
            for each in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(40)] {
                let moved: u64 = move_pieces(rate, Duration::from_secs(20), each).iter().map(|(_, bytes)| bytes).sum();
                let wanted = rate * 20;
                assert!(moved.abs_diff(wanted) <= wanted / 20, "{rate}, {each:?}: {moved} of {wanted}");
            }
        }
    }

    #[test]
    fn no_quarter_second_has_more_than_twice_its_share() {
        for rate in RATES {
            let moved = move_pieces(rate, Duration::from_secs(5), Duration::from_micros(10));
            for (n, (from, _)) in moved.iter().enumerate() {
                let window = moved[n..].iter().take_while(|(at, _)| *at < *from + Duration::from_millis(250));
                let bytes: u64 = window.map(|(_, bytes)| bytes).sum();
                assert!(bytes <= rate / 2 + 1, "{rate}: {bytes} in a quarter of a second");
            }
        }
    }

    #[test]
    fn idle_time_does_not_allow_a_burst() {
        let mut bucket = TokenBucket::new(1_000_000);
        assert_eq!(bucket.passed(Duration::from_secs(60), 100_000), Duration::ZERO);
        assert_eq!(bucket.passed(Duration::from_secs(60), 100_000), Duration::from_millis(100));
    }

    #[test]
    fn a_piece_is_a_tenth_of_a_second_and_not_empty() {
        for (rate, piece) in
            [(0, 1), (1, 1), (1000, 250), (20_000, 4096), (1_000_000, 100_000), (u64::MAX, u64::MAX / 10)]
        {
            assert_eq!(RateLimiter::new(rate).piece(), piece, "{rate}");
        }
    }
}
