//! Standard error, which the process has one of: whole lines, and below them the one line that a bar redraws.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use xfer_hole_os::sys;

/// Who has the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Nobody yet.
    Open,
    /// The program, which has come to its end by itself.
    Program,
    /// A signal.
    Signal,
}

struct Stderr {
    /// The line that is redrawn, and how many columns of it stand there.
    line: String,
    last: Last,
    /// How many want the terminal for what another program asks there.
    lent: usize,
}

static SCREEN: Mutex<Stderr> = Mutex::new(Stderr { line: String::new(), last: Last::Open, lent: 0 });

/// Columns, where nobody tells.
const COLUMNS: usize = 80;

/// How many columns there are.
pub(crate) fn columns() -> usize {
    sys::terminal_columns(io::stderr()).unwrap_or(COLUMNS)
}

impl Stderr {
    fn lock() -> MutexGuard<'static, Self> {
        SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The screen, for the event loop: only if nobody else writes, and what is written won't have to wait.
    fn try_lock() -> Option<MutexGuard<'static, Self>> {
        let screen = match SCREEN.try_lock() {
            Ok(screen) => screen,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        sys::takes_writes(io::stderr()).then_some(screen)
    }

    /// What removes the line, so that something else can stand there.
    fn erased(&self) -> String {
        if self.line.is_empty() {
            return String::new();
        }
        if io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb") {
            // A window that became narrower has wrapped it.
            let above = (self.line.len() - 1) / columns();
            let up = if above > 0 { format!("\x1b[{above}A") } else { String::new() };
            return format!("\r{up}\x1b[J");
        }
        format!("\r{:1$}\r", "", self.line.len())
    }

    /// Writes lines above the one that is redrawn. One write, so that lines of two programs on one terminal stay whole.
    fn write(&self, lines: &str) {
        // If it can't be said, it can't be helped.
        let _said = io::stderr().write_all(format!("{}{lines}{}", self.erased(), self.line).as_bytes());
    }

    fn draw(&mut self, line: String) {
        let erased = self.erased();
        let _drawn = io::stderr().write_all(format!("{erased}{line}").as_bytes());
        self.line = line;
    }
}

/// Writes whole lines.
pub(crate) fn say(lines: &str) {
    let screen = Stderr::lock();
    if screen.last == Last::Signal {
        drop(screen);
        wait_for_the_end();
    }
    screen.write(lines);
}

/// Writes whole lines from the event loop, if they needn't wait: true if so.
pub(crate) fn try_say(lines: &str) -> bool {
    let screen = Stderr::try_lock().filter(|screen| screen.last == Last::Open);
    screen.inspect(|screen| screen.write(lines)).is_some()
}

/// The terminal belongs to another program, which may ask something there: the line that is redrawn is gone, and comes back when
/// this is dropped.
#[derive(Debug)]
pub struct LentTerminal(());

impl LentTerminal {
    /// Removes the line, and waits until that is done.
    pub fn begin() -> Self {
        let mut screen = Stderr::lock();
        screen.lent += 1;
        screen.draw(String::new());
        Self(())
    }
}

impl Drop for LentTerminal {
    fn drop(&mut self) {
        Stderr::lock().lent -= 1;
    }
}

/// Draws the line that is redrawn, from the event loop, unless the terminal is lent: plain ASCII, shorter than [`columns`].
pub(crate) fn try_draw(line: String) {
    if let Some(mut screen) = Stderr::try_lock().filter(|screen| screen.last == Last::Open && screen.lent == 0) {
        screen.draw(line);
    }
}

/// The program has come to its end by itself: the line is removed and stays so. Doesn't come back if a signal was faster, which
/// ends the process.
pub(crate) fn close() {
    let mut screen = Stderr::lock();
    if screen.last == Last::Signal {
        drop(screen);
        wait_for_the_end();
    }
    screen.last = Last::Program;
    screen.draw(String::new());
}

/// A signal ends the process, with these lines as the last: whether that is so, or the program itself was faster. `None` if it has
/// to be tried again, because somebody writes.
pub(crate) fn try_seize(lines: impl FnOnce() -> String) -> Option<bool> {
    let mut screen = Stderr::try_lock()?;
    if screen.last == Last::Program {
        return Some(false);
    }
    screen.last = Last::Signal;
    screen.draw(String::new());
    screen.write(&lines());
    Some(true)
}

/// The event loop ends the process: nothing that this thread could say or decide counts any more.
fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}
