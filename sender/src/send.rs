//! One disk, one way: from its extents to END.

use std::sync::mpsc;
use std::thread;

use xfer_hole_image::{Blocks, Image, Piece, Sift, Tally};
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
        // The receiver can refuse the disk while we look for its first data.
        wire.flush()?;
    }
    match records(disk, job, wire, tally, messages) {
        Ok(()) => wire.end(),
        Err(Error::Image(error)) => {
            // The dialect of 2014 has no word for it: there a payload that is cut short is all that can be told. In version 1,
            // if this can't be said, the missing END says enough.
            if job.dialect == Dialect::V1 {
                let _said = wire.give_up(Reason::new(&error.to_string()));
            }
            Err(error.into())
        }
        // A receiver may well go away because of what happened to the disk.
        Err(Error::BrokenPipe) => Err(disk.check_unchanged(job.live).err().map_or(Error::BrokenPipe, Error::from)),
        Err(error) => Err(error),
    }
}

fn records(disk: &dyn Image, job: &Job, wire: &mut Wire, tally: &Tally, messages: Messages) -> Result<(), Error> {
    thread::scope(|scope| {
        // Blocks are read and judged ahead of what is written. Dropping `blocks` ends the reading.
        let (read, blocks) = mpsc::sync_channel(job.shape.blocks_ahead());
        scope.spawn(move || Blocks::new(disk, job.shape).try_for_each(|block| read.send(block)));
        for piece in Sift::new(blocks.into_iter(), &job.shape) {
            let piece = piece?;
            let record = piece.record();
            if messages.traces() {
                let word = if record.payload_len() > 0 { "DATA" } else { "HOLE" };
                messages.trace(format_args!("{word} {} at {}", record.len(), tally.disk()));
            }
            match piece {
                Piece::Data(payload, _) => wire.data(record, payload, disk)?,
                Piece::Hole(_) => wire.line(Item::Record(record))?,
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
