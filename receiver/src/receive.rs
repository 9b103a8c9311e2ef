//! Receives one disk: from the header of the stream to the commit of the target.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xfer_hole_image::Disk;
use xfer_hole_pipeline::{Phase, ProgressCounters};
use xfer_hole_proto::{
    Base, Dialect, Digest, Fingerprint, Frame, ManifestRequest, Record, Reply, StreamErrorKind, StreamHeader,
};
use xfer_hole_target::{DiskWriter, Target, UnchangedTarget};
use xfer_hole_transfer::{DeltaTarget, TargetNote, read_back, read_base, recall_target};
use xfer_hole_transport::ReplyWriter;
use xfer_hole_ui::{Messages, Signals};

use crate::apply_records::RecordApplier;
use crate::error::ReceiveError;
use crate::existing_records::ExistingRecords;
use crate::offer_existing::offer_existing;
use crate::receive_options::ReceiveOptions;
use crate::stream_reader::StreamReader;

/// Maximum number of queued records of the existing target for a restricted key: some gigabytes in the directory for temporary files,
/// enough for 4 TiB of data with the default interval.
const RECORDS: u64 = 64 << 20;

/// The result of receiving a disk.
#[derive(Debug)]
pub(crate) struct ReceivedDisk {
    /// The fingerprint of the disk, if the stream has digests.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Warnings about the target.
    pub(crate) notes: Vec<String>,
}

