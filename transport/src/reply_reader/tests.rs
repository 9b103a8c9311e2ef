//! A receiver that tells more than can be kept.

use std::io::{PipeWriter, Write, pipe};
use std::os::fd::OwnedFd;

use xfer_hole_proto::{Digest, HashParams, ManifestWriter, Refusal};

use super::*;

/// A receiver that was asked, and tells of so many intervals of data; then it gives up.
fn told(records: u64) -> (ReplyReader, PipeWriter) {
    let (from, mut to) = pipe().unwrap();
    let answers =
        ReplyReader::listen(OwnedFd::from(from).into(), None, Messages::new("xfer-hole", 0), |_: &ConversationEnd| {})
            .unwrap();
    to.write_all(b"XFER-HOLE-READY 1 delta\n").unwrap();
    answers.ready().unwrap();
    let sums = HashParams::new(4096, 4096).unwrap();
    let size = 1 << 30;
    answers.ask(ManifestRequest { size, sums, digest: None });
    let manifest = ManifestHeader::whole(size, sums);
    let (mut writer, mut lines) = (ManifestWriter::new(manifest), format!("{manifest}\n"));
    for _ in 0..records {
        writer.data(4096, Digest::of(b""), &mut lines).unwrap();
    }
    to.write_all(format!("{lines}FAIL it is on fire\n").as_bytes()).unwrap();
    (answers, to)
}

fn fails(answers: &ReplyReader, most: Duration) -> bool {
    let begun = Instant::now();
    while !answers.has_ended() && begun.elapsed() < most {
        thread::sleep(LOOK / 10);
    }
    answers.has_ended()
}

#[test]
fn why_it_gives_up_is_heard_behind_more_records_than_are_kept() {
    let (answers, _open) = told(RECORDS + MORE / 2);
    assert!(fails(&answers, STUCK * 10));
    let ending = answers.told(Duration::ZERO).and_then(|_| answers.offer(Duration::ZERO));
    assert!(ending.is_ok(), "what was told before is there: {ending:?}");
    assert_eq!(answers.ending(None), Some(ConversationEnd::Failed(Refusal::new(&[], "it is on fire"))));
}

#[test]
fn what_is_kept_is_bounded_until_somebody_takes_it() {
    let (answers, _open) = told(RECORDS + 3 * MORE);
    assert!(!fails(&answers, STUCK * 3));
    assert!(answers.state().records.len() <= RECORDS + MORE);
    for _ in 0..RECORDS {
        assert!(matches!(answers.told(STUCK), Ok(ManifestProgress::Record(_))));
    }
    assert!(fails(&answers, STUCK * 10));
}

#[test]
fn while_nothing_can_be_heard_a_write_that_is_held_up_is_a_dead_link() {
    let patience = STUCK / 2;
    for writes in [true, false] {
        let (answers, _open) = told(RECORDS + 3 * MORE);
        answers.note_write(writes);
        answers.watch(patience, false).unwrap();
        // Reading the disk may take its time.
        assert_eq!(fails(&answers, STUCK * 3), writes);
        assert_eq!(answers.state().ending, writes.then_some(ConversationEnd::Silent(patience)));
    }
}
