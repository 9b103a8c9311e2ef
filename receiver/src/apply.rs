//! One disk, from the stream's open line to its final name.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xfer_hole_image::{Holding, Image, Noting, Phase, Sink, Tally, Target, Unchanged, read_back};
use xfer_hole_link::{Messages, Signals, Talk};
use xfer_hole_proto::{Answer, Base, Dialect, Digest, Fingerprint, Item, Kind, Open, Record, Want};

use crate::error::Error;
use crate::input::Input;
use crate::ledger::Ledger;
use crate::river::River;
use crate::survey::survey;

/// Records of what is there that wait for the stream of one who may not do much here: some gigabytes in the folder for temporary files,
/// for 4 TiB of data by the usual interval.
const RECORDS: u64 = 64 << 20;

/// What the user accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) dialect: Dialect,
    pub(crate) require_hash: bool,
    /// In octets.
    pub(crate) max_size: Option<u64>,
    /// Parts of what is there may be kept.
    pub(crate) allow_base: bool,
}

impl Rules {
    /// Refuses a stream that isn't accepted here, by its open line.
    pub(crate) fn check(&self, open: &Open) -> Result<(), Error> {
        self.check_size(open.size)?;
        if self.require_hash && open.sums.is_none() { Err(Error::NoHash) } else { Ok(()) }
    }

    pub(crate) fn check_size(&self, size: u64) -> Result<(), Error> {
        match self.max_size {
            Some(max) if size > max => Err(Error::TooLarge { size, max }),
            _ => Ok(()),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) fingerprint: Option<Fingerprint>,
    /// What the user should know of the target.
    pub(crate) notes: Vec<String>,
}

/// What a disk is received by.
pub(crate) struct Apply<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) tally: &'a Tally,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl Apply<'_> {
    /// Receives one disk. The target is touched once the open line, and BASE if there is one, have been found good. A sender that is
    /// answered may ask before that what the target holds.
    pub(crate) fn run(&self, input: &mut Input, target: Target, talk: Option<&Talk>) -> Result<Done, Error> {
        let facts = input.source()?.unwrap_or_default();
        let target = if facts.private { target.private() } else { target };
        if let Some(data) = facts.data {
            self.tally.expect_data(data);
        }
        if let Some(talk) = talk
            && let Some(want) = input.want()?
        {
            return self.build(input, target, &want, talk);
        }
        let rules = self.rules;
        let open = match rules.dialect {
            Dialect::Classic => None,
            Dialect::V1 => Some(open_line(input, rules)?),
        };
        let size = open.map(|open| open.size);
        size.into_iter().for_each(|size| self.tally.set_size(size));
        let (base, first) = base(input)?;
        if base.is_some() && !rules.allow_base {
            return Err(Error::NoBase);
        }
        let reads_back = target.is_read_back();
        if reads_back && open.is_none_or(|open| open.sums.is_none()) {
            return Err(Error::ReadBack("the stream carries no digests"));
        }
        if reads_back && base.is_some() {
            return Err(Error::ReadBack("the stream keeps parts of an older image, and gives no digest of the whole"));
        }
        let target = match base {
            None => target,
            Some(base) => {
                // Its parameters are those of the stream.
                let sums = open.and_then(|open| open.sums).unwrap_or_default();
                target.builds_on(base.digest.map(|digest| Fingerprint { sums, digest }))?
            }
        };
        let target = match input.patience_for_reader() {
            Some(patience) => target.with_reader(patience, || input.is_deserted()),
            None => Ok(target),
        };
        // Of a link that is gone, what held it tells why.
        let target =
            target.map_err(|error| if input.is_deserted() { input.cut().into() } else { Error::Image(error) })?;
        let noting = Noting::of(&target);
        let sink = target.open(size, base.map(|base| base.size))?;
        // What isn't hashed, or isn't sent whole, has no fingerprint.
        let whole = base.is_none() && open.is_some_and(|open| open.sums.is_some());
        let noting = whole.then(|| noting.of_sink(sink.as_ref()));
        self.begin(sink.as_ref());
        self.tally.ahead().expected().into_iter().for_each(|data| sink.announce(data));
        let remains = || sink.remains();
        let ended = self.river(sink.as_ref()).run(input, first, open).map_err(|error| begun(error, remains()))?;
        debug_assert!(ended.is_none(), "nothing was told");
        let mut done = self.finish(input, sink, size, None, reads_back)?;
        done.notes.extend(noting.and_then(|noting| noting.note(done.fingerprint.as_ref())));
        Ok(done)
    }

