//! Items become writes. Payloads with digests are verified and written by many at a time: each takes from the stream in its turn,
//! and works on what it took while the next one takes.
//!
//! ```text
//! Input (one at a time) ─▶ Hand: some payloads ─▶ verified ─▶ Sink
//!                       ─▶ Hand: ...
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

/// Bytes of payload that are read and written at once where there is no digest to wait for.
const PIECE: usize = 512 << 10;
/// Bytes of payload that the target is told of before they come.
const EXPECT: u64 = 64 << 20;
/// Bytes of payloads with digests that one takes at a time, if an interval isn't longer: some, since two are hashed at once.
const TAKE: usize = 2 << 20;
/// Bytes that all hold together, where an interval isn't longer.
const MEMORY: usize = 32 << 20;
/// Those who verify, at most: one who takes from the stream keeps no more of them busy. Half of the processors are theirs: more only
/// change places with the sender, or with ssh.
const WORKERS: usize = 4;

/// Bytes that may be written: the stream has no digests, or they have theirs.
struct VerifiedBytes<'a>(&'a [u8]);

impl<'a> VerifiedBytes<'a> {
    /// `digest` is theirs, and `said` what the stream says of them.
    fn check(bytes: &'a [u8], digest: Option<Digest>, said: Digest) -> Option<Self> {
        (digest == Some(said)).then_some(Self(bytes))
    }
}

/// All that flows, and where to.
pub(crate) struct RecordApplier<'a> {
    sink: &'a dyn DiskWriter,
    rules: &'a ReceiveOptions,
    counters: &'a ProgressCounters,
    signals: &'a Signals,
    messages: Messages,
    /// Something was written: what would be left behind is no longer what it was.
    touched: AtomicBool,
    /// Nothing more is to be taken from the stream.
    over: Arc<AtomicBool>,
    /// What the target holds, and what was told of it, where the stream builds on that.
    held: Option<(&'a DeltaTarget, &'a ExistingRecords)>,
    /// The stream has come to its end.
    ended: AtomicBool,
    /// What failed, and which record it was: the first of them.
    failed: Mutex<Option<(u64, ReceiveError)>>,
}

/// The stream, which one at a time takes from.
struct SharedInput<'a> {
    input: &'a mut StreamReader,
    /// What was read already.
    first: Option<Frame>,
    /// For payloads without digests.
    buffer: Option<Aligned>,
    /// Until it turns out that input and target can't be spliced.
    splices: bool,
    /// The lines of the whole result, where some of it is kept.
    result: Option<ManifestWriter>,
}

/// A payload with a digest, not yet verified.
struct UnverifiedPayload {
    /// Offset in the disk, in bytes.
    at: u64,
    /// Where it lies in the hand.
    from: usize,
    /// In bytes.
    len: usize,
    digest: Digest,
    record: u64,
}

/// What one has taken from the stream: payloads one behind the other.
struct VerifyWorker {
    bytes: Aligned,
    held: Vec<UnverifiedPayload>,
    /// Theirs, once they are made.
    digests: Vec<Option<Digest>>,
    /// Bytes of them.
    filled: usize,
}

impl<'a> RecordApplier<'a> {
    pub(crate) fn new(
        sink: &'a dyn DiskWriter,
        rules: &'a ReceiveOptions,
        counters: &'a ProgressCounters,
        signals: &'a Signals,
        messages: Messages,
    ) -> Self {
        let (touched, over, failed) = (AtomicBool::new(false), Arc::default(), Mutex::new(None));
        Self {
            sink,
            rules,
            counters,
            signals,
            messages,
            touched,
            over,
            held: None,
            ended: AtomicBool::new(false),
            failed,
        }
    }

    /// The same for a stream that builds on what the target was found to hold, until it is `over`.
    pub(crate) fn building_on(
        self,
        holding: &'a DeltaTarget,
        existing: &'a ExistingRecords,
        over: Arc<AtomicBool>,
    ) -> Self {
        Self { held: Some((holding, existing)), over, ..self }
    }

    /// Obeys item by item until the stream has rightly ended. With digests of intervals of so many bytes, many verify. Where the
    /// stream builds on what was found, the digest of the whole result's lines comes back.
    pub(crate) fn run(
        self,
        input: &mut StreamReader,
        first: Option<Frame>,
        open: Option<StreamHeader>,
    ) -> Result<Option<Digest>, ReceiveError> {
        let interval = open.and_then(|open| open.sums).map(HashParams::interval);
        let size = interval.map_or(0, |interval| usize::try_from(interval).unwrap_or(TAKE).max(TAKE));
        // What must come in order is left to one.
        let workers = match interval {
            Some(_) if self.sink.is_positional() => {
                (thread::available_parallelism().map_or(1, NonZero::get) / 2).clamp(1, WORKERS).min(MEMORY / size)
            }
            _ => 1,
        };
        let result = match (self.held, open) {
            (Some(_), Some(StreamHeader { size, sums: Some(sums) })) => {
                Some(ManifestWriter::new(ManifestHeader::whole(size, sums)))
            }
            _ => None,
        };
        self.run_by(workers, size, input, first, result)
    }

