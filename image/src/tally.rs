//! How far a transfer is: atomics that the data path adds to and the rim reads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a transfer is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing flows yet.
    #[default]
    Preparing,
    /// A disk goes out.
    Sending,
    /// A disk comes in.
    Receiving,
    /// A disk is copied on this machine.
    Copying,
    /// What is to be a hole is zeroed.
    Zeroing,
    /// All is written, and becomes durable.
    Syncing,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::Preparing, Self::Sending, Self::Receiving, Self::Copying, Self::Zeroing, Self::Syncing];

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Sending => "sending",
            Self::Receiving => "receiving",
            Self::Copying => "copying",
            Self::Zeroing => "zeroing",
            Self::Syncing => "syncing",
        }
    }
}

/// Counters of one transfer, in octets.
#[derive(Debug, Default)]
pub struct Tally {
    size: AtomicU64,
    disk: AtomicU64,
    data: AtomicU64,
    wire: AtomicU64,
    phase: AtomicU8,
}

impl Tally {
    /// Tells the disk's size, once it is known.
    pub fn set_size(&self, octets: u64) {
        self.size.store(octets, Ordering::Relaxed);
    }

    /// Part of the disk is done, as data or as hole.
    pub fn add_disk(&self, octets: u64) {
        self.disk.fetch_add(octets, Ordering::Relaxed);
    }

    /// Part of the disk is done as data.
    pub fn add_data(&self, octets: u64) {
        self.data.fetch_add(octets, Ordering::Relaxed);
    }

    /// Octets of the stream.
    pub fn add_wire(&self, octets: u64) {
        self.wire.fetch_add(octets, Ordering::Relaxed);
    }

    /// Tells what the transfer is at.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the transfer is at.
    pub fn phase(&self) -> Phase {
        Phase::ALL.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// The disk's size.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Octets of the disk that are done.
    pub fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    /// Octets of the disk that are done as data.
    pub fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// Octets of the stream so far.
    pub fn wire(&self) -> u64 {
        self.wire.load(Ordering::Relaxed)
    }
}
