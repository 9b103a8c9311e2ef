//! The program `recv-hole`: it receives a stream of xfer-hole and writes the disk to a file, a block device or standard output.

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

/// The name of the program in its messages.
const NAME: &str = "recv-hole";
/// Time to wait for the lock on DEST if the sender reads replies: an earlier receiver with a dead link ends within it.
const LOCK: Duration = Duration::from_secs(90);

/// Returns the definition of the command line, for man pages, completions and tests.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program with `args`, of which the first is its name, and returns the exit status.
///
/// The status is 0 if the whole disk is durable, 75 if a retry can succeed, and 2 for any other failure. With `--verify` it is 1 if the
/// disks differ.
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
    let context = ReceiveContext { cli: &cli, counters: &counters, signals: &signals, messages };
    let operands =
        if cli.restrict.is_some() || cli.request.is_some() { Ok(Operands::default()) } else { Operands::of(&cli) };
    // With a stream or a conversation the sender shows the progress.
    let pulls = operands.as_ref().is_ok_and(|operands| operands.source.is_some());
    let kind = if (pulls || cli.verify) && !cli.quiet { ProgressKind::Auto } else { ProgressKind::None };
    let mut progress =
        Progress::start(&event_loop, &signals, cli.progress.unwrap_or(kind), messages, Arc::clone(&counters));
    if cli.verify {
        let compared = operands.and_then(|operands| {
            let verdict = context.verify(&operands.dest)?;
            progress.close();
            context.print_verdict(&operands.dest, &verdict).map(|()| verdict.is_equal())
        });
        return match compared {
            Ok(true) => progress.done(None, cli.verbose > 0, None),
            Ok(false) => progress.differs(cli.verbose > 0),
            Err(error) => failed(progress, &error),
        };
    }
    match operands.and_then(|operands| context.receive(&operands)) {
        Ok((fingerprint, made)) => {
            let summary = if pulls { !cli.quiet && !cli.target.dry_run } else { cli.verbose > 0 };
            progress.done(fingerprint.map(|fingerprint| fingerprint.to_string()).as_deref(), summary, made)
        }
        Err(error) => failed(progress, &error),
    }
}

/// Replaces the only argument `help` with `--help`. A DEST with that name is written `./help`.
fn with_help(words: Vec<OsString>) -> Vec<OsString> {
    match words.as_slice() {
        [program, help] if help == "help" => vec![program.clone(), "--help".into()],
        _ => words,
    }
}

/// Reports a failure, unless that was done already.
fn failed(progress: Progress, error: &ReceiveError) -> ExitCode {
    match error {
        ReceiveError::Reported(failure) => progress.fail_quietly(*failure),
        error => progress.fail(error.failure(), error, error.hint()),
    }
}

/// Returns the size in bytes and the fingerprint of the base disk of an incremental stream; `None` if the stream has no base.
fn offered_base(
    input: &mut StreamReader,
    open: &StreamHeader,
) -> Result<Option<(u64, Option<Fingerprint>)>, ReceiveError> {
    let hash_params = open.sums.unwrap_or_default();
    match receive::base(input) {
        Ok((base, _)) => {
            Ok(base.map(|base| (base.size, base.digest.map(|digest| Fingerprint { sums: hash_params, digest }))))
        }
        Err(ReceiveError::Stream(stream)) if stream.kind() == StreamErrorKind::Cut => Ok(None),
        Err(error) => Err(error),
    }
}

/// The fingerprint of the received disk, if the stream has digests, and the target for the summary.
type Received = (Option<Fingerprint>, Option<WrittenTarget>);

/// The parts that every way of receiving a disk needs.
#[derive(Clone, Copy)]
struct ReceiveContext<'a> {
    cli: &'a Cli,
    counters: &'a Arc<ProgressCounters>,
    signals: &'a Signals,
    messages: Messages,
}

