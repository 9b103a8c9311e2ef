//! Copies a disk into a file or device of this machine, without a stream.

use std::collections::VecDeque;
use std::path::Path;
use std::{io, thread};

use bytes::BytesMut;
use tokio_util::codec::Encoder;
use xfer_hole_image::{BackingChain, ChangeTracker, Disk};
use xfer_hole_os::{DiskError as ImageError, DiskErrorKind, reason, shown, sys};
use xfer_hole_pipeline::{BaseMatcher, Coalescer, ParallelReader, Phase, Piece, ProgressCounters};
use xfer_hole_proto::{Base, Dialect, Fingerprint, Frame, Record, StreamEncoder, StreamHeader};
use xfer_hole_target::{DiskWriter, ExpectedDisk, Target};
use xfer_hole_transfer::{
    COPY_THREADS_MAX, CacheKey, DeltaTarget, FormatWarning, ParallelCopy, TargetNote, copy_threads, put, read_back,
    read_base, recall_target,
};
use xfer_hole_ui::{Messages, Signals, WrittenTarget};

use crate::TransferResult;
use crate::cli::{Cli, CopyOptions, Reflink, SendOptions};
use crate::delta_client::DiskLines;
use crate::error::SendError;
use crate::image_args::{check_content, data_of};
use crate::incremental_args::is_disk_to_send;

/// The disk's fingerprint, if digests were computed, and notes about the target for the user.
type Copied = (Option<Fingerprint>, Vec<String>);

