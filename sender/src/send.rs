//! Sends one disk as a stream of records.

use std::cell::RefCell;
use std::num::NonZero;
use std::thread;

use xfer_hole_image::{Disk, ImageFile};
use xfer_hole_pipeline::{BaseMatcher, Coalescer, ParallelReader, Phase, Piece, ProgressCounters, SegmentBatch};
use xfer_hole_proto::{
    Base, Dialect, Digest, FailReason, Fingerprint, Frame, HashParams, ManifestRequest, Record, Reply, StreamHeader,
};
use xfer_hole_transfer::CacheKey;
use xfer_hole_transport::ReplyReader;
use xfer_hole_ui::Messages;

use crate::cli::{Cli, PeerKind, SendOptions};
use crate::delta_client::{DeltaAnswer, DiskLines, ExistingDisk, offers_manifest};
use crate::error::SendError;
use crate::incremental_args::KnownBase;
use crate::stream_writer::StreamWriter;

/// The maximum number of reading threads. More of them would wait for the one that writes.
const THREADS_MAX: usize = 6;

/// A disk to send, with the options.
pub(crate) struct DiskSender<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) job: &'a SendOptions,
    /// The receiver's existing data, if its manifest was requested.
    pub(crate) existing: Option<ExistingDisk>,
    pub(crate) counters: &'a ProgressCounters,
    pub(crate) messages: Messages,
}

