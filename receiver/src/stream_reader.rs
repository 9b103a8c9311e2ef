//! The stream on its way in: lines and small payloads through a gathering buffer, large payloads past it.

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

/// Bytes that are read at once while lines are awaited.
const GATHER: usize = 64 << 10;
/// The same behind a payload that went past the gathering: the next may do so too, and what is read of it has to be copied.
const LINE: usize = 512;
/// The pipe we ask for: fewer switches between the two ends.
const PIPE: i32 = 1 << 20;
/// How often a silent link is left alone to look whether anybody waits for it.
const LOOK: Duration = Duration::from_millis(250);
/// What stands ahead of the stream while the sender isn't ready.
const AHEAD: &[u8] = b"WAIT\n";
/// How the open line begins, wherever a login's last words end.
const OPEN: &[u8] = b"XFER-HOLE 1 ";

/// The whole line that text begins with, without its LF; none if its LF isn't there.
fn whole_line(text: &[u8]) -> Option<&[u8]> {
    let line = text[..text.len().min(LINE_MAX)].split(|&byte| byte == b'\n').next().unwrap_or_default();
    (text.len() > line.len()).then_some(line)
}

/// True if a whole WANT stands there.
fn is_want(text: &[u8]) -> bool {
    text.starts_with(ManifestRequest::WORD) && whole_line(text).is_some_and(|line| ManifestRequest::parse(line).is_ok())
}

/// True if a whole SOURCE stands there.
fn is_source(text: &[u8]) -> bool {
    text.starts_with(SourceFacts::WORD) && whole_line(text).is_some_and(|line| SourceFacts::parse(line).is_ok())
}

fn unreadable(source: io::Error) -> ReceiveError {
    xfer_hole_os::DiskError::io("standard input", "cannot read", source).into()
}

/// The sender's reason, if this line is FAIL.
fn refused(line: &[u8]) -> Option<ReceiveError> {
    match line.starts_with(b"FAIL ").then(|| Reply::parse(line)) {
        Some(Ok(Reply::Fail(why))) => Some(ReceiveError::Unsent(why)),
        _ => None,
    }
}

/// A flaw of the line ahead of the stream.
fn wrong(flaw: &Violation) -> ReceiveError {
    xfer_hole_proto::StreamError::new(flaw.kind(), 0, 0, flaw.to_string()).into()
}

/// A stream from a descriptor.
pub(crate) struct StreamReader {
    file: File,
    gathered: BytesMut,
    decoder: StreamDecoder,
    link: LinkLimits,
    /// END has come, and nothing behind it is waited for.
    over: bool,
    /// The last line that came instead of a stream.
    noise: Option<String>,
    /// What may stand ahead of the stream has been passed over.
    is_past_noise: bool,
    /// The sender has asked, or its stream has begun.
    begun: bool,
    /// A payload went past the gathering, and nothing was gathered since.
    passed: bool,
    /// Set when nobody wants what comes.
    called_off: Option<Arc<AtomicBool>>,
    counters: Arc<ProgressCounters>,
}

/// What is known of the link that the stream comes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkLimits {
    /// Silence that is taken for its death; none for a pipe or a file, whose writer may take its time.
    pub(crate) patience: Option<Duration>,
    /// A login at the other side may have said something ahead of the stream.
    pub(crate) noisy: bool,
    /// Silence counts before the first byte, too: nobody is asked for a password.
    pub(crate) at_once: bool,
    /// The sender waits for an answer: END is the end, and the link stays open.
    pub(crate) answered: bool,
    /// The sender was asked to tell of its image ahead of the stream.
    pub(crate) asks_source: bool,
}

impl StreamReader {
    /// The stream on standard input.
    pub(crate) fn stdin(
        dialect: Dialect,
        link: LinkLimits,
        counters: Arc<ProgressCounters>,
    ) -> Result<Self, ReceiveError> {
        let file = io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?;
        Ok(Self::new(file.into(), dialect, link, counters))
    }

    /// The stream from this pipe or file.
    pub(crate) fn new(file: File, dialect: Dialect, link: LinkLimits, counters: Arc<ProgressCounters>) -> Self {
        sys::enlarge_pipe(file.as_fd(), PIPE);
        // Nearly all of a stream in a file is data.
        let stored = file.metadata().ok().filter(std::fs::Metadata::is_file);
        stored.into_iter().for_each(|stat| counters.expect_data(stat.len()));
        let decoder = StreamDecoder::new(dialect);
        Self {
            file,
            gathered: BytesMut::with_capacity(GATHER),
            decoder,
            link,
            over: false,
            noise: None,
            is_past_noise: false,
            begun: false,
            passed: false,
            called_off: None,
            counters,
        }
    }

