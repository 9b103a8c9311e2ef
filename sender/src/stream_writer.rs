//! Records on their way out: lines and small payloads are gathered, large payloads go past the gathering.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio_util::codec::Encoder;
use xfer_hole_image::{Disk, ImageFile};
use xfer_hole_os::DiskErrorKind;
use xfer_hole_os::sys::{self, Spliced};
use xfer_hole_pipeline::{Payload, PayloadPart, ProgressCounters};
use xfer_hole_proto::{
    Dialect, Digest, FailReason, Fingerprint, Frame, ManifestRequest, Record, SourceFacts, StreamEncoder, Trailer,
    WAIT_SECONDS,
};
use xfer_hole_transport::{RateLimiter, ReplyReader, wait_after};

use crate::error::SendError;
use crate::splice_pipe::{PIPE, SplicePipe};

/// Bytes that are gathered before they are written.
const GATHER: usize = 256 << 10;
/// Payloads, and parts of them in memory, of this many bytes are not gathered: writing them from where they are is cheaper than
/// copying them.
const LARGE: usize = 32 << 10;
/// Ranges of this many bytes in a large payload are spliced.
const SPLICE: u64 = 16 << 10;
/// Bytes that are written at once where the link is watched.
const NOTED: usize = 256 << 10;
/// Bytes that are read and written at once where they can't be spliced.
const COPY: u64 = 256 << 10;
/// The silence that WAIT breaks where nobody says how patient the receiver is.
const WAIT: Duration = Duration::from_secs(WAIT_SECONDS);

/// The stream, on its way to a descriptor.
pub(crate) struct StreamWriter {
    out: File,
    dialect: Dialect,
    encoder: StreamEncoder,
    gathered: BytesMut,
    /// For what can't be spliced.
    buffer: Vec<u8>,
    /// `out` is a pipe, and no file has been met that can't be spliced from.
    splices: bool,
    /// What is spliced goes by here, once something was.
    lift: Option<SplicePipe>,
    /// Something was spliced.
    spliced: bool,
    /// When something was written last.
    said: Instant,
    /// The silence that WAIT breaks.
    wait: Duration,
    /// Where the receiver answers: nothing is sent to one that has given up.
    answers: Option<ReplyReader>,
    /// FAIL was said.
    gave_up: bool,
    counters: Arc<ProgressCounters>,
    throttle: Option<RateLimiter>,
}

impl StreamWriter {
    /// A stream to standard output, held back by `throttle`.
    pub(crate) fn stdout(
        dialect: Dialect,
        counters: Arc<ProgressCounters>,
        throttle: Option<RateLimiter>,
    ) -> Result<Self, SendError> {
        let out = io::stdout().as_fd().try_clone_to_owned().map_err(SendError::output)?;
        sys::enlarge_pipe(out.as_fd(), PIPE);
        Ok(Self::new(out.into(), dialect, counters, throttle))
    }

    /// A stream to this pipe or file, which stays as it is: a larger pipe makes ssh slower.
    pub(crate) fn new(
        out: File,
        dialect: Dialect,
        counters: Arc<ProgressCounters>,
        throttle: Option<RateLimiter>,
    ) -> Self {
        // What lies in a pipe can be told to be gone; what a socket holds can't.
        let splices = out.metadata().is_ok_and(|stat| stat.file_type().is_fifo());
        Self {
            out,
            dialect,
            encoder: StreamEncoder::new(dialect),
            gathered: BytesMut::with_capacity(2 * GATHER),
            buffer: Vec::new(),
            splices,
            lift: None,
            spliced: false,
            said: Instant::now(),
            wait: WAIT,
            answers: None,
            gave_up: false,
            counters,
            throttle,
        }
    }

    /// Takes the receiver's last answer for the end of the stream; it takes `patience` of silence for a dead link.
    pub(crate) fn heed(&mut self, answers: ReplyReader, patience: Duration) {
        self.answers = Some(answers);
        self.wait = wait_after(patience);
    }

    /// Tells the receiver of the image, ahead of all else.
    pub(crate) fn tell(&mut self, facts: SourceFacts) -> Result<(), SendError> {
        self.gathered.extend_from_slice(format!("{facts}\n").as_bytes());
        self.flush()
    }

    /// Says WAIT ahead of the stream, if nothing has been said for long, to a receiver that passes over it there.
    pub(crate) fn idle_ahead(&mut self) -> Result<(), SendError> {
        if self.answers.as_ref().is_some_and(ReplyReader::has_ended) {
            return Err(SendError::BrokenPipe);
        }
        if self.said.elapsed() >= self.wait {
            self.gathered.extend_from_slice(b"WAIT\n");
            self.flush()?;
        }
        Ok(())
    }

