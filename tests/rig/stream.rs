//! Decodes a stream into frames.

use bytes::BytesMut;
use tokio_util::codec::Decoder;
use xfer_hole_proto::{Dialect, Frame, Record, StreamDecoder};

use crate::Hole;

/// The frames of a valid stream, without payloads.
#[track_caller]
pub fn items(stream: &[u8], dialect: Dialect) -> Vec<Frame> {
    let mut decoder = StreamDecoder::new(dialect);
    let mut left = BytesMut::from(stream);
    let mut frames = Vec::new();
    loop {
        let frame = match decoder.decode(&mut left).unwrap() {
            None => decoder.decode_eof(&mut left).unwrap(),
            some => some,
        };
        match frame {
            Some(Frame::Payload(_)) => {}
            Some(frame) => frames.push(frame),
            None => return frames,
        }
    }
}

/// The records of a valid stream.
#[track_caller]
pub fn records(stream: &[u8]) -> Vec<Record> {
    let record = |frame| if let Frame::Record(record) = frame { Some(record) } else { None };
    items(stream, Dialect::V1).into_iter().filter_map(record).collect()
}

/// The holes that these records leave in a file on a file system with blocks of `block` bytes: whole blocks, and a
/// partial last block at the file's end.
pub fn holes_of(records: &[Record], block: u64) -> Vec<Hole> {
    let size: u64 = records.iter().map(Record::len).sum();
    let (mut at, mut holes) = (0, Vec::<(u64, u64)>::new());
    for record in records {
        let (start, end) = (at, at + record.len());
        at = end;
        match holes.last_mut() {
            _ if record.payload_len() > 0 => {}
            Some(last) if last.1 == start => last.1 = end,
            _ => holes.push((start, end)),
        }
    }
    let whole = |(start, end): (u64, u64)| {
        let start = start.next_multiple_of(block);
        let end = if end == size { size } else { end / block * block };
        (start < end).then(|| (start, end - start))
    };
    holes.into_iter().filter_map(whole).collect()
}

/// Fails unless each of `holes` is within one of `found`.
#[track_caller]
pub fn assert_holes_within(holes: &[Hole], found: &[Hole], what: &str) {
    for &(start, len) in holes {
        let inside = found.iter().any(|&(at, long)| at <= start && start + len <= at + long);
        assert!(inside, "{what}: no hole at {start} of {len} bytes, but {found:?}");
    }
}
