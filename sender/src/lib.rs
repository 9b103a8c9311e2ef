//! The program `xfer-hole`: arguments, subcommands, and the sending side of a transfer.

mod cli;
mod cmd;
mod copy;
mod delta_client;
mod error;
mod image_args;
mod incremental_args;
mod operands;
mod push;
mod restrict;
mod run_command;
mod send;
mod splice_pipe;
mod stdio_session;
mod stream_writer;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser;
use xfer_hole_image::{BackingChain, IncrementalBase};
use xfer_hole_os::{reason, shown, sys};
use xfer_hole_pipeline::Plan;
use xfer_hole_proto::{CONVERSATION, Fingerprint, HashParams};
use xfer_hole_transfer::CacheKey;
use xfer_hole_transport::{Location, TERMINAL, original_command};
use xfer_hole_ui::{Failure, Messages, ProgressKind, WrittenTarget, exit_on_panic};

use crate::cli::{Cli, Command, PeerKind, SendOptions};
use crate::cmd::fold_prune::{FoldArgs, PruneArgs};
use crate::copy::Copy;
use crate::error::SendError;
use crate::image_args::{ReadPurpose, check_content};
use crate::operands::Operands;
use crate::push::Push;
use crate::run_command::{CommandContext, CommandResult, run_command};
use crate::send::DiskSender;
use crate::stdio_session::EarlyReplies;
use crate::stream_writer::StreamWriter;

/// The text of recv-hole.sh, the receiver in POSIX sh, which is sent to a machine without recv-hole.
pub const RECV_HOLE_SH: &str = include_str!("../recv-hole.sh");

/// The program's name in messages.
const NAME: &str = "xfer-hole";

/// The definition of the command line, for man pages, completions and tests.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program with these arguments, the program's name first. The exit code is 0 on success, 75 if trying again
/// can help, 1 if two compared disks differ, and 2 for every other failure.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    exit_on_panic(NAME);
    let words = with_help(args.into_iter().collect());
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error, &words),
    };
    let (verbose, progress) = match &cli.command {
        None => (cli.source.verbose, cli.progress),
        Some(Command::Map(args)) => (args.source.verbose, None),
        Some(Command::Info(args)) => (args.source.verbose, None),
        Some(Command::Fold(FoldArgs { pair, .. }) | Command::Prune(PruneArgs { pair, .. })) => {
            (pair.verbose, Some(pair.progress))
        }
        Some(Command::Manifest(args)) => (args.disk.source.verbose, None),
        Some(Command::Digest(args)) => (args.disk.source.verbose, None),
        Some(Command::Verify(args)) => (args.disk.source.verbose, None),
    };
    sys::ignore_file_size_signal();
    let messages = Messages::new(NAME, verbose).json(progress == Some(ProgressKind::Json));
    let outcome = match &cli.command {
        None if cli.restrict.is_some() => {
            return match restrict::parse_request(cli.restrict.as_deref().unwrap_or_else(|| Path::new("."))) {
                Ok(asked) => transfer(&asked, messages),
                // The program that asks for a transfer gets the error as a reply; a login gets it as text.
                Err(error) if is_request() => messages.fail_quietly(stdio_session::refuse(&error).failure()),
                Err(error) => messages.fail(&error, error.hint()),
            };
        }
        None if cli.print_receiver => print(RECV_HOLE_SH),
        None => match cli.speaks {
            None => return transfer(&cli, messages),
            Some(CONVERSATION) => Ok(()),
            Some(_) => Err(SendError::ReaderGone),
        },
        Some(Command::Fold(args)) => return cmd::fold_prune::fold(args, messages),
        Some(Command::Prune(args)) => return cmd::fold_prune::prune(args, messages),
        Some(_) if sys::was_closed(io::stdout()) => Err(SendError::Closed),
        Some(Command::Map(args)) => cmd::map::map(args, messages),
        Some(Command::Info(args)) => cmd::info::info(args, messages),
        Some(Command::Manifest(args)) => return cmd::manifest::manifest(args, messages),
        Some(Command::Digest(args)) => return cmd::digest::digest(args, messages),
        Some(Command::Verify(args)) => return cmd::verify::verify(args, messages),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(SendError::ReaderGone) => messages.fail_quietly(Failure::Permanent),
        Err(error) => messages.fail_as(error.failure(), &error, error.hint()),
    }
}

