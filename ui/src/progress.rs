//! Progress of a transfer while it runs and its result at the end: a bar for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use xfer_hole_pipeline::ProgressCounters;

use crate::json_events::Outcome;
use crate::progress_display::{ProgressDisplay, ProgressKind, REPORT};
use crate::{EventLoop, Failure, Messages, Signals, Summary, WrittenTarget, stderr};

/// Interval at which the bar is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// Interval at which a new phase is looked for when progress is JSON.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the progress of a transfer until it ends.
///
/// The end is reported once, by the first of [`done`](Self::done), [`fail`](Self::fail) and a signal.
pub struct Progress {
    shown: Arc<ProgressDisplay>,
    ticks: AbortHandle,
    ended: bool,
}

impl Progress {
    /// Starts to show the values of `counters`.
    ///
    /// `messages` must be JSON if `kind` is [`ProgressKind::Json`]. A signal that ends the process reports the end.
    #[must_use]
    pub fn start(
        event_loop: &EventLoop,
        signals: &Signals,
        kind: ProgressKind,
        messages: Messages,
        counters: Arc<ProgressCounters>,
    ) -> Self {
        let kind = match kind {
            ProgressKind::Auto if io::stderr().is_terminal() => ProgressKind::Bar,
            ProgressKind::Auto => ProgressKind::None,
            kind => kind,
        };
        let shown =
            Arc::new(ProgressDisplay { kind, messages, counters, began: Instant::now(), task: Mutex::default() });
        if matches!(kind, ProgressKind::Bar | ProgressKind::Json) {
            shown.counters.ahead().want();
        }
        signals.show(Arc::clone(&shown));
        shown.tick();
        let ticking = Arc::clone(&shown);
        let every = match kind {
            ProgressKind::Bar => DRAW,
            ProgressKind::Json => LOOK,
            // Nothing is shown, but SIGUSR1 needs samples for the rate.
            ProgressKind::Auto | ProgressKind::None => REPORT,
        };
        let ticks = event_loop.handle().spawn(async move {
            let mut clock = interval(every);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                clock.tick().await;
                ticking.tick();
            }
        });
        Self { shown, ticks: ticks.abort_handle(), ended: false }
    }

    /// Reports success and returns exit status 0.
    ///
    /// If `summary` is set and progress is not JSON, a summary is printed, with the name of the target if `made` is given. `digest` is
    /// the fingerprint for the JSON end event.
    pub fn done(self, digest: Option<&str>, summary: bool, made: Option<WrittenTarget>) -> ExitCode {
        self.ended(0, digest, summary, made)
    }

    /// Reports that the comparison is complete and the disks differ, and returns exit status 1.
    pub fn differs(self, summary: bool) -> ExitCode {
        self.ended(1, None, summary, None)
    }

    fn ended(mut self, exit: u8, digest: Option<&str>, summary: bool, made: Option<WrittenTarget>) -> ExitCode {
        self.close();
        let ProgressDisplay { messages, counters, began, .. } = &*self.shown;
        if summary && !messages.is_json() {
            messages.note(Summary::of(counters, began.elapsed(), made));
        }
        self.end(Outcome::Done, exit, None, digest);
        ExitCode::from(exit)
    }

    /// Reports a failure with its message and hint, and returns the exit status.
    pub fn fail(mut self, failure: Failure, error: impl Display, hint: Option<&str>) -> ExitCode {
        self.close();
        let error = error.to_string();
        let code = self.shown.messages.fail_as(failure, &error, hint);
        self.end(Outcome::Failed, failure.status(), Some(&error), None);
        code
    }

    /// Reports a failure whose message was already printed, and returns the exit status.
    pub fn fail_quietly(mut self, failure: Failure) -> ExitCode {
        self.close();
        self.end(Outcome::Failed, failure.status(), None, None);
        self.shown.messages.fail_quietly(failure)
    }

    /// Stops drawing, so that other output can follow.
    ///
    /// Does not return if a signal is already ending the process.
    pub fn close(&mut self) {
        self.ended = true;
        self.ticks.abort();
        stderr::close();
    }

    fn end(&self, outcome: Outcome, exit: u8, error: Option<&str>, digest: Option<&str>) {
        if let Some(line) = self.shown.last_line(outcome, exit, error, digest) {
            stderr::print(&line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.ended {
            self.close();
            self.end(Outcome::Failed, Failure::Permanent.status(), None, None);
        }
    }
}
