//! Disks that are made in a moment, always the same, byte by byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of what a disk is made of.
const BLOCK: usize = 4096;

/// A raw disk of data and holes in turn, 4 KiB each.
#[derive(Clone, Copy, Debug)]
pub struct Fragments {
    /// How many pieces of data there are.
    pub count: u64,
}

impl Fragments {
    /// Makes the file.
    pub fn make(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        let mut block = [b'x'; BLOCK];
        for index in 0..self.count {
            block[..8].copy_from_slice(&(index + 1).to_le_bytes());
            file.write_all_at(&block, index * 2 * BLOCK as u64)?;
        }
        file.set_len(self.count * 2 * BLOCK as u64)
    }
}

/// A raw disk without a hole: blocks of 4 KiB with data, with zeros, and with zeros that end in something else.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// How many blocks there are.
    pub blocks: u64,
}

impl Mixture {
    /// Makes the file.
    pub fn make(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        for index in 0..self.blocks {
            let mut block = [0; BLOCK];
            match index * 5 / 3 % 4 {
                0 => block.fill(b'x'),
                1 => block[BLOCK - 1 - usize::try_from(index % 64).unwrap_or_default()] = b'x',
                _ => {}
            }
            file.write_all_at(&block, index * BLOCK as u64)?;
        }
        Ok(())
    }
}

/// A qcow2 image of which only the tables are there: entries for data, zeros and nothing, the first half of them in runs of one
/// cluster, the others in runs of eight. What lies where the data should is zeros.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// How many L2 tables there are, each of 8192 entries: at most 8192.
    pub tables: u64,
}

/// Bytes of a cluster, of which a table is one.
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Entries of a table.
const ENTRIES: u64 = CLUSTER / 8;
/// The clusters of the refcount table, of the L1 table, and of the first L2 table.
const REFCOUNTS: u64 = 1;
const L1: u64 = 2;
const L2: u64 = 3;

impl Tables {
    /// Makes the file.
    pub fn make(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        let entries = self.tables * ENTRIES;
        file.write_all_at(&self.header(), 0)?;
        let l1 = (0..self.tables).map(|table| (L2 + table) * CLUSTER);
        file.write_all_at(&words(l1), L1 * CLUSTER)?;
        file.write_all_at(&words((0..entries).map(|entry| self.entry(entry))), L2 * CLUSTER)?;
        file.set_len((L2 + self.tables + entries) * CLUSTER)
    }

    /// Version 3, without features (qcow2 specification, "Header").
    fn header(&self) -> Vec<u8> {
        let mut header = vec![0; 104];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb");
        for (at, number) in [(4, 3), (20, CLUSTER_BITS), (56, 1), (96, 4), (100, 104)] {
            put(at, &number.to_be_bytes());
        }
        put(36, &u32::try_from(self.tables).unwrap_or(u32::MAX).to_be_bytes());
        for (at, number) in [(24, self.tables * ENTRIES * CLUSTER), (40, L1 * CLUSTER), (48, REFCOUNTS * CLUSTER)] {
            put(at, &number.to_be_bytes());
        }
        header
    }

    fn entry(&self, entry: u64) -> u64 {
        let entries = self.tables * ENTRIES;
        let run = if entry < entries / 2 { 1 } else { 8 };
        match entry / run % 4 {
            0 => 0,
            1 => 1,
            // Neighbours lie apart in the file: an odd factor takes every run to another place.
            _ => {
                let place = (entry / run * 40_503) % (entries / run) * run + entry % run;
                (L2 + self.tables + place) * CLUSTER
            }
        }
    }
}

fn words(words: impl Iterator<Item = u64>) -> Vec<u8> {
    words.flat_map(u64::to_be_bytes).collect()
}
