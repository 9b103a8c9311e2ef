//! One disk, one way: from its extents to END.

use std::cell::RefCell;
use std::num::NonZero;
use std::thread;

use xfer_hole_image::{Disk, ImageFile};
use xfer_hole_pipeline::{
    BaseMatcher as Differing, Coalescer, ParallelReader, Phase, Piece, ProgressCounters, SegmentBatch,
};
use xfer_hole_proto::{
    Base, Dialect, Digest, FailReason, Fingerprint, Frame, HashParams, ManifestRequest, Record, Reply, StreamHeader,
};
use xfer_hole_transfer::CacheKey;
use xfer_hole_transport::ReplyReader;
use xfer_hole_ui::Messages;

use crate::cli::{Cli, PeerKind, SendOptions};
use crate::delta_client::{DeltaAnswer, DiskLines, ExistingDisk, asks};
use crate::error::SendError;
use crate::incremental_args::KnownBase;
use crate::stream_writer::StreamWriter;

/// Threads that read, at most: more would wait for the one that writes.
const WORKERS: usize = 6;

/// A disk to be sent, and how.
pub(crate) struct Sending<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) job: &'a SendOptions,
    /// What the receiver has, if it was asked.
    pub(crate) holds: Option<ExistingDisk>,
    pub(crate) counters: &'a ProgressCounters,
    pub(crate) messages: Messages,
}

impl Sending<'_> {
    /// Sends the disk. A disk that can't be read, or that changed, ends the stream with FAIL.
    pub(crate) fn run(&self, wire: &mut StreamWriter) -> Result<Option<Fingerprint>, SendError> {
        let Self { disk, job, .. } = self;
        self.counters.set_size(disk.size());
        if job.dialect == Dialect::V1 {
            wire.line(Frame::Open(StreamHeader { size: disk.size(), sums: job.sums }))?;
            let base = match &self.holds {
                Some(holds) => Some(Base { size: holds.manifest.offered, digest: None }),
                None => disk.older().map(|older| Base { size: older.size(), digest: job.base }),
            };
            base.map_or(Ok(()), |base| wire.line(Frame::Base(base)))?;
            // The receiver can refuse its size, or that it has no digests, while we look for its first data.
            wire.flush()?;
        }
        match self.records(wire) {
            Ok(result) => wire.end(result),
            Err(SendError::Image(error)) => {
                // If this can't be said either, the missing END says enough.
                let _said = wire.give_up(FailReason::new(&error.to_string()));
                Err(error.into())
            }
            // A receiver that met bytes without their digest has ended: this is why.
            Err(error) if error.is_of_output() && job.sums.is_some() => {
                Err(disk.check_unchanged(job.live).err().map_or(error, Into::into))
            }
            Err(error) => Err(error),
        }
    }

    /// All records: the digest of the whole disk's lines, where some of it is kept.
    fn records(&self, wire: &mut StreamWriter) -> Result<Option<Digest>, SendError> {
        let Self { disk, job, .. } = self;
        let result = thread::scope(|scope| {
            // Blocks are read and judged ahead of what is written. Dropping `blocks` ends the reading.
            let all = thread::available_parallelism().map_or(1, NonZero::get);
            // Hashing takes the receiver as long as us: it may be here, too. Inflating takes us longer.
            let workers = if job.sums.is_some() && disk.chunk() == 1 { (all / 2).max(1) } else { all }.min(WORKERS);
            // What waits for a device needs no processor.
            let workers = if disk.is_direct() { WORKERS } else { workers };
            let shape = job.shape.held(job.live || !wire.splices() || is_on_device(*disk));
            let blocks = ParallelReader::start(scope, *disk, shape, workers).map_err(SendError::Thread)?;
            let wire = RefCell::new(&mut *wire);
            let (Some(holds), Some(sums)) = (&self.holds, job.sums) else {
                self.pieces(Coalescer::new(blocks.map(|block| block.map_err(SendError::from)), &shape), &wire)?;
                return Ok::<_, SendError>(None);
            };
            // What passes is put together to the lines of the whole disk, and held against what the receiver tells.
            let lines = DiskLines::new(disk.size(), sums);
            let passing = blocks.map(|block| block.and_then(|block| lines.pass(&block).map(|()| block)));
            let entries = || holds.next(&wire);
            self.pieces(Coalescer::new(Differing::new(passing, entries, disk.size(), sums), &shape), &wire)?;
            // It has to come to its end, too: whether all of it was right is known then.
            while holds.next(&wire)?.is_some() {}
            Ok(Some(lines.digest()?))
        })?;
        // The last payload has to be gone before the question makes sense.
        wire.drain()?;
        disk.check_unchanged(job.live)?;
        Ok(result)
    }

    /// Writes a record for each piece.
    fn pieces<I>(&self, mut coalescer: Coalescer<I>, wire: &RefCell<&mut StreamWriter>) -> Result<(), SendError>
    where
        I: Iterator<Item = Result<SegmentBatch, SendError>>,
    {
        let Self { disk, counters, messages, .. } = self;
        // Zeros, and what is kept, are counted as they are seen: what is nothing but these has to show that it gets on.
        let (mut seen, mut at) = (0, 0);
        while let Some(piece) = coalescer.next() {
            let piece = piece?;
            let mut wire = wire.borrow_mut();
            counters.set_phase(Phase::Sending);
            let pending = coalescer.pending();
            counters.add_disk(pending.saturating_sub(seen));
            let Some(record) = piece.record() else {
                seen = pending;
                wire.idle()?;
                continue;
            };
            if messages.traces() {
                messages.trace(format_args!("{} {} at {at}", record.word(), record.len()));
            }
            at += record.len();
            match piece {
                // The wire counts its bytes as they go.
                Piece::Data(payload, _) => wire.data(record, payload, *disk)?,
                Piece::Hole(len) | Piece::Keep(len) => {
                    wire.line(Frame::Record(record))?;
                    counters.add_disk(len.saturating_sub(seen));
                    counters.add_kept(if matches!(record, Record::Keep { .. }) { len } else { 0 });
                    seen = 0;
                }
                Piece::Nothing => {}
            }
        }
        Ok(())
    }
}

