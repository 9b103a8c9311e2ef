//! Requests and reads the manifest of the receiver's existing data, which arrives while the disk is read (SPEC.md,
//! "WANT").

use std::cell::RefCell;
use std::time::Duration;

use xfer_hole_os::{DiskError as ImageError, DiskErrorKind};
use xfer_hole_pipeline::SegmentBatch;
use xfer_hole_proto::{Digest, HashParams, ManifestHeader, ManifestRequest, ManifestWriter, Record, Reply};
use xfer_hole_transport::{ExistingOffer, ManifestProgress, ReplyReader};

use crate::error::SendError;
use crate::stream_writer::StreamWriter;

/// The maximum time of one wait for a reply.
const POLL: Duration = Duration::from_secs(1);

/// The receiver's existing data, as its manifest describes it.
pub(crate) struct ExistingDisk {
    replies: ReplyReader,
    pub(crate) manifest: ManifestHeader,
}

/// The reply to a request for a manifest.
pub(crate) enum DeltaAnswer {
    /// The receiver holds the disk with the digest of the request.
    Same(Digest),
    /// The receiver sends a manifest.
    Manifest(ExistingDisk),
}

impl ExistingDisk {
    /// Requests a manifest and waits for its header. If `first` is set, waits for the whole manifest, for a receiver
    /// that reads its data before it receives.
    pub(crate) fn ask(
        stream: &mut StreamWriter,
        replies: &ReplyReader,
        want: ManifestRequest,
        first: bool,
    ) -> Result<DeltaAnswer, SendError> {
        replies.ask(want);
        stream.request_manifest(&want)?;
        let offer = loop {
            if let Some(offer) = replies.offer(POLL).map_err(|_| SendError::BrokenPipe)? {
                break offer;
            }
        };
        let replies = replies.clone();
        match offer {
            ExistingOffer::Manifest(manifest) => {
                while first && !replies.told_all(POLL).map_err(|_| SendError::BrokenPipe)? {}
                Ok(DeltaAnswer::Manifest(Self { replies, manifest }))
            }
            // This reply is invalid if the request named no digest.
            ExistingOffer::Same => Ok(DeltaAnswer::Same(want.digest.ok_or(SendError::BrokenPipe)?)),
        }
    }

    /// The next record of the manifest, or `None` at its end. The stream is flushed before a wait, since the receiver
    /// may need its data to proceed.
    pub(crate) fn next(&self, stream: &RefCell<&mut StreamWriter>) -> Result<Option<Record>, SendError> {
        let mut patience = Duration::ZERO;
        loop {
            match self.replies.told(patience).map_err(|_| SendError::BrokenPipe)? {
                ManifestProgress::Record(record) => return Ok(Some(record)),
                ManifestProgress::End => return Ok(None),
                ManifestProgress::Nothing => {
                    let mut stream = stream.borrow_mut();
                    stream.flush()?;
                    stream.keep_alive()?;
                    patience = POLL;
                }
            }
        }
    }
}

/// True if a receiver with these words of READY is to be asked for a manifest: for a delta, or because part of this
/// disk may be there from an interrupted transfer.
pub(crate) fn offers_manifest(words: &[String], delta: bool, resume: bool) -> bool {
    let has = |word: &str| words.iter().any(|token| token == word);
    has(Reply::DELTA) && (delta || (resume && has(Reply::PART)))
}

/// Computes the manifest lines of the whole disk from the batches that are read.
pub(crate) struct DiskLines(RefCell<ManifestWriter>);

impl DiskLines {
    /// Starts the manifest of a disk of `size` bytes.
    pub(crate) fn new(size: u64, params: HashParams) -> Self {
        Self(RefCell::new(ManifestWriter::new(ManifestHeader::whole(size, params))))
    }

    /// Adds the lines of a batch. Batches must be passed in order.
    pub(crate) fn pass(&self, batch: &SegmentBatch) -> Result<(), ImageError> {
        let broken =
            |error: xfer_hole_proto::StreamError| ImageError::new(DiskErrorKind::Io, "records", error.to_string());
        let (mut lines, mut writer) = (String::new(), self.0.borrow_mut());
        for segment in &batch.runs {
            lines.clear();
            writer.record(&segment.record(), &mut lines).map_err(broken)?;
        }
        Ok(())
    }

    /// The digest of the disk's fingerprint, once all batches were passed.
    pub(crate) fn digest(self) -> Result<Digest, SendError> {
        Ok(self.0.into_inner().end(&mut String::new())?)
    }
}
