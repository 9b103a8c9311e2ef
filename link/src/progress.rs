//! How far a transfer is, on a terminal: a bar that the tally moves.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use xfer_hole_image::Tally;

/// How often it is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Which progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressKind {
    /// A bar if standard error is a terminal.
    Auto,
    /// A bar, wherever standard error goes.
    Bar,
    /// Nothing.
    #[default]
    None,
}

/// Draws a bar from a tally until it is dropped.
pub struct Progress {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to draw. `name` stands before the bar.
    #[must_use]
    pub fn start(kind: ProgressKind, name: &'static str, tally: Arc<Tally>) -> Self {
        let terminal = io::stderr().is_terminal();
        let stop = Arc::new(AtomicBool::new(false));
        let target = match kind {
            ProgressKind::None => return Self { stop, thread: None },
            ProgressKind::Auto if !terminal => return Self { stop, thread: None },
            _ if terminal => ProgressDrawTarget::stderr_with_hz(5),
            _ => ProgressDrawTarget::term_like_with_hz(Box::new(PlainErr), 5),
        };
        let stopped = Arc::clone(&stop);
        // Where no thread is to be had, the disk moves without a bar.
        let thread = thread::Builder::new().spawn(move || draw(target, name, &tally, &stopped)).ok();
        Self { stop, thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ended = thread.join();
        }
    }
}

fn draw(target: ProgressDrawTarget, name: &'static str, tally: &Tally, stop: &AtomicBool) {
    let bar = ProgressBar::with_draw_target(None, target);
    let template = "{prefix} {percent:>3}% [{wide_bar}] {bytes} of {total_bytes}, {msg}, {bytes_per_sec}, {eta}";
    // The template is ours and fits; indicatif's own is as good a bar.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name);
    loop {
        let stopped = stop.load(Ordering::Acquire);
        let size = tally.size();
        // Before the size is known there is nothing to show.
        if size > 0 {
            bar.set_length(size);
            // The tally's parts are read one after the other: never more than the whole.
            bar.set_position(tally.disk().min(size));
            bar.set_message(format!("{} data", indicatif::HumanBytes(tally.data())));
        }
        if stopped {
            break;
        }
        thread::park_timeout(TICK);
    }
    bar.abandon();
}

/// Standard error that is no terminal, for a bar asked for by name: redrawn behind a carriage return.
#[derive(Debug)]
struct PlainErr;

impl PlainErr {
    fn write(text: &str) -> io::Result<()> {
        io::stderr().write_all(text.as_bytes())
    }
}

impl TermLike for PlainErr {
    fn width(&self) -> u16 {
        79
    }

    fn move_cursor_up(&self, _n: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _n: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _n: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _n: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        Self::write(text)?;
        Self::write("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        Self::write(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        Self::write("\r")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
