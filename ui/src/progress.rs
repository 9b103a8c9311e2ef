//! How far a transfer is, while it runs and at its end: for people a line that is redrawn, for programs JSON.

use std::fmt::Display;
use std::io::{IsTerminal, self};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use xfer_hole_pipeline::{Phase, ProgressCounters};

use crate::{EventLoop, Failure, Messages, Signals, Summary, WrittenTarget, bar, stderr};
use crate::json_events::{Outcome, self};
use crate::progress_snapshot::{ProgressMeter, ProgressSnapshot};

/// How often the bar is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// How often programs are told, if the phase stays the same.
const TELL: Duration = Duration::from_secs(1);
/// How often it is looked for a new phase.
const LOOK: Duration = Duration::from_millis(100);

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

/// Shows a transfer from its beginning to its end, which is told once, by whoever is first: [`done`](Self::done),
/// [`fail`](Self::fail), or a signal.
pub struct Progress {
    shown: Arc<Shown>,
    ticks: AbortHandle,
    ended: bool,
}

/// What is shown, for all who show it.
pub(crate) struct Shown {
    kind: ProgressKind,
    messages: Messages,
    counters: Arc<ProgressCounters>,
    began: Instant,
    course: Mutex<ProgressTask>,
}

#[derive(Default)]
struct ProgressTask {
    meter: ProgressMeter,
    /// What programs were told last, and when.
    told: Option<(Phase, Duration)>,
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
        let shown = Arc::new(Shown { kind, messages, counters, began: Instant::now(), course: Mutex::default() });
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
        let Shown { messages, counters, began, .. } = &*self.shown;
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

impl Shown {
    fn course(&self) -> MutexGuard<'_, ProgressTask> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what there is to be shown by now.
    fn tick(&self) {
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
