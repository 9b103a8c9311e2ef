//! Writes the stream. Lines and small payloads are buffered; large payloads bypass the buffer.

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

/// The fill level at which the buffer is written, in bytes.
const BUFFER_SIZE: usize = 256 << 10;
/// The size in bytes from which payloads, and parts of them in memory, bypass the buffer, since writing them in place
/// is cheaper than copying them.
const LARGE: usize = 32 << 10;
/// The size in bytes from which a range of a file is spliced.
const SPLICE: u64 = 16 << 10;
/// The maximum size of one write in bytes while the connection is watched for silence.
const WATCHED_WRITE: usize = 256 << 10;
/// The size in bytes of one read and write for ranges that can't be spliced.
const COPY: u64 = 256 << 10;
/// The default silence after which WAIT is written, if the receiver's patience is unknown.
const WAIT: Duration = Duration::from_secs(WAIT_SECONDS);

/// Encodes frames and writes them to a file descriptor.
pub(crate) struct StreamWriter {
    out: File,
    dialect: Dialect,
    encoder: StreamEncoder,
    buffered: BytesMut,
    /// The read buffer for ranges that can't be spliced.
    buffer: Vec<u8>,
    /// `out` is a pipe, and splicing from a file has not failed yet.
    splices: bool,
    /// The pipe through which ranges are spliced, once splicing was used.
    splice_pipe: Option<SplicePipe>,
    /// A range was spliced.
    spliced: bool,
    /// The time of the last write.
    last_write: Instant,
    /// The silence after which WAIT is written.
    wait: Duration,
    /// The receiver's replies. Nothing is sent after a final reply.
    replies: Option<ReplyReader>,
    /// FAIL was written.
    fail_written: bool,
    counters: Arc<ProgressCounters>,
    rate_limiter: Option<RateLimiter>,
}

impl StreamWriter {
    /// Writes to standard output, at the rate of `rate_limiter`.
    pub(crate) fn stdout(
        dialect: Dialect,
        counters: Arc<ProgressCounters>,
        rate_limiter: Option<RateLimiter>,
    ) -> Result<Self, SendError> {
        let out = io::stdout().as_fd().try_clone_to_owned().map_err(SendError::output)?;
        sys::enlarge_pipe(out.as_fd(), PIPE);
        Ok(Self::new(out.into(), dialect, counters, rate_limiter))
    }

    /// Writes to this pipe or file. The pipe's size is unchanged, since ssh is slower with a larger one.
    pub(crate) fn new(
        out: File,
        dialect: Dialect,
        counters: Arc<ProgressCounters>,
        rate_limiter: Option<RateLimiter>,
    ) -> Self {
        // It can be determined when a pipe is drained, but not when a socket is. Only a pipe is spliced to.
        let splices = out.metadata().is_ok_and(|stat| stat.file_type().is_fifo());
        Self {
            out,
            dialect,
            encoder: StreamEncoder::new(dialect),
            buffered: BytesMut::with_capacity(2 * BUFFER_SIZE),
            buffer: Vec::new(),
            splices,
            splice_pipe: None,
            spliced: false,
            last_write: Instant::now(),
            wait: WAIT,
            replies: None,
            fail_written: false,
            counters,
            rate_limiter,
        }
    }

    /// Ends the stream when the receiver sends its final reply. The receiver takes a silence of `patience` for a dead
    /// connection, so WAIT is written in time.
    pub(crate) fn watch_replies(&mut self, replies: ReplyReader, patience: Duration) {
        self.replies = Some(replies);
        self.wait = wait_after(patience);
    }

    /// Writes facts about the image, ahead of the stream.
    pub(crate) fn write_facts(&mut self, facts: SourceFacts) -> Result<(), SendError> {
        self.buffered.extend_from_slice(format!("{facts}\n").as_bytes());
        self.flush()
    }

    /// Writes WAIT ahead of the stream after a long silence. Fails if the receiver has sent its final reply.
    pub(crate) fn keep_alive_before_stream(&mut self) -> Result<(), SendError> {
        if self.replies.as_ref().is_some_and(ReplyReader::has_ended) {
            return Err(SendError::BrokenPipe);
        }
        if self.last_write.elapsed() >= self.wait {
            self.buffered.extend_from_slice(b"WAIT\n");
            self.flush()?;
        }
        Ok(())
    }

    /// Requests a manifest of the receiver's existing data. The stream begins after that.
    pub(crate) fn request_manifest(&mut self, want: &ManifestRequest) -> Result<(), SendError> {
        self.encoder.agree();
        self.buffered.extend_from_slice(format!("{want}\n").as_bytes());
        self.flush()
    }

