//! Property tests of generated streams.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod coverage;
#[path = "../model/mod.rs"]
#[allow(dead_code, reason = "each test takes what it needs of the model")]
mod model;

use bytes::{Bytes, BytesMut};
use model::{encode, ragged, receive};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_proto::{
    Base, Dialect, Digest, FailReason, Frame, HashParams, LEN_MAX, Record, StreamDecoder, StreamEncoder, StreamError,
    StreamHeader, Trailer,
};

/// Failures are printed and not stored in a file. A failure worth keeping becomes a test vector.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// ---- whole streams

/// The input of a generated stream. It may break the rules; `frames` makes the nearest valid stream of it.
#[derive(Clone, Debug)]
struct StreamInput {
    hash_params: Option<HashParams>,
    /// Bytes that BASE extends beyond the last KEEP, and its digest. Without it each KEEP becomes a HOLE.
    base: Option<(u64, Option<Digest>)>,
    records: Vec<(LineKind, u64, u8)>,
    /// Bytes that the last record is shorter than a multiple of the grain.
    short: u64,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum LineKind {
    Data,
    Hole,
    Keep,
    Wait,
}

#[derive(Clone, Debug, PartialEq)]
enum Ending {
    End,
    EndTwice,
    Fail(String),
}

fn stream_inputs(
    hash_params: impl Strategy<Value = Option<HashParams>>,
    ending: impl Strategy<Value = Ending>,
) -> impl Strategy<Value = StreamInput> {
    let digest = proptest::option::of(any::<u8>().prop_map(|seed| Digest::of(&[seed])));
    let base = proptest::option::of((0..3_u64, digest));
    let kind = prop_oneof![4 => Just(LineKind::Data), 3 => Just(LineKind::Hole), 2 => Just(LineKind::Keep), 1 => Just(LineKind::Wait)];
    let records = prop::collection::vec((kind, 1..9_u64, any::<u8>()), 0..9);
    (hash_params, base, records, 0..511_u64, ending).prop_map(|(hash_params, base, records, short, ending)| {
        StreamInput { hash_params, base, records, short, ending }
    })
}

fn some_hash_params() -> impl Strategy<Value = Option<HashParams>> {
    prop_oneof![Just((4096, 512)), Just((4096, 1024)), Just((4096, 4096)), Just((8192, 2048))]
        .prop_map(|(interval, grain)| HashParams::new(interval, grain))
}

fn any_hash_params() -> impl Strategy<Value = Option<HashParams>> {
    prop_oneof![Just(None), some_hash_params()]
}

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![4 => Just(Ending::End), 1 => Just(Ending::EndTwice), 1 => "[ -~]{1,900}".prop_map(Ending::Fail)]
}

fn good_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![Just(Ending::End), Just(Ending::EndTwice)]
}

fn payload(len: u64, seed: u8) -> Vec<u8> {
    let words: &[&[u8]] = &[b"END\n", b"HOLE 4096\n", b"\0\0\0\0", b"DATA ", b"\xff\n", b"FAIL no\n", b"\r"];
    let bytes = words.iter().cycle().skip(usize::from(seed) % words.len()).copied().flatten();
    bytes.take(usize::try_from(len).unwrap()).map(|byte| byte ^ (seed & 1)).collect()
}

