//! How far a transfer is, while it runs and at its end: for people a line that is redrawn, for programs JSON.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use xfer_hole_pipeline::ProgressCounters;

use crate::json_events::Outcome;
use crate::progress_display::{ProgressDisplay, ProgressKind, TELL};
use crate::{EventLoop, Failure, Messages, Signals, Summary, WrittenTarget, stderr};

/// How often the bar is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// How often it is looked for a new phase.
const LOOK: Duration = Duration::from_millis(100);

/// Shows a transfer from its beginning to its end, which is told once, by whoever is first: [`done`](Self::done),
/// [`fail`](Self::fail), or a signal.
pub struct Progress {
    shown: Arc<ProgressDisplay>,
    ticks: AbortHandle,
    ended: bool,
}

impl Progress {
    /// Begins to show what `counters` says. `messages` are JSON if `kind` is; signals end what is shown.
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
            Arc::new(ProgressDisplay { kind, messages, counters, began: Instant::now(), course: Mutex::default() });
        if matches!(kind, ProgressKind::Bar | ProgressKind::Json) {
            shown.counters.ahead().want();
        }
        signals.show(Arc::clone(&shown));
        shown.tick();
        let ticking = Arc::clone(&shown);
        let every = match kind {
            ProgressKind::Bar => DRAW,
            ProgressKind::Json => LOOK,
            // Nothing is shown, but the rate is known when it is asked for.
            ProgressKind::Auto | ProgressKind::None => TELL,
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

    /// The disk is where it should be. The summary is said to people if `summary`, of what was `made`; `digest` is for programs.
    pub fn done(self, digest: Option<&str>, summary: bool, made: Option<WrittenTarget>) -> ExitCode {
        self.ended(0, digest, summary, made)
    }

    /// All was compared, and two disks differ: exit status 1.
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

    /// It failed, for this reason.
    pub fn fail(mut self, failure: Failure, error: impl Display, hint: Option<&str>) -> ExitCode {
        self.close();
        let error = error.to_string();
        let code = self.shown.messages.fail_as(failure, &error, hint);
        self.end(Outcome::Failed, failure.status(), Some(&error), None);
        code
    }

    /// It failed, and whoever is to know why knows it.
    pub fn fail_quietly(mut self, failure: Failure) -> ExitCode {
        self.close();
        self.end(Outcome::Failed, failure.status(), None, None);
        self.shown.messages.fail_quietly(failure)
    }

    /// Nothing is drawn any more, so that other things can be printed. A signal that was faster ends the process here.
    pub fn close(&mut self) {
        self.ended = true;
        self.ticks.abort();
        stderr::close();
    }

    fn end(&self, outcome: Outcome, exit: u8, error: Option<&str>, digest: Option<&str>) {
        if let Some(line) = self.shown.last_line(outcome, exit, error, digest) {
            stderr::say(&line);
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
