//! What a target holds before a delta, and what changes it.

use std::io::IoSlice;
use std::sync::Arc;

use xfer_hole_image::{BackingChain, Disk, ImageFile, Layer, Raw};
use xfer_hole_os::{DiskErrorKind, Result};
use xfer_hole_pipeline::{Payload, PayloadPart, Segment, SegmentBatch};
use xfer_hole_proto::Digest;
use xfer_hole_target::{CopyOver, DiskWriter, HeldTarget, StoredFile, Target};

/// A target that is to be changed into another disk, and the disk that it is.
pub struct DeltaTarget {
    /// Takes what is to be changed; what is kept stays as it is.
    pub sink: Box<dyn DiskWriter>,
    /// The disk that it holds: as many bytes of it as count for the one that comes.
    pub image: BackingChain,
    brings: CopyOver,
}

impl DeltaTarget {
    /// Makes a target ready for a disk of `size` bytes that may build on what is there ([`Target::hold`]).
    ///
    /// # Errors
    /// What can't be opened, locked or read.
    pub fn open(target: Target, size: u64, resume: bool) -> Result<Self> {
        let HeldTarget { writer, layers: files, size, copy_over } = target.hold(size, resume)?;
        let lower = files.len() - 1;
        let layers = files.into_iter().enumerate().map(|(depth, StoredFile { file, path })| {
            let raw = Raw::of(ImageFile::of(file, &path, None)?, None)?;
            Ok(Arc::new(if depth < lower { raw.above() } else { raw }) as Arc<dyn Layer>)
        });
        let image = BackingChain::of_layers(layers.collect::<Result<_>>()?, size);
        Ok(Self { sink: writer, image, brings: copy_over })
    }

    /// This block of the disk, from `at` on, was hashed: brings its data over, where nothing is in the sink, and has zeros become holes
    /// where something is. What was hashed is what is kept.
    pub fn bring(&self, mut at: u64, block: &SegmentBatch) -> Result<()> {
        if !matches!(self.brings, CopyOver::All) {
            for alike in block.runs.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
                let len = alike.iter().map(Segment::len).sum::<u64>();
                if alike.first().is_some_and(is_zero) {
                    self.sink.vacate(at, len);
                }
                at += len;
            }
            return Ok(());
        }
        // What lies side by side goes at once, however many digests it has.
        for side_by_side in block.runs.chunk_by(|one, next| payload(one).is_some() == payload(next).is_some()) {
            let parts = side_by_side.iter().filter_map(payload).flat_map(Payload::parts);
            // The payload was held.
            let mut row: Vec<_> = parts.filter_map(bytes).collect();
            if !row.is_empty() {
                self.sink.bring(at, &mut row)?;
            }
            at += side_by_side.iter().map(Segment::len).sum::<u64>();
        }
        Ok(())
    }

    /// These bytes are kept, and were told to have this digest: finds them in the sink, or brings them over. Allocation isn't asked:
    /// what stands beside them may have been written meanwhile, and blocks are longer on some file systems.
    pub fn keep(&self, at: u64, len: u64, digest: Digest) -> Result<()> {
        let (CopyOver::Kept, Some(part), Some(old)) = (&self.brings, self.image.host(0), self.image.host(1)) else {
            return Ok(());
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        part.read_at(at, &mut bytes)?;
        if Digest::of(&bytes) == digest {
            return Ok(());
        }
        old.read_at(at, &mut bytes)?;
        if Digest::of(&bytes) != digest {
            // Some of it is left, and the rest shows through.
            self.image.read_at(at, &mut bytes)?;
        }
        if Digest::of(&bytes) != digest {
            return Err(old
                .error(DiskErrorKind::Changed, format!("what was to be kept at disk offset {at} is not what it was")));
        }
        self.sink.write_at(at, &bytes)
    }
}

fn is_zero(run: &Segment) -> bool {
    matches!(run, Segment::Zero(_))
}

fn payload(run: &Segment) -> Option<&Payload> {
    match run {
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