    /// The same by so many, each of whom holds `size` bytes at most.
    fn run_by(
        self,
        workers: usize,
        size: usize,
        input: &mut StreamReader,
        first: Option<Frame>,
        result: Option<ManifestWriter>,
    ) -> Result<Option<Digest>, ReceiveError> {
        if workers > 1 || self.held.is_some() {
            input.heed(Arc::clone(&self.over));
        }
        let input = Mutex::new(SharedInput { input, first, buffer: None, splices: true, result });
        thread::scope(|scope| {
            for _ in 1..workers {
                // A thread that isn't to be had is one less.
                let _started = thread::Builder::new().spawn_scoped(scope, || self.work(&input, size));
            }
            self.work(&input, size);
        });
        let failed = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = failed {
            return Err(error);
        }
        // Somebody else has called it off, and says why.
        if !self.ended.load(Ordering::Relaxed) {
            return Err(ReceiveError::CalledOff);
        }
        let input = input.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(input.result.map(|mut result| result.end(&mut String::new())).transpose()?)
    }

    /// What each thread does.
    fn work(&self, input: &Mutex<SharedInput<'_>>, size: usize) {
        let mut worker =
            VerifyWorker { bytes: Aligned::zeroed(size), held: Vec::new(), digests: Vec::new(), filled: 0 };
        loop {
            let (taken, place) = {
                let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                let taken = self.take(&mut input, &mut worker);
                if !matches!(taken, Ok(true)) {
                    self.over.store(true, Ordering::Relaxed);
                }
                (taken, input.input.decoder().place().0)
            };
            // What was taken before the stream failed is good, if it has its digest.
            if let Err((record, error)) = self.empty(&mut worker) {
                self.fail(record, error);
            }
            if let Err(error) = taken {
                self.fail(place, error);
            }
        }
    }

    fn fail(&self, record: u64, error: ReceiveError) {
        self.over.store(true, Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|(first, _)| record < *first) {
            *failed = Some((record, error));
        }
    }

    /// Takes from the stream what there is room for: false at the end.
    fn take(&self, input: &mut SharedInput<'_>, worker: &mut VerifyWorker) -> Result<bool, ReceiveError> {
        loop {
            let item = match input.first.take() {
                Some(item) => item,
                None => match input.input.next()? {
                    Some(item) => item,
                    None => {
                        self.ended.store(true, Ordering::Relaxed);
                        return Ok(false);
                    }
                },
            };
            match item {
                Frame::Record(record) if !worker.has_room_for(&record) => {
                    // Whoever comes next has.
                    input.first = Some(item);
                    return Ok(true);
                }
                Frame::Record(record) => self.record(input, worker, record)?,
                Frame::Fail(reason) => return Err(gave_up(input.input, &reason)),
                // The decoder has judged the order; END is followed by end of file, or it is an error.
                Frame::Wait | Frame::End(_) | Frame::Open(_) | Frame::Base(_) | Frame::Payload(_) => {}
            }
            if worker.is_full() || (!worker.held.is_empty() && !self.sink.is_positional()) {
                return Ok(true);
            }
        }
    }

    fn record(
        &self,
        input: &mut SharedInput<'_>,
        worker: &mut VerifyWorker,
        record: Record,
    ) -> Result<(), ReceiveError> {
        let (number, at) = input.input.decoder().place_last();
        if self.rules.dialect == Dialect::Classic {
            // Nobody told the size before.
            self.rules.check_size(input.input.decoder().at())?;
        }
        if self.messages.traces() {
            self.messages.trace(format_args!("{} {} at {at}", record.word(), record.len()));
        }
        if let Some(result) = &mut input.result {
            self.enter(result, record, number, at)?;
        }
        match record {
            Record::Data { len, digest: Some(digest) } => {
                // The cursor has held `len` to the interval.
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let from = worker.filled;
                worker.hold(input.input, UnverifiedPayload { at, from, len, digest, record: number })?;
            }
            Record::Data { digest: None, .. } => self.plain(input, at)?,
            Record::Hole { len } => self.hole(at, len)?,
            Record::Keep { len } => {
                self.sink.keep_existing(at, len)?;
                self.counters.add_disk(len);
                self.counters.add_kept(len);
            }
        }
        Ok(())
    }

