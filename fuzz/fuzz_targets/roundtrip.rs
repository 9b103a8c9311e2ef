//! Any items: what the encoder takes, the decoder gives back, however the bytes are cut.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_proto::{
    Base, Dialect, Digest, FailReason, Frame, HashParams, Record, StreamDecoder, StreamEncoder, StreamHeader, Trailer,
};

fn digest(from: &mut Unstructured<'_>) -> Result<Option<Digest>> {
    Ok(Option::<u8>::arbitrary(from)?.map(|seed| Digest::of(&[seed])))
}

fn len(from: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u8::arbitrary(from)? {
        0..200 => u64::from(u8::arbitrary(from)?) * 64,
        200..250 => u64::from(u16::arbitrary(from)?),
        _ => u64::arbitrary(from)?,
    })
}

fn item(from: &mut Unstructured<'_>, encoder: &StreamEncoder) -> Result<Frame> {
    Ok(match from.int_in_range(0..=9)? {
        0 => Frame::Open(StreamHeader { size: len(from)?, sums: sums(from)? }),
        1 => Frame::Base(Base { size: len(from)?, digest: digest(from)? }),
        2 | 3 => Frame::Record(Record::Data { len: len(from)?, digest: digest(from)? }),
        4 => Frame::Record(Record::Hole { len: len(from)? }),
        5 => Frame::Record(Record::Keep { len: len(from)? }),
        6 => Frame::Wait,
        7 if bool::arbitrary(from)? => Frame::End(encoder.end()),
        7 => Frame::End(Trailer { lines: digest(from)?, result: digest(from)? }),
        8 => Frame::Fail(FailReason::new(<&str>::arbitrary(from)?)),
        _ => {
            let len = encoder.payload_left().min(1 << 12);
            Frame::Payload(Bytes::from(vec![u8::arbitrary(from)?; usize::try_from(len).unwrap_or(0)]))
        }
    })
}

fn sums(from: &mut Unstructured<'_>) -> Result<Option<HashParams>> {
    let (interval, grain) = (from.int_in_range(12..=24)?, from.int_in_range(9..=24)?);
    Ok(if bool::arbitrary(from)? { HashParams::new(1 << interval, 1 << grain) } else { None })
}

fn run(from: &mut Unstructured<'_>) -> Result<()> {
    let dialect = if u8::arbitrary(from)? < 200 { Dialect::V1 } else { Dialect::Classic };
    let cut = usize::from(u16::arbitrary(from)?) + 1;
    let (mut encoder, mut bytes, mut taken) = (StreamEncoder::new(dialect), BytesMut::new(), Vec::new());
    while !from.is_empty() && bytes.len() < 1 << 16 {
        let item = item(from, &encoder)?;
        if matches!(&item, Frame::Payload(piece) if piece.is_empty()) {
            continue;
        }
        let before = bytes.len();
        match encoder.encode(item.clone(), &mut bytes) {
            Ok(()) => taken.push(item),
            Err(_) => assert_eq!(bytes.len(), before, "a refused item was written"),
        }
    }
    let (mut decoder, mut src, mut given) = (StreamDecoder::new(dialect), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        src.extend_from_slice(piece);
        while let Some(item) = decoder.decode(&mut src).expect("the decoder refuses what the encoder wrote") {
            given.push(item);
        }
    }
    let done = matches!(taken.last(), Some(Frame::End(_) | Frame::Fail(_)));
    match decoder.decode_eof(&mut src) {
        Ok(Some(end)) => given.push(end),
        Ok(None) => {}
        Err(error) => assert!(!done, "{error}"),
    }
    // The 2014 dialect has no END of its own: end of file gives one.
    if dialect == Dialect::Classic && !done && matches!(given.last(), Some(Frame::End(_))) {
        given.pop();
    }
    assert_eq!(parted(given), parted(taken));
    Ok(())
}

/// The lines, and all payload: how it is cut is no matter, and each DATA line says how much of it is its own.
fn parted(items: Vec<Frame>) -> (Vec<Frame>, Vec<u8>) {
    let (mut lines, mut payload) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Frame::Payload(piece) => payload.extend_from_slice(&piece),
            line => lines.push(line),
        }
    }
    (lines, payload)
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that run out are a shorter run, no finding.
    let _shorter = run(&mut Unstructured::new(bytes));
});
