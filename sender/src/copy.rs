//! A copy on this machine: a disk goes from its image into a file or device, without a stream between them.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::path::Path;
use std::thread;

use bytes::BytesMut;
use tokio_util::codec::Encoder;
use xfer_hole_image::{
    Chain, Error as ImageError, Expected, Holding, Identity, Image, Kind, Noting, Offer, Older, Phase, Piece, Pour,
    Sift, Sink, Tally, Target, Workers, put, read_back, reason, shown, sys,
};
use xfer_hole_link::{Made, Messages, Signals};
use xfer_hole_proto::{Base, Dialect, Fingerprint, Item, Open, Record, StreamEncoder};

use crate::Moved;
use crate::build::Lines;
use crate::cli::{Cli, Copying, Job, Reflink};
use crate::error::Error;
use crate::since::is_there_already;
use crate::source::{check_content, data_of};

/// Threads that pour, at most: more would wait for each other at the target.
const POURING: usize = 8;

/// What came of a copy: the disk's fingerprint, if it was asked for, and what the user should know of the target.
type Copied = (Option<Fingerprint>, Vec<String>);

/// A copy: what it needs besides the disk.
pub(crate) struct Copy<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) image: &'a Path,
    /// What the image is known by, if a note of it is to be believed.
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) dest: &'a Path,
    /// What DEST has to be, if only changes are copied, and that was said.
    pub(crate) base: Option<Fingerprint>,
    pub(crate) tally: &'a Tally,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl Copy<'_> {
    /// Copies the disk.
    pub(crate) fn run(&self, disk: &Chain, job: Job) -> Result<Moved, Error> {
        let copying = self.cli.copying(self.image, job)?;
        if disk.is_private() {
            sys::keep_private();
        }
        let target = Target::find_apart(self.dest, copying.options.clone(), disk)?;
        check_content(disk, target.is_device(), self.messages)?;
        let target = if disk.older().is_some() { target.builds_on(self.base)? } else { target };
        let shares = self.shares(&copying, disk, &target)?;
        let dest = shown(target.path());
        let made = Made { place: dest.clone(), becomes: Some(target.becomes()), resumed: false };
        self.messages.warn_of_format(target.format_warning());
        if self.cli.target.dry_run {
            // Blocks that are shared take no room.
            let can_share = || disk.plain().is_some_and(|host| target.can_share(host.file()));
            let data = if shares && can_share() { None } else { Some(data_of(disk, 1)?.0) };
            let base = disk.older().map(|older| (older.size(), self.base));
            target.rehearse(Expected { size: Some(disk.size()), data, delta: self.cli.target.delta, base })?;
            let (image, size, plan) = (shown(self.image), disk.size(), target.plan());
            self.messages.note(format_args!("would copy {image}, a disk of {size} bytes, to {plan}"));
            return Ok((None, None));
        }
        self.tally.set_size(disk.size());
        let (fingerprint, notes) = self.copy(disk, &copying, target, shares)?;
        for note in notes {
            self.messages.warn(format_args!("{dest}: {note}"));
        }
        Ok((fingerprint, Some(made)))
    }

    /// Whether it may be tried to share the image's blocks as they stand.
    fn shares(&self, copying: &Copying, disk: &Chain, target: &Target) -> Result<bool, Error> {
        let why = match copying.reflink {
            Reflink::Never => return Ok(false),
            _ if disk.plain().is_none() => "only a raw image in a regular file can be shared as it stands",
            _ if !target.is_new_file() => "only a new file can take them",
            _ => return Ok(!copying.looks),
        };
        match copying.reflink {
            Reflink::Always => Err(self.cannot_share(why)),
            Reflink::Auto | Reflink::Never => Ok(false),
        }
    }

    fn cannot_share(&self, why: impl Into<String>) -> Error {
        Error::Reflink { image: self.image.to_owned(), why: why.into() }
    }

    /// Writes the target, and gives it its name once the disk is found to be what it was.
    fn copy(&self, disk: &Chain, copying: &Copying, target: Target, shares: bool) -> Result<Copied, Error> {
        let size = disk.size();
        let tally = self.tally;
        if self.cli.target.delta {
            let sums = copying.job.sums.unwrap_or_default();
            let known = self.identity.and_then(|identity| identity.recall(sums));
            // What is to be read back is read.
            if let Some(digest) = known.filter(|_| !copying.options.read_back)
                && let Some(held) = target.hold_unchanged(size, sums, digest)?
            {
                disk.check_unchanged(false)?;
                held.check()?;
                tally.add_disk(size);
                tally.add_kept(size);
                return Ok((Some(Fingerprint { sums, digest }), Vec::new()));
            }
            let noting = Noting::of(&target);
            let holding = target.hold(size, false)?;
            let noting = noting.of_sink(holding.sink.as_ref());
            self.signals.set_remains(Some(holding.sink.remains()));
            tally.set_phase(Phase::Copying);
            let poured = differing(disk, copying, &holding, tally).map(Some);
            let (fingerprint, mut notes) = self.finish(disk, copying, holding.sink, poured)?;
            notes.extend(noting.note(fingerprint.as_ref()));
            return Ok((fingerprint, notes));
        }
        let noting = Noting::of(&target);
        let opened = target.open(Some(size), disk.older().map(Older::size));
        let sink = opened.map_err(|error| self.already(disk, error))?;
        // What isn't hashed has no fingerprint.
        let noting = copying.job.sums.map(|_| noting.of_sink(sink.as_ref()));
        self.signals.set_remains(Some(sink.remains()));
        tally.ahead().expected().into_iter().for_each(|data| sink.announce(data));
        tally.set_phase(Phase::Copying);
        let shared = match disk.plain().filter(|_| shares).map(|host| sink.share(host.file())) {
            Some(Err(error)) if copying.reflink == Reflink::Always => {
                sink.give_up();
                return Err(self.cannot_share(why_not(&error)));
            }
            Some(Ok(())) => true,
            Some(Err(_)) | None => false,
        };
        let poured = if shared {
            tally.add_disk(size);
            Ok(None)
        } else if copying.job.sums.is_some() || copying.fills || !sink.is_positional() {
            in_order(disk, copying, sink.as_ref(), tally)
        } else {
            let share = copying.reflink != Reflink::Never;
            let pour = Pour { image: disk, shape: copying.job.shape, sink: sink.as_ref(), share, tally };
            pour.all(workers(disk)).map(|()| None).map_err(Error::from)
        };
        let (fingerprint, mut notes) = self.finish(disk, copying, sink, poured)?;
        notes.extend(noting.and_then(|noting| noting.note(fingerprint.as_ref())));
        Ok((fingerprint, notes))
    }

    /// Says so where DEST is not the older disk because it is the one that was to be copied.
    fn already(&self, disk: &Chain, error: ImageError) -> Error {
        let told = error.other_disk().map(|found| found.to_string());
        if told.is_some_and(|told| is_there_already(disk, &told)) {
            let what = "is the disk that was to be copied already, and not the older one: there is nothing to be done";
            return ImageError::new(Kind::Refused, self.dest, what).into();
        }
        error.into()
    }

    /// All is poured, or it failed: gives the target its name if the disk is what it was.
    fn finish(
        &self,
        disk: &Chain,
        copying: &Copying,
        sink: Box<dyn Sink>,
        poured: Result<Option<Fingerprint>, Error>,
    ) -> Result<Copied, Error> {
        let remains = sink.remains();
        let copied = poured.and_then(|fingerprint| {
            disk.check_unchanged(copying.job.live)?;
            if let Some(said) = fingerprint.filter(|_| copying.options.read_back) {
                read_back(sink.as_ref(), disk.size(), said, self.tally)?;
            }
            if !copying.options.no_sync {
                self.tally.set_phase(Phase::Syncing);
            }
            let notes = sink.finish(disk.size())?;
            self.signals.set_remains(Some("the whole disk was copied".to_owned()));
            Ok((fingerprint, notes))
        });
        copied.map_err(|error| match error {
            Error::Image(error) if error.leaves_nothing() => error.into(),
            error => Error::Begun { error: error.into(), remains },
        })
    }
}

