//! What the target holds is hashed and told to the sender, while the stream that builds on it comes in behind (SPEC.md, "WANT").

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

/// Tells all that the target holds, as the sender wants it cut, until it is `over`.
pub(crate) fn survey(
    holding: &DeltaTarget,
    want: &ManifestRequest,
    existing: &ExistingRecords,
    replies: &ReplyWriter,
    over: &AtomicBool,
) -> Result<(), ReceiveError> {
    let manifest = ManifestHeader::whole(holding.image.size(), want.sums);
    let (mut writer, mut lines, mut at) = (ManifestWriter::new(manifest), String::new(), 0);
    // The sender may begin: until then it can't say that it is there.
    replies.say_lines(&format!("{manifest}\n"), over);
    let shape = ReadOptions::canonical(want.sums).held(true);
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        for block in ParallelReader::start(scope, &holding.image, shape, workers).map_err(ReceiveError::Thread)? {
            let block = block?;
            holding.bring(at, &block)?;
            for run in block.runs {
                let record = run.record();
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
