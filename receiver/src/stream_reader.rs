//! Reads a stream from a descriptor: lines and small payloads through a buffer, large payloads directly.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio_util::codec::Decoder;
use xfer_hole_os::shown;
use xfer_hole_os::sys::{self, Spliced};
use xfer_hole_pipeline::ProgressCounters;
use xfer_hole_proto::{
    ANSWER_LINE_MAX, Dialect, Frame, LINE_MAX, ManifestRequest, NOISE_MAX, Reply, SourceFacts, StreamDecoder,
    StreamErrorKind, Violation,
};
use xfer_hole_target::DiskWriter;

use crate::error::ReceiveError;

/// Bytes of one read while lines are expected.
const BUFFER: usize = 64 << 10;
/// Bytes of one read after a payload that was not buffered. The next payload may follow soon, and buffered bytes of it must be copied.
const SMALL_BUFFER: usize = 512;
/// Requested capacity of the pipe in bytes. A large pipe causes fewer context switches.
const PIPE: i32 = 1 << 20;
/// Interval at which a wait for data checks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(250);
/// The line that a sender repeats before its stream while it is not ready.
const WAIT_LINE: &[u8] = b"WAIT\n";
/// The beginning of the header. Output of a login may precede it on the same line.
const OPEN: &[u8] = b"XFER-HOLE 1 ";

/// Returns the first line of the text without its LF; `None` if the line is not complete.
fn whole_line(text: &[u8]) -> Option<&[u8]> {
    let line = text[..text.len().min(LINE_MAX)].split(|&byte| byte == b'\n').next().unwrap_or_default();
    (text.len() > line.len()).then_some(line)
}

/// Returns true if the text begins with a complete WANT line.
fn is_want(text: &[u8]) -> bool {
    text.starts_with(ManifestRequest::WORD) && whole_line(text).is_some_and(|line| ManifestRequest::parse(line).is_ok())
}

/// Returns true if the text begins with a complete SOURCE line.
fn is_source(text: &[u8]) -> bool {
    text.starts_with(SourceFacts::WORD) && whole_line(text).is_some_and(|line| SourceFacts::parse(line).is_ok())
}

fn unreadable(source: io::Error) -> ReceiveError {
    xfer_hole_os::DiskError::io("standard input", "cannot read", source).into()
}

/// Returns the error with the reason of the sender if the line is FAIL.
fn refused(line: &[u8]) -> Option<ReceiveError> {
    match line.starts_with(b"FAIL ").then(|| Reply::parse(line)) {
        Some(Ok(Reply::Fail(why))) => Some(ReceiveError::Unsent(why)),
        _ => None,
    }
}

/// Returns the error for an invalid line before the stream.
fn invalid_line(violation: &Violation) -> ReceiveError {
    xfer_hole_proto::StreamError::new(violation.kind(), 0, 0, violation.to_string()).into()
}

/// Reads and decodes a stream from a pipe, socket or file.
pub(crate) struct StreamReader {
    file: File,
    buffer: BytesMut,
    decoder: StreamDecoder,
    link: LinkLimits,
    /// True after END if the link stays open, so that end of file is not awaited.
    over: bool,
    /// The last line of input that was not a stream.
    noise: Option<String>,
    /// True once the input before the stream was skipped.
    is_past_noise: bool,
    /// True once a line of the sender or its stream was found.
    begun: bool,
    /// True if a payload was read without the buffer, and the buffer was not used since.
    unbuffered: bool,
    /// Set by another thread when reading must stop.
    cancelled: Option<Arc<AtomicBool>>,
    counters: Arc<ProgressCounters>,
}

/// Properties of the link that the stream arrives by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkLimits {
    /// Time without data after which the link counts as dead; `None` for a pipe or a file.
    pub(crate) patience: Option<Duration>,
    /// True if output of a login may precede the stream.
    pub(crate) noisy: bool,
    /// True if the time counts before the first byte, because ssh asks for no password.
    pub(crate) at_once: bool,
    /// True if the sender reads replies: the stream ends with END, and the link stays open.
    pub(crate) answered: bool,
    /// True if the sender was asked for a SOURCE line before the stream.
    pub(crate) asks_source: bool,
}

impl StreamReader {
    /// Creates a reader of standard input.
    pub(crate) fn stdin(
        dialect: Dialect,
        link: LinkLimits,
        counters: Arc<ProgressCounters>,
    ) -> Result<Self, ReceiveError> {
        let file = io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?;
        Ok(Self::new(file.into(), dialect, link, counters))
    }

    /// Creates a reader of a pipe, socket or file.
    pub(crate) fn new(file: File, dialect: Dialect, link: LinkLimits, counters: Arc<ProgressCounters>) -> Self {
        sys::enlarge_pipe(file.as_fd(), PIPE);
        // The size of a file with a stream is nearly its amount of data.
        let stored = file.metadata().ok().filter(std::fs::Metadata::is_file);
        stored.into_iter().for_each(|stat| counters.expect_data(stat.len()));
        let decoder = StreamDecoder::new(dialect);
        Self {
            file,
            buffer: BytesMut::with_capacity(BUFFER),
            decoder,
            link,
            over: false,
            noise: None,
            is_past_noise: false,
            begun: false,
            unbuffered: false,
            cancelled: None,
            counters,
        }
    }