impl DiskSender<'_> {
    /// Sends the disk as a stream. If the disk can't be read or has changed, the stream ends with FAIL.
    pub(crate) fn run(&self, stream: &mut StreamWriter) -> Result<Option<Fingerprint>, SendError> {
        let Self { disk, job, .. } = self;
        self.counters.set_size(disk.size());
        if job.dialect == Dialect::V1 {
            stream.write_frame(Frame::Open(StreamHeader { size: disk.size(), sums: job.params }))?;
            let base = match &self.existing {
                Some(existing) => Some(Base { size: existing.manifest.offered, digest: None }),
                None => disk.older().map(|older| Base { size: older.size(), digest: job.base }),
            };
            base.map_or(Ok(()), |base| stream.write_frame(Frame::Base(base)))?;
            // The header is flushed, so that the receiver can refuse size or parameters while the first data is read.
            stream.flush()?;
        }
        match self.write_records(stream) {
            Ok(result) => stream.end(result),
            Err(SendError::Image(error)) => {
                // If this write fails too, the missing END marks the stream as incomplete.
                let _said = stream.write_fail(FailReason::new(&error.to_string()));
                Err(error.into())
            }
            // A receiver closes the stream when bytes don't match their digest, which happens if the disk changed.
            Err(error) if error.is_of_output() && job.params.is_some() => {
                Err(disk.check_unchanged(job.live).err().map_or(error, Into::into))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends all records. With a delta, the result is the digest of the whole disk's manifest lines.
    fn write_records(&self, stream: &mut StreamWriter) -> Result<Option<Digest>, SendError> {
        let Self { disk, job, .. } = self;
        let result = thread::scope(|scope| {
            // Batches are read and searched for zeros ahead of writing. Dropping `batches` ends the reading threads.
            let all = thread::available_parallelism().map_or(1, NonZero::get);
            // The receiver may run on this machine and hashes as fast as the sender does, so hashing takes half the
            // processors. Decompression runs here only.
            let threads =
                if job.params.is_some() && disk.chunk() == 1 { (all / 2).max(1) } else { all }.min(THREADS_MAX);
            // Direct reads wait for the device, so threads may outnumber processors.
            let threads = if disk.is_direct() { THREADS_MAX } else { threads };
            let read_options = job.read_options.held(job.live || !stream.splices() || is_on_device(*disk));
            let batches = ParallelReader::start(scope, *disk, read_options, threads).map_err(SendError::Thread)?;
            let stream = RefCell::new(&mut *stream);
            let (Some(existing), Some(params)) = (&self.existing, job.params) else {
                self.write_pieces(
                    Coalescer::new(batches.map(|batch| batch.map_err(SendError::from)), &read_options),
                    &stream,
                )?;
                return Ok::<_, SendError>(None);
            };
            // The manifest lines of the whole disk are computed from the batches, which are compared with the
            // receiver's records.
            let lines = DiskLines::new(disk.size(), params);
            let hashed = batches.map(|batch| batch.and_then(|batch| lines.pass(&batch).map(|()| batch)));
            let next_record = || existing.next(&stream);
            self.write_pieces(
                Coalescer::new(BaseMatcher::new(hashed, next_record, disk.size(), params), &read_options),
                &stream,
            )?;
            // The receiver's manifest is read to its end, since its validity is known only then.
            while existing.next(&stream)?.is_some() {}
            Ok(Some(lines.digest()?))
        })?;
        // Spliced pages must have left the pipe before the check for changes is meaningful.
        stream.drain()?;
        disk.check_unchanged(job.live)?;
        Ok(result)
    }

    /// Writes a record for each piece.
    fn write_pieces<I>(&self, mut coalescer: Coalescer<I>, stream: &RefCell<&mut StreamWriter>) -> Result<(), SendError>
    where
        I: Iterator<Item = Result<SegmentBatch, SendError>>,
    {
        let Self { disk, counters, messages, .. } = self;
        // Zeros and unchanged ranges are counted when they are read, so that progress advances within a long one.
        let (mut counted, mut at) = (0, 0);
        while let Some(piece) = coalescer.next() {
            let piece = piece?;
            let mut stream = stream.borrow_mut();
            counters.set_phase(Phase::Sending);
            let pending = coalescer.pending();
            counters.add_disk(pending.saturating_sub(counted));
            let Some(record) = piece.record() else {
                counted = pending;
                stream.keep_alive()?;
                continue;
            };
            if messages.traces() {
                messages.trace(format_args!("{} {} at {at}", record.word(), record.len()));
            }
            at += record.len();
            match piece {
                // The stream writer counts data as it is written.
                Piece::Data(payload, _) => stream.write_data(record, payload, *disk)?,
                Piece::Hole(len) | Piece::Keep(len) => {
                    stream.write_frame(Frame::Record(record))?;
                    counters.add_disk(len.saturating_sub(counted));
                    counters.add_kept(if matches!(record, Record::Keep { .. }) { len } else { 0 });
                    counted = 0;
                }
                Piece::Nothing => {}
            }
        }
        Ok(())
    }
}

/// What is known of the disk before the receiver is asked.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The image's cache key, if cached fingerprints may be used.
    pub(crate) cache_key: Option<&'a CacheKey>,
    /// The disk that the receiver must hold, if only changes are sent.
    pub(crate) known_base: &'a KnownBase,
}

/// A receiver that has sent READY.
pub(crate) struct Ready {
    pub(crate) replies: ReplyReader,
    pub(crate) peer: PeerKind,
    /// The words of READY.
    pub(crate) words: Vec<String>,
}

impl Ready {
    /// Fails if DONE does not carry the digest of the disk that was sent. Without a digest, DONE is accepted only
    /// from recv-hole.sh that was not asked for a manifest.
    pub(crate) fn check_done(&self, sent: Option<Fingerprint>, written: Option<Digest>) -> Result<(), &'static str> {
        let names_disk =
            written.is_some() || self.replies.was_asked() || !self.words.iter().any(|word| word == Reply::SH);
        match sent {
            Some(sent) if names_disk && written != Some(sent.digest) => {
                Err("says that it has written another disk than was sent")
            }
            _ => Ok(()),
        }
    }
}