impl StreamInput {
    /// The valid stream nearest to this input. The payload of a record is one piece.
    fn frames(&self) -> Vec<Frame> {
        let mut middle = Vec::new();
        let (mut at, mut keep_end, mut lines, mut last) = (0_u64, 0, String::new(), None);
        let (interval, grain) = self.hash_params.map_or((1, 1), |params| (params.interval(), params.grain()));
        let count = self.records.iter().rposition(|(kind, ..)| *kind != LineKind::Wait).map_or(0, |last| last + 1);
        for (index, &(kind, blocks, seed)) in self.records.iter().enumerate() {
            if kind == LineKind::Wait {
                middle.push(Frame::Wait);
                continue;
            }
            let is_last = index + 1 == count;
            let in_form = |kind| match kind {
                LineKind::Data => self.hash_params.is_none() || last != Some(LineKind::Data) || at % interval == 0,
                LineKind::Hole => self.hash_params.is_none() || last != Some(LineKind::Hole),
                LineKind::Keep => {
                    self.base.is_some()
                        && (self.hash_params.is_none() || (last != Some(LineKind::Keep) && at % interval == 0))
                }
                LineKind::Wait => false,
            };
            let kind = [kind, LineKind::Hole, LineKind::Data].into_iter().find(|&kind| in_form(kind)).unwrap();
            let mut len = match kind {
                LineKind::Keep => blocks * interval.max(3),
                LineKind::Data if self.hash_params.is_some() => (blocks * grain).min(interval - at % interval),
                _ => blocks * grain.max(3),
            };
            if is_last && len > self.short {
                len -= self.short;
            }
            let record = match kind {
                LineKind::Data => {
                    let payload = payload(len, seed);
                    let digest = self.hash_params.map(|_| Digest::of(&payload));
                    middle.push(Frame::Record(Record::Data { len, digest }));
                    middle.push(Frame::Payload(payload.into()));
                    Record::Data { len, digest }
                }
                LineKind::Hole => Record::Hole { len },
                _ => Record::Keep { len },
            };
            if kind != LineKind::Data {
                middle.push(Frame::Record(record));
            }
            at += len;
            keep_end = if kind == LineKind::Keep { at } else { keep_end };
            lines += &text(&Frame::Record(record));
            last = Some(kind);
        }
        let mut frames = vec![Frame::Open(StreamHeader { size: at, sums: self.hash_params })];
        frames.extend(self.base.map(|(beyond, digest)| Frame::Base(Base { size: keep_end + beyond, digest })));
        frames.append(&mut middle);
        let lines = self.hash_params.map(|_| Digest::of(lines.as_bytes()));
        frames.push(match &self.ending {
            Ending::Fail(text) => Frame::Fail(FailReason::new(text)),
            Ending::EndTwice if keep_end == 0 => Frame::End(Trailer { lines, result: lines }),
            Ending::End | Ending::EndTwice => Frame::End(Trailer { lines, result: None }),
        });
        frames
    }

    fn bytes(&self) -> Vec<u8> {
        encode(&self.frames(), Dialect::V1).unwrap()
    }
}

/// The line's text, written independently of the crate.
fn text(frame: &Frame) -> String {
    let digest = |it: &Option<Digest>| it.map_or(String::new(), |it| format!(" {it}"));
    match frame {
        Frame::Open(StreamHeader { size, sums: None }) => format!("XFER-HOLE 1 {size}\n"),
        Frame::Open(StreamHeader { size, sums: Some(params) }) => {
            format!("XFER-HOLE 1 {size} sha256 {} {}\n", params.interval(), params.grain())
        }
        Frame::Base(base) => format!("BASE {}{}\n", base.size, digest(&base.digest)),
        Frame::Record(Record::Data { len, digest: it }) => format!("DATA {len}{}\n", digest(it)),
        Frame::Record(Record::Hole { len }) => format!("HOLE {len}\n"),
        Frame::Record(Record::Keep { len }) => format!("KEEP {len}\n"),
        Frame::Wait => "WAIT\n".into(),
        Frame::End(Trailer { lines, result }) => format!("END{}{}\n", digest(lines), digest(result)),
        Frame::Fail(reason) => format!("FAIL {reason}\n"),
        Frame::Payload(_) => panic!("a payload is no text"),
    }
}