/// True if SSH_ORIGINAL_COMMAND looks like the request of a transfer, valid or not.
fn is_request() -> bool {
    original_command().is_some_and(|command| command.as_bytes().starts_with(b"exec sh -c '"))
}

/// Reports an invalid command line: as a reply with `--converse`, else on standard error.
fn report_usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let messages = Messages::new(NAME, 0);
    let command = words.get(1).and_then(|word| word.to_str()).filter(|word| command().find_subcommand(word).is_some());
    let converses = words.iter().skip(1).take_while(|&word| word != "--").any(|word| word == "--converse");
    if converses && error.use_stderr() && !io::stdout().is_terminal() {
        let (what, hints) = messages.wrong_words(error, command);
        let hint = hints.into_iter().next();
        return messages.fail_quietly(stdio_session::refuse(&SendError::Words { what, hint }).failure());
    }
    messages.usage(error, command)
}

/// Replaces `xfer-hole help` and `xfer-hole help COMMAND` by the option `--help`. An image of that name is `./help`.
fn with_help(words: Vec<OsString>) -> Vec<OsString> {
    let names = |word: &OsString| word.to_str().is_some_and(|word| command().find_subcommand(word).is_some());
    match words.as_slice() {
        [program, help] if help == "help" => vec![program.clone(), "--help".into()],
        [program, help, command] if help == "help" && names(command) => {
            vec![program.clone(), command.clone(), "--help".into()]
        }
        _ => words,
    }
}

fn print(text: &str) -> Result<(), SendError> {
    if sys::was_closed(io::stdout()) {
        return Err(SendError::Closed);
    }
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(SendError::output)
}

/// Sends or copies a disk with progress and signal handling.
fn transfer(cli: &Cli, messages: Messages) -> ExitCode {
    let operands = Operands::of(cli);
    // The reader of a stream on standard output shows progress itself.
    let streams = operands.as_ref().is_ok_and(|operands| matches!(operands.dest, Location::Stream));
    let kind = if streams || cli.quiet { ProgressKind::None } else { ProgressKind::Auto };
    let summary = if streams { cli.source.verbose > 0 } else { !cli.quiet && !cli.target.dry_run };
    run_command(cli.progress.unwrap_or(kind), summary, messages, |context| {
        let early = |error: SendError| if cli.converse { stdio_session::refuse(&error) } else { error };
        let (fingerprint, written) = send_or_copy(cli, &operands.map_err(early)?, context)?;
        Ok(CommandResult { fingerprint, written, ..CommandResult::default() })
    })
}

/// The disk's fingerprint, if digests were computed, and the target that was written, if there is a DEST.
type TransferResult = (Option<Fingerprint>, Option<WrittenTarget>);

/// Sends or copies the disk. With `--converse` a failure is also reported to the receiver.
fn send_or_copy(cli: &Cli, operands: &Operands, context: &CommandContext<'_>) -> Result<TransferResult, SendError> {
    let messages = context.messages;
    let peer = match operands.dest {
        Location::Remote(_) => PeerKind::Binary,
        Location::Local(_) if cli.target.delta => PeerKind::Delta,
        _ => PeerKind::Unknown,
    };
    let job =
        cli.send_options(peer).map_err(|error| if cli.converse { stdio_session::refuse(&error) } else { error })?;
    if matches!(operands.dest, Location::Stream) {
        if sys::was_closed(io::stdout()) {
            return Err(SendError::Closed);
        }
        if io::stdout().is_terminal() {
            if cli.converse {
                return Err(SendError::remote(format!("standard output: {TERMINAL}")));
            }
            return Err(SendError::Terminal);
        }
        if cli.classic {
            messages.warn(
                "the dialect of 2014 has no end: the receiver can't tell a stream that was cut short from a whole one",
            );
        }
    }
    let mut early_replies = if cli.converse { Some(EarlyReplies::start(cli.ssh.patience())?) } else { None };
    let result = transmit(cli, operands, context, job, &mut early_replies);
    match early_replies {
        Some(early_replies) => result.map_err(|error| early_replies.fail(&error)),
        None => result,
    }
}

