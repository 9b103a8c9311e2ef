//! Writes the records of a stream to the target.
//!
//! Payloads with digests are verified and written by several threads. The threads take turns reading from the stream; while one reads, the
//! others verify and write what they have read.
//!
//! ```text
//! SharedInput (one at a time) ─▶ VerifyWorker: some payloads ─▶ verified ─▶ DiskWriter
//!                             ─▶ VerifyWorker: ...
//! ```

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use xfer_hole_os::Aligned;
use xfer_hole_os::sys::Spliced;
use xfer_hole_pipeline::{Phase, ProgressCounters};
use xfer_hole_proto::{
    Dialect, Digest, FailReason, Frame, HashParams, ManifestHeader, ManifestWriter, Record, StreamErrorKind,
    StreamHeader,
};
use xfer_hole_target::DiskWriter;
use xfer_hole_transfer::DeltaTarget;
use xfer_hole_ui::{Messages, Signals};

use crate::error::ReceiveError;
use crate::existing_records::ExistingRecords;
use crate::receive_options::ReceiveOptions;
use crate::stream_reader::StreamReader;

/// Maximum bytes of a payload without a digest that are read and written at once.
const PIECE: usize = 512 << 10;
/// Maximum bytes of a payload that are announced to the target before they arrive.
const PREALLOCATE: u64 = 64 << 20;
/// Bytes of payloads with digests that a worker reads at a time, unless an interval is longer. Several payloads fit, because two are hashed
/// at once.
const WORKER_BUFFER: usize = 2 << 20;
/// Maximum bytes that all workers hold together, unless an interval is longer.
const MEMORY: usize = 32 << 20;
/// Maximum number of workers. One stream keeps no more of them busy. At most half of the processors are used, because the sender or ssh
/// needs the rest.
const WORKERS: usize = 4;

/// Bytes that may be written: their digest was checked, or the stream has no digests.
struct VerifiedBytes<'a>(&'a [u8]);

impl<'a> VerifiedBytes<'a> {
    /// Returns the bytes if their computed digest equals the digest in the stream.
    fn check(bytes: &'a [u8], computed: Option<Digest>, expected: Digest) -> Option<Self> {
        (computed == Some(expected)).then_some(Self(bytes))
    }
}

/// Applies the records of a stream to a target.
pub(crate) struct RecordApplier<'a> {
    writer: &'a dyn DiskWriter,
    options: &'a ReceiveOptions,
    counters: &'a ProgressCounters,
    signals: &'a Signals,
    messages: Messages,
    /// True once something was written, so that an interruption leaves a changed target behind.
    touched: AtomicBool,
    /// True once nothing more must be read from the stream.
    over: Arc<AtomicBool>,
    /// The target and the records of its existing content, if the stream is a delta.
    delta: Option<(&'a DeltaTarget, &'a ExistingRecords)>,
    /// True once the stream has ended correctly.
    ended: AtomicBool,
    /// The failure with the lowest record number, and that number.
    failed: Mutex<Option<(u64, ReceiveError)>>,
}

/// The stream, which the workers read in turns.
struct SharedInput<'a> {
    reader: &'a mut StreamReader,
    /// A frame that was read but not processed.
    first: Option<Frame>,
    /// The buffer for payloads without digests.
    buffer: Option<Aligned>,
    /// True until splicing from the input to the target was refused.
    splices: bool,
    /// Computes the manifest of the result, if the stream is a delta.
    result: Option<ManifestWriter>,
}

/// A payload with a digest, not yet verified.
struct UnverifiedPayload {
    /// Offset in the disk, in bytes.
    at: u64,
    /// Offset in the buffer of the worker, in bytes.
    from: usize,
    /// Length in bytes.
    len: usize,
    digest: Digest,
    /// Number of the record in the stream.
    record: u64,
}

/// The payloads that one thread has read and verifies: contiguous in its buffer.
struct VerifyWorker {
    bytes: Aligned,
    payloads: Vec<UnverifiedPayload>,
    /// The computed digests of the payloads.
    digests: Vec<Option<Digest>>,
    /// Bytes of the buffer that are in use.
    filled: usize,
}

