//! A conversation with a sender (SPEC.md, "The conversation"): the stream arrives on one direction of a link, replies go out on the other.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use xfer_hole_os::shown;
use xfer_hole_pipeline::ProgressCounters;
use xfer_hole_proto::{Dialect, FailReason, Fingerprint, Reply, SourceFacts};
use xfer_hole_target::Target;
use xfer_hole_transfer::FormatWarning;
use xfer_hole_transport::ReplyWriter;

use crate::ReceiveContext;
use crate::error::ReceiveError;
use crate::receive::ReceivedDisk;
use crate::stream_reader::{LinkLimits, StreamReader};

/// The name of this program in READY.
const WORD: &str = "recv-hole";

/// A stream and the replies to it.
pub(crate) struct StdioSession {
    pub(crate) input: StreamReader,
    pub(crate) replies: ReplyWriter,
}

impl StdioSession {
    /// Starts a conversation on standard input and standard output. `patience` is the longest time without data.
    ///
    /// # Errors
    /// Returns an error if a descriptor or a thread is not available.
    pub(crate) fn stdio(patience: Duration, counters: &Arc<ProgressCounters>) -> Result<Self, ReceiveError> {
        let unwritable =
            |source| ReceiveError::Image(xfer_hole_os::DiskError::io("standard output", "cannot write", source));
        let stdout: File = io::stdout().as_fd().try_clone_to_owned().map_err(unwritable)?.into();
        let replies = ReplyWriter::start(stdout, patience).map_err(unwritable)?;
        let link = LinkLimits { patience: Some(patience), answered: true, ..LinkLimits::default() };
        let input = StreamReader::stdin(Dialect::V1, link, Arc::clone(counters))?;
        Ok(Self { input, replies })
    }

    /// Replies READY: the target can be written.
    ///
    /// `tells` is true if the sender may know whether a delta or resuming is possible. `more` has further words.
    pub(crate) fn ready(&self, target: &Target, tells: bool, more: &[&str]) {
        let capabilities = [
            (true, WORD),
            (target.is_device(), Reply::DEVICE),
            (tells && target.can_hold(), Reply::DELTA),
            (tells && target.has_part(), Reply::PART),
            (self.input.asks_source(), SourceFacts::ASKED),
        ];
        let words = capabilities.into_iter().filter(|(given, _)| *given).map(|(_, word)| word);
        let words = words.chain(more.iter().copied()).map(str::to_owned);
        self.replies.say(&Reply::Ready(words.collect()));
    }

    /// Receives the disk and replies DONE. The caller reports a failure.
    ///
    /// # Errors
    /// Returns why the disk was not received.
    pub(crate) fn run(&mut self, target: Target, context: ReceiveContext<'_>) -> Result<ReceivedDisk, ReceiveError> {
        let dest = shown(target.path());
        let done = context.apply(&mut self.input, target, Some(&self.replies)).map_err(ReceiveError::of_link)?;
        for note in &done.notes {
            self.replies.say(&Reply::Note(FailReason::new(&format!("{dest}: {note}"))));
        }
        self.replies.say(&Reply::Done(done.fingerprint.map(|fingerprint| fingerprint.digest)));
        Ok(done)
    }

    /// Replies READY, receives the disk and replies DONE. A dry run ends after READY and DONE.
    ///
    /// # Errors
    /// Returns why the disk was not received.
    pub(crate) fn receive(
        &mut self,
        target: Target,
        dest: &Path,
        dry_run: bool,
        context: ReceiveContext<'_>,
    ) -> Result<Option<Fingerprint>, ReceiveError> {
        let allowed = context.cli.receive_options().allow_base;
        let mut words = Vec::new();
        if !target.is_confined() {
            words.extend(Some(target.becomes().word()).filter(|&word| word != Reply::DEVICE));
            words.extend(dest.is_dir().then_some(Reply::DIRECTORY));
        }
        words.extend((allowed && target.can_hold()).then_some(Reply::BASE));
        self.ready(&target, allowed, &words);
        if let Some(warning) = FormatWarning::of_target_content(&target) {
            self.replies.say(&Reply::Note(FailReason::new(&warning.what)));
        }
        if dry_run {
            self.replies.say(&Reply::Done(None));
            return Ok(None);
        }
        Ok(self.run(target, context)?.fingerprint)
    }

    /// Replies FAIL with the reason.
    pub(crate) fn fail(&self, error: &ReceiveError) {
        self.replies.say_last(&Reply::Fail(error.refusal()));
    }

    /// Replies FAIL with the reason, and returns the error that prints nothing more.
    pub(crate) fn report(&self, error: &ReceiveError) -> ReceiveError {
        self.fail(error);
        ReceiveError::Reported(error.failure())
    }
}