    /// Receives a disk as what changes in the one that the target holds, which the sender is told of.
    fn build(&self, input: &mut Input, target: Target, want: &Want, talk: &Talk) -> Result<Done, Error> {
        if !self.rules.allow_base {
            return Err(Error::NoBase);
        }
        self.rules.check_size(want.size)?;
        // What is to be read back is read.
        if let Some(digest) = want.digest.filter(|_| !target.is_read_back())
            && let Some(held) = target.hold_unchanged(want.size, want.sums, digest)?
        {
            return self.same(input, &held, want, digest, talk);
        }
        let noting = Noting::of(&target);
        let reads_back = target.is_read_back();
        let ledger = Ledger::of(target.is_confined().then_some(RECORDS));
        let holding = target.hold(want.size, true)?;
        let noting = noting.of_sink(holding.sink.as_ref());
        self.tally.set_size(want.size);
        self.begin(holding.sink.as_ref());
        input.agree();
        let over = Arc::new(AtomicBool::new(false));
        let result = thread::scope(|scope| {
            let survey = || {
                let told = survey(&holding, want, &ledger, talk, &over);
                if told.is_err() {
                    over.store(true, Ordering::Relaxed);
                }
                told
            };
            let surveying = thread::Builder::new().spawn_scoped(scope, survey).map_err(Error::Thread)?;
            let flowed = self.stream(input, &holding, want, &ledger, &over);
            if flowed.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            let surveyed = surveying.join().unwrap_or_else(|panic| resume_unwind(panic));
            match (flowed, surveyed) {
                (Err(Error::CalledOff), Err(error)) | (Ok(_), Err(error)) | (Err(error), _) => Err(error),
                (Ok(result), Ok(())) => Ok(result),
            }
        });
        let result = result.map_err(|error| begun(error, holding.sink.remains()))?;
        let mut done = self.finish(input, holding.sink, Some(want.size), result, reads_back)?;
        done.notes.extend(noting.note(done.fingerprint.as_ref()));
        Ok(done)
    }

    /// The target is the disk that is wanted, as was noted: it is locked, and nothing is touched.
    fn same(
        &self,
        input: &mut Input,
        target: &Unchanged,
        want: &Want,
        digest: Digest,
        talk: &Talk,
    ) -> Result<Done, Error> {
        self.tally.set_size(want.size);
        input.agree();
        talk.say(&Answer::Same);
        let open = open_line(input, self.rules)?;
        let (_, mut first) = base(input)?;
        while let Some(item) = first.take().map_or_else(|| input.next(), |item| Ok(Some(item)))? {
            match item {
                Item::Record(Record::Keep { len }) => {
                    self.tally.add_disk(len);
                    self.tally.add_kept(len);
                }
                Item::Wait | Item::End(_) => {}
                Item::Fail(reason) => {
                    let (record, offset) = input.decoder().place();
                    return Err(xfer_hole_proto::Error::new(Kind::Fail, record, offset, reason.to_string()).into());
                }
                _ => {
                    let (record, offset) = input.decoder().place_last();
                    let what = "more than KEEP, where the receiver has the same";
                    return Err(xfer_hole_proto::Error::new(Kind::Order, record, offset, what).into());
                }
            }
        }
        let is_it = (open.size, open.sums, input.decoder().result()) == (want.size, Some(want.sums), Some(digest));
        if !is_it {
            let what = "what came is not the disk that was asked for";
            return Err(xfer_hole_proto::Error::new(Kind::Mismatch, 0, 0, what).into());
        }
        target.check()?;
        Ok(Done { fingerprint: Some(Fingerprint { sums: want.sums, digest }), notes: Vec::new() })
    }

