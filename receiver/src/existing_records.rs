//! What the target was found to hold, from where the stream is to where the survey is: the lines of what is kept come from here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use xfer_hole_os::{DiskError as ImageError, DiskErrorKind};
use xfer_hole_proto::{Digest, Record};
use xfer_hole_transport::RecordSpool;

use crate::error::ReceiveError;

/// Filled by the survey, emptied by the stream.
#[derive(Debug, Default)]
pub(crate) struct ExistingRecords {
    pages: Mutex<RecordPages>,
    /// Records that may wait; none for as many as there is room for.
    most: Option<u64>,
}

#[derive(Debug, Default)]
struct RecordPages {
    records: RecordSpool,
    /// The rest of a record that the stream has come into: its length in bytes, and its digest as long as it is whole.
    begun: Option<Record>,
    /// Disk offset that the stream has come to.
    passed: u64,
    /// Disk offset that the survey has come to, and whether that is its end.
    told: u64,
    ended: bool,
}

/// A stretch of what is kept: its length in bytes, and its digest if it isn't zeros.
pub(crate) type KeptRange = (u64, Option<Digest>);

impl ExistingRecords {
    /// One in which so many records may wait.
    pub(crate) fn of(most: Option<u64>) -> Self {
        Self { pages: Mutex::default(), most }
    }

    fn pages(&self) -> MutexGuard<'_, RecordPages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The survey has found this behind what it found before. It is told afterwards.
    pub(crate) fn push(&self, record: Record) -> Result<(), ReceiveError> {
        let mut pages = self.pages();
        if let Some(most) = self.most.filter(|&most| pages.records.len() >= most) {
            let what = format!(
                "has more than {most} records, which are all that may wait: a longer --hash-interval makes fewer"
            );
            return Err(ImageError::new(DiskErrorKind::Refused, "what is there", what).into());
        }
        pages.told += record.len();
        pages.records.push(record).map_err(unusable)
    }

    /// The survey is over.
    pub(crate) fn end(&self) {
        self.pages().ended = true;
    }

    /// The stream passes on to `end`. What was found there is told; false if the survey isn't that far.
    pub(crate) fn pass(
        &self,
        end: u64,
        mut tell: impl FnMut(KeptRange) -> Result<(), ReceiveError>,
    ) -> Result<bool, ReceiveError> {
        let mut pages = self.pages();
        if end > pages.told && !pages.ended {
            return Ok(false);
        }
        let end = end.min(pages.told);
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
                // What is left of data has no digest of its own: nothing keeps it.
                pages.begun = Some(match record {
                    Record::Data { .. } => Record::Data { len: len - room, digest: None },
                    _ => Record::Hole { len: len - room },
                });
            }
            tell((len.min(room), digest))?;
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
    fn the_stream_gets_what_was_found_where_it_is_and_no_sooner() {
        let existing = ExistingRecords::default();
        let digest = Digest::of(b"x");
        let mut told = Vec::new();
        let mut pass = |end| {
            let passed = existing.pass(end, |kept| {
                told.push(kept);
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
        assert_eq!(told, [(40, None), (60, None), (10, Some(digest))]);
    }

    #[test]
    fn no_more_records_wait_than_may() {
        let existing = ExistingRecords::of(Some(3));
        let push = || existing.push(Record::Hole { len: 10 });
        assert!((0..3).all(|_| push().is_ok()));
        let refused = push().unwrap_err().to_string();
        assert!(refused.contains("more than 3 records") && refused.contains("--hash-interval"), "{refused}");
        assert!(existing.pass(10, |_| Ok(())).unwrap());
        assert!(push().is_ok() && push().is_err());
    }
}
