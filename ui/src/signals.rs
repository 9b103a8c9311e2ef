//! Signals: some end the process, in order and with a word about what is left; one asks how far it is.

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

/// How often the last words are tried while somebody else writes, and how many times: two seconds.
const TRY: (Duration, u32) = (Duration::from_millis(20), 100);

/// How many times it is looked whether the disk's data is known by now: half a second.
const KNOWN: u32 = 25;

type ExitHook = Box<dyn FnOnce() + Send>;

/// What is known to whoever handles a signal. Clones are of the same.
#[derive(Clone)]
pub struct Signals {
    shared: Arc<SignalShared>,
    event_loop: Handle,
}

struct SignalShared {
    messages: Messages,
    /// The process is about to end.
    ending: AtomicBool,
    remains: Mutex<Option<String>>,
    endings: Mutex<Vec<ExitHook>>,
    shown: Mutex<Option<Arc<ProgressDisplay>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    /// From now on SIGINT, SIGTERM and SIGHUP end the process with 128 and their number, after a message, but for those that were
    /// ignored when it was started (as nohup has SIGHUP); SIGUSR1 prints how far it is. Fails where the system allows no handler.
    pub fn watch(event_loop: &EventLoop, messages: Messages) -> io::Result<Self> {
        let shared = Arc::new(SignalShared {
            messages,
            ending: AtomicBool::new(false),
            remains: Mutex::default(),
            endings: Mutex::default(),
            shown: Mutex::default(),
        });
        // Handlers are set when the streams are made, which takes a runtime to belong to.
        let _inside = event_loop.handle().enter();
        let ask = SignalKind::user_defined1();
        if !sys::is_ignored(ask.as_raw_value()) {
            let mut asked = signal(ask)?;
            let shared = Arc::clone(&shared);
            event_loop.handle().spawn(async move {
                while asked.recv().await.is_some() {
                    for _ in 0..KNOWN {
                        if lock(&shared.shown).as_ref().is_none_or(|shown| !shown.is_pending()) {
                            break;
                        }
                        sleep(TRY.0).await;
                    }
                    for _ in 0..TRY.1 {
                        if lock(&shared.shown).as_ref().is_some_and(|shown| shown.asked()) {
                            break;
                        }
                        sleep(TRY.0).await;
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
                    // A task of its own, so that a second signal is heard.
                    let error = shared.with_remains(format!("interrupted by {name}"));
                    tokio::spawn(end(Arc::clone(&shared), error, Outcome::Interrupted, code));
                }
            });
        }
        Ok(Self { shared, event_loop: event_loop.handle().clone() })
    }

    /// What is left behind if a signal ends the process from now on: a half sentence, as `kept out.img.part`; `None` if nothing is
    /// to be said of it.
    pub fn set_remains(&self, remains: Option<String>) {
        *lock(&self.shared.remains) = remains;
    }

    /// Called before a signal ends the process, on the event loop: it must not wait for anything.
    pub fn on_end(&self, ending: ExitHook) {
        lock(&self.shared.endings).push(ending);
    }

    /// It has failed, for this reason, and whoever moves bytes has been told. If the process hasn't come to its end by itself after
    /// `grace`, it is held up where nothing reaches it, and is ended.
    pub fn give_up_after(&self, grace: Duration, failure: Failure, error: String) {
        let shared = Arc::clone(&self.shared);
        self.event_loop.spawn(async move {
            sleep(grace).await;
            if !shared.ending.swap(true, Ordering::Relaxed) {
                end(shared, error, Outcome::Failed, i32::from(failure.status())).await;
            }
        });
    }

    pub(crate) fn show(&self, shown: Arc<ProgressDisplay>) {
        *lock(&self.shared.shown) = Some(shown);
    }
}

/// Ends the process, unless it has come to its end by itself.
async fn end(shared: Arc<SignalShared>, error: String, outcome: Outcome, code: i32) {
    let mut ends = None;
    for _ in 0..TRY.1 {
        ends = stderr::try_seize(|| shared.last_words(&error, outcome, code));
        if ends.is_some() {
            break;
        }
        sleep(TRY.0).await;
    }
    // Where nobody takes our words, we end without them.
    if ends != Some(false) {
        let endings = std::mem::take(&mut *lock(&shared.endings));
        endings.into_iter().for_each(|ending| ending());
        process::exit(code);
    }
}

impl SignalShared {
    fn with_remains(&self, error: String) -> String {
        lock(&self.remains).as_ref().map_or_else(|| error.clone(), |remains| format!("{error}; {remains}"))
    }

    fn last_words(&self, error: &str, outcome: Outcome, code: i32) -> String {
        let mut lines = self.messages.line("error", "", error);
        if let Some(shown) = &*lock(&self.shown) {
            let exit = u8::try_from(code).unwrap_or(u8::MAX);
            lines.extend(shown.last_line(outcome, exit, Some(error), None));
        }
        lines
    }
}
