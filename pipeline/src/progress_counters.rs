//! Progress of a transfer: atomic counters that the data path increments and the event loop reads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::data_estimate::DataEstimator;

/// The phase of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Opening files and exchanging options: no byte of the disk was moved yet.
    #[default]
    Preparing,
    /// Connecting to the other side, which may ask for a password.
    Connecting,
    /// The disk is being sent.
    Sending,
    /// The disk is being received.
    Receiving,
    /// The disk is being copied on one machine.
    Copying,
    /// Old bytes are being overwritten with zeros where the disk has a hole.
    Zeroing,
    /// All bytes are written and are being synced; then the target gets its final name.
    Syncing,
    /// The disk is being read for its digests.
    Hashing,
    /// The synced disk is being read back from storage.
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

    /// Returns the name of the phase in messages and in JSON.
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

/// Counters of one transfer, in bytes. They never decrease.
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
    /// Sets the phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns the phase.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed)) % Phase::ALL.len()]
    }

    /// Sets the disk's size in bytes, once it is known.
    pub fn set_size(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }

    /// Adds bytes of the disk that are done, as data, as a hole or unchanged.
    pub fn add_disk(&self, bytes: u64) {
        self.disk.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes of the disk that are done as data.
    pub fn add_data(&self, bytes: u64) {
        self.data.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes of the disk that were left unchanged.
    pub fn add_kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sets the approximate number of bytes of data that the other side announced.
    pub fn expect_data(&self, bytes: u64) {
        self.ahead.expect(bytes);
    }

    /// Returns the estimator of the disk's data.
    pub fn ahead(&self) -> &DataEstimator {
        &self.ahead
    }

    /// Adds bytes of the stream.
    pub fn add_wire(&self, bytes: u64) {
        self.wire.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the disk's size in bytes; 0 until it is known.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the disk that are done.
    pub fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the disk that are done as data.
    pub fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the disk that were left unchanged.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the stream so far.
    pub fn wire(&self) -> u64 {
        self.wire.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_reads_back_as_it_was_set() {
        let counters = ProgressCounters::default();
        assert_eq!(counters.phase(), Phase::Preparing);
        for phase in Phase::ALL {
            counters.set_phase(phase);
            assert_eq!((counters.phase(), counters.phase().word()), (phase, phase.word()));
        }
    }
}
