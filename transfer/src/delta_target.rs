//! A target that is changed by a delta, and the disk that it held before.

use std::io::IoSlice;
use std::sync::Arc;

use xfer_hole_image::{BackingChain, Disk, ImageFile, Layer, Raw};
use xfer_hole_os::{DiskErrorKind, Result};
use xfer_hole_pipeline::{Payload, PayloadPart, Segment, SegmentBatch};
use xfer_hole_proto::Digest;
use xfer_hole_target::{CopyOver, DiskWriter, HeldTarget, StoredFile, Target};

/// A target that is changed into another disk, and the disk that it holds now.
pub struct DeltaTarget {
    /// Writes the bytes that change; all others stay as they are.
    pub sink: Box<dyn DiskWriter>,
    /// The disk that the target holds now, up to the size of the new one.
    pub image: BackingChain,
    copy_over: CopyOver,
}

impl DeltaTarget {
    /// Opens a target for a disk of `size` bytes that builds on what is there ([`Target::hold`]). With `resume`, the
    /// bytes of an interrupted transfer are kept.
    ///
    /// # Errors
    ///
    /// Errors of opening, locking and reading.
    pub fn open(target: Target, size: u64, resume: bool) -> Result<Self> {
        let HeldTarget { writer, layers: files, size, copy_over } = target.hold(size, resume)?;
        let lower = files.len() - 1;
        let layers = files.into_iter().enumerate().map(|(depth, StoredFile { file, path })| {
            let raw = Raw::of(ImageFile::of(file, &path, None)?, None)?;
            Ok(Arc::new(if depth < lower { raw.above() } else { raw }) as Arc<dyn Layer>)
        });
        let image = BackingChain::of_layers(layers.collect::<Result<_>>()?, size);
        Ok(Self { sink: writer, image, copy_over })
    }

    /// Copies the data of a hashed batch, which begins at disk offset `at`, to the writer if the writer's file doesn't
    /// have it yet. If the file has it, zeros are turned into holes. The bytes that were hashed are the ones that are
    /// kept.
    ///
    /// # Errors
    ///
    /// Write errors.
    pub fn bring(&self, mut at: u64, batch: &SegmentBatch) -> Result<()> {
        if !matches!(self.copy_over, CopyOver::All) {
            for alike in batch.runs.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
                let len = alike.iter().map(Segment::len).sum::<u64>();
                if alike.first().is_some_and(is_zero) {
                    self.sink.vacate(at, len);
                }
                at += len;
            }
            return Ok(());
        }
        // Adjacent data segments are written together, whatever their digests.
        for adjacent in batch.runs.chunk_by(|one, next| payload(one).is_some() == payload(next).is_some()) {
            let parts = adjacent.iter().filter_map(payload).flat_map(Payload::parts);
            // The payload is in memory, since the disk was read with `held`.
            let mut buffers: Vec<_> = parts.filter_map(bytes).collect();
            if !buffers.is_empty() {
                self.sink.bring(at, &mut buffers)?;
            }
            at += adjacent.iter().map(Segment::len).sum::<u64>();
        }
        Ok(())
    }

    /// Makes sure that the writer's file has `len` kept bytes at `at` whose digest is `digest`: compares the digest,
    /// and copies the bytes from the old disk if it differs.
    ///
    /// Allocation is not examined: adjacent bytes may have been written meanwhile, and the blocks of a file system may
    /// be larger.
    ///
    /// # Errors
    ///
    /// Read and write errors, and [`DiskErrorKind::Changed`] if neither file has these bytes.
    pub fn keep(&self, at: u64, len: u64, digest: Digest) -> Result<()> {
        let (CopyOver::Kept, Some(top), Some(old)) = (&self.copy_over, self.image.host(0), self.image.host(1)) else {
            return Ok(());
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        top.read_at(at, &mut bytes)?;
        if Digest::of(&bytes) == digest {
            return Ok(());
        }
        old.read_at(at, &mut bytes)?;
        if Digest::of(&bytes) != digest {
            // Some of the bytes are in the top layer, and the others in the layer below.
            self.image.read_at(at, &mut bytes)?;
        }
        if Digest::of(&bytes) != digest {
            return Err(old
                .error(DiskErrorKind::Changed, format!("what was to be kept at disk offset {at} is not what it was")));
        }
        self.sink.write_at(at, &bytes)
    }
}

fn is_zero(segment: &Segment) -> bool {
    matches!(segment, Segment::Zero(_))
}

fn payload(segment: &Segment) -> Option<&Payload> {
    match segment {
        Segment::Data(payload, _) => Some(payload),
        Segment::Zero(_) | Segment::Keep(_) => None,
    }
}

fn bytes(part: &PayloadPart) -> Option<IoSlice<'_>> {
    match part {
        PayloadPart::Bytes(bytes) => Some(IoSlice::new(bytes)),
        PayloadPart::Range { .. } => None,
    }
}
