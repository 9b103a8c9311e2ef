//! From items to a disk. With digests, no octet reaches the sink unverified.

use std::cell::Cell;

use xfer_hole_image::sys::Spliced;
use xfer_hole_image::{Phase, Sink, Tally, Target};
use xfer_hole_link::{Messages, Signals};
use xfer_hole_proto::{Dialect, Digest, Fingerprint, Item, Kind, Open, Reason, Record};

use crate::error::Error;
use crate::input::Input;

/// Octets of payload that are read and written at once where there is no digest to wait for.
const PIECE: usize = 512 << 10;
/// Octets of payload that the target is told of before they come.
const EXPECT: u64 = 64 << 20;

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
    fn check_size(&self, size: u64) -> Result<(), Error> {
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

/// Octets that may be written: the stream has no digests, or they have theirs.
struct Verified<'a>(&'a [u8]);

impl<'a> Verified<'a> {
    fn check(octets: &'a [u8], digest: Digest) -> Option<Self> {
        (Digest::of(octets) == digest).then_some(Self(octets))
    }
}

/// Receives one disk. The target is touched once the open line, and BASE if there is one, have been found good.
pub(crate) fn apply(
    input: &mut Input,
    target: Target,
    rules: &Rules,
    tally: &Tally,
    signals: &Signals,
    messages: Messages,
) -> Result<Done, Error> {
    let (size, first) = match rules.dialect {
        Dialect::Classic => (None, input.next()?),
        Dialect::V1 => {
            let open = open_line(input, rules)?;
            tally.set_size(open.size);
            (Some(open.size), input.next()?)
        }
    };
    let (base, first) = match first {
        Some(Item::Base(base)) => (Some(base.size), None),
        first => (None, first),
    };
    if base.is_some() && !rules.allow_base {
        return Err(Error::NoBase);
    }
    let sink = target.open(size, base)?;
    signals.set_remains(Some(sink.remains()));
    tally.set_phase(Phase::Receiving);
    let mut river = River {
        input,
        sink,
        rules,
        tally,
        signals,
        messages,
        touched: Cell::new(false),
        buffer: Vec::new(),
        splices: true,
    };
    let ended = river.run(first);
    let River { input, sink, .. } = river;
    let remains = sink.remains();
    let done = ended.and_then(|()| {
        let fingerprint = input.decoder().fingerprint();
        let at = input.decoder().at();
        tally.set_size(at);
        tally.set_phase(Phase::Syncing);
        let notes = sink.finish(size.unwrap_or(at))?;
        signals.set_remains(Some("the whole disk was received".to_owned()));
        Ok(Done { fingerprint, notes })
    });
    done.map_err(|error| match error {
        Error::Image(error) if error.is_published() => error.into(),
        error => Error::Begun { error: error.into(), remains },
    })
}

/// The sender's own reason.
fn gave_up(input: &Input, reason: &Reason) -> Error {
    let (record, offset) = input.decoder().place();
    xfer_hole_proto::Error::new(Kind::Fail, record, offset, reason.to_string()).into()
}

fn open_line(input: &mut Input, rules: &Rules) -> Result<Open, Error> {
    let Some(Item::Open(open)) = input.next()? else { return Err(input.cut().into()) };
    rules.check_size(open.size)?;
    if rules.require_hash && open.sums.is_none() {
        return Err(Error::NoHash);
    }
    Ok(open)
}

struct River<'a> {
    input: &'a mut Input,
    sink: Box<dyn Sink>,
    rules: &'a Rules,
    tally: &'a Tally,
    signals: &'a Signals,
    messages: Messages,
    /// Something was written: what would be left behind is no longer what it was.
    touched: Cell<bool>,
    buffer: Vec<u8>,
    /// Until it turns out that input and target can't be spliced.
    splices: bool,
}