    /// Asks the receiver what it has. The stream begins behind that.
    pub(crate) fn ask(&mut self, want: &ManifestRequest) -> Result<(), SendError> {
        self.encoder.agree();
        self.gathered.extend_from_slice(format!("{want}\n").as_bytes());
        self.flush()
    }

    /// A line without payload.
    pub(crate) fn line(&mut self, item: Frame) -> Result<(), SendError> {
        self.encoder.encode(item, &mut self.gathered)?;
        self.flush_if(GATHER)
    }

    /// A record and its payload, of which ranges are fetched from the files of the disk's layers.
    pub(crate) fn data(&mut self, record: Record, payload: Payload, disk: &dyn Disk) -> Result<(), SendError> {
        let all = payload.len();
        let read_first =
            all < LARGE as u64 && payload.parts().iter().any(|part| matches!(part, PayloadPart::Range { .. }));
        if read_first {
            // Read before its line is written: if it can't be, FAIL can still be said.
            self.buffer.clear();
            for part in payload.parts() {
                match part {
                    PayloadPart::Bytes(bytes) => self.buffer.extend_from_slice(bytes),
                    PayloadPart::Range { depth, at, len } => read(&mut self.buffer, file(disk, *depth)?, *at, *len)?,
                }
            }
        }
        self.encoder.encode(Frame::Record(record), &mut self.gathered)?;
        if read_first {
            self.gathered.extend_from_slice(&self.buffer);
            self.passed(all)?;
            return self.flush_if(GATHER);
        }
        for part in payload.parts() {
            match part {
                PayloadPart::Bytes(bytes) if bytes.len() < LARGE => {
                    self.encoder.encode(Frame::Payload(bytes.clone()), &mut self.gathered)?;
                    self.count(bytes.len() as u64);
                    self.flush_if(GATHER)?;
                }
                PayloadPart::Bytes(bytes) => {
                    self.flush()?;
                    for piece in bytes.chunks(usize::try_from(self.piece()).unwrap_or(usize::MAX)) {
                        self.write(piece)?;
                        self.passed(piece.len() as u64)?;
                    }
                }
                PayloadPart::Range { depth, at, len } if *len < SPLICE => {
                    self.buffer.clear();
                    read(&mut self.buffer, file(disk, *depth)?, *at, *len)?;
                    self.gathered.extend_from_slice(&self.buffer);
                    self.passed(*len)?;
                    self.flush_if(GATHER)?;
                }
                PayloadPart::Range { depth, at, len } => self.range(file(disk, *depth)?, *at, *len)?,
            }
        }
        Ok(())
    }

    /// A large range: from the page cache into the pipe where that can be, else by reading and writing.
    fn range(&mut self, file: &ImageFile, mut at: u64, len: u64) -> Result<(), SendError> {
        let end = at + len;
        while self.splices && at < end {
            // Nothing of the file: reading says whether there should be something.
            let bytes @ 1.. = self.lift(file.file(), at, end - at)? else { break };
            at += bytes;
        }
        self.flush()?;
        while at < end {
            let bytes = (end - at).min(COPY);
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            read(&mut buffer, file, at, bytes)?;
            self.write(&buffer)?;
            self.buffer = buffer;
            at += bytes;
            self.passed(bytes)?;
        }
        Ok(())
    }

    /// Moves what was gathered, and up to `len` bytes of a file behind it: how many. None where that can't be had, or there is nothing
    /// more in the file: then nothing was moved.
    fn lift(&mut self, file: &File, at: u64, len: u64) -> Result<u64, SendError> {
        if self.gathered.len() > SplicePipe::LINES {
            self.flush()?;
        }
        let Some(mut lift) = self.lift.take().or_else(|| SplicePipe::new().ok()) else {
            self.splices = false;
            return Ok(0);
        };
        let ahead = self.gathered.split();
        lift.put(&ahead).map_err(SendError::output)?;
        let bytes = match lift.fetch(file, at, len.min(self.piece())) {
            Ok(Spliced::Moved(bytes)) if bytes > 0 => bytes,
            // Not to be had here, or it failed: reading says why, or goes on without.
            refused => {
                self.splices = matches!(refused, Ok(Spliced::Moved(_)));
                self.gathered.unsplit(ahead);
                return Ok(0);
            }
        };
        let mut left = ahead.len() as u64 + bytes;
        while left > 0 {
            let poured = self.noted(|out| lift.pour(out, left))?;
            self.wrote(poured);
            left -= poured;
        }
        self.lift = Some(lift);
        self.spliced = true;
        self.passed(bytes)?;
        Ok(bytes)
    }

