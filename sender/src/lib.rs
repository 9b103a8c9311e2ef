//! `xfer-hole` decides what flows: a disk's extents become records on standard output.

mod cli;
mod error;
mod send;
mod wire;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use xfer_hole_image::{Raw, Tally, shown, sys};
use xfer_hole_link::{Messages, Progress};

use crate::cli::{Cli, Format};
use crate::error::Error;
use crate::wire::Wire;

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
    let messages = Messages::new(NAME, cli.verbose);
    match go(&cli, messages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => messages.fail(&error, error.hint()),
    }
}

fn go(cli: &Cli, messages: Messages) -> Result<(), Error> {
    sys::ignore_file_size_signal();
    if sys::was_closed(io::stdout()) {
        return Err(Error::Closed);
    }
    if cli.print_receiver {
        let mut out = io::stdout();
        return out.write_all(RECV_HOLE_SH.as_bytes()).and_then(|()| out.flush()).map_err(Error::output);
    }
    let job = cli.job()?;
    if io::stdout().is_terminal() {
        return Err(Error::Terminal);
    }
    if cli.classic {
        messages.warn(
            "the dialect of 2014 has no end: the receiver can't tell a stream that was cut short from a whole one",
        );
    }
    let disk = Raw::open(&job.image, job.method).map_err(|error| match job.image.to_str() {
        Some("-") => error.hint("a disk can't be read from a pipe: name the file or device"),
        _ => error,
    })?;
    if job.format == Format::Auto && disk.begins_as_qcow2()? {
        return Err(Error::Qcow2(job.image));
    }
    if disk.is_in_use() && !job.live {
        messages.warn(format_args!(
            "{}: is mounted or in use; if it changes while it is sent, nothing will tell",
            shown(&job.image)
        ));
    }
    messages.verbose(format_args!("extents by {}", disk.method().word()));
    let tally = Arc::new(Tally::default());
    let progress = Progress::start(cli.progress, NAME, Arc::clone(&tally));
    let mut wire = Wire::stdout(job.dialect, Arc::clone(&tally))?;
    let sent = send::send(&disk, &job, &mut wire, &tally, messages);
    drop(progress);
    let fingerprint = sent?;
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
