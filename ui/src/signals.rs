//! Signal handling: SIGINT, SIGTERM and SIGHUP end the process with a message; SIGUSR1 prints the progress.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, process};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use xfer_hole_os::sys;

use crate::json_events::Outcome;
use crate::progress_display::ProgressDisplay;
use crate::{EventLoop, Failure, Messages, stderr};

/// Interval and number of attempts to print while another thread writes to standard error: 2 seconds in all.
const RETRY: (Duration, u32) = (Duration::from_millis(20), 100);

/// Number of attempts to wait for the amount of data to be known: half a second in all.
const DATA_ATTEMPTS: u32 = 25;

/// A function that runs before a signal ends the process.
type ExitHook = Box<dyn FnOnce() + Send>;

/// Handles signals. Clones share their state.
#[derive(Clone)]
pub struct Signals {
    shared: Arc<SignalShared>,
    event_loop: Handle,
}

struct SignalShared {
    messages: Messages,
    /// True once the process is about to end.
    ending: AtomicBool,
    /// A description of what is left behind.
    remains: Mutex<Option<String>>,
    exit_hooks: Mutex<Vec<ExitHook>>,
    display: Mutex<Option<Arc<ProgressDisplay>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    /// Installs the signal handlers.
    ///
    /// SIGINT, SIGTERM and SIGHUP print a message and end the process with status 128 plus the signal number. SIGUSR1 prints the
    /// progress. A signal that was ignored when the process started stays ignored, as nohup requires.
    ///
    /// # Errors
    /// Returns an error if the system refuses a handler.
    pub fn watch(event_loop: &EventLoop, messages: Messages) -> io::Result<Self> {
        let shared = Arc::new(SignalShared {
            messages,
            ending: AtomicBool::new(false),
            remains: Mutex::default(),
            exit_hooks: Mutex::default(),
            display: Mutex::default(),
        });
        // tokio installs a handler when its stream is created, which must happen within a runtime.
        let _runtime = event_loop.handle().enter();
        let ask = SignalKind::user_defined1();
        if !sys::is_ignored(ask.as_raw_value()) {
            let mut asked = signal(ask)?;
            let shared = Arc::clone(&shared);
            event_loop.handle().spawn(async move {
                while asked.recv().await.is_some() {
                    for _ in 0..DATA_ATTEMPTS {
                        if lock(&shared.display).as_ref().is_none_or(|display| !display.is_pending()) {
                            break;
                        }
                        sleep(RETRY.0).await;
                    }
                    for _ in 0..RETRY.1 {
                        if lock(&shared.display).as_ref().is_some_and(|display| display.print_status()) {
                            break;
                        }
                        sleep(RETRY.0).await;
                    }
                }
            });
        }
        let ends = [
            (SignalKind::interrupt(), "SIGINT"),
            (SignalKind::terminate(), "SIGTERM"),
            (SignalKind::hangup(), "SIGHUP"),
        ];
        for (kind, name) in ends {
            let number = kind.as_raw_value();
            if sys::is_ignored(number) {
                continue;
            }
            let mut came = signal(kind)?;
            let shared = Arc::clone(&shared);
            event_loop.handle().spawn(async move {
                while came.recv().await.is_some() {
                    let code = 128 + number;
                    if shared.ending.swap(true, Ordering::Relaxed) {
                        process::exit(code);
                    }
                    // A separate task, so that a second signal is still handled.
                    let error = shared.with_remains(format!("interrupted by {name}"));
                    tokio::spawn(end(Arc::clone(&shared), error, Outcome::Interrupted, code));
                }
            });
        }
        Ok(Self { shared, event_loop: event_loop.handle().clone() })
    }

    /// Sets what to report as left behind if a signal ends the process, such as `kept out.img.part`. `None` reports nothing.
    pub fn set_remains(&self, remains: Option<String>) {
        *lock(&self.shared.remains) = remains;
    }

    /// Adds a function that runs on the event loop before a signal ends the process. The function must not block.
    pub fn on_end(&self, hook: ExitHook) {
        lock(&self.shared.exit_hooks).push(hook);
    }

    /// Ends the process after `grace`, with the message `error`, unless it has ended by itself before.
    ///
    /// For a failure after which the data threads were asked to stop: a thread may be blocked in a system call that can't be interrupted.
    pub fn give_up_after(&self, grace: Duration, failure: Failure, error: String) {
        let shared = Arc::clone(&self.shared);
        self.event_loop.spawn(async move {
            sleep(grace).await;
            if !shared.ending.swap(true, Ordering::Relaxed) {
                end(shared, error, Outcome::Failed, i32::from(failure.status())).await;
            }
        });
    }

    /// Sets the progress output that SIGUSR1 and the last message use.
    pub(crate) fn show(&self, display: Arc<ProgressDisplay>) {
        *lock(&self.shared.display) = Some(display);
    }
}

/// Ends the process with a last message, unless the program is ending by itself.
async fn end(shared: Arc<SignalShared>, error: String, outcome: Outcome, code: i32) {
    let mut ends = None;
    for _ in 0..RETRY.1 {
        ends = stderr::try_seize(|| shared.last_lines(&error, outcome, code));
        if ends.is_some() {
            break;
        }
        sleep(RETRY.0).await;
    }
    // If standard error stays blocked, the process ends without a message.
    if ends != Some(false) {
        let hooks = std::mem::take(&mut *lock(&shared.exit_hooks));
        hooks.into_iter().for_each(|hook| hook());
        process::exit(code);
    }
}

impl SignalShared {
    fn with_remains(&self, error: String) -> String {
        lock(&self.remains).as_ref().map_or_else(|| error.clone(), |remains| format!("{error}; {remains}"))
    }

    fn last_lines(&self, error: &str, outcome: Outcome, code: i32) -> String {
        let mut lines = self.messages.line("error", "", error);
        if let Some(display) = &*lock(&self.display) {
            let exit = u8::try_from(code).unwrap_or(u8::MAX);
            lines.extend(display.last_line(outcome, exit, Some(error), None));
        }
        lines
    }
}
