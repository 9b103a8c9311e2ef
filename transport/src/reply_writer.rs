//! What a receiver says back (SPEC.md, "The conversation"), and that it is still there when it has nothing to say.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use xfer_hole_os::sys;
use xfer_hole_proto::{Reply, WAIT_SECONDS};

/// The silence that WAIT breaks towards one who takes `patience` of it for a dead link: 15 seconds, and less for the impatient.
#[must_use]
pub fn wait_after(patience: Duration) -> Duration {
    Duration::from_secs(WAIT_SECONDS).min(patience / 3)
}

/// How often one who waits to be heard looks whether that is still wanted.
const LOOK: Duration = Duration::from_millis(250);
/// How long the last line may wait for a sender that takes nothing: with the default patience, a silent sender is given up within 90 seconds.
const LAST_LINE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 20 });
/// Bytes that go at once: a pipe that takes anything takes so many.
const PIECE: usize = 4096;

/// The receiver's way back to the sender. Dropped, it falls silent and is closed.
pub struct ReplyWriter(Arc<WriterShared>);

struct WriterShared {
    pipe: Mutex<ReplyPipe>,
    over: Condvar,
    /// The last line is to be said. Not behind the lock, which a thread may hold that waits for the sender.
    is_last: Arc<AtomicBool>,
}

struct ReplyPipe {
    /// `None` when all is said.
    out: Option<File>,
    said: Instant,
    /// The silence that WAIT breaks.
    wait: Duration,
    /// How long a sender may not listen.
    patience: Duration,
    is_last: Arc<AtomicBool>,
}

impl ReplyWriter {
    /// Begins to say WAIT whenever nothing else was said for long, where `patience` of silence is a dead link's.
    pub fn start(out: File, patience: Duration) -> io::Result<Self> {
        let is_last = Arc::new(AtomicBool::new(false));
        let (out, said, wait) = (Some(out), Instant::now(), wait_after(patience));
        let pipe = Mutex::new(ReplyPipe { out, said, wait, patience, is_last: Arc::clone(&is_last) });
        let shared = Arc::new(WriterShared { pipe, over: Condvar::new(), is_last });
        let ticker = Arc::clone(&shared);
        thread::Builder::new().spawn(move || ticker.tick())?;
        Ok(Self(shared))
    }

    /// Says these lines, each with its LF, to a sender that may take its time, until that is `over`.
    pub fn say_lines(&self, mut lines: &str, over: &AtomicBool) {
        while !lines.is_empty() {
            let end = lines.as_bytes()[..lines.len().min(PIECE)].iter().rposition(|&byte| byte == b'\n');
            let (piece, rest) = lines.split_at(end.map_or(lines.len(), |end| end + 1));
            if !self.0.pipe().say_text(piece, Some(over)) {
                return;
            }
            lines = rest;
        }
    }

    /// Says this. A sender that doesn't hear it any more is found out by reading from it.
    pub fn say(&self, answer: &Reply) {
        self.0.pipe().say(answer);
    }
}

impl ReplyWriter {
    /// Says why there will be no disk, which is the last line: a sender that takes nothing isn't waited for as long as before.
    pub fn say_last(&self, answer: &Reply) {
        self.0.is_last.store(true, Ordering::Relaxed);
        self.0.pipe().say(answer);
    }
}

impl Drop for ReplyWriter {
    fn drop(&mut self) {
        self.0.pipe().out = None;
        self.0.over.notify_all();
    }
}

impl WriterShared {
    fn pipe(&self) -> MutexGuard<'_, ReplyPipe> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let mut pipe = self.pipe();
        while pipe.out.is_some() {
            let left = pipe.wait.saturating_sub(pipe.said.elapsed());
            if left.is_zero() {
                pipe.say(&Reply::Wait);
                continue;
            }
            pipe = self.over.wait_timeout(pipe, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl ReplyPipe {
    fn say(&mut self, answer: &Reply) {
        self.say_text(&answer.text(), None);
    }

    /// Says it as soon as the sender has room for it: false if it was called off before. One who makes no room for too long hears nothing
    /// any more, unless something calls us off.
    fn say_text(&mut self, text: &str, over: Option<&AtomicBool>) -> bool {
        let begun = Instant::now();
        while let Some(out) = &self.out {
            if over.is_some_and(|over| over.load(Ordering::Relaxed)) {
                return false;
            }
            if sys::wait_writable(out.as_fd(), LOOK).unwrap_or(true) {
                let _heard = sys::write_all(out, text.as_bytes());
                break;
            }
            let is_last = self.is_last.load(Ordering::Relaxed);
            let patience = if is_last { self.patience.min(LAST_LINE) } else { self.patience };
            if over.is_none() && begun.elapsed() >= patience {
                self.out = None;
            }
        }
        self.said = Instant::now();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn the_impatient_hear_three_times_as_often_as_they_ask() {
        assert_eq!(wait_after(Duration::from_secs(60)), Duration::from_secs(15));
        assert_eq!(wait_after(Duration::from_secs(6)), Duration::from_secs(2));
    }

    #[test]
    fn the_last_line_does_not_wait_long_for_a_sender_that_takes_nothing() {
        let (_heard, out) = pipe().unwrap();
        let out = File::from(OwnedFd::from(out));
        while sys::wait_writable(out.as_fd(), Duration::ZERO).unwrap() {
            sys::write_all(&out, &[b'x'; PIECE]).unwrap();
        }
        let replies = ReplyWriter::start(out, Duration::from_secs(600)).unwrap();
        let begun = Instant::now();
        replies.say_last(&Reply::Done(None));
        assert!(begun.elapsed() >= LAST_LINE && begun.elapsed() < Duration::from_secs(300));
        assert!(replies.0.pipe().out.is_none());
    }

    #[test]
    fn a_wait_that_is_not_taken_does_not_hold_the_last_line_up() {
        let (_heard, out) = pipe().unwrap();
        let out = File::from(OwnedFd::from(out));
        while sys::wait_writable(out.as_fd(), Duration::ZERO).unwrap() {
            sys::write_all(&out, &[b'\n'; PIECE]).unwrap();
        }
        let replies = ReplyWriter::start(out, Duration::from_secs(600)).unwrap();
        // It is time for WAIT: the thread that says it holds the lock while the pipe is full.
        replies.0.pipe().said -= Duration::from_secs(WAIT_SECONDS);
        let begun = Instant::now();
        while replies.0.pipe.try_lock().is_ok() {
            replies.0.over.notify_all();
            assert!(begun.elapsed() < Duration::from_secs(60), "WAIT is not said");
            thread::yield_now();
        }
        replies.say_last(&Reply::Done(None));
        assert!(begun.elapsed() < Duration::from_secs(300));
        assert!(replies.0.pipe().out.is_none());
    }

    #[test]
    fn silence_of_fifteen_seconds_is_broken_by_wait_and_dropping_closes() {
        let (mut heard, out) = pipe().unwrap();
        let replies = ReplyWriter::start(OwnedFd::from(out).into(), Duration::from_secs(60)).unwrap();
        replies.say(&Reply::Ready(Vec::new()));
        replies.0.pipe().said -= Duration::from_secs(WAIT_SECONDS);
        replies.0.over.notify_all();
        let mut said = vec![0; b"XFER-HOLE-READY 1\nWAIT\n".len()];
        heard.read_exact(&mut said).unwrap();
        assert_eq!(said, b"XFER-HOLE-READY 1\nWAIT\n");
        replies.say(&Reply::Done(None));
        drop(replies);
        let mut rest = String::new();
        heard.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "DONE\n");
    }
}
