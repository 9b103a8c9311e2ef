//! The work: as the sender does it, without its threads and its pipes, so that a count of it is always the same.

use std::error::Error;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_image::Disk;
use xfer_hole_pipeline::{Coalescer, Payload, PayloadPart, Piece, Plan, ReadOptions, SerialReader};
use xfer_hole_proto::{Dialect, Frame, Record, StreamDecoder, StreamEncoder, StreamHeader};

/// Bytes that are encoded before they are decoded.
const ENOUGH: usize = 64 << 10;

/// Walks through the disk's extents: gives how many there are.
pub fn count(image: &dyn Disk) -> Result<u64, Box<dyn Error>> {
    Ok(Plan::whole(image).try_fold(0, |count, step| step.map(|_| count + 1))?)
}

/// Reads the disk, looks for zeros, and joins what is found: gives how many bytes of it are data.
pub fn drain(image: &dyn Disk, shape: ReadOptions) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for piece in Coalescer::new(SerialReader::new(image, shape), &shape) {
        bytes += piece?.record().map_or(0, |record| record.payload_len());
    }
    Ok(bytes)
}

/// Sends the disk from memory to memory, without digests: gives how many records came out.
pub fn carry(image: &dyn Disk) -> Result<u64, Box<dyn Error>> {
    let shape = ReadOptions::plain(true, 1);
    let (mut encoder, mut decoder) = (StreamEncoder::new(Dialect::V1), StreamDecoder::new(Dialect::V1));
    let (mut wire, mut records) = (BytesMut::new(), 0);
    encoder.encode(Frame::Open(StreamHeader { size: image.size(), sums: None }), &mut wire)?;
    for piece in Coalescer::new(SerialReader::new(image, shape), &shape) {
        let piece = piece?;
        let Some(record) = piece.record() else { continue };
        encoder.encode(Frame::Record(record), &mut wire)?;
        if let Piece::Data(payload, _) = piece {
            for bytes in bytes(image, &payload)? {
                encoder.encode(Frame::Payload(bytes), &mut wire)?;
            }
        }
        if wire.len() >= ENOUGH {
            records += decode(&mut decoder, &mut wire)?;
        }
    }
    encoder.encode(Frame::End(encoder.end()), &mut wire)?;
    records += decode(&mut decoder, &mut wire)?;
    // Behind END comes nothing: anything else is an error here.
    decoder.decode_eof(&mut wire)?;
    Ok(records)
}

/// What a payload is made of, in memory.
fn bytes(image: &dyn Disk, payload: &Payload) -> Result<Vec<Bytes>, Box<dyn Error>> {
    let mut all = Vec::new();
    for part in payload.parts() {
        all.push(match part {
            PayloadPart::Bytes(bytes) => bytes.clone(),
            PayloadPart::Range { depth, at, len } => {
                let mut bytes = vec![0; usize::try_from(*len)?];
                image.host(*depth).ok_or("a range of no file")?.read_at(*at, &mut bytes)?;
                bytes.into()
            }
        });
    }
    Ok(all)
}

/// Takes all that has come: gives how many records begin in it.
fn decode(decoder: &mut StreamDecoder, wire: &mut BytesMut) -> Result<u64, Box<dyn Error>> {
    let mut records = 0;
    while let Some(item) = decoder.decode(wire)? {
        records += u64::from(matches!(item, Frame::Record(Record::Data { .. } | Record::Hole { .. })));
    }
    Ok(records)
}
