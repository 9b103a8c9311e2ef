//! Access to standard error: whole lines, and below them the line of the progress bar, which is redrawn.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use xfer_hole_os::sys;

/// What ends the output on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Nothing yet.
    Open,
    /// The program is ending by itself.
    Program,
    /// A signal is ending the process.
    Signal,
}

/// The state of standard error.
struct Stderr {
    /// The progress line that is displayed; empty if none is.
    line: String,
    last: Last,
    /// Number of [`LentTerminal`] values: while it is not 0, no progress line is drawn.
    lent: usize,
}

static STDERR: Mutex<Stderr> = Mutex::new(Stderr { line: String::new(), last: Last::Open, lent: 0 });

/// Width of a terminal that does not report its own.
const COLUMNS: usize = 80;

/// Returns the width of the terminal on standard error, in columns.
pub(crate) fn columns() -> usize {
    sys::terminal_columns(io::stderr()).unwrap_or(COLUMNS)
}

impl Stderr {
    fn lock() -> MutexGuard<'static, Self> {
        STDERR.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks standard error for the event loop: `None` if another thread holds the lock or a write would block.
    fn try_lock() -> Option<MutexGuard<'static, Self>> {
        let stderr = match STDERR.try_lock() {
            Ok(stderr) => stderr,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        sys::takes_writes(io::stderr()).then_some(stderr)
    }

    /// Returns the bytes that erase the progress line.
    fn erased(&self) -> String {
        if self.line.is_empty() {
            return String::new();
        }
        if io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb") {
            // The terminal may have become narrower and wrapped the line.
            let above = (self.line.len() - 1) / columns();
            let up = if above > 0 { format!("\x1b[{above}A") } else { String::new() };
            return format!("\r{up}\x1b[J");
        }
        format!("\r{:1$}\r", "", self.line.len())
    }

    /// Writes lines above the progress line.
    ///
    /// One write, so that lines of two programs on one terminal are not mixed.
    fn write(&self, lines: &str) {
        // A failed write to standard error can't be reported anywhere.
        let _said = io::stderr().write_all(format!("{}{lines}{}", self.erased(), self.line).as_bytes());
    }

    /// Replaces the progress line.
    fn draw(&mut self, line: String) {
        let erased = self.erased();
        let _drawn = io::stderr().write_all(format!("{erased}{line}").as_bytes());
        self.line = line;
    }
}

/// Writes whole lines. Does not return if a signal is ending the process.
pub(crate) fn print(lines: &str) {
    let stderr = Stderr::lock();
    if stderr.last == Last::Signal {
        drop(stderr);
        wait_for_exit();
    }
    stderr.write(lines);
}

/// Writes whole lines from the event loop and returns true, unless the write would block.
pub(crate) fn try_print(lines: &str) -> bool {
    let stderr = Stderr::try_lock().filter(|stderr| stderr.last == Last::Open);
    stderr.inspect(|stderr| stderr.write(lines)).is_some()
}

/// Keeps the progress line off the terminal while another program, such as ssh, may ask a question there. Dropping it ends that.
#[derive(Debug)]
pub struct LentTerminal(());

impl LentTerminal {
    /// Erases the progress line before it returns.
    pub fn begin() -> Self {
        let mut stderr = Stderr::lock();
        stderr.lent += 1;
        stderr.draw(String::new());
        Self(())
    }
}

impl Drop for LentTerminal {
    fn drop(&mut self) {
        Stderr::lock().lent -= 1;
    }
}

/// Draws the progress line from the event loop, unless the terminal is lent or a write would block.
///
/// `line` is plain ASCII and shorter than [`columns`].
pub(crate) fn try_draw(line: String) {
    if let Some(mut stderr) = Stderr::try_lock().filter(|stderr| stderr.last == Last::Open && stderr.lent == 0) {
        stderr.draw(line);
    }
}

/// Erases the progress line for good, because the program is ending by itself.
///
/// Does not return if a signal is already ending the process.
pub(crate) fn close() {
    let mut stderr = Stderr::lock();
    if stderr.last == Last::Signal {
        drop(stderr);
        wait_for_exit();
    }
    stderr.last = Last::Program;
    stderr.draw(String::new());
}

/// Writes the last lines of a process that a signal ends, and blocks all later output.
///
/// Returns `Some(false)` if the program is already ending by itself, and `None` if the write would block: try again later.
pub(crate) fn try_seize(lines: impl FnOnce() -> String) -> Option<bool> {
    let mut stderr = Stderr::try_lock()?;
    if stderr.last == Last::Program {
        return Some(false);
    }
    stderr.last = Last::Signal;
    stderr.draw(String::new());
    stderr.write(&lines());
    Some(true)
}

/// Blocks until the event loop ends the process.
fn wait_for_exit() -> ! {
    loop {
        thread::park();
    }
}