    /// The stream that builds on what was told.
    fn stream(
        &self,
        input: &mut Input,
        holding: &Holding,
        want: &Want,
        ledger: &Ledger,
        over: &Arc<AtomicBool>,
    ) -> Result<Option<Digest>, Error> {
        input.heed(Arc::clone(over));
        let wrong = |kind, what| Error::from(xfer_hole_proto::Error::new(kind, 0, 0, what));
        let open = open_line(input, self.rules)?;
        if (open.size, open.sums) != (want.size, Some(want.sums)) {
            return Err(wrong(Kind::Order, "another disk than was asked for"));
        }
        let (base, first) = base(input)?;
        let holds = holding.image.size();
        if base.is_some_and(|base| base.size > holds) {
            return Err(wrong(Kind::Keep, "BASE is larger than what was told of"));
        }
        let river = self.river(holding.sink.as_ref()).building_on(holding, ledger, Arc::clone(over));
        let result = river.run(input, first, Some(open))?;
        if result != input.decoder().result() {
            let (record, offset) = input.decoder().place();
            let what = "what came and what was kept are not the sender's disk";
            return Err(xfer_hole_proto::Error::new(Kind::Mismatch, record, offset, what).into());
        }
        Ok(result)
    }

    fn river<'a>(&'a self, sink: &'a dyn Sink) -> River<'a> {
        River::new(sink, self.rules, self.tally, self.signals, self.messages)
    }

    fn begin(&self, sink: &dyn Sink) {
        self.signals.set_remains(Some(sink.remains()));
        self.tally.set_phase(Phase::Receiving);
    }

    fn finish(
        &self,
        input: &Input,
        sink: Box<dyn Sink>,
        size: Option<u64>,
        result: Option<Digest>,
        reads_back: bool,
    ) -> Result<Done, Error> {
        let (at, sums) = (input.decoder().at(), input.decoder().sums());
        let built = result.zip(sums).map(|(digest, sums)| Fingerprint { sums, digest });
        let fingerprint = built.or(input.decoder().fingerprint());
        self.tally.set_size(at);
        let remains = sink.remains();
        if reads_back {
            let said = fingerprint.ok_or(Error::ReadBack("the stream gives no digest of the whole"));
            let read = said.and_then(|said| Ok(read_back(sink.as_ref(), at, said, self.tally)?));
            read.map_err(|error| begun(error, remains.clone()))?;
        }
        self.tally.set_phase(Phase::Syncing);
        self.signals.set_remains(Some("the whole disk was received, and may have its name by now".to_owned()));
        let notes = sink.finish(size.unwrap_or(at)).map_err(|error| match error {
            error if error.leaves_nothing() => error.into(),
            error => begun(error.into(), remains),
        })?;
        self.signals.set_remains(Some("the whole disk was received".to_owned()));
        Ok(Done { fingerprint, notes })
    }
}

/// A failure that leaves something behind.
fn begun(error: Error, remains: String) -> Error {
    Error::Begun { error: error.into(), remains }
}

/// BASE, if it comes, else what comes in its stead.
pub(crate) fn base(input: &mut Input) -> Result<(Option<Base>, Option<Item>), Error> {
    Ok(match input.next()? {
        Some(Item::Base(base)) => (Some(base), None),
        first => (None, first),
    })
}

fn open_line(input: &mut Input, rules: &Rules) -> Result<Open, Error> {
    let Some(Item::Open(open)) = input.next()? else { return Err(input.cut().into()) };
    rules.check(&open)?;
    Ok(open)
}
