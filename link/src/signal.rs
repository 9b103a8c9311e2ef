//! Signals: some end the process, in order and with a word about what is left; one asks how far it is.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use xfer_hole_image::sys;

use crate::event::Outcome;
use crate::progress::Shown;
use crate::{Messages, Rim, screen};

/// How often the last words are tried while somebody else writes, and how many times: two seconds.
const TRY: (Duration, u32) = (Duration::from_millis(20), 100);

type Ending = Box<dyn FnOnce() + Send>;

/// What is known to whoever handles a signal. Clones are of the same.
#[derive(Clone)]
pub struct Signals {
    shared: Arc<Shared>,
}

struct Shared {
    messages: Messages,
    /// The process is about to end.
    ending: AtomicBool,
    remains: Mutex<Option<String>>,
    endings: Mutex<Vec<Ending>>,
    shown: Mutex<Option<Arc<Shown>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    /// From now on SIGINT, SIGTERM and SIGHUP end the process with 128 and their number, after a message, but for those that were
    /// ignored when it was started (as nohup has SIGHUP); SIGUSR1 prints how far it is. Fails where the system allows no handler.
    pub fn watch(rim: &Rim, messages: Messages) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            messages,
            ending: AtomicBool::new(false),
            remains: Mutex::default(),
            endings: Mutex::default(),
            shown: Mutex::default(),
        });
        // Handlers are set when the streams are made, which takes a runtime to belong to.
        let _inside = rim.handle().enter();
        let ask = SignalKind::user_defined1();
        if !sys::is_ignored(ask.as_raw_value()) {
            let mut asked = signal(ask)?;
            let shared = Arc::clone(&shared);
            rim.handle().spawn(async move {
                while asked.recv().await.is_some() {
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
            rim.handle().spawn(async move {
                while came.recv().await.is_some() {
                    let code = 128 + number;
                    if shared.ending.swap(true, Ordering::Relaxed) {
                        process::exit(code);
                    }
                    // A task of its own, so that a second signal is heard.
                    tokio::spawn(end(Arc::clone(&shared), name, code));
                }
            });
        }
        Ok(Self { shared })
    }

    /// What is left behind if a signal ends the process from now on: a half sentence, as `kept out.img.part`; `None` if nothing is
    /// to be said of it.
    pub fn set_remains(&self, remains: Option<String>) {
        *lock(&self.shared.remains) = remains;
    }

    /// Called before a signal ends the process, on the rim: it must not wait for anything.
    pub fn on_end(&self, ending: Ending) {
        lock(&self.shared.endings).push(ending);
    }

    pub(crate) fn show(&self, shown: Arc<Shown>) {
        *lock(&self.shared.shown) = Some(shown);
    }
}

/// Ends the process, unless it has come to its end by itself.
async fn end(shared: Arc<Shared>, name: &'static str, code: i32) {
    let mut ends = None;
    for _ in 0..TRY.1 {
        ends = screen::try_seize(|| shared.last_words(name, code));
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

impl Shared {
    fn last_words(&self, name: &str, code: i32) -> String {
        let mut error = format!("interrupted by {name}");
        if let Some(remains) = &*lock(&self.remains) {
            error += &format!("; {remains}");
        }
        let mut lines = self.messages.line("error", "", &error);
        if let Some(shown) = &*lock(&self.shown) {
            let exit = u8::try_from(code).unwrap_or(u8::MAX);
            lines.extend(shown.last_line(Outcome::Interrupted, exit, Some(&error), None));
        }
        lines
    }
}