/// The system's reason why blocks can't be shared, in words that fit.
fn why_not(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::CrossesDevices => "the copy would be on another file system".into(),
        io::ErrorKind::Unsupported => "this file system can't".into(),
        _ => reason(error),
    }
}

fn workers(disk: &Chain) -> usize {
    // What waits for a device needs no processor.
    if disk.is_direct() {
        return POURING;
    }
    processors()
}

/// Threads that pour what a processor has to look at.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(POURING)
}

/// Pours from the disk's beginning to its end, where the order counts: for digests, for holes that are too short for one, for
/// pipes. The encoder judges the records, as it does for a stream that nobody reads.
fn in_order(disk: &Chain, copying: &Copying, sink: &dyn Sink, tally: &Tally) -> Result<Option<Fingerprint>, Error> {
    let (job, size) = (&copying.job, disk.size());
    let (mut encoder, mut lines) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
    encoder.encode(Item::Open(Open { size, sums: job.sums }), &mut lines)?;
    if let Some(older) = disk.older() {
        encoder.encode(Item::Base(Base { size: older.size(), digest: None }), &mut lines)?;
    }
    thread::scope(|scope| {
        // What was hashed is written, and not what is fetched anew.
        let shape = job.shape.held(true);
        let blocks = Workers::start(scope, disk, shape, workers(disk)).map_err(Error::Thread)?;
        let pieces = Sift::new(blocks, &shape).map(|piece| piece.map_err(Error::from));
        put_all(disk, pieces, sink, tally, |record| {
            lines.clear();
            encoder.encode(Item::Record(record), &mut lines)?;
            Ok(encoder.payload_passed(record.payload_len())?)
        })
    })?;
    encoder.encode(Item::End(encoder.end()), &mut lines)?;
    Ok(encoder.fingerprint())
}

