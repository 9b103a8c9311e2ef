//! One disk, one way: from its extents to END.

use std::num::NonZero;
use std::thread;

use xfer_hole_image::{Host, Image, Phase, Piece, Sift, Tally, Workers};
use xfer_hole_link::Messages;
use xfer_hole_proto::{Dialect, Fingerprint, Item, Open, Reason};

use crate::cli::Job;
use crate::error::Error;
use crate::wire::Wire;

/// Threads that read, at most: more would wait for the one that writes.
const WORKERS: usize = 6;

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
        // A receiver that met octets without their digest has ended: this is why.
        Err(error) if error.is_of_output() && job.sums.is_some() => {
            Err(disk.check_unchanged(job.live).err().map_or(error, Into::into))
        }
        Err(error) => Err(error),
    }
}

/// True if part of the disk lies on a device: nothing tells when that changes, so what was hashed has to be what is sent.
fn is_on_device(disk: &dyn Image) -> bool {
    (0..).map_while(|depth| disk.host(depth)).any(Host::is_device)
}

fn records(disk: &dyn Image, job: &Job, wire: &mut Wire, tally: &Tally, messages: Messages) -> Result<(), Error> {
    thread::scope(|scope| {
        // Blocks are read and judged ahead of what is written. Dropping `blocks` ends the reading.
        let all = thread::available_parallelism().map_or(1, NonZero::get);
        // Hashing takes the receiver as long as us: it may be here, too. Inflating takes us longer.
        let workers = if job.sums.is_some() && disk.chunk() == 1 { (all / 2).max(1) } else { all }.min(WORKERS);
        // What waits for a device needs no processor.
        let workers = if disk.is_direct() { WORKERS } else { workers };
        let shape = job.shape.held(job.live || !wire.splices() || is_on_device(disk));
        let blocks = Workers::start(scope, disk, shape, workers).map_err(Error::Thread)?;
        let mut sift = Sift::new(blocks, &shape);
        // Zeros are counted as they are seen: what is nothing but zeros has to show that it gets on.
        let (mut seen, mut at) = (0, 0);
        while let Some(piece) = sift.next() {
            let piece = piece?;
            tally.set_phase(Phase::Sending);
            let pending = sift.pending();
            tally.add_disk(pending.saturating_sub(seen));
            let Some(record) = piece.record() else {
                seen = pending;
                wire.idle()?;
                continue;
            };
            if messages.traces() {
                let word = if record.payload_len() > 0 { "DATA" } else { "HOLE" };
                messages.trace(format_args!("{word} {} at {at}", record.len()));
            }
            at += record.len();
            match piece {
                // The wire counts its octets as they go.
                Piece::Data(payload, _) => wire.data(record, payload, disk)?,
                Piece::Hole(len) => {
                    wire.line(Item::Record(record))?;
                    tally.add_disk(len.saturating_sub(seen));
                    seen = 0;
                }
                Piece::Nothing => {}
            }
        }
        Ok::<(), Error>(())
    })?;
    // The last payload has to be gone before the question makes sense.
    wire.drain()?;
    Ok(disk.check_unchanged(job.live)?)
}
