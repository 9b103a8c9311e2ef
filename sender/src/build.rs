//! A stream that builds on what the receiver holds: it is asked before, and answers while we read (SPEC.md, "WANT").

use std::cell::RefCell;
use std::time::Duration;

use xfer_hole_image::{Block, Error as ImageError, Kind};
use xfer_hole_link::{Answers, Offer, Told};
use xfer_hole_proto::{Answer, Digest, Manifest, ManifestWriter, Record, Sums, Want};

use crate::error::Error;
use crate::wire::Wire;

/// How long an answer is waited for at a time.
const LOOK: Duration = Duration::from_secs(1);

/// What the receiver holds, as it tells.
pub(crate) struct Holds {
    answers: Answers,
    pub(crate) manifest: Manifest,
}

/// What a receiver answers that was asked what it has.
pub(crate) enum Answered {
    /// The very disk.
    Same(Digest),
    /// This.
    Holds(Holds),
}

impl Holds {
    /// Asks the receiver, and waits until it begins to tell; to one that tells first, until it has told all.
    pub(crate) fn ask(wire: &mut Wire, answers: &Answers, want: Want, first: bool) -> Result<Answered, Error> {
        answers.ask(want);
        wire.ask(&want)?;
        let offer = loop {
            if let Some(offer) = answers.offer(LOOK).map_err(|_| Error::BrokenPipe)? {
                break offer;
            }
        };
        let answers = answers.clone();
        match offer {
            Offer::Manifest(manifest) => {
                while first && !answers.told_all(LOOK).map_err(|_| Error::BrokenPipe)? {}
                Ok(Answered::Holds(Self { answers, manifest }))
            }
            // It is no answer where nothing was named.
            Offer::Same => Ok(Answered::Same(want.digest.ok_or(Error::BrokenPipe)?)),
        }
    }

    /// The next record that it tells; none behind the last. What was gathered goes out before anything is waited for: the receiver
    /// may need it to get on.
    pub(crate) fn next(&self, wire: &RefCell<&mut Wire>) -> Result<Option<Record>, Error> {
        let mut patience = Duration::ZERO;
        loop {
            match self.answers.told(patience).map_err(|_| Error::BrokenPipe)? {
                Told::Record(record) => return Ok(Some(record)),
                Told::End => return Ok(None),
                Told::Nothing => {
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
    says(Answer::DELTA) && (delta || (resume && says(Answer::PART)))
}

/// The record lines of the whole disk, put together from its blocks as they pass.
pub(crate) struct Lines(RefCell<ManifestWriter>);

impl Lines {
    /// Of a disk of this size in octets.
    pub(crate) fn new(size: u64, sums: Sums) -> Self {
        Self(RefCell::new(ManifestWriter::new(Manifest::whole(size, sums))))
    }

    /// Takes note of a block.
    pub(crate) fn pass(&self, block: &Block) -> Result<(), ImageError> {
        let broken = |error: xfer_hole_proto::Error| ImageError::new(Kind::Io, "records", error.to_string());
        let (mut lines, mut writer) = (String::new(), self.0.borrow_mut());
        for run in &block.runs {
            lines.clear();
            writer.record(&run.record(), &mut lines).map_err(broken)?;
        }
        Ok(())
    }

    /// The digest of the disk's fingerprint, once all blocks have passed.
    pub(crate) fn digest(self) -> Result<Digest, Error> {
        Ok(self.0.into_inner().end(&mut String::new())?)
    }
}
