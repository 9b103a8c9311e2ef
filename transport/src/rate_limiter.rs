//! No more bytes a second than the user allows.

use std::thread;
use std::time::{Duration, Instant};

/// How far behind its rate a stream may fall and still make up for it: more would be a burst.
const CREDIT: Duration = Duration::from_millis(100);

/// Holds back a stream: whoever moves its bytes tells so, and is made to wait.
#[derive(Debug)]
pub struct RateLimiter {
    bucket: TokenBucket,
    began: Instant,
}

impl RateLimiter {
    /// At most `rate` bytes a second; 0 is taken for 1.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self { bucket: TokenBucket::new(rate), began: Instant::now() }
    }

    /// The most bytes to move at once: those of about a tenth of a second.
    #[must_use]
    pub fn piece(&self) -> u64 {
        self.bucket.piece()
    }

    /// So many bytes were moved: comes back when the next may be.
    pub fn passed(&mut self, bytes: u64) {
        let pause = self.bucket.passed(self.began.elapsed(), bytes);
        if !pause.is_zero() {
            wait_until(Instant::now() + pause);
        }
    }
}

/// Waits until then, however many signals come meanwhile: the system is given the time to wake up at, and not a length of time, which
/// would begin again after each signal. No thread unparks this one.
fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

/// The bucket, whose clock is its caller's.
#[derive(Debug)]
struct TokenBucket {
    rate: u64,
    /// When all bytes so far have had their time.
    due: Duration,
}

impl TokenBucket {
    fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), due: Duration::ZERO }
    }

    fn piece(&self) -> u64 {
        // Small pieces cost more calls than they are worth; but one must not take longer than a quarter of a second.
        let least = (self.rate / 4).clamp(1, 4096);
        (self.rate / 10).max(least)
    }

    /// How long to wait at `now`, after these bytes.
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

    /// Moves pieces for `time`, each of which takes `each` by itself: what was moved when.
    fn pour(rate: u64, time: Duration, each: Duration) -> Vec<(Duration, u64)> {
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
                let moved: u64 = pour(rate, Duration::from_secs(20), each).iter().map(|(_, bytes)| bytes).sum();
                let wanted = rate * 20;
                assert!(moved.abs_diff(wanted) <= wanted / 20, "{rate}, {each:?}: {moved} of {wanted}");
            }
        }
    }

    #[test]
    fn no_quarter_of_a_second_has_more_than_twice_its_share() {
        for rate in RATES {
            let moved = pour(rate, Duration::from_secs(5), Duration::from_micros(10));
            for (n, (from, _)) in moved.iter().enumerate() {
                let window = moved[n..].iter().take_while(|(at, _)| *at < *from + Duration::from_millis(250));
                let bytes: u64 = window.map(|(_, bytes)| bytes).sum();
                assert!(bytes <= rate / 2 + 1, "{rate}: {bytes} in a quarter of a second");
            }
        }
    }

    #[test]
    fn what_was_not_moved_while_the_stream_stood_still_is_not_made_up_for() {
        let mut bucket = TokenBucket::new(1_000_000);
        assert_eq!(bucket.passed(Duration::from_secs(60), 100_000), Duration::ZERO);
        assert_eq!(bucket.passed(Duration::from_secs(60), 100_000), Duration::from_millis(100));
    }

    #[test]
    fn pieces_are_a_tenth_of_a_second_and_never_nothing() {
        for (rate, piece) in
            [(0, 1), (1, 1), (1000, 250), (20_000, 4096), (1_000_000, 100_000), (u64::MAX, u64::MAX / 10)]
        {
            assert_eq!(RateLimiter::new(rate).piece(), piece, "{rate}");
        }
    }
}