    /// Writes a frame without payload.
    pub(crate) fn write_frame(&mut self, frame: Frame) -> Result<(), SendError> {
        self.encoder.encode(frame, &mut self.buffered)?;
        self.flush_if(BUFFER_SIZE)
    }

    /// Writes a record and its payload. Ranges of the payload are read from the files of the disk's layers.
    pub(crate) fn write_data(&mut self, record: Record, payload: Payload, disk: &dyn Disk) -> Result<(), SendError> {
        let all = payload.len();
        let reads_first =
            all < LARGE as u64 && payload.parts().iter().any(|part| matches!(part, PayloadPart::Range { .. }));
        if reads_first {
            // A small payload is read before its line is written, so that FAIL can follow a read error.
            self.buffer.clear();
            for part in payload.parts() {
                match part {
                    PayloadPart::Bytes(bytes) => self.buffer.extend_from_slice(bytes),
                    PayloadPart::Range { depth, at, len } => read(&mut self.buffer, file(disk, *depth)?, *at, *len)?,
                }
            }
        }
        self.encoder.encode(Frame::Record(record), &mut self.buffered)?;
        if reads_first {
            self.buffered.extend_from_slice(&self.buffer);
            self.count_payload(all)?;
            return self.flush_if(BUFFER_SIZE);
        }
        for part in payload.parts() {
            match part {
                PayloadPart::Bytes(bytes) if bytes.len() < LARGE => {
                    self.encoder.encode(Frame::Payload(bytes.clone()), &mut self.buffered)?;
                    self.count_disk(bytes.len() as u64);
                    self.flush_if(BUFFER_SIZE)?;
                }
                PayloadPart::Bytes(bytes) => {
                    self.flush()?;
                    for piece in bytes.chunks(usize::try_from(self.max_write()).unwrap_or(usize::MAX)) {
                        self.write(piece)?;
                        self.count_payload(piece.len() as u64)?;
                    }
                }
                PayloadPart::Range { depth, at, len } if *len < SPLICE => {
                    self.buffer.clear();
                    read(&mut self.buffer, file(disk, *depth)?, *at, *len)?;
                    self.buffered.extend_from_slice(&self.buffer);
                    self.count_payload(*len)?;
                    self.flush_if(BUFFER_SIZE)?;
                }
                PayloadPart::Range { depth, at, len } => self.write_range(file(disk, *depth)?, *at, *len)?,
            }
        }
        Ok(())
    }

    /// Writes a large range of a file: spliced from the page cache into the pipe if possible, else read and written.
    fn write_range(&mut self, file: &ImageFile, mut at: u64, len: u64) -> Result<(), SendError> {
        let end = at + len;
        while self.splices && at < end {
            // Nothing was spliced: reading will find the error or the end of the file.
            let bytes @ 1.. = self.splice_range(file.file(), at, end - at)? else { break };
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
            self.count_payload(bytes)?;
        }
        Ok(())
    }

    /// Splices the buffered bytes and up to `len` bytes of a file, and returns the number of bytes of the file. The
    /// number is 0, and nothing is written, if splicing is unsupported or the file ends at `at`.
    fn splice_range(&mut self, file: &File, at: u64, len: u64) -> Result<u64, SendError> {
        if self.buffered.len() > SplicePipe::LINES {
            self.flush()?;
        }
        let Some(mut splice_pipe) = self.splice_pipe.take().or_else(|| SplicePipe::new().ok()) else {
            self.splices = false;
            return Ok(0);
        };
        let ahead = self.buffered.split();
        splice_pipe.push(&ahead).map_err(SendError::output)?;
        let bytes = match splice_pipe.fill(file, at, len.min(self.max_write())) {
            Ok(Spliced::Moved(bytes)) if bytes > 0 => bytes,
            // Splicing is unsupported or failed. Reading will report the error, or work.
            refused => {
                self.splices = matches!(refused, Ok(Spliced::Moved(_)));
                self.buffered.unsplit(ahead);
                return Ok(0);
            }
        };
        let mut left = ahead.len() as u64 + bytes;
        while left > 0 {
            let moved = self.watched(|out| splice_pipe.drain_to(out, left))?;
            self.count_written(moved);
            left -= moved;
        }
        self.splice_pipe = Some(splice_pipe);
        self.spliced = true;
        self.count_payload(bytes)?;
        Ok(bytes)
    }

    /// True while ranges of files are spliced.
    pub(crate) fn splices(&self) -> bool {
        self.splices
    }