/// A copy, with everything that it needs besides the disk.
pub(crate) struct Copy<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) image: &'a Path,
    /// The image's cache key, if cached fingerprints may be used.
    pub(crate) cache_key: Option<&'a CacheKey>,
    pub(crate) dest: &'a Path,
    /// The fingerprint that DEST must have, if only changes are copied and DEST is checked.
    pub(crate) base: Option<Fingerprint>,
    pub(crate) counters: &'a ProgressCounters,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl Copy<'_> {
    /// Copies the disk.
    pub(crate) fn run(&self, disk: &BackingChain, job: SendOptions) -> Result<TransferResult, SendError> {
        let copying = self.cli.copy_options(self.image, job)?;
        if disk.is_private() {
            sys::keep_private();
        }
        let target = Target::find_apart(self.dest, copying.options.clone(), &disk.storages())?;
        check_content(disk, target.is_device(), self.messages)?;
        let target = if disk.older().is_some() { target.builds_on(self.base, read_base)? } else { target };
        let shareable = self.shareable(&copying, disk, &target)?;
        let dest = shown(target.path());
        let written = WrittenTarget { place: dest.clone(), becomes: Some(target.becomes()), resumed: false };
        if let Some(FormatWarning { what, hint }) = FormatWarning::of_target(&target) {
            self.messages.warn_with_hint(what, hint);
        }
        if self.cli.target.dry_run {
            // Shared blocks take no space.
            let can_share = || disk.plain().is_some_and(|file| target.can_share(file.file()));
            let data = if shareable && can_share() { None } else { Some(data_of(disk, 1)?.0) };
            let base = disk.older().map(|older| (older.size(), self.base));
            target.rehearse(
                ExpectedDisk { size: Some(disk.size()), data, delta: self.cli.target.delta, base },
                read_base,
            )?;
            let (image, size, plan) = (shown(self.image), disk.size(), target.plan());
            self.messages.note(format_args!("would copy {image}, a disk of {size} bytes, to {plan}"));
            return Ok((None, None));
        }
        self.counters.set_size(disk.size());
        let (fingerprint, notes) = self.copy(disk, &copying, target, shareable)?;
        for note in notes {
            self.messages.warn(format_args!("{dest}: {note}"));
        }
        Ok((fingerprint, Some(written)))
    }

    /// True if sharing the image's blocks is to be tried.
    fn shareable(&self, copying: &CopyOptions, disk: &BackingChain, target: &Target) -> Result<bool, SendError> {
        let why = match copying.reflink {
            Reflink::Never => return Ok(false),
            _ if disk.plain().is_none() => "only a raw image in a regular file can be shared as it stands",
            _ if !target.is_new_file() => "only a new file can take them",
            _ => return Ok(!copying.searches_zeros),
        };
        match copying.reflink {
            Reflink::Always => Err(self.cannot_share(why)),
            Reflink::Auto | Reflink::Never => Ok(false),
        }
    }

    fn cannot_share(&self, why: impl Into<String>) -> SendError {
        SendError::Reflink { image: self.image.to_owned(), why: why.into() }
    }

    /// Writes the target and commits it if the disk has not changed.
    fn copy(
        &self,
        disk: &BackingChain,
        copying: &CopyOptions,
        target: Target,
        shareable: bool,
    ) -> Result<Copied, SendError> {
        let size = disk.size();
        let counters = self.counters;
        if self.cli.target.delta {
            let params = copying.job.params.unwrap_or_default();
            let known = self.cache_key.and_then(|cache_key| cache_key.recall(params));
            // With --read-back the disk is read, even if the cache says that it is unchanged.
            if let Some(digest) = known.filter(|_| !copying.options.read_back)
                && let Some(held) = target.hold_unchanged(|| recall_target(&target, size, params) == Some(digest))?
            {
                disk.check_unchanged(false)?;
                held.check()?;
                counters.add_disk(size);
                counters.add_kept(size);
                return Ok((Some(Fingerprint { sums: params, digest }), Vec::new()));
            }
            let target_note = TargetNote::of(&target);
            let delta_target = DeltaTarget::open(target, size, false)?;
            let target_note = target_note.of_sink(delta_target.sink.as_ref());
            self.signals.set_remains(Some(delta_target.sink.leftover_message()));
            counters.set_phase(Phase::Copying);
            let copied = copy_differing(disk, copying, &delta_target, counters).map(Some);
            let (fingerprint, mut notes) = self.finish(disk, copying, delta_target.sink, copied)?;
            notes.extend(target_note.note(fingerprint.as_ref()));
            return Ok((fingerprint, notes));
        }
        let target_note = TargetNote::of(&target);
        let opened = target.open(Some(size), disk.older().map(ChangeTracker::size));
        let writer = opened.map_err(|error| self.explain_other_base(disk, error))?;
        // Without digests there is no fingerprint to cache.
        let target_note = copying.job.params.map(|_| target_note.of_sink(writer.as_ref()));
        self.signals.set_remains(Some(writer.leftover_message()));
        counters.ahead().expected().into_iter().for_each(|data| writer.announce(data));
        counters.set_phase(Phase::Copying);
        let shared = match disk.plain().filter(|_| shareable).map(|file| writer.share(file.file())) {
            Some(Err(error)) if copying.reflink == Reflink::Always => {
                writer.give_up();
                return Err(self.cannot_share(why_not(&error)));
            }
            Some(Ok(())) => true,
            Some(Err(_)) | None => false,
        };
        let copied = if shared {
            counters.add_disk(size);
            Ok(None)
        } else if copying.job.params.is_some() || copying.fills_holes || !writer.is_positional() {
            copy_in_order(disk, copying, writer.as_ref(), counters)
        } else {
            let share = copying.reflink != Reflink::Never;
            let copy =
                ParallelCopy { image: disk, shape: copying.job.read_options, sink: writer.as_ref(), share, counters };
            copy.all(thread_count(disk)).map(|()| None).map_err(SendError::from)
        };
        let (fingerprint, mut notes) = self.finish(disk, copying, writer, copied)?;
        notes.extend(target_note.and_then(|target_note| target_note.note(fingerprint.as_ref())));
        Ok((fingerprint, notes))
    }

    /// Replaces the error for a DEST that is not the older disk, if DEST is already the disk to copy.
    fn explain_other_base(&self, disk: &BackingChain, error: ImageError) -> SendError {
        let fingerprint = error.other_disk().map(|found| found.to_string());
        if fingerprint.is_some_and(|fingerprint| is_disk_to_send(disk, &fingerprint)) {
            let what = "is the disk that was to be copied already, and not the older one: there is nothing to be done";
            return ImageError::new(DiskErrorKind::Refused, self.dest, what).into();
        }
        error.into()
    }

    /// Commits the target if all data was copied and the disk has not changed.
    fn finish(
        &self,
        disk: &BackingChain,
        copying: &CopyOptions,
        writer: Box<dyn DiskWriter>,
        copied: Result<Option<Fingerprint>, SendError>,
    ) -> Result<Copied, SendError> {
        let remains = writer.leftover_message();
        let copied = copied.and_then(|fingerprint| {
            disk.check_unchanged(copying.job.live)?;
            if let Some(said) = fingerprint.filter(|_| copying.options.read_back) {
                read_back(writer.as_ref(), disk.size(), said, self.counters)?;
            }
            if !copying.options.no_sync {
                self.counters.set_phase(Phase::Syncing);
            }
            let notes = writer.commit(disk.size())?;
            self.signals.set_remains(Some("the whole disk was copied".to_owned()));
            Ok((fingerprint, notes))
        });
        copied.map_err(|error| match error {
            SendError::Image(error) if error.leaves_nothing() => error.into(),
            error => SendError::Begun { error: error.into(), remains },
        })
    }
}

