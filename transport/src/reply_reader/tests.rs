//! Tests with a receiver that sends more records than the queue holds.

use std::io::{PipeWriter, Write, pipe};
use std::os::fd::OwnedFd;

use xfer_hole_proto::{Digest, HashParams, ManifestWriter, Refusal};

use super::*;
use crate::reply_state::MORE;

/// Returns a reader of a receiver that sends a manifest of `records` intervals of data and then FAIL.
fn reader_of(records: u64) -> (ReplyReader, PipeWriter) {
    let (from, mut to) = pipe().unwrap();
    let replies =
        ReplyReader::listen(OwnedFd::from(from).into(), None, Messages::new("xfer-hole", 0), |_: &ConversationEnd| {})
            .unwrap();
    to.write_all(b"XFER-HOLE-READY 1 delta\n").unwrap();
    replies.ready().unwrap();
    let hash_params = HashParams::new(4096, 4096).unwrap();
    let size = 1 << 30;
    replies.ask(ManifestRequest { size, sums: hash_params, digest: None });
    let manifest = ManifestHeader::whole(size, hash_params);
    let (mut writer, mut lines) = (ManifestWriter::new(manifest), format!("{manifest}\n"));
    for _ in 0..records {
        writer.data(4096, Digest::of(b""), &mut lines).unwrap();
    }
    to.write_all(format!("{lines}FAIL it is on fire\n").as_bytes()).unwrap();
    (replies, to)
}

/// Returns true if the conversation ends within `most`.
fn fails(replies: &ReplyReader, most: Duration) -> bool {
    let begun = Instant::now();
    while !replies.has_ended() && begun.elapsed() < most {
        thread::sleep(LOOK / 10);
    }
    replies.has_ended()
}

#[test]
fn fail_is_read_behind_more_records_than_the_queue_holds() {
    let (replies, _open) = reader_of(RECORDS + MORE / 2);
    assert!(fails(&replies, STUCK * 10));
    let end = replies.told(Duration::ZERO).and_then(|_| replies.offer(Duration::ZERO));
    assert!(end.is_ok(), "queued records can be taken: {end:?}");
    assert_eq!(replies.ending(None), Some(ConversationEnd::Failed(Refusal::new(&[], "it is on fire"))));
}

#[test]
fn the_queue_is_bounded_until_records_are_taken() {
    let (replies, _open) = reader_of(RECORDS + 3 * MORE);
    assert!(!fails(&replies, STUCK * 3));
    assert!(replies.state().records.len() <= RECORDS + MORE);
    for _ in 0..RECORDS {
        assert!(matches!(replies.told(STUCK), Ok(ManifestProgress::Record(_))));
    }
    assert!(fails(&replies, STUCK * 10));
}

#[test]
fn with_a_full_queue_a_blocked_write_is_a_dead_link() {
    let patience = STUCK / 2;
    for writes in [true, false] {
        let (replies, _open) = reader_of(RECORDS + 3 * MORE);
        replies.note_write(writes);
        replies.watch(patience, false).unwrap();
        // Without a write the sender may be reading its disk.
        assert_eq!(fails(&replies, STUCK * 3), writes);
        assert_eq!(replies.state().ending, writes.then_some(ConversationEnd::Silent(patience)));
    }
}