    /// Skips the input before the stream: WAIT lines and output of a login. Does so once, and only if the sender reads replies.
    ///
    /// # Errors
    /// Returns the reason of the sender if FAIL arrives instead of a stream.
    pub(crate) fn begin(&mut self) -> Result<(), ReceiveError> {
        if std::mem::replace(&mut self.is_past_noise, true) || !self.link.answered {
            return Ok(());
        }
        if self.link.noisy {
            return self.skip_noise();
        }
        loop {
            match self.buffer.iter().position(|&byte| byte == b'\n') {
                Some(end) if self.buffer[..end] == *b"WAIT" => drop(self.buffer.split_to(end + 1)),
                Some(end) => return refused(&self.buffer[..end]).map_or(Ok(()), Err),
                // A longer line is not WAIT or FAIL.
                None if self.buffer.len() > ANSWER_LINE_MAX || self.fill_buffer()? == 0 => return Ok(()),
                None => {}
            }
        }
    }

    /// Skips the output of a login before the first line of the sender. Without such a line, its last line is kept as noise.
    fn skip_noise(&mut self) -> Result<(), ReceiveError> {
        let mut searched = 0;
        // ssh may be asking for a password until the first byte arrives.
        let patience = self.link.patience;
        self.link.patience = patience.filter(|_| self.link.at_once);
        let begun = self.fill_buffer();
        self.link.patience = patience;
        begun?;
        loop {
            let begins = |words: &[u8]| words.starts_with(OPEN) || is_want(words) || is_source(words);
            let found = (searched..self.buffer.len()).find(|&at| begins(&self.buffer[at..]));
            let ahead = &self.buffer[..found.unwrap_or(self.buffer.len())];
            let mut lines = ahead.split_inclusive(|&byte| byte == b'\n');
            if let Some(error) = lines.find_map(|line| line.strip_suffix(b"\n").and_then(refused)) {
                return Err(error);
            }
            if let Some(found) = found {
                drop(self.buffer.split_to(found));
                self.begun = true;
                return Ok(());
            }
            searched = self.buffer.len().saturating_sub(LINE_MAX);
            if self.buffer.len() > NOISE_MAX || self.fill_buffer()? == 0 {
                let text = String::from_utf8_lossy(&self.buffer);
                let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
                self.noise = last.map(|line| shown(line.chars().take(200).collect::<String>().as_ref()));
                return Ok(());
            }
        }
    }

    /// Returns true if the sender is asked for a SOURCE line before the stream.
    pub(crate) fn asks_source(&self) -> bool {
        self.link.asks_source
    }

    /// Reads the SOURCE line, which comes first. Returns `None` if it was not requested or the sender does not support it.
    pub(crate) fn source(&mut self) -> Result<Option<SourceFacts>, ReceiveError> {
        if !std::mem::take(&mut self.link.asks_source) {
            return Ok(None);
        }
        self.line_before_stream(SourceFacts::WORD, SourceFacts::parse)
    }

    /// Reads the WANT line. Returns `None` if the stream begins without one.
    pub(crate) fn want(&mut self) -> Result<Option<ManifestRequest>, ReceiveError> {
        self.line_before_stream(ManifestRequest::WORD, ManifestRequest::parse)
    }