/// What is known of the disk before anybody is asked.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// What its image is known by, if a note of it is to be believed.
    pub(crate) identity: Option<&'a CacheKey>,
    /// What the receiver has to hold, if only changes are sent.
    pub(crate) basis: &'a KnownBase,
}

/// A receiver that answers, and is ready.
pub(crate) struct Ready {
    pub(crate) answers: ReplyReader,
    pub(crate) peer: PeerKind,
    /// The words of READY.
    pub(crate) words: Vec<String>,
}

impl Ready {
    /// Fails if DONE doesn't name the disk that was sent. Without a digest it is taken only from a shell that wasn't asked what it has.
    pub(crate) fn check_done(&self, sent: Option<Fingerprint>, written: Option<Digest>) -> Result<(), &'static str> {
        let names_disk =
            written.is_some() || self.answers.was_asked() || !self.words.iter().any(|word| word == Reply::SH);
        match sent {
            Some(sent) if names_disk && written != Some(sent.digest) => {
                Err("says that it has written another disk than was sent")
            }
            _ => Ok(()),
        }
    }
}

/// Sends the disk to a receiver that is ready: all of it, or what differs from what is there.
pub(crate) fn to_receiver(
    disk: &dyn Disk,
    known: Known<'_>,
    cli: &Cli,
    ready: &Ready,
    wire: &mut StreamWriter,
    counters: &ProgressCounters,
    messages: Messages,
) -> Result<Option<Fingerprint>, SendError> {
    let Ready { answers, peer, words } = ready;
    let job = cli.job(*peer)?;
    let base = base(known.basis, job.sums, words, wire, counters)?;
    let mut job = job.building_on(base);
    let asked = asks_there(disk, cli, ready, messages)?;
    let mut holds = None;
    if asked {
        job = cli.job(if *peer == PeerKind::Sh { PeerKind::ShAgain } else { PeerKind::Holder })?;
        let sums = job.sums.unwrap_or_default();
        let digest = known.identity.and_then(|identity| identity.recall(sums));
        let first = words.iter().any(|word| word == Reply::FIRST);
        match ExistingDisk::ask(wire, answers, ManifestRequest { size: disk.size(), sums, digest }, first)? {
            DeltaAnswer::Same(digest) => {
                counters.set_size(disk.size());
                disk.check_unchanged(false)?;
                counters.add_disk(disk.size());
                counters.add_kept(disk.size());
                return same(wire, StreamHeader { size: disk.size(), sums: Some(sums) }, digest);
            }
            DeltaAnswer::Holds(told) => {
                // One that can't cut it as we would is taken at its own.
                job = job.cut(told.manifest.sums);
                holds = Some(told);
            }
        }
    }
    Sending { disk, job: &job, holds, counters, messages }.run(wire)
}

