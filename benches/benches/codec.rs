//! How long records take to become bytes, and records again.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_proto::{Dialect, Digest, Frame, HashParams, Record, StreamDecoder, StreamEncoder, StreamHeader};

/// Pieces of data, with as many holes between them.
const PIECES: u64 = 10_000;
/// Bytes of each.
const LEN: u64 = 4096;

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(2 * PIECES));
    for (name, sums) in [("plain", None), ("digests", Some(HashParams::default()))] {
        let items = items(sums);
        // As a sender does it, whose buffer leaves before it is large.
        let gone = |bytes: &mut BytesMut| {
            if bytes.len() > 64 << 10 {
                bytes.clear();
            }
        };
        group.bench_function(format!("encode {name}"), |bencher| bencher.iter(|| black_box(encode(&items, gone))));
        let bytes = encode(&items, |_| {});
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter_batched(|| bytes.clone(), |mut bytes| decode(&mut bytes), BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// A stream as far as END.
fn items(sums: Option<HashParams>) -> Vec<Frame> {
    let payload = Bytes::from(vec![b'x'; usize::try_from(LEN).unwrap_or_default()]);
    let digest = sums.map(|_| Digest::of(&payload));
    let record = [
        Frame::Record(Record::Data { len: LEN, digest }),
        Frame::Payload(payload),
        Frame::Record(Record::Hole { len: LEN }),
    ];
    let records = (0..PIECES).flat_map(|_| record.clone());
    [Frame::Open(StreamHeader { size: 2 * PIECES * LEN, sums })].into_iter().chain(records).collect()
}

/// Encodes; `take` is shown what there is behind each item.
fn encode(items: &[Frame], take: impl Fn(&mut BytesMut)) -> BytesMut {
    let (mut encoder, mut bytes) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
    for item in items {
        encoder.encode(item.clone(), &mut bytes).expect("an item that fits");
        take(&mut bytes);
    }
    encoder.encode(Frame::End(encoder.end()), &mut bytes).expect("an end");
    bytes
}

fn decode(bytes: &mut BytesMut) {
    let mut decoder = StreamDecoder::new(Dialect::V1);
    while let Some(item) = decoder.decode(bytes).expect("a sound stream") {
        black_box(item);
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