    /// Passes over what stands ahead of the open line where the sender hears us: its WAIT, and what a login has said. FAIL in the
    /// open line's stead is the sender's reason.
    pub(crate) fn begin(&mut self) -> Result<(), ReceiveError> {
        if std::mem::replace(&mut self.is_past_noise, true) || !self.link.answered {
            return Ok(());
        }
        if self.link.noisy {
            return self.pass_noise();
        }
        loop {
            match self.gathered.iter().position(|&byte| byte == b'\n') {
                Some(end) if self.gathered[..end] == *b"WAIT" => drop(self.gathered.split_to(end + 1)),
                Some(end) => return refused(&self.gathered[..end]).map_or(Ok(()), Err),
                // No line ahead of the stream is as long.
                None if self.gathered.len() > ANSWER_LINE_MAX || self.gather()? == 0 => return Ok(()),
                None => {}
            }
        }
    }

    /// Passes over what a login has said ahead of the open line: none if there is no open line.
    fn pass_noise(&mut self) -> Result<(), ReceiveError> {
        let mut looked = 0;
        // ssh may be asking for a password until the first byte comes.
        let patience = self.link.patience;
        self.link.patience = patience.filter(|_| self.link.at_once);
        let begun = self.gather();
        self.link.patience = patience;
        begun?;
        loop {
            let begins = |words: &[u8]| words.starts_with(OPEN) || is_want(words) || is_source(words);
            let found = (looked..self.gathered.len()).find(|&at| begins(&self.gathered[at..]));
            let ahead = &self.gathered[..found.unwrap_or(self.gathered.len())];
            let mut lines = ahead.split_inclusive(|&byte| byte == b'\n');
            if let Some(error) = lines.find_map(|line| line.strip_suffix(b"\n").and_then(refused)) {
                return Err(error);
            }
            if let Some(found) = found {
                drop(self.gathered.split_to(found));
                self.begun = true;
                return Ok(());
            }
            looked = self.gathered.len().saturating_sub(LINE_MAX);
            if self.gathered.len() > NOISE_MAX || self.gather()? == 0 {
                let text = String::from_utf8_lossy(&self.gathered);
                let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
                self.noise = last.map(|line| shown(line.chars().take(200).collect::<String>().as_ref()));
                return Ok(());
            }
        }
    }

    /// True if the sender is asked to tell of its image ahead of the stream.
    pub(crate) fn asks_source(&self) -> bool {
        self.link.asks_source
    }

    /// What the sender tells of its image, if it was asked to and knows how. It is what comes first.
    pub(crate) fn source(&mut self) -> Result<Option<SourceFacts>, ReceiveError> {
        if !std::mem::take(&mut self.link.asks_source) {
            return Ok(None);
        }
        self.ahead(SourceFacts::WORD, SourceFacts::parse)
    }

    /// What the sender wants to know before it sends; none if it sends at once.
    pub(crate) fn want(&mut self) -> Result<Option<ManifestRequest>, ReceiveError> {
        self.ahead(ManifestRequest::WORD, ManifestRequest::parse)
    }

