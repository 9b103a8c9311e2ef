//! `recv-hole` obeys what flows: records on standard input become a disk.

mod apply_records;
mod cli;
mod error;
mod existing_records;
mod offer_existing;
mod operands;
mod pull;
mod receive;
mod receive_options;
mod request;
mod restrict;
mod stdio_session;
mod stream_reader;
mod verify;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use xfer_hole_os::{shown, sys};
use xfer_hole_pipeline::ProgressCounters;
use xfer_hole_proto::{CONVERSATION, Fingerprint, Frame, StreamErrorKind, StreamHeader};
use xfer_hole_target::{ExpectedDisk, Target, TargetOptions};
use xfer_hole_transfer::{FormatWarning, read_base};
use xfer_hole_transport::ReplyWriter;
use xfer_hole_ui::{EventLoop, Failure, Messages, Progress, ProgressKind, Signals, WrittenTarget, exit_on_panic};

use crate::cli::Cli;
use crate::error::ReceiveError;
use crate::operands::Operands;
use crate::pull::Pull;
use crate::receive::{Receive, ReceivedDisk};
use crate::request::ReceivedRequest;
use crate::restrict::KeyRestriction;
use crate::stdio_session::StdioSession;
use crate::stream_reader::{LinkLimits, StreamReader};

/// How the program calls itself.
const NAME: &str = "recv-hole";
/// How long a receiver that answers waits for one before it whose link is dead.
const LOCK: Duration = Duration::from_secs(90);

/// The command line, for man pages and tests.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The program: 0 if the whole disk is there and durable, 75 if trying again can mend what went wrong, else 2.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    exit_on_panic(NAME);
    let cli = match Cli::try_parse_from(with_help(args.into_iter().collect())) {
        Ok(cli) => cli,
        Err(error) => return Messages::new(NAME, 0).usage(&error, None),
    };
    if let Some(version) = cli.speaks {
        return if version == CONVERSATION {
            ExitCode::SUCCESS
        } else {
            Messages::new(NAME, 0).fail_quietly(Failure::Permanent)
        };
    }
    sys::ignore_file_size_signal();
    let messages = Messages::new(NAME, cli.verbose).json(cli.progress == Some(ProgressKind::Json));
    let watched = EventLoop::start().and_then(|event_loop| Ok((Signals::watch(&event_loop, messages)?, event_loop)));
    let (signals, event_loop) = match watched {
        Ok(watched) => watched,
        Err(error) => return messages.fail(ReceiveError::Thread(error), None),
    };
    let counters = Arc::new(ProgressCounters::default());
    let work = ReceiveContext { cli: &cli, counters: &counters, signals: &signals, messages };
    let words =
        if cli.restrict.is_some() || cli.request.is_some() { Ok(Operands::default()) } else { Operands::of(&cli) };
    // Whoever is at the other end of a stream or a conversation is the one to show something.
    let pulls = words.as_ref().is_ok_and(|words| words.source.is_some());
    let kind = if (pulls || cli.verify) && !cli.quiet { ProgressKind::Auto } else { ProgressKind::None };
    let mut progress =
        Progress::start(&event_loop, &signals, cli.progress.unwrap_or(kind), messages, Arc::clone(&counters));
    if cli.verify {
        let compared = words.and_then(|words| {
            let verdict = work.verify(&words.dest)?;
            progress.close();
            work.tell_verdict(&words.dest, &verdict).map(|()| verdict.is_equal())
        });
        return match compared {
            Ok(true) => progress.done(None, cli.verbose > 0, None),
            Ok(false) => progress.differs(cli.verbose > 0),
            Err(error) => failed(progress, &error),
        };
    }
    match words.and_then(|words| work.go(&words)) {
        Ok((fingerprint, made)) => {
            let summary = if pulls { !cli.quiet && !cli.target.dry_run } else { cli.verbose > 0 };
            progress.done(fingerprint.map(|fingerprint| fingerprint.to_string()).as_deref(), summary, made)
        }
        Err(error) => failed(progress, &error),
    }
}

