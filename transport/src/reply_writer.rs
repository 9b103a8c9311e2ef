//! Writes the replies of a receiver (SPEC.md, "The conversation"), and WAIT when there is nothing else to write.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use xfer_hole_os::sys;
use xfer_hole_proto::{Reply, WAIT_SECONDS};

/// Returns the time without a reply after which WAIT is written: 15 seconds, or a third of `patience` if that is less.
///
/// `patience` is the time without a reply after which the sender takes the link for dead.
#[must_use]
pub fn wait_after(patience: Duration) -> Duration {
    Duration::from_secs(WAIT_SECONDS).min(patience / 3)
}

/// Interval at which a blocked write checks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(250);
/// Maximum time that the last line waits for a sender that reads nothing. With the default patience, a silent sender is given up within 90
/// seconds.
const LAST_LINE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 20 });
/// Maximum bytes of one write: a pipe that is writable takes as many.
const PIECE: usize = 4096;

/// Writes replies to the sender. Dropping it closes the output.
pub struct ReplyWriter(Arc<WriterShared>);

struct WriterShared {
    pipe: Mutex<ReplyPipe>,
    over: Condvar,
    /// True once the last line is to be written. Outside the lock, which a thread that waits for the sender may hold.
    is_last: Arc<AtomicBool>,
}

struct ReplyPipe {
    /// `None` once the output is closed.
    out: Option<File>,
    /// When a line was written last.
    written: Instant,
    /// Time without a reply after which WAIT is written.
    wait: Duration,
    /// Maximum time that a write waits for the sender.
    patience: Duration,
    is_last: Arc<AtomicBool>,
}

impl ReplyWriter {
    /// Starts a thread that writes WAIT whenever no reply was written for [`wait_after`]`(patience)`.
    ///
    /// # Errors
    /// Returns an error if the thread can't be started.
    pub fn start(out: File, patience: Duration) -> io::Result<Self> {
        let is_last = Arc::new(AtomicBool::new(false));
        let (out, written, wait) = (Some(out), Instant::now(), wait_after(patience));
        let pipe = Mutex::new(ReplyPipe { out, written, wait, patience, is_last: Arc::clone(&is_last) });
        let shared = Arc::new(WriterShared { pipe, over: Condvar::new(), is_last });
        let ticker = Arc::clone(&shared);
        thread::Builder::new().spawn(move || ticker.tick())?;
        Ok(Self(shared))
    }

    /// Writes lines, each with its LF. The sender may read them slowly; the write is cancelled when `over` is set.
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

    /// Writes a reply. A failed write is ignored, because reading the stream will report the lost sender.
    pub fn say(&self, reply: &Reply) {
        self.0.pipe().say(reply);
    }
}

impl ReplyWriter {
    /// Writes the last reply. It waits at most 20 seconds for a sender that reads nothing.
    pub fn say_last(&self, reply: &Reply) {
        self.0.is_last.store(true, Ordering::Relaxed);
        self.0.pipe().say(reply);
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

    /// Writes WAIT when it is due, until the output is closed.
    fn tick(&self) {
        let mut pipe = self.pipe();
        while pipe.out.is_some() {
            let left = pipe.wait.saturating_sub(pipe.written.elapsed());
            if left.is_zero() {
                pipe.say(&Reply::Wait);
                continue;
            }
            pipe = self.over.wait_timeout(pipe, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl ReplyPipe {
    fn say(&mut self, reply: &Reply) {
        self.say_text(&reply.text(), None);
    }

    /// Writes `text` as soon as the sender has room for it. Returns false if `over` was set before.
    ///
    /// Without `over`, the output is closed if the sender has no room for too long.
    fn say_text(&mut self, text: &str, over: Option<&AtomicBool>) -> bool {
        let begun = Instant::now();
        while let Some(out) = &self.out {
            if over.is_some_and(|over| over.load(Ordering::Relaxed)) {
                return false;
            }
            if sys::wait_writable(out.as_fd(), LOOK).unwrap_or(true) {
                let _written = sys::write_all(out, text.as_bytes());
                break;
            }
            let is_last = self.is_last.load(Ordering::Relaxed);
            let patience = if is_last { self.patience.min(LAST_LINE) } else { self.patience };
            if over.is_none() && begun.elapsed() >= patience {
                self.out = None;
            }
        }
        self.written = Instant::now();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn wait_comes_three_times_within_a_short_patience() {
        assert_eq!(wait_after(Duration::from_secs(60)), Duration::from_secs(15));
        assert_eq!(wait_after(Duration::from_secs(6)), Duration::from_secs(2));
    }

    #[test]
    fn the_last_line_waits_briefly_for_a_stuck_sender() {
        let (_reader, out) = pipe().unwrap();
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
    fn a_blocked_wait_does_not_delay_the_last_line() {
        let (_reader, out) = pipe().unwrap();
        let out = File::from(OwnedFd::from(out));
        while sys::wait_writable(out.as_fd(), Duration::ZERO).unwrap() {
            sys::write_all(&out, &[b'\n'; PIECE]).unwrap();
        }
        let replies = ReplyWriter::start(out, Duration::from_secs(600)).unwrap();
        // WAIT is due. Its thread holds the lock while the pipe is full.
        replies.0.pipe().written -= Duration::from_secs(WAIT_SECONDS);
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
    fn wait_follows_15_seconds_of_silence_and_drop_closes() {
        let (mut reader, out) = pipe().unwrap();
        let replies = ReplyWriter::start(OwnedFd::from(out).into(), Duration::from_secs(60)).unwrap();
        replies.say(&Reply::Ready(Vec::new()));
        replies.0.pipe().written -= Duration::from_secs(WAIT_SECONDS);
        replies.0.over.notify_all();
        let mut said = vec![0; b"XFER-HOLE-READY 1\nWAIT\n".len()];
        reader.read_exact(&mut said).unwrap();
        assert_eq!(said, b"XFER-HOLE-READY 1\nWAIT\n");
        replies.say(&Reply::Done(None));
        drop(replies);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "DONE\n");
    }
}