    /// Writes END and flushes. `result` is the digest of the result's fingerprint, if a manifest was requested from
    /// the receiver. Returns the disk's fingerprint, if there are digests.
    pub(crate) fn end(&mut self, result: Option<Digest>) -> Result<Option<Fingerprint>, SendError> {
        self.write_frame(Frame::End(Trailer { result, ..self.encoder.end() }))?;
        self.flush()?;
        let built = result.zip(self.encoder.sums()).map(|(digest, params)| Fingerprint { sums: params, digest });
        Ok(built.or(self.encoder.fingerprint()))
    }

    /// Ends the stream early, with FAIL and its reason. Inside a payload no line can be written, and the stream ends
    /// there.
    pub(crate) fn write_fail(&mut self, reason: FailReason) -> Result<(), SendError> {
        if self.encoder.payload_left() == 0 {
            self.write_frame(match self.dialect {
                Dialect::V1 => Frame::Fail(reason),
                // In this dialect a stream that ends between two records is complete. One that ends inside a payload
                // is not.
                Dialect::Classic => Frame::Record(Record::Data { len: 1, digest: None }),
            })?;
            self.flush()?;
            self.fail_written = self.dialect == Dialect::V1;
        }
        self.flush()
    }

    /// True if FAIL was written.
    pub(crate) fn has_written_fail(&self) -> bool {
        self.fail_written
    }

    /// Writes WAIT after a long silence. Fails if the receiver has sent its final reply.
    pub(crate) fn keep_alive(&mut self) -> Result<(), SendError> {
        if self.replies.as_ref().is_some_and(ReplyReader::has_ended) {
            return Err(SendError::BrokenPipe);
        }
        if self.dialect == Dialect::V1 && self.last_write.elapsed() >= self.wait {
            self.write_frame(Frame::Wait)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Flushes, and waits until the reader has taken all spliced bytes. Until then the pipe refers to pages of the
    /// file, and a change of the file changes them.
    pub(crate) fn drain(&mut self) -> Result<(), SendError> {
        self.flush()?;
        if self.spliced { self.watched(|out| sys::drain_pipe(out.as_fd())) } else { Ok(()) }
    }

    /// Writes the buffered bytes.
    pub(crate) fn flush(&mut self) -> Result<(), SendError> {
        if self.buffered.is_empty() {
            return Ok(());
        }
        let buffered = self.buffered.split();
        let written = self.write(&buffered);
        drop(buffered);
        self.buffered.reserve(2 * BUFFER_SIZE);
        written
    }

    fn flush_if(&mut self, full: usize) -> Result<(), SendError> {
        if self.buffered.len() >= full { self.flush() } else { Ok(()) }
    }

    /// The maximum size of one write under the rate limit, in bytes.
    fn max_write(&self) -> u64 {
        self.rate_limiter.as_ref().map_or(u64::MAX, RateLimiter::piece)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        // Writes are limited in size, since a write that blocks for long is the sign of a dead connection.
        let most = if self.replies.is_some() { WATCHED_WRITE } else { usize::MAX };
        for piece in bytes.chunks(usize::try_from(self.max_write()).unwrap_or(usize::MAX).min(most)) {
            self.watched(|out| sys::write_all(out, piece))?;
            self.count_written(piece.len() as u64);
        }
        Ok(())
    }

    /// Runs a write that the watchdog of the replies knows of.
    fn watched<T>(&self, write: impl FnOnce(&File) -> io::Result<T>) -> Result<T, SendError> {
        let report = |begins: bool| self.replies.iter().for_each(|replies| replies.note_write(begins));
        report(true);
        let written = write(&self.out);
        report(false);
        written.map_err(SendError::output)
    }

    fn count_written(&mut self, bytes: u64) {
        self.counters.add_wire(bytes);
        self.last_write = Instant::now();
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.passed(bytes);
        }
    }

    /// Accounts for payload that was written or buffered.
    fn count_payload(&mut self, bytes: u64) -> Result<(), SendError> {
        self.encoder.payload_passed(bytes)?;
        self.count_disk(bytes);
        Ok(())
    }

    fn count_disk(&self, bytes: u64) {
        self.counters.add_disk(bytes);
        self.counters.add_data(bytes);
    }
}

/// The file of a layer.
fn file(disk: &dyn Disk, depth: u32) -> Result<&ImageFile, SendError> {
    let no_file = || xfer_hole_os::DiskError::new(DiskErrorKind::Io, "extents", format!("layer {depth} has no file"));
    Ok(disk.host(depth).ok_or_else(no_file)?)
}

/// Appends a range of a file to the buffer. Bytes after the file's end read as zeros.
fn read(buffer: &mut Vec<u8>, file: &ImageFile, at: u64, len: u64) -> Result<(), SendError> {
    let from = buffer.len();
    buffer.resize(from + usize::try_from(len).unwrap_or_default(), 0);
    Ok(file.read_at(at, &mut buffer[from..])?)
}

#[cfg(test)]
mod tests;