/// Receives a disk.
pub(crate) struct Receive<'a> {
    pub(crate) options: &'a ReceiveOptions,
    pub(crate) counters: &'a ProgressCounters,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl Receive<'_> {
    /// Receives one disk.
    ///
    /// The target is changed only after the header of the stream, and BASE if present, were checked. A sender that reads `replies` may
    /// request a manifest of the target before.
    ///
    /// # Errors
    /// Returns why the disk was not received, and what is left behind.
    pub(crate) fn run(
        &self,
        input: &mut StreamReader,
        target: Target,
        replies: Option<&ReplyWriter>,
    ) -> Result<ReceivedDisk, ReceiveError> {
        let facts = input.source()?.unwrap_or_default();
        let target = if facts.private { target.private() } else { target };
        if let Some(data) = facts.data {
            self.counters.expect_data(data);
        }
        if let Some(replies) = replies
            && let Some(want) = input.want()?
        {
            return self.receive_delta(input, target, &want, replies);
        }
        let options = self.options;
        let open = match options.dialect {
            Dialect::Classic => None,
            Dialect::V1 => Some(read_header(input, options)?),
        };
        let size = open.map(|open| open.size);
        size.into_iter().for_each(|size| self.counters.set_size(size));
        let (base, first) = base(input)?;
        if base.is_some() && !options.allow_base {
            return Err(ReceiveError::NoBase);
        }
        let reads_back = target.is_read_back();
        if reads_back && open.is_none_or(|open| open.sums.is_none()) {
            return Err(ReceiveError::ReadBack("the stream carries no digests"));
        }
        if reads_back && base.is_some() {
            return Err(ReceiveError::ReadBack(
                "the stream keeps parts of an older image, and gives no digest of the whole",
            ));
        }
        let target = match base {
            None => target,
            Some(base) => {
                // The fingerprint of the base has the parameters of the stream.
                let hash_params = open.and_then(|open| open.sums).unwrap_or_default();
                target.builds_on(base.digest.map(|digest| Fingerprint { sums: hash_params, digest }), read_base)?
            }
        };
        let target = match input.patience_for_reader() {
            Some(patience) => target.with_reader(patience, || input.is_deserted()),
            None => Ok(target),
        };
        // If the link is gone, the program that held it knows the reason.
        let target = target
            .map_err(|error| if input.is_deserted() { input.cut().into() } else { ReceiveError::Image(error) })?;
        let note = TargetNote::of(&target);
        let writer = target.open(size, base.map(|base| base.size))?;
        // A stream without digests, or with a base, has no fingerprint of the whole disk.
        let whole = base.is_none() && open.is_some_and(|open| open.sums.is_some());
        let note = whole.then(|| note.of_sink(writer.as_ref()));
        self.begin(writer.as_ref());
        self.counters.ahead().expected().into_iter().for_each(|data| writer.announce(data));
        let remains = || writer.leftover_message();
        let ended = self.applier(writer.as_ref()).run(input, first, open).map_err(|error| begun(error, remains()))?;
        debug_assert!(ended.is_none(), "only a delta has a result");
        let mut done = self.finish(input, writer, size, None, reads_back)?;
        done.notes.extend(note.and_then(|note| note.note(done.fingerprint.as_ref())));
        Ok(done)
    }

    /// Receives a delta: sends the manifest of the target, and applies the stream that keeps parts of it.
    fn receive_delta(
        &self,
        input: &mut StreamReader,
        target: Target,
        want: &ManifestRequest,
        replies: &ReplyWriter,
    ) -> Result<ReceivedDisk, ReceiveError> {
        if !self.options.allow_base {
            return Err(ReceiveError::NoBase);
        }
        self.options.check_size(want.size)?;
        // With --read-back the target is always read.
        if let Some(digest) = want.digest.filter(|_| !target.is_read_back())
            && let Some(unchanged) =
                target.hold_unchanged(|| recall_target(&target, want.size, want.sums) == Some(digest))?
        {
            return self.receive_same(input, &unchanged, want, digest, replies);
        }
        let note = TargetNote::of(&target);
        let reads_back = target.is_read_back();
        let existing = ExistingRecords::of(target.is_confined().then_some(RECORDS));
        let delta_target = DeltaTarget::open(target, want.size, true)?;
        let note = note.of_sink(delta_target.sink.as_ref());
        self.counters.set_size(want.size);
        self.begin(delta_target.sink.as_ref());
        input.agree();
        let over = Arc::new(AtomicBool::new(false));
        let result = thread::scope(|scope| {
            let offer = || {
                let offered = offer_existing(&delta_target, want, &existing, replies, &over);
                if offered.is_err() {
                    over.store(true, Ordering::Relaxed);
                }
                offered
            };
            let offering = thread::Builder::new().spawn_scoped(scope, offer).map_err(ReceiveError::Thread)?;
            let applied = self.apply_delta(input, &delta_target, want, &existing, &over);
            if applied.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            let offered = offering.join().unwrap_or_else(|panic| resume_unwind(panic));
            match (applied, offered) {
                (Err(ReceiveError::CalledOff), Err(error)) | (Ok(_), Err(error)) | (Err(error), _) => Err(error),
                (Ok(result), Ok(())) => Ok(result),
            }
        });
        let result = result.map_err(|error| begun(error, delta_target.sink.leftover_message()))?;
        let mut done = self.finish(input, delta_target.sink, Some(want.size), result, reads_back)?;
        done.notes.extend(note.note(done.fingerprint.as_ref()));
        Ok(done)
    }

    /// Receives a stream of KEEP records: the cached fingerprint of the target equals that of the image. The target is locked and not
    /// changed.
    fn receive_same(
        &self,
        input: &mut StreamReader,
        target: &UnchangedTarget,
        want: &ManifestRequest,
        digest: Digest,
        replies: &ReplyWriter,
    ) -> Result<ReceivedDisk, ReceiveError> {
        self.counters.set_size(want.size);
        input.agree();
        replies.say(&Reply::Same);
        let open = read_header(input, self.options)?;
        let (_, mut first) = base(input)?;
        while let Some(frame) = first.take().map_or_else(|| input.next(), |frame| Ok(Some(frame)))? {
            match frame {
                Frame::Record(Record::Keep { len }) => {
                    self.counters.add_disk(len);
                    self.counters.add_kept(len);
                }
                Frame::Wait | Frame::End(_) => {}
                Frame::Fail(reason) => {
                    let (record, offset) = input.decoder().place();
                    return Err(xfer_hole_proto::StreamError::new(
                        StreamErrorKind::Fail,
                        record,
                        offset,
                        reason.to_string(),
                    )
                    .into());
                }
                _ => {
                    let (record, offset) = input.decoder().place_last();
                    let what = "more than KEEP, where the receiver has the same";
                    return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::Order, record, offset, what).into());
                }
            }
        }
        let is_it = (open.size, open.sums, input.decoder().result()) == (want.size, Some(want.sums), Some(digest));
        if !is_it {
            let what = "what came is not the disk that was asked for";
            return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::Mismatch, 0, 0, what).into());
        }
        target.check()?;
        Ok(ReceivedDisk { fingerprint: Some(Fingerprint { sums: want.sums, digest }), notes: Vec::new() })
    }

    /// Applies a delta stream. Returns the digest of the manifest of the new disk.
    fn apply_delta(
        &self,
        input: &mut StreamReader,
        delta_target: &DeltaTarget,
        want: &ManifestRequest,
        existing: &ExistingRecords,
        over: &Arc<AtomicBool>,
    ) -> Result<Option<Digest>, ReceiveError> {
        input.set_cancelled(Arc::clone(over));
        let wrong = |kind, what| ReceiveError::from(xfer_hole_proto::StreamError::new(kind, 0, 0, what));
        let open = read_header(input, self.options)?;
        if (open.size, open.sums) != (want.size, Some(want.sums)) {
            return Err(wrong(StreamErrorKind::Order, "another disk than was asked for"));
        }
        let (base, first) = base(input)?;
        let existing_size = delta_target.image.size();
        if base.is_some_and(|base| base.size > existing_size) {
            return Err(wrong(StreamErrorKind::Keep, "BASE is larger than what was told of"));
        }
        let applier = self.applier(delta_target.sink.as_ref()).with_delta(delta_target, existing, Arc::clone(over));
        let result = applier.run(input, first, Some(open))?;
        if result != input.decoder().result() {
            let (record, offset) = input.decoder().place();
            let what = "what came and what was kept are not the sender's disk";
            return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::Mismatch, record, offset, what).into());
        }
        Ok(result)
    }

    /// Creates the applier of records to `writer`.
    fn applier<'a>(&'a self, writer: &'a dyn DiskWriter) -> RecordApplier<'a> {
        RecordApplier::new(writer, self.options, self.counters, self.signals, self.messages)
    }

    /// Records that receiving begins.
    fn begin(&self, writer: &dyn DiskWriter) {
        self.signals.set_remains(Some(writer.leftover_message()));
        self.counters.set_phase(Phase::Receiving);
    }

    /// Verifies the written disk if requested, and commits it.
    fn finish(
        &self,
        input: &StreamReader,
        writer: Box<dyn DiskWriter>,
        size: Option<u64>,
        result: Option<Digest>,
        reads_back: bool,
    ) -> Result<ReceivedDisk, ReceiveError> {
        let (at, hash_params) = (input.decoder().at(), input.decoder().sums());
        let delta = result.zip(hash_params).map(|(digest, sums)| Fingerprint { sums, digest });
        let fingerprint = delta.or(input.decoder().fingerprint());
        self.counters.set_size(at);
        let remains = writer.leftover_message();
        if reads_back {
            let expected = fingerprint.ok_or(ReceiveError::ReadBack("the stream gives no digest of the whole"));
            let read = expected.and_then(|expected| Ok(read_back(writer.as_ref(), at, expected, self.counters)?));
            read.map_err(|error| begun(error, remains.clone()))?;
        }
        self.counters.set_phase(Phase::Syncing);
        self.signals.set_remains(Some("the whole disk was received, and may have its name by now".to_owned()));
        let notes = writer.commit(size.unwrap_or(at)).map_err(|error| match error {
            error if error.leaves_nothing() => error.into(),
            error => begun(error.into(), remains),
        })?;
        self.signals.set_remains(Some("the whole disk was received".to_owned()));
        Ok(ReceivedDisk { fingerprint, notes })
    }
}

/// Adds what is left behind to a failure.
fn begun(error: ReceiveError, remains: String) -> ReceiveError {
    ReceiveError::Begun { error: error.into(), remains }
}

/// Reads the frame after the header: BASE, or else the first frame of the disk.
pub(crate) fn base(input: &mut StreamReader) -> Result<(Option<Base>, Option<Frame>), ReceiveError> {
    Ok(match input.next()? {
        Some(Frame::Base(base)) => (Some(base), None),
        first => (None, first),
    })
}

/// Reads and checks the header of the stream.
fn read_header(input: &mut StreamReader, options: &ReceiveOptions) -> Result<StreamHeader, ReceiveError> {
    let Some(Frame::Open(open)) = input.next()? else { return Err(input.cut().into()) };
    options.check(&open)?;
    Ok(open)
}