    /// Puts a record into the lines of the result: its own, or those of what it keeps.
    fn enter(&self, result: &mut ManifestWriter, record: Record, number: u64, at: u64) -> Result<(), ReceiveError> {
        let Some((holding, existing)) = self.held else { return Ok(()) };
        let mut lines = String::new();
        let (keeps, mut kept) = (matches!(record, Record::Keep { .. }), at);
        let told = existing.pass(at + record.len(), |(len, digest)| {
            match digest {
                _ if !keeps => {}
                Some(digest) => {
                    holding.keep(kept, len, digest)?;
                    result.data(len, digest, &mut lines)?;
                }
                None => result.zeros(len),
            }
            kept += len;
            lines.clear();
            Ok(())
        })?;
        if !told {
            let what = "a record beyond what the receiver has told of";
            return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::Order, number, at, what).into());
        }
        if !keeps {
            result.record(&record, &mut lines)?;
        }
        Ok(())
    }

    fn hole(&self, at: u64, len: u64) -> Result<(), ReceiveError> {
        if self.sink.zeroes() {
            self.counters.set_phase(Phase::Zeroing);
            if !self.touched.load(Ordering::Relaxed) {
                // It may take long, and nobody can say how far it is.
                self.signals.set_remains(None);
            }
        }
        self.sink.zero_range(at, len)?;
        self.counters.add_disk(len);
        self.counters.set_phase(Phase::Receiving);
        self.touch();
        Ok(())
    }

    /// A payload without a digest: written as it comes.
    fn plain(&self, input: &mut SharedInput<'_>, mut at: u64) -> Result<(), ReceiveError> {
        let mut expected = at;
        while input.input.decoder().payload_left() > 0 {
            if at == expected {
                // Not all of it at once: a line may announce more than there is room for.
                let soon = input.input.decoder().payload_left().min(EXPECT);
                self.sink.preallocate_hint(at, soon);
                expected += soon;
            }
            let most = expected - at;
            let bytes = match input.splice(self.sink, at, most)? {
                Spliced::Moved(bytes) => {
                    self.count(bytes);
                    bytes
                }
                Spliced::Refused => {
                    let piece = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
                    let buffer = input.buffer.get_or_insert_with(|| Aligned::zeroed(PIECE));
                    let bytes = input.input.payload(&mut buffer[..piece])?;
                    self.write(at, &VerifiedBytes(&buffer[..bytes]))?;
                    bytes as u64
                }
            };
            if bytes == 0 {
                return Err(input.input.cut().into());
            }
            at += bytes;
        }
        Ok(())
    }

    /// Verifies and writes what was taken. The first record that isn't what its digest says, or can't be written, is the last.
    fn empty(&self, worker: &mut VerifyWorker) -> Result<(), (u64, ReceiveError)> {
        let payload = |held: &UnverifiedPayload| &worker.bytes[held.from..held.from + held.len];
        worker.digests.clear();
        worker.digests.resize(worker.held.len(), None);
        Digest::of_each(worker.held.iter().map(payload), |number, digest| worker.digests[number] = Some(digest));
        for (held, digest) in worker.held.iter().zip(&worker.digests) {
            self.put(held, payload(held), *digest).map_err(|error| (held.record, error))?;
        }
        worker.held.clear();
        worker.filled = 0;
        Ok(())
    }

    /// `digest` is that of the bytes.
    fn put(&self, held: &UnverifiedPayload, bytes: &[u8], digest: Option<Digest>) -> Result<(), ReceiveError> {
        let wrong = "the payload doesn't have its digest";
        let wrong = || xfer_hole_proto::StreamError::new(StreamErrorKind::Mismatch, held.record, held.at, wrong);
        let verified = VerifiedBytes::check(bytes, digest, held.digest).ok_or_else(wrong)?;
        self.sink.preallocate_hint(held.at, held.len as u64);
        self.write(held.at, &verified)
    }

    fn write(&self, at: u64, bytes: &VerifiedBytes<'_>) -> Result<(), ReceiveError> {
        self.sink.write_at(at, bytes.0)?;
        self.count(bytes.0.len() as u64);
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.counters.add_disk(bytes);
        self.counters.add_data(bytes);
        self.touch();
    }

    fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) && !self.touched.swap(true, Ordering::Relaxed) {
            self.signals.set_remains(Some(self.sink.leftover_message()));
        }
    }
}

/// The sender's own reason.
fn gave_up(input: &StreamReader, reason: &FailReason) -> ReceiveError {
    let (record, offset) = input.decoder().place();
    xfer_hole_proto::StreamError::new(StreamErrorKind::Fail, record, offset, reason.to_string()).into()
}

impl SharedInput<'_> {
    fn splice(&mut self, sink: &dyn DiskWriter, at: u64, most: u64) -> Result<Spliced, ReceiveError> {
        if !self.splices {
            return Ok(Spliced::Refused);
        }
        let gathered = self.input.gathered();
        let spliced = self.input.splice(sink, at, most)?;
        // What was gathered has to be written from there; that says nothing of the descriptors.
        self.splices = gathered || spliced != Spliced::Refused;
        Ok(spliced)
    }
}

impl VerifyWorker {
    fn is_full(&self) -> bool {
        self.filled > 0 && self.filled == self.bytes.len()
    }

    /// True for all that brings no payload to be held, too.
    fn has_room_for(&self, record: &Record) -> bool {
        match record {
            Record::Data { len, digest: Some(_) } => *len <= (self.bytes.len() - self.filled) as u64,
            _ => true,
        }
    }

    /// Takes a whole payload, for which there is room.
    fn hold(&mut self, input: &mut StreamReader, held: UnverifiedPayload) -> Result<(), ReceiveError> {
        let end = self.filled + held.len;
        let mut at = self.filled;
        while at < end {
            match input.payload(&mut self.bytes[at..end])? {
                0 => return Err(input.cut().into()),
                bytes => at += bytes,
            }
        }
        self.filled = end;
        self.held.push(held);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