/// `recv-hole help` as the flag that it stands for. A DEST that is called so is `./help`.
fn with_help(words: Vec<OsString>) -> Vec<OsString> {
    match words.as_slice() {
        [program, help] if help == "help" => vec![program.clone(), "--help".into()],
        _ => words,
    }
}

/// Says why it failed, unless that was told.
fn failed(progress: Progress, error: &ReceiveError) -> ExitCode {
    match error {
        ReceiveError::Told(failure) => progress.fail_quietly(*failure),
        error => progress.fail(error.failure(), error, error.hint()),
    }
}

/// The older disk that a stream builds on, if it says so behind its open line.
fn offered_base(
    input: &mut StreamReader,
    open: &StreamHeader,
) -> Result<Option<(u64, Option<Fingerprint>)>, ReceiveError> {
    let sums = open.sums.unwrap_or_default();
    match receive::base(input) {
        Ok((base, _)) => Ok(base.map(|base| (base.size, base.digest.map(|digest| Fingerprint { sums, digest })))),
        Err(ReceiveError::Stream(stream)) if stream.kind() == StreamErrorKind::Cut => Ok(None),
        Err(error) => Err(error),
    }
}

/// What came of it: the disk's fingerprint, if the stream has digests, and what was made of DEST.
type Received = (Option<Fingerprint>, Option<WrittenTarget>);

/// What all ways to receive a disk have in common.
#[derive(Clone, Copy)]
struct ReceiveContext<'a> {
    cli: &'a Cli,
    counters: &'a Arc<ProgressCounters>,
    signals: &'a Signals,
    messages: Messages,
}