    /// True as long as payload that lies in a file goes out from there.
    pub(crate) fn splices(&self) -> bool {
        self.splices
    }

    /// END, with the digest of the result's fingerprint where the receiver was asked what it has, and all that was gathered.
    pub(crate) fn end(&mut self, result: Option<Digest>) -> Result<Option<Fingerprint>, SendError> {
        self.line(Frame::End(Trailer { result, ..self.encoder.end() }))?;
        self.flush()?;
        let built = result.zip(self.encoder.sums()).map(|(digest, sums)| Fingerprint { sums, digest });
        Ok(built.or(self.encoder.fingerprint()))
    }

    /// Says that no more comes, and why. Inside a payload nothing can be said: the stream just ends there.
    pub(crate) fn give_up(&mut self, reason: FailReason) -> Result<(), SendError> {
        if self.encoder.payload_left() == 0 {
            self.line(match self.dialect {
                Dialect::V1 => Frame::Fail(reason),
                // A stream that ends between two records is whole there. One that ends inside a payload isn't.
                Dialect::Classic => Frame::Record(Record::Data { len: 1, digest: None }),
            })?;
            self.flush()?;
            self.gave_up = self.dialect == Dialect::V1;
        }
        self.flush()
    }

    /// True if the receiver was told why no more comes.
    pub(crate) fn has_said_why(&self) -> bool {
        self.gave_up
    }

    /// Says WAIT, if nothing else has been said for long.
    pub(crate) fn idle(&mut self) -> Result<(), SendError> {
        if self.answers.as_ref().is_some_and(ReplyReader::has_ended) {
            return Err(SendError::BrokenPipe);
        }
        if self.dialect == Dialect::V1 && self.said.elapsed() >= self.wait {
            self.line(Frame::Wait)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was gathered, and waits until the reader has taken what was spliced: until then it is the file's own pages that lie
    /// in the pipe, and a change to the file is a change to them.
    pub(crate) fn drain(&mut self) -> Result<(), SendError> {
        self.flush()?;
        if self.spliced { self.noted(|out| sys::drain_pipe(out.as_fd())) } else { Ok(()) }
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) -> Result<(), SendError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = self.gathered.split();
        let written = self.write(&gathered);
        drop(gathered);
        self.gathered.reserve(2 * GATHER);
        written
    }

    fn flush_if(&mut self, full: usize) -> Result<(), SendError> {
        if self.gathered.len() >= full { self.flush() } else { Ok(()) }
    }

    /// The most bytes to move at once.
    fn piece(&self) -> u64 {
        self.throttle.as_ref().map_or(u64::MAX, RateLimiter::piece)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        // Pieces that are not too large: that one of them doesn't go out for long is the sign of a dead link.
        let most = if self.answers.is_some() { NOTED } else { usize::MAX };
        for piece in bytes.chunks(usize::try_from(self.piece()).unwrap_or(usize::MAX).min(most)) {
            self.noted(|out| sys::write_all(out, piece))?;
            self.wrote(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes, which whoever watches the link knows meanwhile.
    fn noted<T>(&self, write: impl FnOnce(&File) -> io::Result<T>) -> Result<T, SendError> {
        let note = |begins: bool| self.answers.iter().for_each(|answers| answers.note_write(begins));
        note(true);
        let written = write(&self.out);
        note(false);
        written.map_err(SendError::output)
    }

    fn wrote(&mut self, bytes: u64) {
        self.counters.add_wire(bytes);
        self.said = Instant::now();
        if let Some(throttle) = &mut self.throttle {
            throttle.passed(bytes);
        }
    }

    /// Payload that has been written or gathered.
    fn passed(&mut self, bytes: u64) -> Result<(), SendError> {
        self.encoder.payload_passed(bytes)?;
        self.count(bytes);
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.counters.add_disk(bytes);
        self.counters.add_data(bytes);
    }
}

/// The file that a range is of.
fn file(disk: &dyn Disk, depth: u32) -> Result<&ImageFile, SendError> {
    let no_file = || xfer_hole_os::DiskError::new(DiskErrorKind::Io, "extents", format!("layer {depth} has no file"));
    Ok(disk.host(depth).ok_or_else(no_file)?)
}

/// Appends a range of a file.
fn read(buffer: &mut Vec<u8>, file: &ImageFile, at: u64, len: u64) -> Result<(), SendError> {
    let from = buffer.len();
    buffer.resize(from + usize::try_from(len).unwrap_or_default(), 0);
    Ok(file.read_at(at, &mut buffer[from..])?)
}

#[cfg(test)]
mod tests;
