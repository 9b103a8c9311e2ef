//! What a stream does to a disk, as a list: the receiver that all tests here hold the decoder to.

use std::ops::Range;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_proto::{
    Base, Dialect, Digest, Fingerprint, Frame, Record, StreamDecoder, StreamEncoder, StreamError, StreamErrorKind,
    StreamHeader,
};

/// What becomes of a part of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Data(Vec<u8>),
    Hole,
    Keep,
}

/// A stream that was accepted up to its END.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) open: Option<StreamHeader>,
    pub(crate) base: Option<Base>,
    pub(crate) parts: Vec<(Range<u64>, What)>,
    /// Every item, the payload of a record in one piece.
    pub(crate) items: Vec<Frame>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Received {
    /// The disk's size; in the 2014 dialect, where it ends.
    pub(crate) fn size(&self) -> u64 {
        self.open.map_or_else(|| self.parts.last().map_or(0, |(range, _)| range.end), |open| open.size)
    }

    /// What the target would be: the same for two streams that mean the same disk.
    pub(crate) fn disk(&self) -> (u64, &[(Range<u64>, What)]) {
        (self.size(), &self.parts)
    }
}

/// Receives the bytes in pieces of the lengths that `cut` gives. DATA is verified; FAIL is an error.
pub(crate) fn receive(bytes: &[u8], dialect: Dialect, mut cut: impl FnMut() -> usize) -> Result<Received, StreamError> {
    let mut decoder = StreamDecoder::new(dialect);
    let (mut received, mut src, mut rest) = (Received::default(), BytesMut::new(), bytes);
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(cut().clamp(1, rest.len()));
        src.extend_from_slice(piece);
        rest = tail;
        while let Some(item) = decoder.decode(&mut src)? {
            take(&mut received, &decoder, item)?;
        }
    }
    while let Some(item) = decoder.decode_eof(&mut src)? {
        take(&mut received, &decoder, item)?;
    }
    assert!(matches!(received.items.last(), Some(Frame::End(_))), "end of file was accepted without END");
    received.fingerprint = decoder.fingerprint();
    Ok(received)
}

fn take(received: &mut Received, decoder: &StreamDecoder, item: Frame) -> Result<(), StreamError> {
    let at = |len| decoder.at() - len..decoder.at();
    match item {
        Frame::Open(open) => received.open = Some(open),
        Frame::Base(base) => received.base = Some(base),
        Frame::Record(Record::Data { len, .. }) => received.parts.push((at(len), What::Data(Vec::new()))),
        Frame::Record(Record::Hole { len }) => received.parts.push((at(len), What::Hole)),
        Frame::Record(Record::Keep { len }) => received.parts.push((at(len), What::Keep)),
        Frame::Payload(ref piece) => return take_payload(received, decoder, piece),
        Frame::Fail(reason) => {
            let (record, offset) = decoder.place();
            return Err(StreamError::new(StreamErrorKind::Fail, record, offset, reason.to_string()));
        }
        Frame::Wait | Frame::End(_) => {}
    }
    received.items.push(item);
    Ok(())
}

fn take_payload(received: &mut Received, decoder: &StreamDecoder, piece: &[u8]) -> Result<(), StreamError> {
    assert!(!piece.is_empty(), "an empty piece of payload");
    let Some((_, What::Data(payload))) = received.parts.last_mut() else { panic!("payload without DATA") };
    payload.extend_from_slice(piece);
    if decoder.payload_left() > 0 {
        return Ok(());
    }
    let Some(Frame::Record(Record::Data { len, digest })) = received.items.last() else {
        panic!("payload without DATA")
    };
    assert_eq!(*len, payload.len() as u64, "a payload of another length than its DATA");
    if digest.is_some_and(|digest| digest != Digest::of(payload)) {
        let (record, offset) = decoder.place_last();
        return Err(StreamError::new(StreamErrorKind::Mismatch, record, offset, "payload"));
    }
    received.items.push(Frame::Payload(payload.clone().into()));
    Ok(())
}

/// The bytes of the items.
pub(crate) fn encode(items: &[Frame], dialect: Dialect) -> Result<Vec<u8>, StreamError> {
    let (mut encoder, mut dst) = (StreamEncoder::new(dialect), BytesMut::new());
    items.iter().try_for_each(|item| encoder.encode(item.clone(), &mut dst))?;
    Ok(dst.to_vec())
}

/// Lengths of pieces that look random and are the same each time.
pub(crate) fn ragged(mut seed: u64, longest: usize) -> impl FnMut() -> usize {
    move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(seed >> 40).unwrap() % longest + 1
    }
}
