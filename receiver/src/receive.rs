//! One disk, from the stream's open line to its final name.

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
use crate::offer_existing::survey;
use crate::receive_options::ReceiveOptions;
use crate::stream_reader::StreamReader;

/// Records of what is there that wait for the stream of one who may not do much here: some gigabytes in the folder for temporary files,
/// for 4 TiB of data by the usual interval.
const RECORDS: u64 = 64 << 20;

/// What came of it.
#[derive(Debug)]
pub(crate) struct ReceivedDisk {
    pub(crate) fingerprint: Option<Fingerprint>,
    /// What the user should know of the target.
    pub(crate) notes: Vec<String>,
}

/// What a disk is received by.
pub(crate) struct Receive<'a> {
    pub(crate) rules: &'a ReceiveOptions,
    pub(crate) counters: &'a ProgressCounters,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl Receive<'_> {
    /// Receives one disk. The target is touched once the open line, and BASE if there is one, have been found good. A sender that is
    /// answered may ask before that what the target holds.
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
            return self.build(input, target, &want, replies);
        }
        let rules = self.rules;
        let open = match rules.dialect {
            Dialect::Classic => None,
            Dialect::V1 => Some(open_line(input, rules)?),
        };
        let size = open.map(|open| open.size);
        size.into_iter().for_each(|size| self.counters.set_size(size));
        let (base, first) = base(input)?;
        if base.is_some() && !rules.allow_base {
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
                // Its parameters are those of the stream.
                let sums = open.and_then(|open| open.sums).unwrap_or_default();
                target.builds_on(base.digest.map(|digest| Fingerprint { sums, digest }), read_base)?
            }
        };
        let target = match input.patience_for_reader() {
            Some(patience) => target.with_reader(patience, || input.is_deserted()),
            None => Ok(target),
        };
        // Of a link that is gone, what held it tells why.
        let target = target
            .map_err(|error| if input.is_deserted() { input.cut().into() } else { ReceiveError::Image(error) })?;
        let noting = TargetNote::of(&target);
        let sink = target.open(size, base.map(|base| base.size))?;
        // What isn't hashed, or isn't sent whole, has no fingerprint.
        let whole = base.is_none() && open.is_some_and(|open| open.sums.is_some());
        let noting = whole.then(|| noting.of_sink(sink.as_ref()));
        self.begin(sink.as_ref());
        self.counters.ahead().expected().into_iter().for_each(|data| sink.announce(data));
        let remains = || sink.leftover_message();
        let ended = self.applier(sink.as_ref()).run(input, first, open).map_err(|error| begun(error, remains()))?;
        debug_assert!(ended.is_none(), "nothing was told");
        let mut done = self.finish(input, sink, size, None, reads_back)?;
        done.notes.extend(noting.and_then(|noting| noting.note(done.fingerprint.as_ref())));
        Ok(done)
    }

    /// Receives a disk as what changes in the one that the target holds, which the sender is told of.
    fn build(
        &self,
        input: &mut StreamReader,
        target: Target,
        want: &ManifestRequest,
        replies: &ReplyWriter,
    ) -> Result<ReceivedDisk, ReceiveError> {
        if !self.rules.allow_base {
            return Err(ReceiveError::NoBase);
        }
        self.rules.check_size(want.size)?;
        // What is to be read back is read.
        if let Some(digest) = want.digest.filter(|_| !target.is_read_back())
            && let Some(held) =
                target.hold_unchanged(|| recall_target(&target, want.size, want.sums) == Some(digest))?
        {
            return self.same(input, &held, want, digest, replies);
        }
        let noting = TargetNote::of(&target);
        let reads_back = target.is_read_back();
        let existing = ExistingRecords::of(target.is_confined().then_some(RECORDS));
        let holding = DeltaTarget::open(target, want.size, true)?;
        let noting = noting.of_sink(holding.sink.as_ref());
        self.counters.set_size(want.size);
        self.begin(holding.sink.as_ref());
        input.agree();
        let over = Arc::new(AtomicBool::new(false));
        let result = thread::scope(|scope| {
            let survey = || {
                let told = survey(&holding, want, &existing, replies, &over);
                if told.is_err() {
                    over.store(true, Ordering::Relaxed);
                }
                told
            };
            let surveying = thread::Builder::new().spawn_scoped(scope, survey).map_err(ReceiveError::Thread)?;
            let flowed = self.stream(input, &holding, want, &existing, &over);
            if flowed.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            let surveyed = surveying.join().unwrap_or_else(|panic| resume_unwind(panic));
            match (flowed, surveyed) {
                (Err(ReceiveError::CalledOff), Err(error)) | (Ok(_), Err(error)) | (Err(error), _) => Err(error),
                (Ok(result), Ok(())) => Ok(result),
            }
        });
        let result = result.map_err(|error| begun(error, holding.sink.leftover_message()))?;
        let mut done = self.finish(input, holding.sink, Some(want.size), result, reads_back)?;
        done.notes.extend(noting.note(done.fingerprint.as_ref()));
        Ok(done)
    }

    /// The target is the disk that is wanted, as was noted: it is locked, and nothing is touched.
    fn same(
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
        let open = open_line(input, self.rules)?;
        let (_, mut first) = base(input)?;
        while let Some(item) = first.take().map_or_else(|| input.next(), |item| Ok(Some(item)))? {
            match item {
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

    /// The stream that builds on what was told.
    fn stream(
        &self,
        input: &mut StreamReader,
        holding: &DeltaTarget,
        want: &ManifestRequest,
        existing: &ExistingRecords,
        over: &Arc<AtomicBool>,
    ) -> Result<Option<Digest>, ReceiveError> {
        input.heed(Arc::clone(over));
        let wrong = |kind, what| ReceiveError::from(xfer_hole_proto::StreamError::new(kind, 0, 0, what));
        let open = open_line(input, self.rules)?;
        if (open.size, open.sums) != (want.size, Some(want.sums)) {
            return Err(wrong(StreamErrorKind::Order, "another disk than was asked for"));
        }
        let (base, first) = base(input)?;
        let holds = holding.image.size();
        if base.is_some_and(|base| base.size > holds) {
            return Err(wrong(StreamErrorKind::Keep, "BASE is larger than what was told of"));
        }
        let applier = self.applier(holding.sink.as_ref()).building_on(holding, existing, Arc::clone(over));
        let result = applier.run(input, first, Some(open))?;
        if result != input.decoder().result() {
            let (record, offset) = input.decoder().place();
            let what = "what came and what was kept are not the sender's disk";
            return Err(xfer_hole_proto::StreamError::new(StreamErrorKind::Mismatch, record, offset, what).into());
        }
        Ok(result)
    }

    fn applier<'a>(&'a self, sink: &'a dyn DiskWriter) -> RecordApplier<'a> {
        RecordApplier::new(sink, self.rules, self.counters, self.signals, self.messages)
    }

    fn begin(&self, sink: &dyn DiskWriter) {
        self.signals.set_remains(Some(sink.leftover_message()));
        self.counters.set_phase(Phase::Receiving);
    }

    fn finish(
        &self,
        input: &StreamReader,
        sink: Box<dyn DiskWriter>,
        size: Option<u64>,
        result: Option<Digest>,
        reads_back: bool,
    ) -> Result<ReceivedDisk, ReceiveError> {
        let (at, sums) = (input.decoder().at(), input.decoder().sums());
        let built = result.zip(sums).map(|(digest, sums)| Fingerprint { sums, digest });
        let fingerprint = built.or(input.decoder().fingerprint());
        self.counters.set_size(at);
        let remains = sink.leftover_message();
        if reads_back {
            let said = fingerprint.ok_or(ReceiveError::ReadBack("the stream gives no digest of the whole"));
            let read = said.and_then(|said| Ok(read_back(sink.as_ref(), at, said, self.counters)?));
            read.map_err(|error| begun(error, remains.clone()))?;
        }
        self.counters.set_phase(Phase::Syncing);
        self.signals.set_remains(Some("the whole disk was received, and may have its name by now".to_owned()));
        let notes = sink.commit(size.unwrap_or(at)).map_err(|error| match error {
            error if error.leaves_nothing() => error.into(),
            error => begun(error.into(), remains),
        })?;
        self.signals.set_remains(Some("the whole disk was received".to_owned()));
        Ok(ReceivedDisk { fingerprint, notes })
    }
}

/// A failure that leaves something behind.
fn begun(error: ReceiveError, remains: String) -> ReceiveError {
    ReceiveError::Begun { error: error.into(), remains }
}

/// BASE, if it comes, else what comes in its stead.
pub(crate) fn base(input: &mut StreamReader) -> Result<(Option<Base>, Option<Frame>), ReceiveError> {
    Ok(match input.next()? {
        Some(Frame::Base(base)) => (Some(base), None),
        first => (None, first),
    })
}

fn open_line(input: &mut StreamReader, rules: &ReceiveOptions) -> Result<StreamHeader, ReceiveError> {
    let Some(Frame::Open(open)) = input.next()? else { return Err(input.cut().into()) };
    rules.check(&open)?;
    Ok(open)
}
