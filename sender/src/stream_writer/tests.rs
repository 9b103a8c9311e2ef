//! The bytes of the stream are correct for each way of writing: buffered, direct, read and spliced.

use std::io::{Read, pipe};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::{fs, thread};

use bytes::Bytes;
use xfer_hole_image::{BackingChain, DiskOptions};
use xfer_hole_proto::StreamHeader;

use super::*;

fn written_by(dialect: Dialect, write: impl FnOnce(&mut StreamWriter) -> Result<(), SendError>) -> String {
    let (mut reader, writer) = pipe().unwrap();
    let mut stream =
        StreamWriter::new(OwnedFd::from(writer).into(), dialect, Arc::new(ProgressCounters::default()), None);
    if dialect == Dialect::V1 {
        stream.write_frame(Frame::Open(StreamHeader { size: 8192, sums: None })).unwrap();
    }
    write(&mut stream).unwrap();
    drop(stream);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn wait_is_written_after_fifteen_seconds_of_silence() {
    let text = written_by(Dialect::V1, |stream| {
        stream.keep_alive()?;
        stream.last_write -= WAIT;
        stream.keep_alive()?;
        stream.keep_alive()
    });
    assert_eq!(text, "XFER-HOLE 1 8192\nWAIT\n");
}

#[test]
fn fail_is_written_between_records_only() {
    let reason = || FailReason::new("disk.img: cannot read");
    let text = written_by(Dialect::V1, |stream| stream.write_fail(reason()));
    assert_eq!(text, "XFER-HOLE 1 8192\nFAIL disk.img: cannot read\n");
    let text = written_by(Dialect::V1, |stream| {
        stream.write_frame(Frame::Record(Record::Data { len: 4096, digest: None }))?;
        stream.write_fail(reason())
    });
    assert_eq!(text, "XFER-HOLE 1 8192\nDATA 4096\n");
}

#[test]
fn failing_a_classic_stream_leaves_it_truncated() {
    let text = written_by(Dialect::Classic, |stream| {
        stream.write_frame(Frame::Record(Record::Hole { len: 4096 }))?;
        stream.write_fail(FailReason::new("disk.img: cannot read"))
    });
    assert_eq!(text, "HOLE\n4096\nDATA\n1\n");
}

fn named(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("xfer-hole-wire-{}-{name}", std::process::id()))
}

/// A disk of 100,000 bytes, no two adjacent bytes equal.
fn disk(name: &str) -> (BackingChain, Vec<u8>) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| at.to_be_bytes()[3] ^ at.to_be_bytes()[2]).collect();
    let path = named(name);
    fs::write(&path, &bytes).unwrap();
    let raw = BackingChain::open(&path, &DiskOptions::default()).unwrap();
    fs::remove_file(path).unwrap();
    (raw, bytes)
}

fn range(at: u64, len: u64) -> PayloadPart {
    PayloadPart::Range { depth: 0, at, len }
}

/// A payload of large and small parts of both kinds, the last of which extends past the end of the file.
fn parts(bytes: &[u8]) -> (Payload, Vec<u8>) {
    let behind = [&bytes[90_000..], &[0; 50_000]].concat();
    let memory = Bytes::copy_from_slice(bytes);
    let parts = vec![
        range(10, 100),
        PayloadPart::Bytes(memory.slice(..50)),
        range(1000, 60_000),
        PayloadPart::Bytes(memory.slice(..70_000)),
        range(5, 4096),
        range(90_000, 60_000),
    ];
    let expected = [&bytes[10..110], &bytes[..50], &bytes[1000..61_000], &bytes[..70_000], &bytes[5..4101], &behind];
    (Payload::from(parts), expected.concat())
}

#[test]
fn a_payload_of_several_parts_is_one_record() {
    let (raw, bytes) = disk("parts");
    let (payload, expected) = parts(&bytes);
    let len = payload.len();
    let write = |stream: &mut StreamWriter| {
        stream.write_frame(Frame::Open(StreamHeader { size: len, sums: None }))?;
        stream.write_data(Record::Data { len, digest: None }, payload.clone(), &raw)?;
        stream.end(None)
    };
    let expected = [format!("XFER-HOLE 1 {len}\nDATA {len}\n").as_bytes(), &expected, b"END\n"].concat();
    // To a pipe, which supports splicing.
    let (mut reader, writer) = pipe().unwrap();
    let reading = thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map(|_| text)
    });
    let counters = Arc::new(ProgressCounters::default());
    let mut stream = StreamWriter::new(OwnedFd::from(writer).into(), Dialect::V1, Arc::clone(&counters), None);
    write(&mut stream).unwrap();
    assert!(stream.splices && stream.spliced);
    drop(stream);
    assert!(reading.join().unwrap().unwrap() == expected);
    assert_eq!(counters.wire(), expected.len() as u64);
    // To a file, which does not.
    let path = named("out");
    let mut stream = StreamWriter::new(File::create(&path).unwrap(), Dialect::V1, Arc::default(), None);
    write(&mut stream).unwrap();
    assert!(!stream.splices && !stream.spliced);
    assert!(fs::read(&path).unwrap() == expected);
    fs::remove_file(path).unwrap();
}

#[test]
fn splicing_counts_as_activity() {
    let (raw, _) = disk("silence");
    let (_reader, writer) = pipe().unwrap();
    let mut stream = StreamWriter::new(OwnedFd::from(writer).into(), Dialect::V1, Arc::default(), None);
    stream.write_frame(Frame::Open(StreamHeader { size: 40_000, sums: None })).unwrap();
    stream.write_frame(Frame::Record(Record::Data { len: 40_000, digest: None })).unwrap();
    stream.flush().unwrap();
    stream.last_write -= WAIT;
    stream.flush().unwrap();
    assert!(stream.last_write.elapsed() >= WAIT, "nothing was last_write");
    stream.write_range(raw.host(0).unwrap(), 0, 40_000).unwrap();
    assert!(stream.spliced && stream.last_write.elapsed() < WAIT);
}

#[test]
fn fail_follows_an_unreadable_small_payload() {
    let path = named("short");
    fs::write(&path, [7; 9000]).unwrap();
    let raw = BackingChain::open(&path, &DiskOptions::default()).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    fs::remove_file(path).unwrap();
    let text = written_by(Dialect::V1, |stream| {
        let payload = Payload::from(vec![PayloadPart::Bytes(Bytes::from_static(b"here")), range(4000, 4092)]);
        let failed = stream.write_data(Record::Data { len: 4096, digest: None }, payload, &raw);
        assert!(matches!(failed, Err(SendError::Image(_))));
        stream.write_fail(FailReason::new("short"))
    });
    assert_eq!(text, "XFER-HOLE 1 8192\nFAIL short\n");
}
