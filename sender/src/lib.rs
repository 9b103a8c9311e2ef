//! `xfer-hole` decides what flows: a disk's extents become records on standard output.

mod cli;
mod cmd;
mod converse;
mod error;
mod push;
mod send;
mod source;
mod wire;
mod words;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use xfer_hole_image::{Host, Image, Tally, shown, sys};
use xfer_hole_link::{Messages, Place, Progress};
use xfer_hole_proto::CONVERSATION;

use crate::cli::{Cli, Command, Towards};
use crate::error::Error;
use crate::push::Push;
use crate::wire::Wire;
use crate::words::Words;

/// The receiver in POSIX sh, as this program carries it to where none is installed.
pub const RECV_HOLE_SH: &str = include_str!("../recv-hole.sh");

/// How the program calls itself.
const NAME: &str = "xfer-hole";

/// The command line, for man pages and tests.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The program: 0 if the whole disk was sent, 2 if not.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Messages::new(NAME, 0).usage(&error),
    };
    let verbose = match &cli.command {
        None => cli.source.verbose,
        Some(Command::Map(args)) => args.source.verbose,
        Some(Command::Info(args)) => args.source.verbose,
    };
    let messages = Messages::new(NAME, verbose);
    match go(&cli, messages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Unread) => messages.fail_quietly(),
        Err(error) => messages.fail(&error, error.hint()),
    }
}

fn go(cli: &Cli, messages: Messages) -> Result<(), Error> {
    sys::ignore_file_size_signal();
    match &cli.command {
        None => disk(cli, messages),
        Some(_) if sys::was_closed(io::stdout()) => Err(Error::Closed),
        Some(Command::Map(args)) => cmd::map::map(args, messages),
        Some(Command::Info(args)) => cmd::info::info(args, messages),
    }
}

/// All that is done with a disk but to tell of it.
fn disk(cli: &Cli, messages: Messages) -> Result<(), Error> {
    if let Some(version) = cli.speaks {
        return if version == CONVERSATION { Ok(()) } else { Err(Error::Unread) };
    }
    let words = Words::of(cli)?;
    if matches!(words.dest, Place::Stream) && sys::was_closed(io::stdout()) {
        return Err(Error::Closed);
    }
    if cli.print_receiver {
        let mut out = io::stdout();
        return out.write_all(RECV_HOLE_SH.as_bytes()).and_then(|()| out.flush()).map_err(Error::output);
    }
    let towards = if matches!(words.dest, Place::Remote(_)) { Towards::Binary } else { Towards::Unknown };
    let job = cli.job(towards)?;
    if matches!(words.dest, Place::Stream) {
        if io::stdout().is_terminal() {
            return Err(Error::Terminal);
        }
        if cli.classic {
            messages.warn(
                "the dialect of 2014 has no end: the receiver can't tell a stream that was cut short from a whole one",
            );
        }
    }
    let disk = cli.source.open(&words.image, messages)?;
    let floors = u32::try_from(disk.floors()).unwrap_or(u32::MAX);
    let in_use = (0..floors).filter_map(|depth| disk.host(depth)).filter(|host| host.is_in_use() && !job.live);
    for host in in_use.map(Host::path) {
        messages.warn(format_args!(
            "{}: is mounted or in use; if it changes while it is sent, nothing will tell",
            shown(host)
        ));
    }
    let tally = Arc::new(Tally::default());
    let progress = Progress::start(cli.progress, NAME, Arc::clone(&tally));
    let sent = match &words.dest {
        Place::Stream if cli.converse => converse::converse(&disk, &job, cli, &tally, messages),
        Place::Stream => Wire::stdout(job.dialect, Arc::clone(&tally))
            .and_then(|mut wire| send::send(&disk, &job, &mut wire, &tally, messages)),
        Place::Remote(remote) => Push { cli, image: &words.image, remote, tally: &tally, messages }.run(&disk),
        Place::Local(_) => Err(Error::usage("local copy comes by merge")),
    };
    drop(progress);
    let fingerprint = sent?;
    disk.noticed().iter().for_each(|noticed| messages.warn(noticed));
    messages.verbose(format_args!(
        "sent a disk of {} octets: {} of data, {} on the wire",
        tally.size(),
        tally.data(),
        tally.wire()
    ));
    if let Some(fingerprint) = fingerprint {
        messages.verbose(format_args!("fingerprint {fingerprint}"));
        if cli.print_digest {
            messages.result(fingerprint);
        }
    }
    Ok(())
}
