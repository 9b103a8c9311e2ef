//! Commands that read a whole disk, which takes its time: how far they are is shown, and signals end them in order.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use xfer_hole_image::Tally;
use xfer_hole_link::{Messages, Progress, ProgressKind, Rim, Signals};
use xfer_hole_proto::Fingerprint;

use crate::cmd::output::{Output, failed};
use crate::error::Error;

/// What is shown meanwhile.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is said")]
pub(crate) struct WatchArgs {
    /// Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a manifest on standard output
    #[arg(long, value_name = "KIND", value_enum)]
    pub(crate) progress: Option<ProgressKind>,

    /// Say nothing but warnings, and why it failed
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Two disks were compared, and aren't equal.
    pub(crate) differs: bool,
    /// For standard output.
    pub(crate) text: String,
    /// The disk's, for programs that listen.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// What the work is given.
pub(crate) struct Watch<'a> {
    pub(crate) tally: &'a Arc<Tally>,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl WatchArgs {
    /// Does the work, and prints what came of it. `usual` is shown if nothing else was asked for; with `summary`, what it came to is said.
    pub(crate) fn watch(
        &self,
        usual: ProgressKind,
        summary: bool,
        messages: Messages,
        work: impl FnOnce(&Watch<'_>) -> Result<Found, Error>,
    ) -> ExitCode {
        let messages = messages.json(self.progress == Some(ProgressKind::Json));
        let watched = Rim::start().and_then(|rim| Ok((Signals::watch(&rim, messages)?, rim)));
        let (signals, rim) = match watched {
            Ok(watched) => watched,
            Err(error) => return messages.fail(Error::Thread(error), None),
        };
        let tally = Arc::new(Tally::default());
        let usual = if self.quiet { ProgressKind::None } else { usual };
        let kind = self.progress.unwrap_or(usual);
        let mut progress = Progress::start(&rim, &signals, kind, messages, Arc::clone(&tally));
        let found = work(&Watch { tally: &tally, signals: &signals, messages }).and_then(|found| {
            progress.close();
            print(&found.text)?;
            Ok(found)
        });
        match found {
            Ok(Found { differs: true, .. }) => progress.differs(summary),
            Ok(found) => progress.done(found.fingerprint.map(|digest| digest.to_string()).as_deref(), summary),
            Err(Error::Unread) => progress.fail_quietly(),
            Err(error) => progress.fail(&error, error.hint()),
        }
    }
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = Output::stdout()?;
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed)
}