    /// Reads a line that begins with `word` before the stream. Returns `None` if something else arrives.
    fn line_before_stream<T>(
        &mut self,
        word: &[u8],
        parse: impl Fn(&[u8]) -> Result<T, Violation>,
    ) -> Result<Option<T>, ReceiveError> {
        self.begin()?;
        loop {
            // The sender writes WAIT while it is not ready.
            let begin = &self.buffer[..self.buffer.len().min(WAIT_LINE.len())];
            if self.link.answered && !begin.is_empty() && WAIT_LINE.starts_with(begin) {
                if begin == WAIT_LINE {
                    drop(self.buffer.split_to(WAIT_LINE.len()));
                } else if self.fill_buffer()? == 0 {
                    return Err(self.cut().into());
                }
                continue;
            }
            let shown = self.buffer.len().min(word.len());
            if self.buffer[..shown] != word[..shown] {
                return Ok(None);
            }
            if let Some(end) = self.buffer.iter().take(LINE_MAX).position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Ok(Some(parse(&line[..end]).map_err(|violation| invalid_line(&violation))?));
            }
            if self.buffer.len() >= LINE_MAX {
                let what = format!("a line longer than {LINE_MAX} bytes");
                return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::TooLong, 0, 0, what).into());
            }
            if self.fill_buffer()? == 0 {
                return Err(self.cut().into());
            }
        }
    }

    /// Records that the receiver sends a manifest of its target, so that END must contain the digest of the result.
    pub(crate) fn agree(&mut self) {
        self.decoder.agree();
    }

    /// Returns the decoder, which knows the position in the stream.
    pub(crate) fn decoder(&self) -> &StreamDecoder {
        &self.decoder
    }

    /// Reads the next frame. Returns `None` at the correct end of the stream.
    ///
    /// # Errors
    /// Returns an error if the stream is invalid or cut, if the link is silent for too long, or if reading was cancelled.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        self.begin()?;
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer)? {
                self.over = self.link.answered && matches!(frame, Frame::End(_));
                return Ok(Some(frame));
            }
            if self.over {
                return Ok(None);
            }
            if self.fill_buffer()? == 0 {
                return Ok(self.decoder.decode_eof(&mut self.buffer)?);
            }
        }
    }

    /// Reads bytes into the buffer, after those already there. Returns their number, 0 at end of file.
    fn fill_buffer(&mut self) -> Result<usize, ReceiveError> {
        self.wait()?;
        let held = self.buffer.len();
        self.buffer.resize(held + if std::mem::take(&mut self.unbuffered) { SMALL_BUFFER } else { BUFFER }, 0);
        let read = sys::read_some(&self.file, &mut self.buffer[held..]).map_err(unreadable);
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        let bytes = read?;
        self.counters.add_wire(bytes as u64);
        Ok(bytes)
    }

    /// Waits until the input is readable.
    ///
    /// # Errors
    /// Returns an error if the link is silent for too long or reading was cancelled.
    fn wait(&self) -> Result<(), ReceiveError> {
        if self.link.patience.is_none() && self.cancelled.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let left = self.link.patience.map_or(LOOK, |patience| patience.saturating_sub(begun.elapsed()));
            if sys::wait_readable(self.file.as_fd(), left.min(LOOK)).map_err(unreadable)? {
                return Ok(());
            }
            if self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(ReceiveError::CalledOff);
            }
            match self.link.patience {
                Some(patience) if begun.elapsed() >= patience => return Err(ReceiveError::Silent(patience)),
                _ => {}
            }
        }
    }

    /// Sets a flag that another thread can set to cancel reading.
    pub(crate) fn set_cancelled(&mut self, cancelled: Arc<AtomicBool>) {
        self.cancelled = Some(cancelled);
    }

    /// Reads payload bytes into `buf`, as many as one read returns. Returns their number, 0 if the stream is cut.
    pub(crate) fn payload(&mut self, buf: &mut [u8]) -> Result<usize, ReceiveError> {
        let most = usize::try_from(self.decoder.payload_left()).unwrap_or(usize::MAX).min(buf.len());
        let bytes = if self.buffer.is_empty() {
            self.wait()?;
            let bytes = sys::read_some(&self.file, &mut buf[..most]).map_err(unreadable)?;
            self.unbuffered = true;
            self.counters.add_wire(bytes as u64);
            bytes
        } else {
            let bytes = most.min(self.buffer.len());
            buf[..bytes].copy_from_slice(&self.buffer.split_to(bytes));
            bytes
        };
        self.decoder.payload_passed(bytes as u64)?;
        Ok(bytes)
    }

    /// Returns how long to wait for a reader if the target is a fifo; `None` without a limit.
    ///
    /// A push request has no limit here, because its sender reads replies and has a limit of its own.
    pub(crate) fn patience_for_reader(&self) -> Option<Duration> {
        self.link.patience.filter(|_| self.link.noisy || !self.link.answered)
    }

    /// Returns true if the sender reads replies and has closed the link.
    pub(crate) fn is_deserted(&self) -> bool {
        self.link.answered && sys::is_deserted(&self.file)
    }

    /// Returns true if a line of the sender or its stream was found.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Returns the last line of input that was not a stream.
    pub(crate) fn noise(&self) -> Option<&str> {
        self.noise.as_deref()
    }

    /// Returns true if the buffer contains bytes, which must be taken before the descriptor is read.
    pub(crate) fn has_buffered(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Splices up to `most` payload bytes to `writer` at disk offset `at`. Returns their number, 0 if the stream is cut.
    pub(crate) fn splice(&mut self, writer: &dyn DiskWriter, at: u64, most: u64) -> Result<Spliced, ReceiveError> {
        if self.has_buffered() {
            return Ok(Spliced::Refused);
        }
        self.wait()?;
        let most = self.decoder.payload_left().min(most);
        let spliced = writer.data_from_pipe(at, self.file.as_fd(), most)?;
        if let Spliced::Moved(bytes) = spliced {
            self.unbuffered = true;
            self.counters.add_wire(bytes);
            self.decoder.payload_passed(bytes)?;
        }
        Ok(spliced)
    }

    /// Returns the error of a stream that ends at this position.
    pub(crate) fn cut(&mut self) -> xfer_hole_proto::StreamError {
        match self.decoder.decode_eof(&mut BytesMut::new()) {
            Err(error) => error,
            Ok(_) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        }
    }
}
