//! The stamp of a written file at the time it was durable. Its fingerprint is noted with this stamp.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use xfer_hole_os::{Stamp, flushed, sys};

/// Maximum time to wait for the clock of the file system to advance. A file system with whole seconds needs up to a
/// second.
const TICK_MAX: Duration = Duration::from_millis(1500);

/// The stamp of a file as its writer left it. A path alone is not enough, since another file could get that path.
#[derive(Clone, Debug, Default)]
pub struct WrittenStamp(Arc<StampedFile>);

#[derive(Debug, Default)]
struct StampedFile {
    wanted: AtomicBool,
    left: OnceLock<Stamp>,
}

impl WrittenStamp {
    /// Requests that the stamp is taken.
    pub fn want(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// Takes the stamp, if it was requested. The file is complete and durable, and no other program can write to it
    /// yet.
    pub fn set(&self, file: &File) {
        if !self.0.wanted.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        // The next write has to set other times than these.
        while let Some(stamp) = flushed(file)
            && begun.elapsed() < TICK_MAX
        {
            if sys::coarse_now().is_some_and(|now| stamp.is_past(now)) {
                let _first = self.0.left.set(stamp);
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the stamp, if it was taken.
    #[must_use]
    pub fn left(&self) -> Option<Stamp> {
        self.0.left.get().copied()
    }
}
