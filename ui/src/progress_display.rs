//! What is shown of a running transfer: a bar for people, JSON for programs, and a status line on SIGUSR1.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xfer_hole_pipeline::{Phase, ProgressCounters};

use crate::json_events::{self, Outcome};
use crate::progress_snapshot::{ProgressMeter, ProgressSnapshot};
use crate::{Messages, bar, stderr};

/// Interval between JSON progress events while the phase stays the same.
pub(crate) const REPORT: Duration = Duration::from_secs(1);

/// The kind of progress output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressKind {
    /// A bar if standard error is a terminal
    Auto,
    /// A bar, even if standard error is not a terminal
    Bar,
    /// One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)
    Json,
    /// No progress
    #[default]
    None,
}

/// The state of the progress output, shared by the timer, signals and the end of the transfer.
pub(crate) struct ProgressDisplay {
    pub(crate) kind: ProgressKind,
    pub(crate) messages: Messages,
    pub(crate) counters: Arc<ProgressCounters>,
    pub(crate) began: Instant,
    pub(crate) task: Mutex<ProgressTask>,
}

/// The mutable state of the progress output.
#[derive(Default)]
pub(crate) struct ProgressTask {
    meter: ProgressMeter,
    /// The phase of the last JSON event, and its time since the start.
    reported: Option<(Phase, Duration)>,
}

impl ProgressDisplay {
    fn task(&self) -> MutexGuard<'_, ProgressTask> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the bar, or prints a JSON event if one is due.
    pub(crate) fn tick(&self) {
        let mut task = self.task();
        let now = self.began.elapsed();
        let status = task.meter.snapshot(&self.counters, now);
        let name = self.messages.name();
        match self.kind {
            // No figures exist yet, and ssh may ask a question on this line.
            ProgressKind::Bar if status.phase == Phase::Connecting => stderr::try_draw(String::new()),
            ProgressKind::Bar => stderr::try_draw(bar::line(name, &status, stderr::columns())),
            ProgressKind::Json => {
                let due =
                    task.reported.is_none_or(|(phase, at)| phase != status.phase || now.saturating_sub(at) >= REPORT);
                if due && stderr::try_print(&json_events::progress(name, &status)) {
                    task.reported = Some((status.phase, now));
                }
            }
            ProgressKind::Auto | ProgressKind::None => {}
        }
    }

    fn status(&self) -> ProgressSnapshot {
        self.task().meter.snapshot(&self.counters, self.began.elapsed())
    }

    /// Prepares a status line that SIGUSR1 requested.
    ///
    /// Returns true while the amount of data is still being determined.
    pub(crate) fn is_pending(&self) -> bool {
        self.counters.ahead().want();
        self.counters.ahead().is_pending()
    }

    /// Prints the status line that SIGUSR1 requested, and returns true, unless standard error would block.
    pub(crate) fn print_status(&self) -> bool {
        let (name, status) = (self.messages.name(), self.status());
        let json = self.messages.is_json();
        stderr::try_print(&if json { json_events::progress(name, &status) } else { format!("{name}: {status}\n") })
    }

    /// Returns the JSON end event, or `None` if messages are not JSON.
    pub(crate) fn last_line(
        &self,
        outcome: Outcome,
        exit: u8,
        error: Option<&str>,
        digest: Option<&str>,
    ) -> Option<String> {
        if !self.messages.is_json() {
            return None;
        }
        let mut status = self.status();
        if outcome == Outcome::Done {
            // The snapshot has no size for a disk of zero bytes.
            status.size = Some(self.counters.size());
            status.percent = Some(100);
        }
        Some(json_events::end(self.messages.name(), &status, outcome, exit, error, digest))
    }
}