/// Sends the disk to a receiver that has sent READY: all of it, or what differs from the receiver's existing data.
pub(crate) fn to_receiver(
    disk: &dyn Disk,
    known: Known<'_>,
    cli: &Cli,
    ready: &Ready,
    stream: &mut StreamWriter,
    counters: &ProgressCounters,
    messages: Messages,
) -> Result<Option<Fingerprint>, SendError> {
    let Ready { replies, peer, words } = ready;
    let job = cli.send_options(*peer)?;
    let base = base(known.known_base, job.params, words, stream, counters)?;
    let mut job = job.with_base(base);
    let wants = wants_manifest(disk, cli, ready, messages)?;
    let mut existing = None;
    if wants {
        job = cli.send_options(if *peer == PeerKind::Sh { PeerKind::ShResume } else { PeerKind::Delta })?;
        let params = job.params.unwrap_or_default();
        let digest = known.cache_key.and_then(|cache_key| cache_key.recall(params));
        let first = words.iter().any(|word| word == Reply::FIRST);
        match ExistingDisk::ask(stream, replies, ManifestRequest { size: disk.size(), sums: params, digest }, first)? {
            DeltaAnswer::Same(digest) => {
                counters.set_size(disk.size());
                disk.check_unchanged(false)?;
                counters.add_disk(disk.size());
                counters.add_kept(disk.size());
                return send_same(stream, StreamHeader { size: disk.size(), sums: Some(params) }, digest);
            }
            DeltaAnswer::Manifest(offered) => {
                // The parameters of the receiver's manifest are used, since it may not support the requested ones.
                job = job.with_params(offered.manifest.sums);
                existing = Some(offered);
            }
        }
    }
    DiskSender { disk, job: &job, existing, counters, messages }.run(stream)
}

/// True if the receiver is to be asked for a manifest of its existing data. Warns if --delta was given and the
/// receiver can't send one.
pub(crate) fn wants_manifest(disk: &dyn Disk, cli: &Cli, ready: &Ready, messages: Messages) -> Result<bool, SendError> {
    let hashed = cli.send_options(ready.peer)?.params.is_some();
    // The changes since an older state are known without a manifest.
    let wants =
        hashed && disk.older().is_none() && offers_manifest(&ready.words, cli.target.delta, !cli.target.no_resume);
    if cli.target.delta && !wants {
        messages.warn(
            "the receiver can't tell what it has, and everything is sent: that takes a recv-hole there, with --allow-read if it is restricted",
        );
    }
    Ok(wants)
}

impl Ready {
    /// True if the receiver writes to a block device.
    pub(crate) fn is_device(&self) -> bool {
        self.words.iter().any(|word| word == Reply::DEVICE)
    }
}

/// The fingerprint that the receiver must check its data against. It is computed if it is unknown, while WAIT is sent
/// to the receiver.
fn base(
    known_base: &KnownBase,
    params: Option<HashParams>,
    words: &[String],
    stream: &mut StreamWriter,
    counters: &ProgressCounters,
) -> Result<Option<Fingerprint>, SendError> {
    check_can_verify(known_base, words)?;
    known_base.read(params, counters, || stream.keep_alive_before_stream())
}

/// Fails if the target must be checked and the receiver's READY lacks support for it.
pub(crate) fn check_can_verify(known_base: &KnownBase, words: &[String]) -> Result<(), SendError> {
    let has = |word| words.iter().any(|token| token == word);
    match known_base {
        KnownBase::NoCheck => Ok(()),
        _ if has(Reply::BASE) => Ok(()),
        _ if has(Reply::SH) => Err(SendError::Unchecked {
            what: "the receiver is recv-hole.sh, which can't read what is there",
            hint: "--trust-base sends without a check; or have recv-hole installed there, which checks, and takes --delta",
        }),
        _ => Err(SendError::Unchecked {
            what: "the receiver doesn't check what is there: it may not read, or is an older one",
            hint: "with recv-hole --restrict it takes --allow-read there; --trust-base sends without a check",
        }),
    }
}

/// Sends the stream for a disk that the receiver holds already: one KEEP of the whole size.
fn send_same(stream: &mut StreamWriter, open: StreamHeader, digest: Digest) -> Result<Option<Fingerprint>, SendError> {
    stream.write_frame(Frame::Open(open))?;
    stream.write_frame(Frame::Base(Base { size: open.size, digest: Some(digest) }))?;
    if open.size > 0 {
        stream.write_frame(Frame::Record(Record::Keep { len: open.size }))?;
    }
    stream.end(Some(digest))
}

/// True if a layer is on a block device. Changes of a device can't be detected, so the bytes that were hashed must be
/// the bytes sent.
fn is_on_device(disk: &dyn Disk) -> bool {
    (0..).map_while(|depth| disk.host(depth)).any(ImageFile::is_device)
}