/// The reason why blocks can't be shared.
fn why_not(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::CrossesDevices => "the copy would be on another file system".into(),
        io::ErrorKind::Unsupported => "this file system can't".into(),
        _ => reason(error),
    }
}

fn thread_count(disk: &BackingChain) -> usize {
    // Direct reads wait for the device, so threads may outnumber processors.
    if disk.is_direct() {
        return COPY_THREADS_MAX;
    }
    copy_threads()
}

/// Copies from the disk's start to its end, where the order matters: for digests, for `--min-hole`, and for pipes. A
/// [`StreamEncoder`] checks the records as it does for a stream.
fn copy_in_order(
    disk: &BackingChain,
    copying: &CopyOptions,
    writer: &dyn DiskWriter,
    counters: &ProgressCounters,
) -> Result<Option<Fingerprint>, SendError> {
    let (job, size) = (&copying.job, disk.size());
    let (mut encoder, mut lines) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
    encoder.encode(Frame::Open(StreamHeader { size, sums: job.params }), &mut lines)?;
    if let Some(older) = disk.older() {
        encoder.encode(Frame::Base(Base { size: older.size(), digest: None }), &mut lines)?;
    }
    thread::scope(|scope| {
        // The bytes that were hashed are written from memory, and are not read again.
        let read_options = job.read_options.held(true);
        let batches =
            ParallelReader::start(scope, disk, read_options, thread_count(disk)).map_err(SendError::Thread)?;
        let pieces = Coalescer::new(batches, &read_options).map(|piece| piece.map_err(SendError::from));
        write_pieces(disk, pieces, writer, counters, |record| {
            lines.clear();
            encoder.encode(Frame::Record(record), &mut lines)?;
            Ok(encoder.payload_passed(record.payload_len())?)
        })
    })?;
    encoder.encode(Frame::End(encoder.end()), &mut lines)?;
    Ok(encoder.fingerprint())
}

/// Writes pieces to the target in order. `check` is called with the record of each piece before it is written.
fn write_pieces(
    disk: &BackingChain,
    pieces: impl Iterator<Item = Result<Piece, SendError>>,
    writer: &dyn DiskWriter,
    counters: &ProgressCounters,
    mut check: impl FnMut(Record) -> Result<(), SendError>,
) -> Result<(), SendError> {
    let (mut at, mut buffer) = (0, Vec::new());
    for piece in pieces {
        let piece = piece?;
        let Some(record) = piece.record() else { continue };
        check(record)?;
        match piece {
            Piece::Data(payload, _) => put(disk, &payload, writer, at, &mut buffer)?,
            Piece::Hole(len) => writer.zero_range(at, len)?,
            Piece::Keep(len) => writer.keep_existing(at, len)?,
            Piece::Nothing => {}
        }
        at += record.len();
        counters.add_disk(record.len());
        counters.add_data(record.payload_len());
        counters.add_kept(if matches!(record, Record::Keep { .. }) { record.len() } else { 0 });
    }
    Ok(())
}

/// Copies the ranges that differ from the target's existing data. Both disks are hashed in parallel.
fn copy_differing(
    disk: &BackingChain,
    copying: &CopyOptions,
    delta_target: &DeltaTarget,
    counters: &ProgressCounters,
) -> Result<Fingerprint, SendError> {
    let (writer, size) = (delta_target.sink.as_ref(), disk.size());
    let params = copying.job.params.unwrap_or_default();
    // The bytes that were hashed are compared or written from memory, and are not read again.
    let read_options = copying.job.read_options.held(true);
    let lines = DiskLines::new(size, params);
    thread::scope(|scope| {
        let source = ParallelReader::start(scope, disk, read_options, thread_count(disk)).map_err(SendError::Thread)?;
        let mut existing =
            ParallelReader::start(scope, &delta_target.image, read_options, thread_count(&delta_target.image))
                .map_err(SendError::Thread)?;
        let (mut records, mut offset) = (VecDeque::new(), 0);
        let next_record = || loop {
            if let Some(record) = records.pop_front() {
                return Ok(Some(record));
            }
            let Some(batch) = existing.next() else { return Ok(None) };
            let batch = batch?;
            delta_target.bring(offset, &batch)?;
            for segment in batch.runs {
                offset += segment.len();
                records.push_back(segment.record());
            }
        };
        let source = source.map(|batch| batch.and_then(|batch| lines.pass(&batch).map(|()| batch)));
        write_pieces(
            disk,
            Coalescer::new(BaseMatcher::new(source, next_record, size, params), &read_options),
            writer,
            counters,
            |_| Ok(()),
        )
    })?;
    Ok(Fingerprint { sums: params, digest: lines.digest()? })
}