/// Puts pieces where they belong, one behind the other, each after `look` at its record.
fn put_all(
    disk: &Chain,
    pieces: impl Iterator<Item = Result<Piece, Error>>,
    sink: &dyn Sink,
    tally: &Tally,
    mut look: impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut at, mut buffer) = (0, Vec::new());
    for piece in pieces {
        let piece = piece?;
        let Some(record) = piece.record() else { continue };
        look(record)?;
        match piece {
            Piece::Data(payload, _) => put(disk, &payload, sink, at, &mut buffer)?,
            Piece::Hole(len) => sink.hole(at, len)?,
            Piece::Keep(len) => sink.keep(at, len)?,
            Piece::Nothing => {}
        }
        at += record.len();
        tally.add_disk(record.len());
        tally.add_data(record.payload_len());
        tally.add_kept(if matches!(record, Record::Keep { .. }) { record.len() } else { 0 });
    }
    Ok(())
}

/// Pours what differs from what the target holds; both are hashed at a time.
fn differing(disk: &Chain, copying: &Copying, holding: &Holding, tally: &Tally) -> Result<Fingerprint, Error> {
    let (sink, size) = (holding.sink.as_ref(), disk.size());
    let sums = copying.job.sums.unwrap_or_default();
    // What was hashed is kept, or written, and not what is fetched anew.
    let shape = copying.job.shape.held(true);
    let lines = Lines::new(size, sums);
    thread::scope(|scope| {
        let own = Workers::start(scope, disk, shape, workers(disk)).map_err(Error::Thread)?;
        let mut theirs =
            Workers::start(scope, &holding.image, shape, workers(&holding.image)).map_err(Error::Thread)?;
        let (mut records, mut surveyed) = (VecDeque::new(), 0);
        let entries = || loop {
            if let Some(record) = records.pop_front() {
                return Ok(Some(record));
            }
            let Some(block) = theirs.next() else { return Ok(None) };
            let block = block?;
            holding.bring(surveyed, &block)?;
            for run in block.runs {
                surveyed += run.len();
                records.push_back(run.record());
            }
        };
        let own = own.map(|block| block.and_then(|block| lines.pass(&block).map(|()| block)));
        put_all(disk, Sift::new(Offer::new(own, entries, size, sums), &shape), sink, tally, |_| Ok(()))
    })?;
    Ok(Fingerprint { sums, digest: lines.digest()? })
}