    /// A line that begins with `word`, ahead of the stream; none if something else comes.
    fn ahead<T>(
        &mut self,
        word: &[u8],
        parse: impl Fn(&[u8]) -> Result<T, Violation>,
    ) -> Result<Option<T>, ReceiveError> {
        self.begin()?;
        loop {
            // A sender that is heard may need its time, and says so.
            let waits = &self.gathered[..self.gathered.len().min(AHEAD.len())];
            if self.link.answered && !waits.is_empty() && AHEAD.starts_with(waits) {
                if waits == AHEAD {
                    drop(self.gathered.split_to(AHEAD.len()));
                } else if self.gather()? == 0 {
                    return Err(self.cut().into());
                }
                continue;
            }
            let shown = self.gathered.len().min(word.len());
            if self.gathered[..shown] != word[..shown] {
                return Ok(None);
            }
            if let Some(end) = self.gathered.iter().take(LINE_MAX).position(|&byte| byte == b'\n') {
                let line = self.gathered.split_to(end + 1);
                return Ok(Some(parse(&line[..end]).map_err(|flaw| wrong(&flaw))?));
            }
            if self.gathered.len() >= LINE_MAX {
                let what = format!("a line longer than {LINE_MAX} bytes");
                return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::TooLong, 0, 0, what).into());
            }
            if self.gather()? == 0 {
                return Err(self.cut().into());
            }
        }
    }

    /// The receiver has told what it holds: END is to name the result.
    pub(crate) fn agree(&mut self) {
        self.decoder.agree();
    }

    /// What has been decoded so far.
    pub(crate) fn decoder(&self) -> &StreamDecoder {
        &self.decoder
    }

    /// The next item; `None` where the stream has rightly ended.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        self.begin()?;
        loop {
            if let Some(item) = self.decoder.decode(&mut self.gathered)? {
                self.over = self.link.answered && matches!(item, Frame::End(_));
                return Ok(Some(item));
            }
            if self.over {
                return Ok(None);
            }
            if self.gather()? == 0 {
                return Ok(self.decoder.decode_eof(&mut self.gathered)?);
            }
        }
    }

    /// Reads some bytes behind those that were gathered: how many, none at the end.
    fn gather(&mut self) -> Result<usize, ReceiveError> {
        self.wait()?;
        let held = self.gathered.len();
        self.gathered.resize(held + if std::mem::take(&mut self.passed) { LINE } else { GATHER }, 0);
        let read = sys::read_some(&self.file, &mut self.gathered[held..]).map_err(unreadable);
        self.gathered.truncate(held + *read.as_ref().unwrap_or(&0));
        let bytes = read?;
        self.counters.add_wire(bytes as u64);
        Ok(bytes)
    }

    /// Waits until there is something to be read, as long as there is patience, and anybody who wants it.
    fn wait(&self) -> Result<(), ReceiveError> {
        if self.link.patience.is_none() && self.called_off.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let left = self.link.patience.map_or(LOOK, |patience| patience.saturating_sub(begun.elapsed()));
            if sys::wait_readable(self.file.as_fd(), left.min(LOOK)).map_err(unreadable)? {
                return Ok(());
            }
            if self.called_off.as_ref().is_some_and(|called_off| called_off.load(Ordering::Relaxed)) {
                return Err(ReceiveError::CalledOff);
            }
            match self.link.patience {
                Some(patience) if begun.elapsed() >= patience => return Err(ReceiveError::Silent(patience)),
                _ => {}
            }
        }
    }

    /// Whoever waits for bytes looks at this now and then, and fails when it is set.
    pub(crate) fn heed(&mut self, called_off: Arc<AtomicBool>) {
        self.called_off = Some(called_off);
    }

    /// Reads payload that is awaited into `buf`, as much as comes at once; nothing if the stream is cut.
    pub(crate) fn payload(&mut self, buf: &mut [u8]) -> Result<usize, ReceiveError> {
        let awaited = usize::try_from(self.decoder.payload_left()).unwrap_or(usize::MAX).min(buf.len());
        let bytes = if self.gathered.is_empty() {
            self.wait()?;
            let bytes = sys::read_some(&self.file, &mut buf[..awaited]).map_err(unreadable)?;
            self.passed = true;
            self.counters.add_wire(bytes as u64);
            bytes
        } else {
            let bytes = awaited.min(self.gathered.len());
            buf[..bytes].copy_from_slice(&self.gathered.split_to(bytes));
            bytes
        };
        self.decoder.payload_passed(bytes as u64)?;
        Ok(bytes)
    }

    /// How long a reader of a fifo may be waited for. Of a request that goes by the answers.
    pub(crate) fn patience_for_reader(&self) -> Option<Duration> {
        self.link.patience.filter(|_| self.link.noisy || !self.link.answered)
    }

    /// True if a sender that waits for our answers has ended.
    pub(crate) fn is_deserted(&self) -> bool {
        self.link.answered && sys::is_deserted(&self.file)
    }

    /// True if the sender has asked, or its stream has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// What came last, where it was no stream.
    pub(crate) fn noise(&self) -> Option<&str> {
        self.noise.as_deref()
    }

    /// True if bytes were read ahead, which have to be taken from here.
    pub(crate) fn gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Moves payload that is awaited, `most` bytes of it, into the sink at `at`, without a copy of ours: how many bytes, 0 if the stream is cut.
    pub(crate) fn splice(&mut self, sink: &dyn DiskWriter, at: u64, most: u64) -> Result<Spliced, ReceiveError> {
        if self.gathered() {
            return Ok(Spliced::Refused);
        }
        self.wait()?;
        let most = self.decoder.payload_left().min(most);
        let spliced = sink.data_from_pipe(at, self.file.as_fd(), most)?;
        if let Spliced::Moved(bytes) = spliced {
            self.passed = true;
            self.counters.add_wire(bytes);
            self.decoder.payload_passed(bytes)?;
        }
        Ok(spliced)
    }

    /// The error of a stream that is cut here.
    pub(crate) fn cut(&mut self) -> xfer_hole_proto::StreamError {
        match self.decoder.decode_eof(&mut BytesMut::new()) {
            Err(error) => error,
            Ok(_) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        }
    }
}
