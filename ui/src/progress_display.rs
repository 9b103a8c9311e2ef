//! What is shown of a transfer while it runs: a bar for people, JSON for programs, and a line for whoever asks by a signal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xfer_hole_pipeline::{Phase, ProgressCounters};

use crate::json_events::{self, Outcome};
use crate::progress_snapshot::{ProgressMeter, ProgressSnapshot};
use crate::{Messages, bar, stderr};

/// How often programs are told, if the phase stays the same.
pub(crate) const TELL: Duration = Duration::from_secs(1);

/// Which progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressKind {
    /// A bar if standard error is a terminal
    Auto,
    /// A bar, wherever standard error goes
    Bar,
    /// All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)
    Json,
    /// Nothing
    #[default]
    None,
}

/// What is shown, for all who show it.
pub(crate) struct ProgressDisplay {
    pub(crate) kind: ProgressKind,
    pub(crate) messages: Messages,
    pub(crate) counters: Arc<ProgressCounters>,
    pub(crate) began: Instant,
    pub(crate) course: Mutex<ProgressTask>,
}

#[derive(Default)]
pub(crate) struct ProgressTask {
    meter: ProgressMeter,
    /// What programs were told last, and when.
    told: Option<(Phase, Duration)>,
}

impl ProgressDisplay {
    fn course(&self) -> MutexGuard<'_, ProgressTask> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what there is to be shown by now.
    pub(crate) fn tick(&self) {
        let mut course = self.course();
        let now = self.began.elapsed();
        let status = course.meter.look(&self.counters, now);
        let name = self.messages.name();
        match self.kind {
            // Nothing can be said of it, and the line belongs to what ssh asks.
            ProgressKind::Bar if status.phase == Phase::Connecting => stderr::try_draw(String::new()),
            ProgressKind::Bar => stderr::try_draw(bar::line(name, &status, stderr::columns())),
            ProgressKind::Json => {
                let due = course.told.is_none_or(|(phase, at)| phase != status.phase || now.saturating_sub(at) >= TELL);
                if due && stderr::try_say(&json_events::progress(name, &status)) {
                    course.told = Some((status.phase, now));
                }
            }
            ProgressKind::Auto | ProgressKind::None => {}
        }
    }

    fn status(&self) -> ProgressSnapshot {
        self.course().meter.look(&self.counters, self.began.elapsed())
    }

    /// The line is asked for: true if what it tells is still being found out.
    pub(crate) fn is_pending(&self) -> bool {
        self.counters.ahead().want();
        self.counters.ahead().is_pending()
    }

    /// Says the line that somebody asked for, if it can be said now: true if so.
    pub(crate) fn asked(&self) -> bool {
        let (name, status) = (self.messages.name(), self.status());
        let json = self.messages.is_json();
        stderr::try_say(&if json { json_events::progress(name, &status) } else { format!("{name}: {status}\n") })
    }

    /// The last line for programs, if they listen.
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
            // A disk of no bytes has a size too.
            status.size = Some(self.counters.size());
            status.percent = Some(100);
        }
        Some(json_events::end(self.messages.name(), &status, outcome, exit, error, digest))
    }
}
