//! The records of the existing content of a target between the position of the stream and the position of the hashing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use xfer_hole_os::{DiskError as ImageError, DiskErrorKind};
use xfer_hole_proto::{Digest, Record};
use xfer_hole_transport::RecordSpool;

use crate::error::ReceiveError;

/// A queue of records: the thread that hashes the target fills it, the thread that applies the stream empties it.
#[derive(Debug, Default)]
pub(crate) struct ExistingRecords {
    pages: Mutex<RecordPages>,
    /// Maximum number of queued records; `None` for no limit.
    most: Option<u64>,
}

#[derive(Debug, Default)]
struct RecordPages {
    records: RecordSpool,
    /// The rest of a record of which the stream has passed a part. Data has no digest then.
    begun: Option<Record>,
    /// Disk offset of the stream in bytes.
    passed: u64,
    /// Disk offset of the hashing in bytes.
    hashed: u64,
    /// True once the whole target was hashed.
    ended: bool,
}

/// A range of the existing content: its length in bytes, and its digest unless it is zeros.
pub(crate) type KeptRange = (u64, Option<Digest>);

impl ExistingRecords {
    /// Creates a queue of at most `most` records; `None` for no limit.
    pub(crate) fn of(most: Option<u64>) -> Self {
        Self { pages: Mutex::default(), most }
    }

    fn pages(&self) -> MutexGuard<'_, RecordPages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the next record of the target. Call this before the record is sent to the sender.
    ///
    /// # Errors
    /// Returns an error if the queue is full or its temporary file can't be written.
    pub(crate) fn push(&self, record: Record) -> Result<(), ReceiveError> {
        let mut pages = self.pages();
        if let Some(most) = self.most.filter(|&most| pages.records.len() >= most) {
            let what = format!(
                "has more than {most} records, which are all that may wait: a longer --hash-interval makes fewer"
            );
            return Err(ImageError::new(DiskErrorKind::Refused, "what is there", what).into());
        }
        pages.hashed += record.len();
        pages.records.push(record).map_err(unusable)
    }

    /// Records that the whole target was hashed.
    pub(crate) fn end(&self) {
        self.pages().ended = true;
    }

    /// Advances the stream to the disk offset `end`, and calls `visit` with each range of the existing content up to there.
    ///
    /// Returns false if the target was not hashed that far.
    ///
    /// # Errors
    /// Returns the error of `visit`, or that the temporary file of the queue can't be read.
    pub(crate) fn pass(
        &self,
        end: u64,
        mut visit: impl FnMut(KeptRange) -> Result<(), ReceiveError>,
    ) -> Result<bool, ReceiveError> {
        let mut pages = self.pages();
        if end > pages.hashed && !pages.ended {
            return Ok(false);
        }
        let end = end.min(pages.hashed);
        while pages.passed < end {
            let Some(record) =
                pages.begun.take().map_or_else(|| pages.records.pop(), |begun| Ok(Some(begun))).map_err(unusable)?
            else {
                break;
            };
            let (len, room) = (record.len(), end - pages.passed);
            let digest = if let Record::Data { digest, .. } = record { digest } else { None };
            pages.passed += len.min(room);
            if len > room {
                // The rest of a data record has no digest and can't be kept.
                pages.begun = Some(match record {
                    Record::Data { .. } => Record::Data { len: len - room, digest: None },
                    _ => Record::Hole { len: len - room },
                });
            }
            visit((len.min(room), digest))?;
        }
        Ok(true)
    }
}

fn unusable(source: std::io::Error) -> ReceiveError {
    ImageError::io("temporary file", "cannot keep what the target holds", source).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_gets_only_records_that_were_hashed() {
        let existing = ExistingRecords::default();
        let digest = Digest::of(b"x");
        let mut seen = Vec::new();
        let mut pass = |end| {
            let passed = existing.pass(end, |range| {
                seen.push(range);
                Ok(())
            });
            passed.unwrap()
        };
        assert!(!pass(1));
        existing.push(Record::Hole { len: 100 }).unwrap();
        existing.push(Record::Data { len: 10, digest: Some(digest) }).unwrap();
        assert!(pass(40));
        assert!(pass(110));
        assert!(!pass(111));
        existing.end();
        assert!(pass(111));
        assert_eq!(seen, [(40, None), (60, None), (10, Some(digest))]);
    }

    #[test]
    fn the_number_of_queued_records_is_limited() {
        let existing = ExistingRecords::of(Some(3));
        let push = || existing.push(Record::Hole { len: 10 });
        assert!((0..3).all(|_| push().is_ok()));
        let refused = push().unwrap_err().to_string();
        assert!(refused.contains("more than 3 records") && refused.contains("--hash-interval"), "{refused}");
        assert!(existing.pass(10, |_| Ok(())).unwrap());
        assert!(push().is_ok() && push().is_err());
    }
}