impl River<'_> {
    /// Obeys item by item until the stream has rightly ended.
    fn run(&mut self, first: Option<Item>) -> Result<(), Error> {
        let mut item = match first {
            Some(item) => Some(item),
            None => self.input.next()?,
        };
        while let Some(now) = item {
            match now {
                Item::Record(record) => self.record(record)?,
                Item::Fail(reason) => return Err(gave_up(self.input, &reason)),
                // The decoder has judged the order; END is followed by end of file, or it is an error.
                Item::Wait | Item::End(_) | Item::Open(_) | Item::Base(_) | Item::Payload(_) => {}
            }
            item = self.input.next()?;
        }
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), Error> {
        let (_, at) = self.input.decoder().place_last();
        if self.rules.dialect == Dialect::Classic {
            // Nobody told the size before.
            self.rules.check_size(self.input.decoder().at())?;
        }
        if self.messages.traces() {
            let word = match record {
                Record::Data { .. } => "DATA",
                Record::Hole { .. } => "HOLE",
                Record::Keep { .. } => "KEEP",
            };
            self.messages.trace(format_args!("{word} {} at {at}", record.len()));
        }
        match record {
            Record::Data { len, digest: Some(digest) } => self.interval(at, len, digest)?,
            Record::Data { len, digest: None } => self.plain(at, len)?,
            Record::Hole { len } => self.hole(at, len)?,
            Record::Keep { len } => {
                self.sink.keep(at, len)?;
                self.tally.add_disk(len);
            }
        }
        Ok(())
    }

    fn hole(&mut self, at: u64, len: u64) -> Result<(), Error> {
        if self.sink.zeroes() {
            self.tally.set_phase(Phase::Zeroing);
            if !self.touched.get() {
                // It may take long, and nobody can say how far it is.
                self.signals.set_remains(None);
            }
        }
        self.sink.hole(at, len)?;
        self.tally.add_disk(len);
        self.tally.set_phase(Phase::Receiving);
        self.touch();
        Ok(())
    }

    /// A payload with a digest: gathered whole, which is one interval at most, and verified before it is written.
    fn interval(&mut self, at: u64, len: u64, digest: Digest) -> Result<(), Error> {
        let (record, offset) = self.input.decoder().place_last();
        // The cursor has held `len` to the interval, 16 MiB at most.
        self.hold(usize::try_from(len).unwrap_or(usize::MAX));
        let mut held = 0;
        while self.input.decoder().payload_left() > 0 {
            match self.input.payload(&mut self.buffer[held..])? {
                0 => return Err(self.input.cut().into()),
                octets => held += octets,
            }
        }
        let verified = Verified::check(&self.buffer[..held], digest);
        let wrong =
            || xfer_hole_proto::Error::new(Kind::Mismatch, record, offset, "the payload doesn't have its digest");
        self.write(at, &verified.ok_or_else(wrong)?)
    }

    /// A payload without a digest: written as it comes.
    fn plain(&mut self, mut at: u64, len: u64) -> Result<(), Error> {
        self.hold(usize::try_from(len).unwrap_or(usize::MAX).min(PIECE));
        let piece = self.buffer.len().min(PIECE);
        let mut expected = at;
        while self.input.decoder().payload_left() > 0 {
            if at == expected {
                // Not all of it at once: a line may announce more than there is room for.
                let soon = self.input.decoder().payload_left().min(EXPECT);
                self.sink.expect(at, soon);
                expected += soon;
            }
            let most = expected - at;
            let octets = match self.splice(at, most)? {
                Spliced::Moved(octets) => {
                    self.count(octets);
                    octets
                }
                Spliced::Refused => {
                    let piece = usize::try_from(most).unwrap_or(piece).min(piece);
                    let octets = self.input.payload(&mut self.buffer[..piece])?;
                    self.write(at, &Verified(&self.buffer[..octets]))?;
                    octets as u64
                }
            };
            if octets == 0 {
                return Err(self.input.cut().into());
            }
            at += octets;
        }
        Ok(())
    }

    fn splice(&mut self, at: u64, most: u64) -> Result<Spliced, Error> {
        if !self.splices {
            return Ok(Spliced::Refused);
        }
        let gathered = self.input.gathered();
        let spliced = self.input.splice(self.sink.as_ref(), at, most)?;
        // What was gathered has to be written from there; that says nothing of the descriptors.
        self.splices = gathered || spliced != Spliced::Refused;
        Ok(spliced)
    }

    fn hold(&mut self, octets: usize) {
        if self.buffer.len() < octets {
            self.buffer.resize(octets, 0);
        }
    }

    fn write(&self, at: u64, octets: &Verified<'_>) -> Result<(), Error> {
        self.sink.data(at, octets.0)?;
        self.count(octets.0.len() as u64);
        Ok(())
    }

    fn count(&self, octets: u64) {
        self.tally.add_disk(octets);
        self.tally.add_data(octets);
        self.touch();
    }

    fn touch(&self) {
        if !self.touched.replace(true) {
            self.signals.set_remains(Some(self.sink.remains()));
        }
    }
}