/// Whether the receiver is to be asked what it has. Warns where that was wanted, and can't be.
pub(crate) fn asks_there(disk: &dyn Disk, cli: &Cli, ready: &Ready, messages: Messages) -> Result<bool, SendError> {
    let hashed = cli.job(ready.peer)?.sums.is_some();
    // What changed is known without asking, where there is an older state.
    let asked = hashed && disk.older().is_none() && asks(&ready.words, cli.target.delta, !cli.target.no_resume);
    if cli.target.delta && !asked {
        messages.warn(
            "the receiver can't tell what it has, and everything is sent: that takes a recv-hole there, with --allow-read if it is restricted",
        );
    }
    Ok(asked)
}

impl Ready {
    /// True if the receiver writes to a block device.
    pub(crate) fn is_device(&self) -> bool {
        self.words.iter().any(|word| word == Reply::DEVICE)
    }
}

/// The disk that the receiver has to hold, where it is to check that: read if it is unknown, while the receiver waits.
fn base(
    basis: &KnownBase,
    sums: Option<HashParams>,
    words: &[String],
    wire: &mut StreamWriter,
    counters: &ProgressCounters,
) -> Result<Option<Fingerprint>, SendError> {
    check_names_base(basis, words)?;
    basis.read(sums, counters, || wire.idle_ahead())
}

/// Fails if the target has to be checked, and the receiver with these words of READY can't.
pub(crate) fn check_names_base(basis: &KnownBase, words: &[String]) -> Result<(), SendError> {
    let says = |word| words.iter().any(|said| said == word);
    match basis {
        KnownBase::Unsaid => Ok(()),
        _ if says(Reply::BASE) => Ok(()),
        _ if says(Reply::SH) => Err(SendError::Unchecked {
            what: "the receiver is recv-hole.sh, which can't read what is there",
            hint: "--trust-base sends without a check; or have recv-hole installed there, which checks, and takes --delta",
        }),
        _ => Err(SendError::Unchecked {
            what: "the receiver doesn't check what is there: it may not read, or is an older one",
            hint: "with recv-hole --restrict it takes --allow-read there; --trust-base sends without a check",
        }),
    }
}

/// The stream of a disk that the receiver has.
fn same(wire: &mut StreamWriter, open: StreamHeader, digest: Digest) -> Result<Option<Fingerprint>, SendError> {
    wire.line(Frame::Open(open))?;
    wire.line(Frame::Base(Base { size: open.size, digest: Some(digest) }))?;
    if open.size > 0 {
        wire.line(Frame::Record(Record::Keep { len: open.size }))?;
    }
    wire.end(Some(digest))
}

/// True if part of the disk lies on a device: nothing tells when that changes, so what was hashed has to be what is sent.
fn is_on_device(disk: &dyn Disk) -> bool {
    (0..).map_while(|depth| disk.host(depth)).any(ImageFile::is_device)
}