impl ReceiveContext<'_> {
    /// Receives the disk from standard input, a remote image, or a push request.
    fn receive(self, operands: &Operands) -> Result<Received, ReceiveError> {
        let cli = self.cli;
        if let Some(dir) = &cli.restrict {
            let restrict =
                KeyRestriction { dir: dir.clone(), allow_read: cli.allow_read, no_clobber: cli.target.no_clobber };
            // The sender may shorten the timeout, but not extend it.
            let patience = |requested: Duration| requested.min(cli.ssh.patience());
            return self.serve_request(restrict.accept(), patience, KeyRestriction::target_options);
        }
        if let Some(words) = &cli.request {
            let request = ReceivedRequest::of_words(words.as_bytes());
            return self.serve_request(request, |requested| requested, ReceivedRequest::target_options);
        }
        if operands.dest.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(ReceiveError::OutputTerminal);
            }
            if sys::was_closed(io::stdout()) {
                return Err(ReceiveError::OutputClosed);
            }
        }
        if let Some(remote) = &operands.source {
            return Pull { context: self, remote, dest: &operands.dest }.run();
        }
        if cli.converse {
            return self.converse(&operands.dest).map(|fingerprint| (fingerprint, None));
        }
        if io::stdin().is_terminal() {
            return Err(ReceiveError::InputTerminal);
        }
        if cli.classic {
            self.messages
                .warn("the dialect of 2014 has no end: a stream that was cut short can't be told from a whole one");
        }
        let options = cli.target.options(None, None).map_err(ReceiveError::Usage)?;
        let target = Target::find(&operands.dest, options)?;
        if let Some(FormatWarning { what, hint }) = FormatWarning::of_target(&target) {
            self.messages.warn_with_hint(what, hint);
        }
        if cli.target.dry_run {
            target.rehearse(self.expected_disk()?, read_base)?;
            self.messages.note(format_args!("would write {}", target.plan()));
            return Ok((None, None));
        }
        let made = WrittenTarget { place: shown(target.path()), becomes: Some(target.becomes()), resumed: false };
        let link = LinkLimits { patience: cli.ssh.timeout.map(|_| cli.ssh.patience()), ..LinkLimits::default() };
        let mut input = StreamReader::stdin(cli.dialect(), link, Arc::clone(self.counters))?;
        let done = self.apply(&mut input, target, None)?;
        Ok((self.print_result(&operands.dest, &done), Some(made)))
    }

    /// Returns what the beginning of the stream on standard input announces. An empty input is valid.
    fn expected_disk(self) -> Result<ExpectedDisk, ReceiveError> {
        let mut input = StreamReader::stdin(self.cli.dialect(), LinkLimits::default(), Arc::clone(self.counters))?;
        let open = match input.next() {
            Ok(Some(Frame::Open(open))) => open,
            Ok(_) => return Ok(ExpectedDisk::default()),
            // A dry run does not require a stream.
            Err(ReceiveError::Stream(stream)) if stream.kind() == StreamErrorKind::Cut => {
                return Ok(ExpectedDisk::default());
            }
            Err(error) => return Err(error),
        };
        self.cli.receive_options().check(&open)?;
        let base = offered_base(&mut input, &open)?;
        Ok(ExpectedDisk { size: Some(open.size), base, ..ExpectedDisk::default() })
    }

    /// Receives a stream from `input` into `target`.
    fn apply(
        self,
        input: &mut StreamReader,
        target: Target,
        replies: Option<&ReplyWriter>,
    ) -> Result<ReceivedDisk, ReceiveError> {
        let ReceiveContext { counters, signals, messages, .. } = self;
        Receive { options: &self.cli.receive_options(), counters, signals, messages }.run(input, target, replies)
    }

    /// Receives from a sender that reads replies on standard output. Failures are reported to it.
    fn converse(self, dest: &Path) -> Result<Option<Fingerprint>, ReceiveError> {
        let mut session = StdioSession::stdio(self.cli.ssh.patience(), self.counters)?;
        let options = self.cli.target.options(None, Some(LOCK)).map_err(ReceiveError::Usage);
        let target = options.and_then(|options| Ok(Target::find(dest, options)?));
        let rehearse = |target: Target| match self.cli.target.dry_run {
            true => target.rehearse(ExpectedDisk::default(), read_base).map(|()| target),
            false => Ok(target),
        };
        let target = target.and_then(|target| Ok(rehearse(target)?));
        let received = target.and_then(|target| session.receive(target, dest, self.cli.target.dry_run, self));
        received.map_err(|error| session.report(&error))
    }

    /// Serves a push request. Failures are reported to the sender.
    ///
    /// `patience` returns the timeout for the one in the request; `options` returns the options of the target.
    fn serve_request(
        self,
        request: Result<ReceivedRequest, ReceiveError>,
        patience: impl FnOnce(Duration) -> Duration,
        options: impl FnOnce(&ReceivedRequest) -> Result<TargetOptions, ReceiveError>,
    ) -> Result<Received, ReceiveError> {
        let requested = request.as_ref().ok().and_then(|request| request.max_wait);
        let mut session = StdioSession::stdio(requested.map_or(self.cli.ssh.patience(), patience), self.counters)?;
        let received = request.and_then(|request| {
            if request.private {
                sys::keep_private();
            }
            let dest = Path::new(&request.dest);
            let target = Target::find(dest, options(&request)?)?;
            if request.dry_run {
                let options = self.cli.receive_options();
                request.expected.size.map_or(Ok(()), |size| options.check_size(size))?;
                if request.expected.base.is_some() && !options.allow_base {
                    return Err(ReceiveError::NoBase);
                }
                target.rehearse(request.expected, read_base)?;
            }
            session.receive(target, dest, request.dry_run, self)
        });
        let received = received.map_err(|error| session.report(&error))?;
        Ok((received, None))
    }

    /// Prints warnings and the fingerprint of a received disk, and returns the fingerprint.
    fn print_result(self, dest: &Path, done: &ReceivedDisk) -> Option<Fingerprint> {
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
