//! How far a transfer is: atomics that the data path adds to and the rim reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one transfer, in octets.
#[derive(Debug, Default)]
pub struct Tally {
    size: AtomicU64,
    disk: AtomicU64,
    data: AtomicU64,
    wire: AtomicU64,
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
