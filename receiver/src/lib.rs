//! `recv-hole` obeys what flows: records on standard input become a disk.

mod apply;
mod cli;
mod converse;
mod error;
mod input;
mod pull;
mod request;
mod restrict;
mod words;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use xfer_hole_image::{Tally, Target, shown, sys};
use xfer_hole_link::{Messages, Progress};
use xfer_hole_proto::CONVERSATION;

use crate::apply::Done;
use crate::cli::Cli;
use crate::converse::Converse;
use crate::error::Error;
use crate::input::{Input, Link};
use crate::pull::Pull;
use crate::restrict::Restrict;
use crate::words::Words;

/// How the program calls itself.
const NAME: &str = "recv-hole";
/// How long a receiver that answers waits for one before it whose link is dead.
const LOCK: Duration = Duration::from_secs(90);

/// The command line, for man pages and tests.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The program: 0 if the whole disk is there and durable, 2 if not.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Messages::new(NAME, 0).usage(&error),
    };
    let messages = Messages::new(NAME, cli.verbose);
    match go(&cli, messages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Told) => messages.fail_quietly(),
        Err(error) => messages.fail(&error, error.hint()),
    }
}

fn go(cli: &Cli, messages: Messages) -> Result<(), Error> {
    sys::ignore_file_size_signal();
    if let Some(version) = cli.speaks {
        return if version == CONVERSATION { Ok(()) } else { Err(Error::Told) };
    }
    let tally = Arc::new(Tally::default());
    if let Some(dir) = &cli.restrict {
        let restrict = Restrict { dir: dir.clone(), allow_read: cli.allow_read };
        return restricted(cli, &restrict, &tally, messages);
    }
    let words = Words::of(cli)?;
    if let Some(remote) = &words.source {
        return Pull { cli, remote, dest: &words.dest, tally: &tally, messages }.run();
    }
    if cli.converse {
        return answered(cli, &words.dest, &tally, messages);
    }
    if io::stdin().is_terminal() {
        return Err(Error::InputTerminal);
    }
    if words.dest.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Error::OutputTerminal);
        }
        if sys::was_closed(io::stdout()) {
            return Err(Error::OutputClosed);
        }
    }
    if cli.classic {
        messages.warn("the dialect of 2014 has no end: a stream that was cut short can't be told from a whole one");
    }
    let options = cli.target.options(None, None).map_err(Error::Usage)?;
    let target = Target::find(&words.dest, options)?;
    if cli.target.dry_run {
        messages.say(format_args!("would write {}", shown(target.path())));
        return Ok(());
    }
    let progress = Progress::start(cli.progress, NAME, Arc::clone(&tally));
    let link = Link { patience: cli.rsh.timeout.map(|_| cli.rsh.patience()), ..Link::default() };
    let mut input = Input::stdin(cli.dialect(), link, Arc::clone(&tally))?;
    let received = apply::apply(&mut input, target, &cli.rules(), &tally, messages);
    drop(progress);
    tell(cli, &words.dest, &received?, &tally, messages);
    Ok(())
}

/// Receives from a sender that hears us: all that goes wrong is said to it.
fn answered(cli: &Cli, dest: &Path, tally: &Arc<Tally>, messages: Messages) -> Result<(), Error> {
    let mut converse = Converse::stdio(cli.rsh.patience(), tally)?;
    let target =
        cli.target.options(None, Some(LOCK)).map_err(Error::Usage).and_then(|options| Ok(Target::find(dest, options)?));
    let received =
        target.and_then(|target| converse.receive(target, cli.target.dry_run, &cli.rules(), tally, messages));
    received.map_err(|error| converse.tell(&error))
}

/// The same for one who may not do much here.
fn restricted(cli: &Cli, restrict: &Restrict, tally: &Arc<Tally>, messages: Messages) -> Result<(), Error> {
    let asked = restrict.accept();
    let asked_for = asked.as_ref().ok().and_then(|asked| asked.max_wait);
    // Whoever set a limit here has the last word.
    let patience = asked_for.filter(|asked| cli.rsh.timeout.is_none() || *asked < cli.rsh.patience());
    let patience = patience.unwrap_or(cli.rsh.patience());
    let mut converse = Converse::stdio(patience, tally)?;
    let received = asked.and_then(|asked| {
        converse.input.skip(asked.preamble)?;
        let target = Target::find(Path::new(&asked.dest), Restrict::target_options(&asked))?;
        converse.receive(target, asked.dry_run, &cli.rules(), tally, messages)
    });
    received.map_err(|error| converse.tell(&error))
}

/// What there is to be told of a disk that is there.
fn tell(cli: &Cli, dest: &Path, done: &Done, tally: &Tally, messages: Messages) {
    for note in &done.notes {
        messages.warn(format_args!("{}: {note}", shown(dest)));
    }
    messages.verbose(format_args!(
        "received a disk of {} octets: {} of data, {} on the wire",
        tally.size(),
        tally.data(),
        tally.wire()
    ));
    match done.fingerprint {
        Some(fingerprint) => {
            messages.verbose(format_args!("fingerprint {fingerprint}"));
            if cli.print_digest {
                messages.result(fingerprint);
            }
        }
        None if cli.print_digest => messages.warn("the stream carried no fingerprint"),
        None => {}
    }
}
