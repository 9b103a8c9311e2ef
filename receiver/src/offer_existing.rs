//! Hashes the existing content of the target and sends its manifest to the sender, while the delta stream arrives (SPEC.md, "WANT").

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xfer_hole_image::Disk;
use xfer_hole_pipeline::{ParallelReader, ReadOptions};
use xfer_hole_proto::{ManifestHeader, ManifestRequest, ManifestWriter};
use xfer_hole_transfer::DeltaTarget;
use xfer_hole_transport::ReplyWriter;

use crate::error::ReceiveError;
use crate::existing_records::ExistingRecords;

/// Hashes the target with the parameters of `want` and writes its manifest to `replies`. Stops when `over` is set.
///
/// # Errors
/// Returns an error if the target can't be read, if the queue of records is full, or if no thread can be started.
pub(crate) fn offer_existing(
    delta_target: &DeltaTarget,
    want: &ManifestRequest,
    existing: &ExistingRecords,
    replies: &ReplyWriter,
    over: &AtomicBool,
) -> Result<(), ReceiveError> {
    let manifest = ManifestHeader::whole(delta_target.image.size(), want.sums);
    let (mut writer, mut lines, mut at) = (ManifestWriter::new(manifest), String::new(), 0);
    // The sender waits for this line before it sends anything.
    replies.say_lines(&format!("{manifest}\n"), over);
    let options = ReadOptions::canonical(want.sums).held(true);
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        for batch in
            ParallelReader::start(scope, &delta_target.image, options, workers).map_err(ReceiveError::Thread)?
        {
            let batch = batch?;
            delta_target.bring(at, &batch)?;
            for segment in batch.runs {
                let record = segment.record();
                at += record.len();
                existing.push(record)?;
                writer.record(&record, &mut lines)?;
            }
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            replies.say_lines(&lines, over);
            lines.clear();
        }
        Ok::<(), ReceiveError>(())
    })?;
    if over.load(Ordering::Relaxed) {
        return Ok(());
    }
    writer.end(&mut lines)?;
    existing.end();
    replies.say_lines(&lines, over);
    Ok(())
}
