//! A stream that builds on what the receiver holds: it is asked before, and answers while we read (SPEC.md, "WANT").

use std::cell::RefCell;
use std::time::Duration;

use xfer_hole_os::{DiskError as ImageError, DiskErrorKind};
use xfer_hole_pipeline::SegmentBatch;
use xfer_hole_proto::{Digest, HashParams, ManifestHeader, ManifestRequest, ManifestWriter, Record, Reply};
use xfer_hole_transport::{ExistingOffer, ManifestProgress, ReplyReader};

use crate::error::SendError;
use crate::stream_writer::StreamWriter;

/// How long an answer is waited for at a time.
const LOOK: Duration = Duration::from_secs(1);

/// What the receiver holds, as it tells.
pub(crate) struct ExistingDisk {
    answers: ReplyReader,
    pub(crate) manifest: ManifestHeader,
}

/// What a receiver answers that was asked what it has.
pub(crate) enum DeltaAnswer {
    /// The very disk.
    Same(Digest),
    /// This.
    Holds(ExistingDisk),
}

impl ExistingDisk {
    /// Asks the receiver, and waits until it begins to tell; to one that tells first, until it has told all.
    pub(crate) fn ask(
        wire: &mut StreamWriter,
        answers: &ReplyReader,
        want: ManifestRequest,
        first: bool,
    ) -> Result<DeltaAnswer, SendError> {
        answers.ask(want);
        wire.ask(&want)?;
        let offer = loop {
            if let Some(offer) = answers.offer(LOOK).map_err(|_| SendError::BrokenPipe)? {
                break offer;
            }
        };
        let answers = answers.clone();
        match offer {
            ExistingOffer::Manifest(manifest) => {
                while first && !answers.told_all(LOOK).map_err(|_| SendError::BrokenPipe)? {}
                Ok(DeltaAnswer::Holds(Self { answers, manifest }))
            }
            // It is no answer where nothing was named.
            ExistingOffer::Same => Ok(DeltaAnswer::Same(want.digest.ok_or(SendError::BrokenPipe)?)),
        }
    }

    /// The next record that it tells; none behind the last. What was gathered goes out before anything is waited for: the receiver
    /// may need it to get on.
    pub(crate) fn next(&self, wire: &RefCell<&mut StreamWriter>) -> Result<Option<Record>, SendError> {
        let mut patience = Duration::ZERO;
        loop {
            match self.answers.told(patience).map_err(|_| SendError::BrokenPipe)? {
                ManifestProgress::Record(record) => return Ok(Some(record)),
                ManifestProgress::End => return Ok(None),
                ManifestProgress::Nothing => {
                    let mut wire = wire.borrow_mut();
                    wire.flush()?;
                    wire.idle()?;
                    patience = LOOK;
                }
            }
        }
    }
}

/// Whether a receiver with these words of READY is to be asked: for a delta, or because a part of this disk may be there.
pub(crate) fn asks(words: &[String], delta: bool, resume: bool) -> bool {
    let says = |word: &str| words.iter().any(|said| said == word);
    says(Reply::DELTA) && (delta || (resume && says(Reply::PART)))
}

/// The record lines of the whole disk, put together from its blocks as they pass.
pub(crate) struct DiskLines(RefCell<ManifestWriter>);

impl DiskLines {
    /// Of a disk of this size in bytes.
    pub(crate) fn new(size: u64, sums: HashParams) -> Self {
        Self(RefCell::new(ManifestWriter::new(ManifestHeader::whole(size, sums))))
    }

    /// Takes note of a block.
    pub(crate) fn pass(&self, block: &SegmentBatch) -> Result<(), ImageError> {
        let broken =
            |error: xfer_hole_proto::StreamError| ImageError::new(DiskErrorKind::Io, "records", error.to_string());
        let (mut lines, mut writer) = (String::new(), self.0.borrow_mut());
        for run in &block.runs {
            lines.clear();
            writer.record(&run.record(), &mut lines).map_err(broken)?;
        }
        Ok(())
    }

    /// The digest of the disk's fingerprint, once all blocks have passed.
    pub(crate) fn digest(self) -> Result<Digest, SendError> {
        Ok(self.0.into_inner().end(&mut String::new())?)
    }
}
