//! Several workers write the same disk as one, and report the first wrong record.

use std::io::{PipeWriter, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Encoder;
use xfer_hole_proto::{HashParams, StreamEncoder, StreamHeader};
use xfer_hole_ui::EventLoop;

use super::*;
use crate::stream_reader::LinkLimits;

const INTERVAL: usize = 65_536;
/// Number of data records, each after a hole of the same length.
const RECORDS: usize = 40;

/// A disk in memory. Writes take different times, so that workers overtake each other.
struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }
}

impl DiskWriter for MemoryDisk {
    fn write_at(&self, at: u64, bytes: &[u8]) -> xfer_hole_os::Result<()> {
        let at = usize::try_from(at).unwrap();
        thread::sleep(Duration::from_micros(300 * (at / INTERVAL % 3) as u64));
        self.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero_range(&self, _at: u64, _len: u64) -> xfer_hole_os::Result<()> {
        Ok(())
    }

    fn keep_existing(&self, _at: u64, _len: u64) -> xfer_hole_os::Result<()> {
        Ok(())
    }

    fn leftover_message(&self) -> String {
        "a disk in memory".into()
    }

    fn commit(self: Box<Self>, _size: u64) -> xfer_hole_os::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Returns a disk, its stream with digests, and the offset of each payload in the stream.
fn stream() -> (Vec<u8>, Vec<u8>, Vec<usize>) {
    let size = 2 * RECORDS * INTERVAL;
    let (mut disk, mut stream, mut places) = (vec![0; size], BytesMut::new(), Vec::new());
    let hash_params = HashParams::new(INTERVAL as u64, 4096);
    let mut encoder = StreamEncoder::new(Dialect::V1);
    encoder.encode(Frame::Open(StreamHeader { size: size as u64, sums: hash_params }), &mut stream).unwrap();
    for record in 0..RECORDS {
        let at = (2 * record + 1) * INTERVAL;
        let payload = &mut disk[at..at + INTERVAL];
        payload.iter_mut().enumerate().for_each(|(index, byte)| *byte = ((index * 7 + record) % 255) as u8 + 1);
        encoder.encode(Frame::Record(Record::Hole { len: INTERVAL as u64 }), &mut stream).unwrap();
        let digest = Some(Digest::of(payload));
        encoder.encode(Frame::Record(Record::Data { len: INTERVAL as u64, digest }), &mut stream).unwrap();
        places.push(stream.len());
        encoder.encode(Frame::Payload(Bytes::copy_from_slice(payload)), &mut stream).unwrap();
    }
    encoder.encode(Frame::End(encoder.end()), &mut stream).unwrap();
    (disk, stream.to_vec(), places)
}

/// Receives `bytes` from a pipe with `workers` threads. The pipe stays open for `silence` after them.
fn received(workers: usize, bytes: &[u8], silence: Duration) -> (Vec<u8>, Result<(), ReceiveError>) {
    let (reader, mut writer) = pipe().unwrap();
    let counters = std::sync::Arc::new(ProgressCounters::default());
    let messages = Messages::new("recv-hole", 0);
    let event_loop = EventLoop::start().unwrap();
    let signals = Signals::watch(&event_loop, messages).unwrap();
    let options = ReceiveOptions { dialect: Dialect::V1, require_hash: true, max_size: None, allow_base: false };
    let disk = MemoryDisk(Mutex::new(vec![0; 2 * RECORDS * INTERVAL]));
    let mut input =
        StreamReader::new(OwnedFd::from(reader).into(), Dialect::V1, LinkLimits::default(), Arc::clone(&counters));
    let ended = thread::scope(|scope| {
        scope.spawn(move || {
            // A receiver that has failed does not read all bytes.
            let _written = PipeWriter::write_all(&mut writer, bytes);
            thread::sleep(silence);
        });
        let first = input.next().unwrap();
        assert!(matches!(first, Some(Frame::Open(_))));
        let applier = RecordApplier::new(&disk, &options, &counters, &signals, messages);
        let begun = Instant::now();
        let ended = applier.run_by(workers, 4 * INTERVAL, &mut input, None, None);
        assert!(silence.is_zero() || begun.elapsed() < silence, "it waited for a silent link after a failure");
        drop(input);
        ended
    });
    (disk.0.into_inner().unwrap(), ended.map(drop))
}

#[test]
fn several_workers_write_the_same_disk_as_one() {
    let (disk, stream, _) = stream();
    for workers in [1, 2, 4] {
        let (made, ended) = received(workers, &stream, Duration::ZERO);
        assert!(ended.is_ok(), "{workers} workers: {}", ended.unwrap_err());
        assert!(made == disk, "{workers} workers");
    }
}

#[test]
fn a_wrong_digest_is_reported_and_not_written() {
    let (disk, mut stream, places) = stream();
    stream[places[9] + 5] ^= 1;
    stream[places[10]] ^= 1;
    stream[places[21] + 100] ^= 1;
    for workers in [1, 2, 4] {
        for _ in 0..10 {
            let (made, ended) = received(workers, &stream, Duration::ZERO);
            let said = ended.unwrap_err().to_string();
            let place = format!("record {} at disk offset {}", 20, 19 * INTERVAL);
            assert!(said.contains("doesn't have its digest") && said.contains(&place), "{workers} workers: {said}");
            for wrong in [9, 10, 21] {
                let at = (2 * wrong + 1) * INTERVAL;
                assert!(made[at..at + INTERVAL].iter().all(|&byte| byte == 0), "{workers} workers wrote {wrong}");
            }
            // All records before it are written.
            assert!(made[..18 * INTERVAL] == disk[..18 * INTERVAL], "{workers} workers");
        }
    }
}

#[test]
fn all_whole_payloads_of_a_cut_stream_are_written() {
    let (disk, stream, places) = stream();
    for workers in [1, 2, 4] {
        let (made, ended) = received(workers, &stream[..places[17] + 100], Duration::ZERO);
        assert!(matches!(ended, Err(ReceiveError::Stream(_))), "{workers} workers");
        let end = (2 * 16 + 2) * INTERVAL;
        assert!(made[..end] == disk[..end] && made[end..].iter().all(|&byte| byte == 0), "{workers} workers");
    }
}

#[test]
fn a_wrong_payload_is_reported_while_the_link_is_silent() {
    let (_, mut stream, places) = stream();
    stream[places[3]] ^= 1;
    for workers in [2, 4] {
        let (_, ended) = received(workers, &stream[..places[9]], Duration::from_secs(6));
        assert!(matches!(ended, Err(ReceiveError::Stream(_))), "{workers} workers");
    }
}
