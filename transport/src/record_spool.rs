//! Records that wait their turn: in memory as long as they are few, else in a file without a name.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::{io, process};

use xfer_hole_proto::{Digest, Record};

/// Records that are held in memory on either side of the file.
const MEMORY: usize = 32 << 10;
/// Bytes of a record in the file: its length, whether it has a digest, and that.
const BYTES: usize = 8 + 1 + Digest::BYTES;

/// Records of a manifest, first in, first out.
#[derive(Debug, Default)]
pub struct RecordSpool {
    /// What comes next.
    head: VecDeque<Record>,
    file: Option<File>,
    /// Records of the file: those that were taken, and all.
    taken: u64,
    put: u64,
    /// What came last.
    tail: Vec<Record>,
}

impl RecordSpool {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + (self.put - self.taken) + self.tail.len() as u64
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in DATA with its digest, or HOLE.
    ///
    /// # Errors
    /// If there is no room in the folder for temporary files.
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
            none => none.insert(nameless()?),
        };
        if self.taken == self.put {
            (self.taken, self.put) = (0, 0);
        }
        file.write_all_at(&bytes, self.put * BYTES as u64)?;
        self.put += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// The next, if one waits.
    ///
    /// # Errors
    /// If the file can't be read.
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

fn coded(record: &Record) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&record.len().to_le_bytes());
    if let Record::Data { digest: Some(digest), .. } = record {
        bytes[8] = 1;
        bytes[9..].copy_from_slice(&digest.bytes());
    }
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Record> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (kind, digest) = rest.split_first_chunk::<1>()?;
    let len = u64::from_le_bytes(*len);
    Some(match kind {
        [0] => Record::Hole { len },
        _ => Record::Data { len, digest: Some(Digest::from(*digest.first_chunk()?)) },
    })
}

/// A file that is gone when it is closed.
fn nameless() -> io::Result<File> {
    // It may be larger than what a folder in memory should take.
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
    fn records_come_out_as_they_went_in_however_many_wait() {
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