/// All frames of the bytes, which are split by `cut`. The pieces of a payload are joined.
fn decode(bytes: &[u8], dialect: Dialect, mut cut: impl FnMut() -> usize) -> Result<Vec<Frame>, StreamError> {
    let (mut decoder, mut src, mut frames, mut rest) =
        (StreamDecoder::new(dialect), BytesMut::new(), Vec::new(), bytes);
    loop {
        let (piece, tail) = rest.split_at(cut().min(rest.len()));
        src.extend_from_slice(piece);
        rest = tail;
        let last = rest.is_empty();
        while let Some(frame) = if last { decoder.decode_eof(&mut src)? } else { decoder.decode(&mut src)? } {
            match (frames.last_mut(), frame) {
                (Some(Frame::Payload(all)), Frame::Payload(piece)) => *all = [&all[..], &piece[..]].concat().into(),
                (_, frame) => frames.push(frame),
            }
        }
        if last {
            return Ok(frames);
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn decoding_inverts_encoding_for_any_split_of_bytes(
        input in stream_inputs(any_hash_params(), any_ending()), seed: u64, longest in 1..5000_usize,
    ) {
        let frames = input.frames();
        let bytes = encode(&frames, Dialect::V1).unwrap();
        prop_assert_eq!(&decode(&bytes, Dialect::V1, || 1).unwrap(), &frames);
        prop_assert_eq!(&decode(&bytes, Dialect::V1, ragged(seed, longest)).unwrap(), &frames);
    }

    #[test]
    fn encoder_writes_the_text_of_the_grammar(input in stream_inputs(any_hash_params(), any_ending())) {
        let mut bytes = Vec::new();
        for frame in input.frames() {
            match frame {
                Frame::Payload(piece) => bytes.extend_from_slice(&piece),
                line => bytes.extend_from_slice(text(&line).as_bytes()),
            }
        }
        prop_assert_eq!(bytes, input.bytes());
    }

    #[test]
    fn classic_decoding_inverts_encoding(
        records in prop::collection::vec((any::<bool>(), 1..3000_u64, any::<u8>()), 1..9), seed: u64,
    ) {
        let mut frames = Vec::new();
        for (data, len, seed) in records {
            frames.push(Frame::Record(if data { Record::Data { len, digest: None } } else { Record::Hole { len } }));
            frames.extend(data.then(|| Frame::Payload(payload(len, seed).into())));
        }
        frames.push(Frame::End(Trailer::default()));
        let bytes = encode(&frames, Dialect::Classic).unwrap();
        prop_assert_eq!(decode(&bytes, Dialect::Classic, ragged(seed, 300)).unwrap(), frames);
    }
}

#[test]
fn empty_classic_stream_is_refused_at_both_ends() {
    assert!(encode(&[Frame::End(Trailer::default())], Dialect::Classic).is_err());
    assert!(decode(b"", Dialect::Classic, || 1).is_err());
    // Found by fuzzing: no frame may follow this error either.
    let (mut decoder, mut src) = (StreamDecoder::new(Dialect::Classic), BytesMut::new());
    assert!(decoder.decode_eof(&mut src).is_err());
    src.extend_from_slice(b"HOLE\n1\n");
    assert_eq!(decoder.decode_eof(&mut src).unwrap(), None);
}

// ---- a link that damages or cuts the stream

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn stream_cut_at_any_byte_is_refused(input in stream_inputs(any_hash_params(), any_ending())) {
        let bytes = input.bytes();
        let (mut decoder, mut src) = (StreamDecoder::new(Dialect::V1), BytesMut::new());
        for (at, &byte) in bytes.iter().enumerate() {
            let (mut cut, mut held) = (decoder.clone(), src.clone());
            let verdict = cut.decode_eof(&mut held);
            prop_assert!(verdict.is_err(), "cut before byte {} of {}: {:?}", at, bytes.len(), verdict);
            src.extend_from_slice(&[byte]);
            while let Some(frame) = decoder.decode(&mut src).unwrap() {
                let last = matches!(frame, Frame::End(_) | Frame::Fail(_));
                prop_assert!(!last || at + 1 == bytes.len(), "{:?} at byte {}", frame, at);
            }
        }
    }

    #[test]
    fn flipped_bit_never_yields_another_disk(
        input in stream_inputs(some_hash_params(), good_ending()), flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8), 200),
    ) {
        let bytes = input.bytes();
        let whole = receive(&bytes, Dialect::V1, || usize::MAX).unwrap();
        for (index, bit) in flips {
            let mut flipped = bytes.clone();
            flipped[index.index(bytes.len())] ^= 1_u8 << bit;
            if let Ok(received) = receive(&flipped, Dialect::V1, || usize::MAX) {
                prop_assert_eq!(received.disk(), whole.disk());
                prop_assert_eq!(received.fingerprint, whole.fingerprint);
            }
        }
    }

    #[test]
    fn flipped_bit_in_any_line_never_yields_another_disk(
        input in stream_inputs(some_hash_params(), good_ending()),
    ) {
        let frames = input.frames();
        let bytes = encode(&frames, Dialect::V1).unwrap();
        let whole = receive(&bytes, Dialect::V1, || usize::MAX).unwrap();
        let mut at = 0;
        for frame in &frames {
            let len = if let Frame::Payload(piece) = frame { piece.len() } else { text(frame).len() };
            // Another test covers payload. Of long lines, which are mostly digests, only some bits are flipped.
            let step = if text_len_is_short(frame) { 1 } else { 13 };
            for bit in (0..if matches!(frame, Frame::Payload(_)) { 0 } else { 8 * len }).step_by(step) {
                let mut flipped = bytes.clone();
                flipped[at + bit / 8] ^= 1_u8 << (bit % 8);
                if let Ok(received) = receive(&flipped, Dialect::V1, || usize::MAX) {
                    prop_assert_eq!(received.disk(), whole.disk());
                }
            }
            at += len;
        }
    }
}