/// Opens the disk, and sends or copies it. `early` sends WAIT replies until the stream begins.
fn transmit(
    cli: &Cli,
    operands: &Operands,
    context: &CommandContext<'_>,
    job: SendOptions,
    early_replies: &mut Option<EarlyReplies>,
) -> Result<TransferResult, SendError> {
    let CommandContext { counters, signals, messages } = *context;
    let begun = SystemTime::now();
    // The cache is keyed by the image's files, so a snapshot has no entry. A disk that may change has none either.
    let cacheable = job.params.is_some() && !job.live && cli.source.snapshot.is_none() && cli.source.bounds.is_none();
    let since = cli.incremental.wanted();
    let flush = cacheable || matches!(since, Some(IncrementalBase::Base(_)));
    let how = ReadPurpose { since, direct: cli.target.direct, flush };
    let disk = cli.source.open_as(&operands.image, how, messages)?;
    if !job.live {
        warn_in_use(&disk, messages);
    }
    let cache_key = if cacheable { CacheKey::of_chain(&disk, begun) } else { None };
    let usable_key = cache_key.as_ref().filter(|_| cli.target.remember);
    let fixed = cli.hash_interval.is_some() || cli.min_hole.is_some();
    let known_base = cli.incremental.known_base(&disk, job.params, fixed, job.live);
    let known = || known_base.read(job.params, counters, || Ok(()));
    let plan = Plan::changed(&disk, job.params.map_or(1, HashParams::interval));
    let (fingerprint, written) = context.estimate_during(&disk, plan, || match &operands.dest {
        Location::Stream if cli.converse => {
            drop(early_replies.take());
            let sent = stdio_session::converse(&disk, usable_key, &known_base, &job, cli, counters, messages);
            sent.map(|fingerprint| (fingerprint, None))
        }
        Location::Stream => {
            check_content(&disk, false, messages)?;
            let job = job.clone().with_base(known()?);
            let mut stream = StreamWriter::stdout(job.dialect, Arc::clone(counters), cli.rate_limiter())?;
            let sender = DiskSender { disk: &disk, job: &job, existing: None, counters, messages };
            sender.run(&mut stream).map(|fingerprint| (fingerprint, None))
        }
        Location::Remote(remote) => Push {
            cli,
            image: &operands.image,
            cache_key: usable_key,
            remote,
            known_base: &known_base,
            counters,
            signals,
            messages,
        }
        .run(&disk),
        Location::Local(dest) => {
            let base = known()?;
            Copy { cli, image: &operands.image, cache_key: usable_key, dest, base, counters, signals, messages }
                .run(&disk, job.clone().with_base(base))
        }
    })?;
    disk.noticed().iter().for_each(|noticed| messages.warn(noticed));
    if let (Some(cache_key), Some(fingerprint)) = (&cache_key, &fingerprint)
        && cache_key.recall(fingerprint.sums) != Some(fingerprint.digest)
        && let Err(error) = cache_key.note(fingerprint)
    {
        let what = format!("{}: cannot note its fingerprint: {}", shown(&operands.image), reason(&error));
        // Only users of --remember depend on the cache.
        if cli.target.remember { messages.warn(what) } else { messages.verbose(what) }
    }
    if let Some(fingerprint) = &fingerprint {
        messages.verbose(format_args!("fingerprint {fingerprint}"));
        if cli.print_digest {
            messages.result(fingerprint);
        }
    } else if cli.print_digest && !cli.target.dry_run {
        messages.warn("a disk of which parts are kept is not read whole, and so has no fingerprint");
    }
    Ok((fingerprint, written))
}

/// Warns of devices that are mounted or in use, since changes to them can't be detected.
fn warn_in_use(disk: &BackingChain, messages: Messages) {
    for file in disk.files().filter(|file| file.is_in_use()) {
        messages.warn(format_args!(
            "{}: is mounted or in use; if it changes while it is read, nothing will tell",
            shown(file.path())
        ));
    }
}
