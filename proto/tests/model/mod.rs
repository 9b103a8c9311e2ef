//! A model of a receiver: collects the effects of a stream on a disk as a list. The tests compare the decoder with it.

use std::ops::Range;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_proto::{
    Base, Dialect, Digest, Fingerprint, Frame, Record, StreamDecoder, StreamEncoder, StreamError, StreamErrorKind,
    StreamHeader,
};

/// The effect of a stream on a part of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Data(Vec<u8>),
    Hole,
    Keep,
}

/// A stream that was accepted up to its END.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) open: Option<StreamHeader>,
    pub(crate) base: Option<Base>,
    pub(crate) parts: Vec<(Range<u64>, Content)>,
    /// Every frame, the payload of a record in one piece.
    pub(crate) frames: Vec<Frame>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Received {
    /// The disk's size in bytes. In the 2014 dialect it is the end of the last record.
    pub(crate) fn size(&self) -> u64 {
        self.open.map_or_else(|| self.parts.last().map_or(0, |(range, _)| range.end), |open| open.size)
    }

    /// The size and the parts of the result. They are equal for two streams of the same disk.
    pub(crate) fn disk(&self) -> (u64, &[(Range<u64>, Content)]) {
        (self.size(), &self.parts)
    }
}

/// Receives the bytes in pieces of the lengths that `cut` returns. Verifies DATA; FAIL is an error.
pub(crate) fn receive(bytes: &[u8], dialect: Dialect, mut cut: impl FnMut() -> usize) -> Result<Received, StreamError> {
    let mut decoder = StreamDecoder::new(dialect);
    let (mut received, mut src, mut rest) = (Received::default(), BytesMut::new(), bytes);
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(cut().clamp(1, rest.len()));
        src.extend_from_slice(piece);
        rest = tail;
        while let Some(frame) = decoder.decode(&mut src)? {
            take(&mut received, &decoder, frame)?;
        }
    }
    while let Some(frame) = decoder.decode_eof(&mut src)? {
        take(&mut received, &decoder, frame)?;
    }
    assert!(matches!(received.frames.last(), Some(Frame::End(_))), "end of file was accepted without END");
    received.fingerprint = decoder.fingerprint();
    Ok(received)
}

fn take(received: &mut Received, decoder: &StreamDecoder, frame: Frame) -> Result<(), StreamError> {
    let at = |len| decoder.at() - len..decoder.at();
    match frame {
        Frame::Open(open) => received.open = Some(open),
        Frame::Base(base) => received.base = Some(base),
        Frame::Record(Record::Data { len, .. }) => received.parts.push((at(len), Content::Data(Vec::new()))),
        Frame::Record(Record::Hole { len }) => received.parts.push((at(len), Content::Hole)),
        Frame::Record(Record::Keep { len }) => received.parts.push((at(len), Content::Keep)),
        Frame::Payload(ref piece) => return take_payload(received, decoder, piece),
        Frame::Fail(reason) => {
            let (record, offset) = decoder.place();
            return Err(StreamError::new(StreamErrorKind::Fail, record, offset, reason.to_string()));
        }
        Frame::Wait | Frame::End(_) => {}
    }
    received.frames.push(frame);
    Ok(())
}

fn take_payload(received: &mut Received, decoder: &StreamDecoder, piece: &[u8]) -> Result<(), StreamError> {
    assert!(!piece.is_empty(), "an empty piece of payload");
    let Some((_, Content::Data(payload))) = received.parts.last_mut() else { panic!("payload without DATA") };
    payload.extend_from_slice(piece);
    if decoder.payload_left() > 0 {
        return Ok(());
    }
    let Some(Frame::Record(Record::Data { len, digest })) = received.frames.last() else {
        panic!("payload without DATA")
    };
    assert_eq!(*len, payload.len() as u64, "a payload of another length than its DATA");
    if digest.is_some_and(|digest| digest != Digest::of(payload)) {
        let (record, offset) = decoder.place_last();
        return Err(StreamError::new(StreamErrorKind::Mismatch, record, offset, "payload"));
    }
    received.frames.push(Frame::Payload(payload.clone().into()));
    Ok(())
}

/// The bytes of the frames.
pub(crate) fn encode(frames: &[Frame], dialect: Dialect) -> Result<Vec<u8>, StreamError> {
    let (mut encoder, mut dst) = (StreamEncoder::new(dialect), BytesMut::new());
    frames.iter().try_for_each(|frame| encoder.encode(frame.clone(), &mut dst))?;
    Ok(dst.to_vec())
}

/// Pseudo-random lengths of pieces, the same in each run.
pub(crate) fn ragged(mut seed: u64, longest: usize) -> impl FnMut() -> usize {
    move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(seed >> 40).unwrap() % longest + 1
    }
}