fn text_len_is_short(frame: &Frame) -> bool {
    !matches!(frame, Frame::Payload(_)) && text(frame).len() < 40
}

// ---- encoder and decoder refuse the same frames

/// Random frames, most of which are allowed at their position.
fn any_frame() -> impl Strategy<Value = Frame> {
    let len = || prop_oneof![8 => 0..6_u64, 4 => Just(512), 4 => Just(4096), 1 => Just(LEN_MAX), 1 => Just(u64::MAX)];
    let digest = || proptest::option::of(any::<bool>().prop_map(|one| Digest::of(&[u8::from(one)])));
    let end =
        (digest(), digest()).prop_filter("no line says this", |(lines, result)| lines.is_some() || result.is_none());
    prop_oneof![
        1 => (len(), any_hash_params()).prop_map(|(size, hash_params)| Frame::Open(StreamHeader { size, sums: hash_params })),
        1 => (len(), digest()).prop_map(|(size, digest)| Frame::Base(Base { size, digest })),
        3 => (len(), digest()).prop_map(|(len, digest)| Frame::Record(Record::Data { len, digest })),
        3 => len().prop_map(|len| Frame::Record(Record::Hole { len })),
        3 => len().prop_map(|len| Frame::Record(Record::Keep { len })),
        1 => Just(Frame::Wait),
        // Ends in LF, so that the remaining bytes are a whole line.
        3 => (0..6_usize).prop_map(|len| Frame::Payload([vec![0xff; len], vec![b'\n']].concat().into())),
        2 => end.prop_map(|(lines, result)| Frame::End(Trailer { lines, result })),
        1 => "[ -~]{1,20}".prop_map(|text| Frame::Fail(FailReason::new(&text))),
    ]
}

/// A stream's beginning, which is valid in most cases, and random frames after it.
fn any_frames() -> impl Strategy<Value = Vec<Frame>> {
    let size = prop_oneof![0..12_u64, Just(512), Just(4096), Just(4608), Just(LEN_MAX)];
    let opening =
        (size, any_hash_params(), proptest::option::of(0..10000_u64)).prop_map(|(size, hash_params, base)| {
            let base = base.map(|size| Frame::Base(Base { size, digest: None }));
            std::iter::once(Frame::Open(StreamHeader { size, sums: hash_params })).chain(base).collect::<Vec<_>>()
        });
    let rest = prop::collection::vec(any_frame(), 0..16);
    (prop_oneof![1 => Just(Vec::new()), 9 => opening], rest).prop_map(|(opening, rest)| [opening, rest].concat())
}

/// Decodes without end of file.
fn decode_open_end(bytes: &[u8]) -> Result<Vec<Frame>, StreamError> {
    let (mut decoder, mut src, mut frames) = (StreamDecoder::new(Dialect::V1), BytesMut::from(bytes), Vec::new());
    while let Some(frame) = decoder.decode(&mut src)? {
        frames.push(frame);
    }
    assert!(src.is_empty(), "a line was left in the dark");
    Ok(frames)
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn encoder_and_decoder_refuse_the_same_frames(frames in any_frames()) {
        let (mut encoder, mut accepted) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
        for mut frame in frames {
            let due = encoder.payload_left() > 0;
            if let Frame::End(end) = &mut frame
                && end.lines == Some(Digest::of(&[1]))
            {
                // The correct digest, which random generation would never produce.
                end.lines = encoder.end().lines.or(end.lines);
            }
            let by_hand = match &frame {
                Frame::Payload(piece) => piece.to_vec(),
                line => text(line).into_bytes(),
            };
            let before = accepted.clone();
            let verdict = encoder.encode(frame.clone(), &mut accepted);
            let decoded = decode_open_end(&[&before[..], &by_hand[..]].concat());
            match verdict {
                Ok(()) => {
                    prop_assert_eq!(&accepted[before.len()..], &by_hand[..]);
                    let decoded = decoded.unwrap();
                    match (decoded.last(), &frame) {
                        (Some(Frame::Payload(all)), Frame::Payload(piece)) => prop_assert!(all.ends_with(piece)),
                        (last, frame) => prop_assert_eq!(last, Some(frame)),
                    }
                }
                Err(_) if due && !matches!(frame, Frame::Payload(_)) => {
                    // Where payload is due, the decoder reads the text of a line as payload, so it can't refuse the
                    // line.
                    prop_assert_eq!(&accepted, &before);
                    prop_assert!(decoded.map_or(true, |frames| frames.last() != Some(&frame)));
                }
                Err(error) => {
                    prop_assert_eq!(&accepted, &before, "a refused frame was written");
                    prop_assert!(decoded.is_err(), "{} but decoded {:?}", error, decoded);
                }
            }
            if matches!(frame, Frame::Fail(_)) {
                break;
            }
        }
    }
}

