//! `recv-hole` obeys what flows: records on standard input become a disk.

mod apply;
mod cli;
mod error;
mod input;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use xfer_hole_image::{Tally, Target, shown, sys};
use xfer_hole_link::{Messages, Progress};

use crate::cli::Cli;
use crate::error::Error;
use crate::input::Input;

/// How the program calls itself.
const NAME: &str = "recv-hole";

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
        Err(error) => messages.fail(&error, error.hint()),
    }
}

fn go(cli: &Cli, messages: Messages) -> Result<(), Error> {
    sys::ignore_file_size_signal();
    if io::stdin().is_terminal() {
        return Err(Error::InputTerminal);
    }
    if cli.dest.as_os_str() == "-" {
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
    let target = Target::find(&cli.dest, cli.target_options())?;
    let tally = Arc::new(Tally::default());
    let progress = Progress::start(cli.progress, NAME, Arc::clone(&tally));
    let mut input = Input::stdin(cli.dialect(), Arc::clone(&tally))?;
    let received = apply::apply(&mut input, target, &cli.rules(), &tally, messages);
    drop(progress);
    let done = received?;
    for note in &done.notes {
        messages.warn(format_args!("{}: {note}", shown(&cli.dest)));
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
    Ok(())
}