impl<'a> RecordApplier<'a> {
    /// Creates an applier for a stream that is not a delta.
    pub(crate) fn new(
        writer: &'a dyn DiskWriter,
        options: &'a ReceiveOptions,
        counters: &'a ProgressCounters,
        signals: &'a Signals,
        messages: Messages,
    ) -> Self {
        let (touched, over, failed) = (AtomicBool::new(false), Arc::default(), Mutex::new(None));
        Self {
            writer,
            options,
            counters,
            signals,
            messages,
            touched,
            over,
            delta: None,
            ended: AtomicBool::new(false),
            failed,
        }
    }

    /// Makes this an applier for a delta stream, which keeps parts of the target.
    ///
    /// `existing` has the records of the target. Setting `over` stops reading the stream.
    pub(crate) fn with_delta(
        self,
        delta_target: &'a DeltaTarget,
        existing: &'a ExistingRecords,
        over: Arc<AtomicBool>,
    ) -> Self {
        Self { delta: Some((delta_target, existing)), over, ..self }
    }

    /// Applies records until the stream has ended correctly.
    ///
    /// Several workers are used if the stream has digests. For a delta the result is the digest of the manifest of the new disk, which is
    /// its fingerprint.
    ///
    /// # Errors
    /// Returns the failure with the lowest record number.
    pub(crate) fn run(
        self,
        reader: &mut StreamReader,
        first: Option<Frame>,
        open: Option<StreamHeader>,
    ) -> Result<Option<Digest>, ReceiveError> {
        let interval = open.and_then(|open| open.sums).map(HashParams::interval);
        let size = interval.map_or(0, |interval| usize::try_from(interval).unwrap_or(WORKER_BUFFER).max(WORKER_BUFFER));
        // A target that must be written in order has one worker.
        let workers = match interval {
            Some(_) if self.writer.is_positional() => {
                (thread::available_parallelism().map_or(1, NonZero::get) / 2).clamp(1, WORKERS).min(MEMORY / size)
            }
            _ => 1,
        };
        let result = match (self.delta, open) {
            (Some(_), Some(StreamHeader { size, sums: Some(sums) })) => {
                Some(ManifestWriter::new(ManifestHeader::whole(size, sums)))
            }
            _ => None,
        };
        self.run_by(workers, size, reader, first, result)
    }

    /// Applies records with `workers` threads, each of which has a buffer of `size` bytes.
    fn run_by(
        self,
        workers: usize,
        size: usize,
        reader: &mut StreamReader,
        first: Option<Frame>,
        result: Option<ManifestWriter>,
    ) -> Result<Option<Digest>, ReceiveError> {
        if workers > 1 || self.delta.is_some() {
            reader.set_cancelled(Arc::clone(&self.over));
        }
        let input = Mutex::new(SharedInput { reader, first, buffer: None, splices: true, result });
        thread::scope(|scope| {
            for _ in 1..workers {
                // If a thread can't be started, the others do its work.
                let _started = thread::Builder::new().spawn_scoped(scope, || self.work(&input, size));
            }
            self.work(&input, size);
        });
        let failed = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = failed {
            return Err(error);
        }
        // Another thread has set `over` and reports the reason.
        if !self.ended.load(Ordering::Relaxed) {
            return Err(ReceiveError::CalledOff);
        }
        let input = input.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(input.result.map(|mut result| result.end(&mut String::new())).transpose()?)
    }

    /// Reads, verifies and writes until the stream is over. Each worker thread runs this.
    fn work(&self, input: &Mutex<SharedInput<'_>>, size: usize) {
        let mut worker =
            VerifyWorker { bytes: Aligned::zeroed(size), payloads: Vec::new(), digests: Vec::new(), filled: 0 };
        loop {
            let (result, place) = {
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                let result = self.read(&mut input, &mut worker);
                if !matches!(result, Ok(true)) {
                    self.over.store(true, Ordering::Relaxed);
                }
                (result, input.reader.decoder().place().0)
            };
            // Payloads that were read before the stream failed are written if their digests are right.
            if let Err((record, error)) = self.write_payloads(&mut worker) {
                self.fail(record, error);
            }
            if let Err(error) = result {
                self.fail(place, error);
            }
        }
    }

    /// Records a failure and stops all workers.
    fn fail(&self, record: u64, error: ReceiveError) {
        self.over.store(true, Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|(first, _)| record < *first) {
            *failed = Some((record, error));
        }
    }