#[test]
fn nothing_is_written_after_fail() {
    let mut encoder = StreamEncoder::new(Dialect::V1);
    let mut dst = BytesMut::new();
    encoder.encode(Frame::Open(StreamHeader { size: 1, sums: None }), &mut dst).unwrap();
    encoder.encode(Frame::Fail(FailReason::new("no")), &mut dst).unwrap();
    let written = dst.clone();
    let others = [Frame::Wait, Frame::Record(Record::Hole { len: 1 }), Frame::End(Trailer::default())];
    for frame in
        others.into_iter().chain([Frame::Fail(FailReason::new("again")), Frame::Payload(Bytes::from_static(b"x"))])
    {
        assert!(encoder.encode(frame, &mut dst).is_err());
    }
    assert_eq!(dst, written);
}

#[test]
fn decoder_returns_nothing_after_an_error() {
    let tails: [&[u8]; 3] = [b"HOLE 4096\nEND\n", b"END\n", b"XFER-HOLE 1 0\nEND\n"];
    for head in [&b"?"[..], b"XFER-HOLE 2 4096\n", b"XFER-HOLE 1 4096\nKEEP 4096\n", b"XFER-HOLE 1 0\nEND\nEND\n"] {
        for tail in tails {
            let (mut decoder, mut src) = (StreamDecoder::new(Dialect::V1), BytesMut::from(head));
            while decoder.decode(&mut src).is_ok_and(|frame| frame.is_some()) {}
            src.extend_from_slice(tail);
            assert!(matches!(decoder.decode(&mut src), Ok(None)));
            assert!(matches!(decoder.decode_eof(&mut src), Ok(None)));
            assert!(src.is_empty());
        }
    }
}

#[test]
fn end_with_only_the_result_digest_is_refused() {
    let params = HashParams::new(4096, 4096);
    for hash_params in [None, params] {
        let mut encoder = StreamEncoder::new(Dialect::V1);
        let mut dst = BytesMut::new();
        encoder.encode(Frame::Open(StreamHeader { size: 0, sums: hash_params }), &mut dst).unwrap();
        let end = Trailer { lines: None, result: Some(Digest::of(b"")) };
        assert!(encoder.encode(Frame::End(end), &mut dst).is_err());
    }
}

#[test]
fn classic_dialect_has_only_data_and_hole() {
    let digest = Some(Digest::of(b""));
    for frame in [
        Frame::Open(StreamHeader { size: 0, sums: None }),
        Frame::Base(Base { size: 0, digest: None }),
        Frame::Record(Record::Keep { len: 1 }),
        Frame::Record(Record::Data { len: 1, digest }),
        Frame::Wait,
        Frame::Fail(FailReason::new("no")),
        Frame::End(Trailer { lines: digest, result: None }),
        Frame::Payload(Bytes::from_static(b"x")),
    ] {
        assert!(encode(std::slice::from_ref(&frame), Dialect::Classic).is_err(), "{frame:?}");
    }
}

#[test]
fn line_buffer_is_bounded() {
    for opening in [&b""[..], b"XFER-HOLE 1 5\n"] {
        let (mut decoder, mut src) = (StreamDecoder::new(Dialect::V1), BytesMut::from(opening));
        if !opening.is_empty() {
            decoder.decode(&mut src).unwrap();
        }
        let refused = (0..2000).position(|at| {
            let line = b"XFER-HOLE 1 ";
            src.extend_from_slice(&[*line.get(at).unwrap_or(&b'1')]);
            decoder.decode(&mut src).is_err()
        });
        assert_eq!(refused, Some(255));
    }
}
