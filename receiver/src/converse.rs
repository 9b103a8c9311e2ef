//! A receiver that answers: the stream comes in on one side of a link, and what becomes of it goes back on the other
//! (SPEC.md, "The conversation").

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use xfer_hole_image::{Tally, Target, shown};
use xfer_hole_link::Talk;
use xfer_hole_proto::{Answer, Dialect, Fingerprint, Reason, SourceFacts};

use crate::Work;
use crate::apply::Done;
use crate::error::Error;
use crate::input::{Input, Link};

/// What READY says that we are.
const WORD: &str = "recv-hole";

/// A stream that is answered.
pub(crate) struct Converse {
    pub(crate) input: Input,
    pub(crate) talk: Talk,
}

impl Converse {
    /// By standard input and standard output.
    pub(crate) fn stdio(patience: Duration, tally: &Arc<Tally>) -> Result<Self, Error> {
        let unwritable = |source| Error::Image(xfer_hole_image::Error::io("standard output", "cannot write", source));
        let stdout: File = io::stdout().as_fd().try_clone_to_owned().map_err(unwritable)?.into();
        let talk = Talk::start(stdout, patience).map_err(unwritable)?;
        let link = Link { patience: Some(patience), answered: true, ..Link::default() };
        let input = Input::stdin(Dialect::V1, link, Arc::clone(tally))?;
        Ok(Self { input, talk })
    }

    /// Says that the target may be written, and, if the sender may know, what can be built on there.
    pub(crate) fn ready(&self, target: &Target, tells: bool, more: &[&str]) {
        let can = [
            (true, WORD),
            (target.is_device(), Answer::DEVICE),
            (tells && target.can_hold(), Answer::DELTA),
            (tells && target.has_part(), Answer::PART),
            (self.input.asks_source(), SourceFacts::ASKED),
        ];
        let words = can.into_iter().filter(|(can, _)| *can).map(|(_, word)| word);
        let words = words.chain(more.iter().copied()).map(str::to_owned);
        self.talk.say(&Answer::Ready(words.collect()));
    }

    /// Receives the disk, and says that it is there; a failure is the caller's to tell.
    pub(crate) fn run(&mut self, target: Target, work: Work<'_>) -> Result<Done, Error> {
        let dest = shown(target.path());
        let done = work.apply(&mut self.input, target, Some(&self.talk)).map_err(Error::of_link)?;
        for note in &done.notes {
            self.talk.say(&Answer::Note(Reason::new(&format!("{dest}: {note}"))));
        }
        self.talk.say(&Answer::Done(done.fingerprint.map(|fingerprint| fingerprint.digest)));
        Ok(done)
    }

    /// The same after saying that the target may be written; a dry run ends there.
    pub(crate) fn receive(
        &mut self,
        target: Target,
        dest: &Path,
        dry_run: bool,
        work: Work<'_>,
    ) -> Result<Option<Fingerprint>, Error> {
        let allowed = work.cli.rules().allow_base;
        let mut words = Vec::new();
        if !target.is_confined() {
            words.extend(Some(target.becomes().word()).filter(|&word| word != Answer::DEVICE));
            words.extend(dest.is_dir().then_some(Answer::DIRECTORY));
        }
        words.extend((allowed && target.can_hold()).then_some(Answer::BASE));
        self.ready(&target, allowed, &words);
        if let Some(warning) = target.content_warning() {
            self.talk.say(&Answer::Note(Reason::new(&warning.what)));
        }
        if dry_run {
            self.talk.say(&Answer::Done(None));
            return Ok(None);
        }
        Ok(self.run(target, work)?.fingerprint)
    }

    /// Says that no disk will be there, and why.
    pub(crate) fn fail(&self, error: &Error) {
        self.talk.say_last(&Answer::Fail(error.refusal()));
    }

    /// The same, where nobody else is to be told.
    pub(crate) fn tell(&self, error: &Error) -> Error {
        self.fail(error);
        Error::Told(error.failure())
    }
}
