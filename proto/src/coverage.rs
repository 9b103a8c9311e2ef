//! Coverage: the records of a stream, in order, cover the disk `[0, size)` exactly once (SPEC.md, "The law").

use std::ops::Range;

use thiserror::Error;

use crate::{Base, HashParams, LEN_MAX, Record, StreamHeader};

/// A record that breaks the coverage rules. All fields are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each field is; all are in bytes")]
pub enum CoverageError {
    /// A record of length 0.
    #[error("a record of length 0")]
    Empty,
    /// The record extends beyond the end of the disk.
    #[error("a record of {len} bytes, where {left} are left of the disk")]
    PastEnd { len: u64, left: u64 },
    /// END comes before the records cover the disk.
    #[error("END with {left} bytes of the disk uncovered")]
    Uncovered { left: u64 },
    /// KEEP in a stream that has no BASE.
    #[error("KEEP without BASE")]
    KeepWithoutBase,
    /// KEEP of bytes beyond the end of the base.
    #[error("KEEP up to {end}, where BASE ends at {base}")]
    KeepPastBase { end: u64, base: u64 },
    /// With digests: the record doesn't begin at a multiple of the grain.
    #[error("a record that begins at no multiple of the grain {grain}")]
    OffGrain { grain: u64 },
    /// With digests: DATA crosses a multiple of the interval.
    #[error("DATA of {len} bytes across a multiple of the interval {interval}")]
    AcrossInterval { len: u64, interval: u64 },
    /// With digests: DATA that the sender had to merge with the DATA before it.
    #[error("DATA after DATA at no multiple of the interval {interval}")]
    DataAfterData { interval: u64 },
    /// With digests: HOLE that the sender had to merge with the HOLE before it.
    #[error("HOLE after HOLE")]
    HoleAfterHole,
    /// With digests: KEEP that the sender had to merge with the KEEP before it.
    #[error("KEEP after KEEP")]
    KeepAfterKeep,
    /// With digests: KEEP begins or ends inside an interval.
    #[error("KEEP that begins or ends at no multiple of the interval {interval}")]
    KeepOffInterval { interval: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PreviousRecord {
    None,
    Data,
    Hole,
    Keep,
}

/// Checks, record by record, that a stream covers the disk exactly once. Sender and receiver both use it, and no other
/// code checks coverage.
#[derive(Clone, Debug)]
pub struct CoverageChecker {
    size: u64,
    at: u64,
    hash_params: Option<HashParams>,
    base: Option<u64>,
    last: PreviousRecord,
}

impl CoverageChecker {
    /// Creates a checker at offset 0 of the disk that the open line and BASE announce.
    #[must_use]
    pub fn new(open: &StreamHeader, base: Option<&Base>) -> Self {
        Self {
            size: open.size,
            at: 0,
            hash_params: open.sums,
            base: base.map(|base| base.size),
            last: PreviousRecord::None,
        }
    }

    /// Creates a checker for a disk of unknown size, as in the 2014 dialect: the records may end anywhere up to
    /// [`LEN_MAX`] bytes.
    #[must_use]
    pub fn unsized_disk() -> Self {
        Self::new(&StreamHeader { size: LEN_MAX, sums: None }, None)
    }

    /// The end of the last accepted record: a disk offset in bytes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Accepts the next record and returns the range that it covers, in bytes of the disk.
    ///
    /// # Errors
    ///
    /// A [`CoverageError`] if the record breaks a rule. The checker then stays at the offset where it was.
    pub fn step(&mut self, record: &Record) -> Result<Range<u64>, CoverageError> {
        let (at, len) = (self.at, record.len());
        if len == 0 {
            return Err(CoverageError::Empty);
        }
        let left = self.size - at;
        if len > left {
            return Err(CoverageError::PastEnd { len, left });
        }
        let end = at + len;
        if let Record::Keep { .. } = record {
            let base = self.base.ok_or(CoverageError::KeepWithoutBase)?;
            if end > base {
                return Err(CoverageError::KeepPastBase { end, base });
            }
        }
        if let Some(hash_params) = self.hash_params {
            self.check_form(record, end, hash_params)?;
        }
        self.last = match record {
            Record::Data { .. } => PreviousRecord::Data,
            Record::Hole { .. } => PreviousRecord::Hole,
            Record::Keep { .. } => PreviousRecord::Keep,
        };
        self.at = end;
        Ok(at..end)
    }

    /// Checks the part of the canonical form that is visible in record lines (SPEC.md, "The canonical form").
    fn check_form(&self, record: &Record, end: u64, hash_params: HashParams) -> Result<(), CoverageError> {
        let (interval, grain) = (hash_params.interval(), hash_params.grain());
        if !self.at.is_multiple_of(grain) {
            return Err(CoverageError::OffGrain { grain });
        }
        let at_interval = self.at.is_multiple_of(interval);
        match *record {
            Record::Data { len, .. } => {
                if self.at / interval != (end - 1) / interval {
                    return Err(CoverageError::AcrossInterval { len, interval });
                }
                if self.last == PreviousRecord::Data && !at_interval {
                    return Err(CoverageError::DataAfterData { interval });
                }
            }
            Record::Hole { .. } if self.last == PreviousRecord::Hole => return Err(CoverageError::HoleAfterHole),
            Record::Hole { .. } => {}
            Record::Keep { .. } => {
                if self.last == PreviousRecord::Keep {
                    return Err(CoverageError::KeepAfterKeep);
                }
                if !at_interval || !(end.is_multiple_of(interval) || end == self.size) {
                    return Err(CoverageError::KeepOffInterval { interval });
                }
            }
        }
        Ok(())
    }

    /// Checks, when END comes, that the records cover the whole disk.
    ///
    /// # Errors
    ///
    /// [`CoverageError::Uncovered`] with the number of bytes that are missing.
    pub fn finish(&self) -> Result<(), CoverageError> {
        match self.size - self.at {
            0 => Ok(()),
            left => Err(CoverageError::Uncovered { left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: fn(u64) -> Record = |len| Record::Data { len, digest: None };
    const HOLE: fn(u64) -> Record = |len| Record::Hole { len };
    const KEEP: fn(u64) -> Record = |len| Record::Keep { len };

    fn walk(size: u64, params: Option<(u64, u64)>, base: Option<u64>, records: &[Record]) -> Result<(), CoverageError> {
        let hash_params = params.map(|(interval, grain)| HashParams::new(interval, grain).unwrap());
        let base = base.map(|size| Base { size, digest: None });
        let mut checker = CoverageChecker::new(&StreamHeader { size, sums: hash_params }, base.as_ref());
        for record in records {
            let at = checker.at();
            match checker.step(record) {
                Ok(range) => assert_eq!(range, at..at + record.len()),
                Err(error) => {
                    assert_eq!(checker.at(), at, "an error must not move the checker");
                    return Err(error);
                }
            }
        }
        checker.finish()
    }

    #[test]
    fn records_must_cover_the_disk_exactly_once() {
        assert_eq!(walk(0, None, None, &[]), Ok(()));
        assert_eq!(walk(10, None, None, &[DATA(3), DATA(3), HOLE(2), HOLE(2)]), Ok(()));
        assert_eq!(walk(LEN_MAX, None, None, &[HOLE(LEN_MAX - 1), DATA(1)]), Ok(()));
        assert_eq!(walk(10, None, None, &[DATA(9)]), Err(CoverageError::Uncovered { left: 1 }));
        assert_eq!(walk(10, None, None, &[DATA(9), HOLE(2)]), Err(CoverageError::PastEnd { len: 2, left: 1 }));
        assert_eq!(walk(0, None, None, &[HOLE(1)]), Err(CoverageError::PastEnd { len: 1, left: 0 }));
        assert_eq!(
            walk(10, None, None, &[DATA(1), HOLE(u64::MAX)]),
            Err(CoverageError::PastEnd { len: u64::MAX, left: 9 })
        );
        assert_eq!(walk(10, None, None, &[HOLE(0)]), Err(CoverageError::Empty));
    }

    #[test]
    fn keep_must_lie_within_the_base() {
        assert_eq!(walk(10, None, Some(6), &[KEEP(3), KEEP(3), DATA(4)]), Ok(()));
        assert_eq!(walk(10, None, None, &[KEEP(10)]), Err(CoverageError::KeepWithoutBase));
        assert_eq!(walk(10, None, Some(6), &[KEEP(7)]), Err(CoverageError::KeepPastBase { end: 7, base: 6 }));
    }

    #[test]
    fn with_digests_the_canonical_form_is_required() {
        let params = Some((8192, 4096));
        assert_eq!(walk(20480, params, None, &[DATA(8192), DATA(8192), HOLE(4096)]), Ok(()));
        assert_eq!(walk(5000, params, None, &[DATA(5000)]), Ok(()));
        let off = CoverageError::OffGrain { grain: 4096 };
        assert_eq!(walk(8192, params, None, &[DATA(100), HOLE(8092)]), Err(off));
        let across = CoverageError::AcrossInterval { len: 8192, interval: 8192 };
        assert_eq!(walk(16384, params, None, &[HOLE(4096), DATA(8192)]), Err(across));
        let twice = CoverageError::DataAfterData { interval: 8192 };
        assert_eq!(walk(16384, params, None, &[DATA(4096), DATA(4096)]), Err(twice));
        assert_eq!(walk(16384, params, None, &[HOLE(8192), HOLE(8192)]), Err(CoverageError::HoleAfterHole));
        assert_eq!(walk(16384, params, Some(16384), &[KEEP(8192), KEEP(8192)]), Err(CoverageError::KeepAfterKeep));
        let inside = CoverageError::KeepOffInterval { interval: 8192 };
        assert_eq!(walk(16384, params, Some(16384), &[KEEP(4096)]), Err(inside));
        assert_eq!(walk(16384, params, Some(16384), &[DATA(4096), KEEP(4096)]), Err(inside));
        assert_eq!(walk(9000, params, Some(9000), &[DATA(8192), KEEP(808)]), Ok(()));
    }
}
