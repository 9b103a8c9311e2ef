//! How far a transfer is: atomics that the data path adds to and the event loop reads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::data_estimate::DataEstimator;

/// What a transfer is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Opening, asking and being answered: nothing of the disk has been moved.
    #[default]
    Preparing,
    /// The other side is called, which may ask for a password.
    Connecting,
    /// The disk goes out.
    Sending,
    /// The disk comes in.
    Receiving,
    /// The disk goes from file to file on one machine.
    Copying,
    /// Old bytes are really zeroed where the disk has a hole.
    Zeroing,
    /// All of the disk is written, and on its way to stable storage and to its final name.
    Syncing,
    /// The disk is read for its digests.
    Hashing,
    /// All of the disk is stored, and read from there once more.
    ReadingBack,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Preparing,
        Self::Connecting,
        Self::Sending,
        Self::Receiving,
        Self::Copying,
        Self::Zeroing,
        Self::Syncing,
        Self::Hashing,
        Self::ReadingBack,
    ];

    /// Its name, as people and programs are told.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Connecting => "connecting",
            Self::Sending => "sending",
            Self::Receiving => "receiving",
            Self::Copying => "copying",
            Self::Zeroing => "zeroing",
            Self::Syncing => "syncing",
            Self::Hashing => "hashing",
            Self::ReadingBack => "reading back",
        }
    }
}

/// Counters of one transfer, in bytes: none of them ever falls.
#[derive(Debug, Default)]
pub struct ProgressCounters {
    ahead: DataEstimator,
    kept: AtomicU64,
    phase: AtomicU8,
    size: AtomicU64,
    disk: AtomicU64,
    data: AtomicU64,
    wire: AtomicU64,
}

impl ProgressCounters {
    /// Tells what the transfer is at from now on.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the transfer is at.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed)) % Phase::ALL.len()]
    }

    /// Tells the disk's size, once it is known.
    pub fn set_size(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }

    /// Part of the disk is done, as data or as hole.
    pub fn add_disk(&self, bytes: u64) {
        self.disk.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Part of the disk is done as data.
    pub fn add_data(&self, bytes: u64) {
        self.data.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Part of the disk is done by keeping what was there.
    pub fn add_kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// About how many bytes of data there will be, as the other side has told.
    pub fn expect_data(&self, bytes: u64) {
        self.ahead.expect(bytes);
    }

    /// What is known of the disk's data ahead of its transfer.
    pub fn ahead(&self) -> &DataEstimator {
        &self.ahead
    }

    /// Bytes of the stream.
    pub fn add_wire(&self, bytes: u64) {
        self.wire.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The disk's size; 0 until it is known.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Bytes of the disk that are done.
    pub fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    /// Bytes of the disk that are done as data.
    pub fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// Bytes of the disk that were kept as they were.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Bytes of the stream so far.
    pub fn wire(&self) -> u64 {
        self.wire.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_gives_back_the_phase_it_was_told() {
        let counters = ProgressCounters::default();
        assert_eq!(counters.phase(), Phase::Preparing);
        for phase in Phase::ALL {
            counters.set_phase(phase);
            assert_eq!((counters.phase(), counters.phase().word()), (phase, phase.word()));
        }
    }
}