    /// Reads and applies frames until the buffer of the worker is full. Returns false at the end of the stream.
    fn read(&self, input: &mut SharedInput<'_>, worker: &mut VerifyWorker) -> Result<bool, ReceiveError> {
        loop {
            let frame = match input.first.take() {
                Some(frame) => frame,
                None => match input.reader.next()? {
                    Some(frame) => frame,
                    None => {
                        self.ended.store(true, Ordering::Relaxed);
                        return Ok(false);
                    }
                },
            };
            match frame {
                Frame::Record(record) if !worker.has_room_for(&record) => {
                    // The next worker has room.
                    input.first = Some(frame);
                    return Ok(true);
                }
                Frame::Record(record) => self.record(input, worker, record)?,
                Frame::Fail(reason) => return Err(sender_failure(input.reader, &reason)),
                // The decoder has checked the order of frames, and that end of file follows END.
                Frame::Wait | Frame::End(_) | Frame::Open(_) | Frame::Base(_) | Frame::Payload(_) => {}
            }
            if worker.is_full() || (!worker.payloads.is_empty() && !self.writer.is_positional()) {
                return Ok(true);
            }
        }
    }

    /// Applies one record. A payload with a digest is only read into the buffer of the worker.
    fn record(
        &self,
        input: &mut SharedInput<'_>,
        worker: &mut VerifyWorker,
        record: Record,
    ) -> Result<(), ReceiveError> {
        let (number, at) = input.reader.decoder().place_last();
        if self.options.dialect == Dialect::Classic {
            // This dialect does not announce the size.
            self.options.check_size(input.reader.decoder().at())?;
        }
        if self.messages.traces() {
            self.messages.trace(format_args!("{} {} at {at}", record.word(), record.len()));
        }
        if let Some(result) = &mut input.result {
            self.add_to_result(result, record, number, at)?;
        }
        match record {
            Record::Data { len, digest: Some(digest) } => {
                // The decoder has checked that `len` is at most the interval.
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let from = worker.filled;
                worker.read_payload(input.reader, UnverifiedPayload { at, from, len, digest, record: number })?;
            }
            Record::Data { digest: None, .. } => self.write_unhashed(input, at)?,
            Record::Hole { len } => self.zero(at, len)?,
            Record::Keep { len } => {
                self.writer.keep_existing(at, len)?;
                self.counters.add_disk(len);
                self.counters.add_kept(len);
            }
        }
        Ok(())
    }