impl ReceiveContext<'_> {
    /// Receives the disk.
    fn go(self, words: &Operands) -> Result<Received, ReceiveError> {
        let cli = self.cli;
        if let Some(dir) = &cli.restrict {
            let restrict =
                KeyRestriction { dir: dir.clone(), allow_read: cli.allow_read, no_clobber: cli.target.no_clobber };
            // Less patience may be asked for, more is ours to give.
            let patience = |theirs: Duration| theirs.min(cli.ssh.patience());
            return self.requested(restrict.accept(), patience, KeyRestriction::target_options);
        }
        if let Some(request) = &cli.request {
            let asked = ReceivedRequest::of_words(request.as_bytes());
            return self.requested(asked, |theirs| theirs, ReceivedRequest::target_options);
        }
        if words.dest.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(ReceiveError::OutputTerminal);
            }
            if sys::was_closed(io::stdout()) {
                return Err(ReceiveError::OutputClosed);
            }
        }
        if let Some(remote) = &words.source {
            return Pull { work: self, remote, dest: &words.dest }.run();
        }
        if cli.converse {
            return self.answered(&words.dest).map(|fingerprint| (fingerprint, None));
        }
        if io::stdin().is_terminal() {
            return Err(ReceiveError::InputTerminal);
        }
        if cli.classic {
            self.messages
                .warn("the dialect of 2014 has no end: a stream that was cut short can't be told from a whole one");
        }
        let options = cli.target.options(None, None).map_err(ReceiveError::Usage)?;
        let target = Target::find(&words.dest, options)?;
        if let Some(FormatWarning { what, hint }) = FormatWarning::of_target(&target) {
            self.messages.warn_with_hint(what, hint);
        }
        if cli.target.dry_run {
            target.rehearse(self.offered()?, read_base)?;
            self.messages.note(format_args!("would write {}", target.plan()));
            return Ok((None, None));
        }
        let made = WrittenTarget { place: shown(target.path()), becomes: Some(target.becomes()), resumed: false };
        let link = LinkLimits { patience: cli.ssh.timeout.map(|_| cli.ssh.patience()), ..LinkLimits::default() };
        let mut input = StreamReader::stdin(cli.dialect(), link, Arc::clone(self.counters))?;
        let done = self.apply(&mut input, target, None)?;
        Ok((self.tell(&words.dest, &done), Some(made)))
    }

    /// What the stream on standard input says of its disk, if it says anything.
    fn offered(self) -> Result<ExpectedDisk, ReceiveError> {
        let mut input = StreamReader::stdin(self.cli.dialect(), LinkLimits::default(), Arc::clone(self.counters))?;
        let open = match input.next() {
            Ok(Some(Frame::Open(open))) => open,
            Ok(_) => return Ok(ExpectedDisk::default()),
            // Nothing need come.
            Err(ReceiveError::Stream(stream)) if stream.kind() == StreamErrorKind::Cut => {
                return Ok(ExpectedDisk::default());
            }
            Err(error) => return Err(error),
        };
        self.cli.receive_options().check(&open)?;
        let base = offered_base(&mut input, &open)?;
        Ok(ExpectedDisk { size: Some(open.size), base, ..ExpectedDisk::default() })
    }

    fn apply(
        self,
        input: &mut StreamReader,
        target: Target,
        replies: Option<&ReplyWriter>,
    ) -> Result<ReceivedDisk, ReceiveError> {
        let ReceiveContext { counters, signals, messages, .. } = self;
        Receive { rules: &self.cli.receive_options(), counters, signals, messages }.run(input, target, replies)
    }

    /// Receives from a sender that hears us: all that goes wrong is said to it.
    fn answered(self, dest: &Path) -> Result<Option<Fingerprint>, ReceiveError> {
        let mut converse = StdioSession::stdio(self.cli.ssh.patience(), self.counters)?;
        let options = self.cli.target.options(None, Some(LOCK)).map_err(ReceiveError::Usage);
        let target = options.and_then(|options| Ok(Target::find(dest, options)?));
        let rehearsed = |target: Target| match self.cli.target.dry_run {
            true => target.rehearse(ExpectedDisk::default(), read_base).map(|()| target),
            false => Ok(target),
        };
        let target = target.and_then(|target| Ok(rehearsed(target)?));
        let received = target.and_then(|target| converse.receive(target, dest, self.cli.target.dry_run, self));
        received.map_err(|error| converse.tell(&error))
    }

    /// The same for a request: with so much patience, and a target that is written so.
    fn requested(
        self,
        asked: Result<ReceivedRequest, ReceiveError>,
        patience: impl FnOnce(Duration) -> Duration,
        options: impl FnOnce(&ReceivedRequest) -> Result<TargetOptions, ReceiveError>,
    ) -> Result<Received, ReceiveError> {
        let theirs = asked.as_ref().ok().and_then(|asked| asked.max_wait);
        let mut converse = StdioSession::stdio(theirs.map_or(self.cli.ssh.patience(), patience), self.counters)?;
        let received = asked.and_then(|asked| {
            if asked.private {
                sys::keep_private();
            }
            let dest = Path::new(&asked.dest);
            let target = Target::find(dest, options(&asked)?)?;
            if asked.dry_run {
                let rules = self.cli.receive_options();
                asked.expected.size.map_or(Ok(()), |size| rules.check_size(size))?;
                if asked.expected.base.is_some() && !rules.allow_base {
                    return Err(ReceiveError::NoBase);
                }
                target.rehearse(asked.expected, read_base)?;
            }
            converse.receive(target, dest, asked.dry_run, self)
        });
        let received = received.map_err(|error| converse.tell(&error))?;
        Ok((received, None))
    }

    /// Tells what there is to be told of a disk that is there.
    fn tell(self, dest: &Path, done: &ReceivedDisk) -> Option<Fingerprint> {
        for note in &done.notes {
            self.messages.warn(format_args!("{}: {note}", shown(dest)));
        }
        match done.fingerprint {
            Some(fingerprint) => {
                self.messages.verbose(format_args!("fingerprint {fingerprint}"));
                if self.cli.print_digest {
                    self.messages.result(fingerprint);
                }
            }
            None if self.cli.print_digest => self.messages.warn("the stream carried no fingerprint"),
            None => {}
        }
        done.fingerprint
    }
}
