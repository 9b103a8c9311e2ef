//! What a written file was when all of it was durable: by that its fingerprint can be noted.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use xfer_hole_os::{Stamp, flushed, sys};

/// The longest that the clock of a file system is waited for: one that keeps whole seconds needs one.
const TICK_MAX: Duration = Duration::from_millis(1500);

/// A file that a disk was written to, as its writer left it: by its path alone, another's could be taken for it.
#[derive(Clone, Debug, Default)]
pub struct WrittenStamp(Arc<StampedFile>);

#[derive(Debug, Default)]
struct StampedFile {
    wanted: AtomicBool,
    left: OnceLock<Stamp>,
}

impl WrittenStamp {
    /// The fingerprint will be noted.
    pub fn want(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// All is written and durable, and nobody else has been let in yet.
    pub fn set(&self, file: &File) {
        if !self.0.wanted.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        // The next write has to set other times than ours.
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

    /// What the file was when all of it was durable, if it is to be noted.
    #[must_use]
    pub fn left(&self) -> Option<Stamp> {
        self.0.left.get().copied()
    }
}
