//! What a target holds before a delta, and what changes it.

use std::io::IoSlice;

use xfer_hole_proto::Digest;

use crate::{BackingChain, Disk, DiskErrorKind, DiskWriter, Payload, PayloadPart, Result, Segment, SegmentBatch};

/// A target that is to be changed into another disk, and the disk that it is.
pub struct DeltaTarget {
    /// Takes what is to be changed; what is kept stays as it is.
    pub sink: Box<dyn DiskWriter>,
    /// The disk that it holds: as many bytes of it as count for the one that comes.
    pub image: BackingChain,
    pub(crate) brings: CopyOver,
}

/// Which bytes of that disk are not in the sink yet.
pub(crate) enum CopyOver {
    /// None. Zeros that it holds may take space.
    Nothing,
    /// All: they are the old target's, and the sink is new.
    All,
    /// Those that an earlier transfer has not left in the sink: the top layer of the disk is the sink's file, the one below it the old
    /// target.
    Kept,
}

impl DeltaTarget {
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
