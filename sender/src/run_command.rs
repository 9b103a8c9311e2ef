//! Runs a command with progress display and signal handling, and reports its result.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use xfer_hole_image::BackingChain;
use xfer_hole_pipeline::{Plan, ProgressCounters};
use xfer_hole_proto::Fingerprint;
use xfer_hole_ui::{EventLoop, Messages, Progress, ProgressKind, Signals, WrittenTarget};

use crate::cmd::output::{Output, failed};
use crate::error::SendError;

/// The result of a command.
#[derive(Debug, Default)]
pub(crate) struct CommandResult {
    /// The two disks that were compared differ.
    pub(crate) differs: bool,
    /// The text for standard output.
    pub(crate) text: String,
    /// The disk's fingerprint, for progress in JSON.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The target that was written.
    pub(crate) written: Option<WrittenTarget>,
}

/// The means that a command gets to run.
#[derive(Clone, Copy)]
pub(crate) struct CommandContext<'a> {
    pub(crate) counters: &'a Arc<ProgressCounters>,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl CommandContext<'_> {
    /// Runs `work` on this disk. If progress is shown, the data to move is estimated meanwhile from the extents of
    /// the plan.
    pub(crate) fn estimate_during<T>(&self, disk: &BackingChain, plan: Plan<'_>, work: impl FnOnce() -> T) -> T {
        self.counters.ahead().of_disk(disk, plan, work)
    }
}

/// Runs `work` and reports its result. With `summary`, a summary line is printed.
pub(crate) fn run_command(
    kind: ProgressKind,
    summary: bool,
    messages: Messages,
    work: impl FnOnce(&CommandContext<'_>) -> Result<CommandResult, SendError>,
) -> ExitCode {
    let watched = EventLoop::start().and_then(|event_loop| Ok((Signals::watch(&event_loop, messages)?, event_loop)));
    let (signals, event_loop) = match watched {
        Ok(watched) => watched,
        Err(error) => return messages.fail(SendError::Thread(error), None),
    };
    let counters = Arc::new(ProgressCounters::default());
    let mut progress = Progress::start(&event_loop, &signals, kind, messages, Arc::clone(&counters));
    let found = work(&CommandContext { counters: &counters, signals: &signals, messages }).and_then(|found| {
        if !found.text.is_empty() {
            progress.close();
            print(&found.text)?;
        }
        Ok(found)
    });
    match found {
        Ok(CommandResult { differs: true, .. }) => progress.differs(summary),
        Ok(found) => {
            progress.done(found.fingerprint.map(|digest| digest.to_string()).as_deref(), summary, found.written)
        }
        Err(error @ (SendError::ReaderGone | SendError::Reported(_))) => progress.fail_quietly(error.failure()),
        Err(error) => progress.fail(error.failure(), &error, error.hint()),
    }
}

fn print(text: &str) -> Result<(), SendError> {
    let mut out = Output::stdout()?;
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed)
}
