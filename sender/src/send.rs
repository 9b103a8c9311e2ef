//! One disk, one way: from its extents to END.

use std::iter;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use xfer_hole_image::{Block, Blocks, Image, Piece, Sift, Tally};
use xfer_hole_link::Messages;
use xfer_hole_proto::{Dialect, Fingerprint, Item, Open, Reason};

use crate::cli::Job;
use crate::error::Error;
use crate::wire::Wire;

/// Sends the disk. A disk that can't be read, or that changed, ends the stream with FAIL.
pub(crate) fn send(
    disk: &dyn Image,
    job: &Job,
    wire: &mut Wire,
    tally: &Tally,
    messages: Messages,
) -> Result<Option<Fingerprint>, Error> {
    tally.set_size(disk.size());
    if job.dialect == Dialect::V1 {
        wire.line(Item::Open(Open { size: disk.size(), sums: job.sums }))?;
        // The receiver can refuse its size, or that it has no digests, while we look for its first data.
        wire.flush()?;
    }
    match records(disk, job, wire, tally, messages) {
        Ok(()) => wire.end(),
        Err(Error::Image(error)) => {
            // If this can't be said either, the missing END says enough.
            let _said = wire.give_up(Reason::new(&error.to_string()));
            Err(error.into())
        }
        Err(error) => Err(error),
    }
}

fn records(disk: &dyn Image, job: &Job, wire: &mut Wire, tally: &Tally, messages: Messages) -> Result<(), Error> {
    thread::scope(|scope| {
        // Blocks are read and judged ahead of what is written. Dropping `blocks` ends the reading.
        let (read, blocks) = mpsc::sync_channel(Blocks::ahead(disk, &job.shape));
        // A disk that can't be read is not asked twice.
        let reader = move || {
            for block in Blocks::new(disk, job.shape) {
                let failed = block.is_err();
                if read.send(block).is_err() || failed {
                    break;
                }
            }
        };
        thread::Builder::new().spawn_scoped(scope, reader).map_err(Error::Thread)?;
        let blocks = iter::from_fn(|| match blocks.recv_timeout(Duration::from_secs(1)) {
            Ok(block) => Some(block),
            Err(RecvTimeoutError::Timeout) => Some(Ok(Block::default())),
            Err(RecvTimeoutError::Disconnected) => None,
        });
        for piece in Sift::new(blocks, &job.shape) {
            let piece = piece?;
            let Some(record) = piece.record() else {
                wire.idle()?;
                continue;
            };
            if messages.traces() {
                let word = if record.payload_len() > 0 { "DATA" } else { "HOLE" };
                messages.trace(format_args!("{word} {} at {}", record.len(), tally.disk()));
            }
            match piece {
                Piece::Data(payload, _) => wire.data(record, payload, disk)?,
                Piece::Hole(_) | Piece::Nothing => wire.line(Item::Record(record))?,
            }
            tally.add_disk(record.len());
            tally.add_data(record.payload_len());
        }
        Ok::<(), Error>(())
    })?;
    // The last payload has to be gone before the question makes sense.
    wire.drain()?;
    Ok(disk.check_unchanged(job.live)?)
}
