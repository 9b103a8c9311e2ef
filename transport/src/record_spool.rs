//! A queue of manifest records: in memory while it is short, else in an unnamed temporary file.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::{io, process};

use xfer_hole_proto::{Digest, Record};

/// Maximum number of records in memory before the file, and again after it.
const MEMORY: usize = 32 << 10;
/// Bytes of a record in the file: its length (8), whether it has a digest (1), and the digest.
const BYTES: usize = 8 + 1 + Digest::BYTES;

/// A first-in, first-out queue of manifest records that uses a bounded amount of memory.
#[derive(Debug, Default)]
pub struct RecordSpool {
    /// The oldest records.
    head: VecDeque<Record>,
    file: Option<File>,
    /// Records that were read from the file.
    taken: u64,
    /// Records that were written to the file.
    put: u64,
    /// The newest records.
    tail: Vec<Record>,
}

impl RecordSpool {
    /// Returns the number of records in the queue.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + (self.put - self.taken) + self.tail.len() as u64
    }

    /// Returns true if the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a record: DATA with its digest, or HOLE.
    ///
    /// # Errors
    /// Returns an error if the temporary file can't be created or written.
    pub fn push(&mut self, record: Record) -> io::Result<()> {
        if self.put == self.taken && self.tail.is_empty() && self.head.len() < MEMORY {
            self.head.push_back(record);
            return Ok(());
        }
        self.tail.push(record);
        if self.tail.len() < MEMORY {
            return Ok(());
        }
        let bytes: Vec<u8> = self.tail.iter().flat_map(coded).collect();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(unnamed_file()?),
        };
        if self.taken == self.put {
            (self.taken, self.put) = (0, 0);
        }
        file.write_all_at(&bytes, self.put * BYTES as u64)?;
        self.put += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// Removes and returns the oldest record; `None` if the queue is empty.
    ///
    /// # Errors
    /// Returns an error if the temporary file can't be read.
    pub fn pop(&mut self) -> io::Result<Option<Record>> {
        if self.head.is_empty() {
            match &self.file {
                Some(file) if self.taken < self.put => {
                    let count = (self.put - self.taken).min(MEMORY as u64);
                    let mut bytes = vec![0; usize::try_from(count).unwrap_or(MEMORY) * BYTES];
                    file.read_exact_at(&mut bytes, self.taken * BYTES as u64)?;
                    self.head.extend(bytes.chunks_exact(BYTES).filter_map(decoded));
                    self.taken += count;
                }
                _ => self.head.extend(self.tail.drain(..)),
            }
        }
        Ok(self.head.pop_front())
    }
}

/// Encodes a record for the file.
fn coded(record: &Record) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&record.len().to_le_bytes());
    if let Record::Data { digest: Some(digest), .. } = record {
        bytes[8] = 1;
        bytes[9..].copy_from_slice(&digest.bytes());
    }
    bytes
}

/// Decodes a record of the file.
fn decoded(bytes: &[u8]) -> Option<Record> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (kind, digest) = rest.split_first_chunk::<1>()?;
    let len = u64::from_le_bytes(*len);
    Some(match kind {
        [0] => Record::Hole { len },
        _ => Record::Data { len, digest: Some(Digest::from(*digest.first_chunk()?)) },
    })
}

/// Creates a temporary file without a name, which is deleted when it is closed.
fn unnamed_file() -> io::Result<File> {
    // Not /tmp by default: it may be in memory, and the file may be large.
    let folder = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.clone().custom_flags(nix::libc::O_TMPFILE).open(&folder).or_else(|_| {
        let name = folder.join(format!("xfer-hole.{}", process::id()));
        let file = options.create_new(true).open(&name)?;
        fs::remove_file(name)?;
        Ok(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> Record {
        match number % 3 {
            0 => Record::Hole { len: number + 1 },
            _ => Record::Data { len: number + 1, digest: Some(Digest::of(&number.to_le_bytes())) },
        }
    }

    #[test]
    fn records_leave_in_the_order_they_entered() {
        let mut spool = RecordSpool::default();
        let (mut put, mut taken) = (0, 0);
        let half = MEMORY as u64 / 2;
        for (more, less) in
            [(3, 1), (half, half / 2), (20 * half, half), (half, 15 * half), (5 * half, u64::MAX), (7, 7)]
        {
            for _ in 0..more {
                spool.push(record(put)).unwrap();
                put += 1;
            }
            assert_eq!(spool.len(), put - taken);
            for _ in 0..less {
                let Some(next) = spool.pop().unwrap() else { break };
                assert_eq!(next, record(taken));
                taken += 1;
            }
        }
        assert!(spool.is_empty() && put == taken);
        assert!(spool.file.is_some() && spool.head.capacity() < 4 * MEMORY);
    }
}