    /// Adds a record to the manifest of the result. KEEP adds the records of the existing content that it keeps.
    fn add_to_result(
        &self,
        result: &mut ManifestWriter,
        record: Record,
        number: u64,
        at: u64,
    ) -> Result<(), ReceiveError> {
        let Some((delta_target, existing)) = self.delta else { return Ok(()) };
        let mut lines = String::new();
        let (keeps, mut offset) = (matches!(record, Record::Keep { .. }), at);
        let known = existing.pass(at + record.len(), |(len, digest)| {
            match digest {
                _ if !keeps => {}
                Some(digest) => {
                    delta_target.keep(offset, len, digest)?;
                    result.data(len, digest, &mut lines)?;
                }
                None => result.zeros(len),
            }
            offset += len;
            lines.clear();
            Ok(())
        })?;
        if !known {
            let what = "a record beyond what the receiver has told of";
            return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::Order, number, at, what).into());
        }
        if !keeps {
            result.record(&record, &mut lines)?;
        }
        Ok(())
    }

    /// Writes a hole.
    fn zero(&self, at: u64, len: u64) -> Result<(), ReceiveError> {
        if self.writer.zeroes() {
            self.counters.set_phase(Phase::Zeroing);
            if !self.touched.load(Ordering::Relaxed) {
                // Zeroing a device may take long, and how far it came is unknown.
                self.signals.set_remains(None);
            }
        }
        self.writer.zero_range(at, len)?;
        self.counters.add_disk(len);
        self.counters.set_phase(Phase::Receiving);
        self.touch();
        Ok(())
    }

    /// Writes a payload without a digest as it arrives.
    fn write_unhashed(&self, input: &mut SharedInput<'_>, mut at: u64) -> Result<(), ReceiveError> {
        let mut announced = at;
        while input.reader.decoder().payload_left() > 0 {
            if at == announced {
                // Announced in parts, because a record may claim more bytes than the target has room for.
                let soon = input.reader.decoder().payload_left().min(PREALLOCATE);
                self.writer.preallocate_hint(at, soon);
                announced += soon;
            }
            let most = announced - at;
            let bytes = match input.splice(self.writer, at, most)? {
                Spliced::Moved(bytes) => {
                    self.count(bytes);
                    bytes
                }
                Spliced::Refused => {
                    let piece = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
                    let buffer = input.buffer.get_or_insert_with(|| Aligned::zeroed(PIECE));
                    let bytes = input.reader.payload(&mut buffer[..piece])?;
                    self.write(at, &VerifiedBytes(&buffer[..bytes]))?;
                    bytes as u64
                }
            };
            if bytes == 0 {
                return Err(input.reader.cut().into());
            }
            at += bytes;
        }
        Ok(())
    }

    /// Verifies and writes the payloads of a worker, up to the first that has a wrong digest or can't be written.
    fn write_payloads(&self, worker: &mut VerifyWorker) -> Result<(), (u64, ReceiveError)> {
        let bytes_of = |payload: &UnverifiedPayload| &worker.bytes[payload.from..payload.from + payload.len];
        worker.digests.clear();
        worker.digests.resize(worker.payloads.len(), None);
        Digest::of_each(worker.payloads.iter().map(bytes_of), |number, digest| worker.digests[number] = Some(digest));
        for (payload, digest) in worker.payloads.iter().zip(&worker.digests) {
            self.write_verified(payload, bytes_of(payload), *digest).map_err(|error| (payload.record, error))?;
        }
        worker.payloads.clear();
        worker.filled = 0;
        Ok(())
    }

    /// Writes a payload if `digest`, which was computed from its bytes, is the digest in the stream.
    fn write_verified(
        &self,
        payload: &UnverifiedPayload,
        bytes: &[u8],
        digest: Option<Digest>,
    ) -> Result<(), ReceiveError> {
        let wrong = "the payload doesn't have its digest";
        let wrong = || xfer_hole_proto::StreamError::new(StreamErrorKind::Mismatch, payload.record, payload.at, wrong);
        let verified = VerifiedBytes::check(bytes, digest, payload.digest).ok_or_else(wrong)?;
        self.writer.preallocate_hint(payload.at, payload.len as u64);
        self.write(payload.at, &verified)
    }

    fn write(&self, at: u64, bytes: &VerifiedBytes<'_>) -> Result<(), ReceiveError> {
        self.writer.write_at(at, bytes.0)?;
        self.count(bytes.0.len() as u64);
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.counters.add_disk(bytes);
        self.counters.add_data(bytes);
        self.touch();
    }

    /// Records that the target was changed.
    fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) && !self.touched.swap(true, Ordering::Relaxed) {
            self.signals.set_remains(Some(self.writer.leftover_message()));
        }
    }
}

/// Returns the error for a FAIL frame, with the sender's reason.
fn sender_failure(reader: &StreamReader, reason: &FailReason) -> ReceiveError {
    let (record, offset) = reader.decoder().place();
    xfer_hole_proto::StreamError::new(StreamErrorKind::Fail, record, offset, reason.to_string()).into()
}

impl SharedInput<'_> {
    /// Splices up to `most` bytes of payload to the target, if both ends allow that.
    fn splice(&mut self, writer: &dyn DiskWriter, at: u64, most: u64) -> Result<Spliced, ReceiveError> {
        if !self.splices {
            return Ok(Spliced::Refused);
        }
        let buffered = self.reader.has_buffered();
        let spliced = self.reader.splice(writer, at, most)?;
        // Buffered bytes must be written from the buffer. That does not mean that the descriptors refuse splicing.
        self.splices = buffered || spliced != Spliced::Refused;
        Ok(spliced)
    }
}

impl VerifyWorker {
    /// Returns true if no byte of the buffer is free.
    fn is_full(&self) -> bool {
        self.filled > 0 && self.filled == self.bytes.len()
    }

    /// Returns true if the record has no payload to verify, or if its payload fits into the buffer.
    fn has_room_for(&self, record: &Record) -> bool {
        match record {
            Record::Data { len, digest: Some(_) } => *len <= (self.bytes.len() - self.filled) as u64,
            _ => true,
        }
    }

    /// Reads a whole payload into the buffer, which has room for it.
    fn read_payload(&mut self, reader: &mut StreamReader, payload: UnverifiedPayload) -> Result<(), ReceiveError> {
        let end = self.filled + payload.len;
        let mut at = self.filled;
        while at < end {
            match reader.payload(&mut self.bytes[at..end])? {
                0 => return Err(reader.cut().into()),
                bytes => at += bytes,
            }
        }
        self.filled = end;
        self.payloads.push(payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
