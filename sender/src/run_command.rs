//! Work that takes its time: how far it is is shown, signals end it in order, and what came of it is told at its end.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use xfer_hole_image::BackingChain;
use xfer_hole_pipeline::{Plan, ProgressCounters};
use xfer_hole_proto::Fingerprint;
use xfer_hole_ui::{EventLoop, Messages, Progress, ProgressKind, Signals, WrittenTarget};

use crate::cmd::output::{Output, failed};
use crate::error::SendError;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct CommandResult {
    /// Two disks were compared, and aren't equal.
    pub(crate) differs: bool,
    /// For standard output.
    pub(crate) text: String,
    /// The disk's, for programs that listen.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// What was made of DEST.
    pub(crate) made: Option<WrittenTarget>,
}

/// What the work is given.
#[derive(Clone, Copy)]
pub(crate) struct CommandContext<'a> {
    pub(crate) counters: &'a Arc<ProgressCounters>,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl CommandContext<'_> {
    /// Does the work on this disk, and counts its data meanwhile by the extents of the plan, if progress is shown.
    pub(crate) fn ahead_of<T>(&self, disk: &BackingChain, plan: Plan<'_>, work: impl FnOnce() -> T) -> T {
        self.counters.ahead().of_disk(disk, plan, work)
    }
}

/// Does the work, and prints what came of it. With `summary`, what it came to is said.
pub(crate) fn watch(
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
        Ok(found) => progress.done(found.fingerprint.map(|digest| digest.to_string()).as_deref(), summary, found.made),
        Err(error @ (SendError::Unread | SendError::Told(_))) => progress.fail_quietly(error.failure()),
        Err(error) => progress.fail(error.failure(), &error, error.hint()),
    }
}

fn print(text: &str) -> Result<(), SendError> {
    let mut out = Output::stdout()?;
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed)
}
