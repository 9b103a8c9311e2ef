//! What holds for every stream, tried on generated ones.

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

/// Failures are printed, not kept in a file: one worth keeping becomes a vector.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// ---- whole streams

/// What a generated stream is made from: wishes, which are bent until they are lawful.
#[derive(Clone, Debug)]
struct Wishes {
    sums: Option<HashParams>,
    /// Bytes that BASE has beyond the last KEEP, and its digest; without it KEEP becomes HOLE.
    base: Option<(u64, Option<Digest>)>,
    records: Vec<(Wish, u64, u8)>,
    /// Bytes that the last record lacks to a whole grain.
    short: u64,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wish {
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

fn wishes(
    sums: impl Strategy<Value = Option<HashParams>>,
    ending: impl Strategy<Value = Ending>,
) -> impl Strategy<Value = Wishes> {
    let digest = proptest::option::of(any::<u8>().prop_map(|seed| Digest::of(&[seed])));
    let base = proptest::option::of((0..3_u64, digest));
    let wish = prop_oneof![4 => Just(Wish::Data), 3 => Just(Wish::Hole), 2 => Just(Wish::Keep), 1 => Just(Wish::Wait)];
    let records = prop::collection::vec((wish, 1..9_u64, any::<u8>()), 0..9);
    (sums, base, records, 0..511_u64, ending).prop_map(|(sums, base, records, short, ending)| Wishes {
        sums,
        base,
        records,
        short,
        ending,
    })
}

fn some_sums() -> impl Strategy<Value = Option<HashParams>> {
    prop_oneof![Just((4096, 512)), Just((4096, 1024)), Just((4096, 4096)), Just((8192, 2048))]
        .prop_map(|(interval, grain)| HashParams::new(interval, grain))
}

fn any_sums() -> impl Strategy<Value = Option<HashParams>> {
    prop_oneof![Just(None), some_sums()]
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

impl Wishes {
    /// The lawful stream nearest to the wishes; the payload of a record is one piece.
    fn items(&self) -> Vec<Frame> {
        let mut middle = Vec::new();
        let (mut at, mut keep_end, mut lines, mut last) = (0_u64, 0, String::new(), None);
        let (interval, grain) = self.sums.map_or((1, 1), |sums| (sums.interval(), sums.grain()));
        let count = self.records.iter().rposition(|(wish, ..)| *wish != Wish::Wait).map_or(0, |last| last + 1);
        for (index, &(wish, blocks, seed)) in self.records.iter().enumerate() {
            if wish == Wish::Wait {
                middle.push(Frame::Wait);
                continue;
            }
            let is_last = index + 1 == count;
            let in_form = |wish| match wish {
                Wish::Data => self.sums.is_none() || last != Some(Wish::Data) || at % interval == 0,
                Wish::Hole => self.sums.is_none() || last != Some(Wish::Hole),
                Wish::Keep => {
                    self.base.is_some() && (self.sums.is_none() || (last != Some(Wish::Keep) && at % interval == 0))
                }
                Wish::Wait => false,
            };
            let wish = [wish, Wish::Hole, Wish::Data].into_iter().find(|&wish| in_form(wish)).unwrap();
            let mut len = match wish {
                Wish::Keep => blocks * interval.max(3),
                Wish::Data if self.sums.is_some() => (blocks * grain).min(interval - at % interval),
                _ => blocks * grain.max(3),
            };
            if is_last && len > self.short {
                len -= self.short;
            }
            let record = match wish {
                Wish::Data => {
                    let payload = payload(len, seed);
                    let digest = self.sums.map(|_| Digest::of(&payload));
                    middle.push(Frame::Record(Record::Data { len, digest }));
                    middle.push(Frame::Payload(payload.into()));
                    Record::Data { len, digest }
                }
                Wish::Hole => Record::Hole { len },
                _ => Record::Keep { len },
            };
            if wish != Wish::Data {
                middle.push(Frame::Record(record));
            }
            at += len;
            keep_end = if wish == Wish::Keep { at } else { keep_end };
            lines += &text(&Frame::Record(record));
            last = Some(wish);
        }
        let mut items = vec![Frame::Open(StreamHeader { size: at, sums: self.sums })];
        items.extend(self.base.map(|(beyond, digest)| Frame::Base(Base { size: keep_end + beyond, digest })));
        items.append(&mut middle);
        let lines = self.sums.map(|_| Digest::of(lines.as_bytes()));
        items.push(match &self.ending {
            Ending::Fail(text) => Frame::Fail(FailReason::new(text)),
            Ending::EndTwice if keep_end == 0 => Frame::End(Trailer { lines, result: lines }),
            Ending::End | Ending::EndTwice => Frame::End(Trailer { lines, result: None }),
        });
        items
    }

    fn bytes(&self) -> Vec<u8> {
        encode(&self.items(), Dialect::V1).unwrap()
    }
}

/// The line's text, written without the crate.
fn text(item: &Frame) -> String {
    let digest = |it: &Option<Digest>| it.map_or(String::new(), |it| format!(" {it}"));
    match item {
        Frame::Open(StreamHeader { size, sums: None }) => format!("XFER-HOLE 1 {size}\n"),
        Frame::Open(StreamHeader { size, sums: Some(sums) }) => {
            format!("XFER-HOLE 1 {size} sha256 {} {}\n", sums.interval(), sums.grain())
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

/// All items of the bytes, cut anyhow, the pieces of a payload joined.
fn decode(bytes: &[u8], dialect: Dialect, mut cut: impl FnMut() -> usize) -> Result<Vec<Frame>, StreamError> {
    let (mut decoder, mut src, mut items, mut rest) = (StreamDecoder::new(dialect), BytesMut::new(), Vec::new(), bytes);
    loop {
        let (piece, tail) = rest.split_at(cut().min(rest.len()));
        src.extend_from_slice(piece);
        rest = tail;
        let last = rest.is_empty();
        while let Some(item) = if last { decoder.decode_eof(&mut src)? } else { decoder.decode(&mut src)? } {
            match (items.last_mut(), item) {
                (Some(Frame::Payload(all)), Frame::Payload(piece)) => *all = [&all[..], &piece[..]].concat().into(),
                (_, item) => items.push(item),
            }
        }
        if last {
            return Ok(items);
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn decoding_gives_the_items_that_were_encoded_however_the_bytes_are_cut(
        wishes in wishes(any_sums(), any_ending()), seed: u64, longest in 1..5000_usize,
    ) {
        let items = wishes.items();
        let bytes = encode(&items, Dialect::V1).unwrap();
        prop_assert_eq!(&decode(&bytes, Dialect::V1, || 1).unwrap(), &items);
        prop_assert_eq!(&decode(&bytes, Dialect::V1, ragged(seed, longest)).unwrap(), &items);
    }

    #[test]
    fn the_encoder_writes_the_text_of_the_grammar(wishes in wishes(any_sums(), any_ending())) {
        let mut bytes = Vec::new();
        for item in wishes.items() {
            match item {
                Frame::Payload(piece) => bytes.extend_from_slice(&piece),
                line => bytes.extend_from_slice(text(&line).as_bytes()),
            }
        }
        prop_assert_eq!(bytes, wishes.bytes());
    }

    #[test]
    fn classic_decoding_gives_the_items_that_were_encoded(
        records in prop::collection::vec((any::<bool>(), 1..3000_u64, any::<u8>()), 1..9), seed: u64,
    ) {
        let mut items = Vec::new();
        for (data, len, seed) in records {
            items.push(Frame::Record(if data { Record::Data { len, digest: None } } else { Record::Hole { len } }));
            items.extend(data.then(|| Frame::Payload(payload(len, seed).into())));
        }
        items.push(Frame::End(Trailer::default()));
        let bytes = encode(&items, Dialect::Classic).unwrap();
        prop_assert_eq!(decode(&bytes, Dialect::Classic, ragged(seed, 300)).unwrap(), items);
    }
}

#[test]
fn a_classic_stream_of_no_bytes_is_refused_at_both_ends() {
    assert!(encode(&[Frame::End(Trailer::default())], Dialect::Classic).is_err());
    assert!(decode(b"", Dialect::Classic, || 1).is_err());
    // Found by fuzzing: nothing more may come behind that error either.
    let (mut decoder, mut src) = (StreamDecoder::new(Dialect::Classic), BytesMut::new());
    assert!(decoder.decode_eof(&mut src).is_err());
    src.extend_from_slice(b"HOLE\n1\n");
    assert_eq!(decoder.decode_eof(&mut src).unwrap(), None);
}

// ---- a link that breaks or errs

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_stream_cut_at_any_byte_is_an_error(wishes in wishes(any_sums(), any_ending())) {
        let bytes = wishes.bytes();
        let (mut decoder, mut src) = (StreamDecoder::new(Dialect::V1), BytesMut::new());
        for (at, &byte) in bytes.iter().enumerate() {
            let (mut cut, mut held) = (decoder.clone(), src.clone());
            let verdict = cut.decode_eof(&mut held);
            prop_assert!(verdict.is_err(), "cut before byte {} of {}: {:?}", at, bytes.len(), verdict);
            src.extend_from_slice(&[byte]);
            while let Some(item) = decoder.decode(&mut src).unwrap() {
                let last = matches!(item, Frame::End(_) | Frame::Fail(_));
                prop_assert!(!last || at + 1 == bytes.len(), "{:?} at byte {}", item, at);
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_stream_with_digests_is_never_taken_for_another_disk(
        wishes in wishes(some_sums(), good_ending()), flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8), 200),
    ) {
        let bytes = wishes.bytes();
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
    fn a_flipped_bit_in_any_line_of_a_stream_with_digests_is_never_taken_for_another_disk(
        wishes in wishes(some_sums(), good_ending()),
    ) {
        let items = wishes.items();
        let bytes = encode(&items, Dialect::V1).unwrap();
        let whole = receive(&bytes, Dialect::V1, || usize::MAX).unwrap();
        let mut at = 0;
        for item in &items {
            let len = if let Frame::Payload(piece) = item { piece.len() } else { text(item).len() };
            // Payload is the other law's; of long lines, which are digests mostly, some bits will do.
            let step = if text_len_is_short(item) { 1 } else { 13 };
            for bit in (0..if matches!(item, Frame::Payload(_)) { 0 } else { 8 * len }).step_by(step) {
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

fn text_len_is_short(item: &Frame) -> bool {
    !matches!(item, Frame::Payload(_)) && text(item).len() < 40
}

// ---- both ends refuse the same

/// Items at random, biased so that many are in their place.
fn any_item() -> impl Strategy<Value = Frame> {
    let len = || prop_oneof![8 => 0..6_u64, 4 => Just(512), 4 => Just(4096), 1 => Just(LEN_MAX), 1 => Just(u64::MAX)];
    let digest = || proptest::option::of(any::<bool>().prop_map(|one| Digest::of(&[u8::from(one)])));
    let end =
        (digest(), digest()).prop_filter("no line says this", |(lines, result)| lines.is_some() || result.is_none());
    prop_oneof![
        1 => (len(), any_sums()).prop_map(|(size, sums)| Frame::Open(StreamHeader { size, sums })),
        1 => (len(), digest()).prop_map(|(size, digest)| Frame::Base(Base { size, digest })),
        3 => (len(), digest()).prop_map(|(len, digest)| Frame::Record(Record::Data { len, digest })),
        3 => len().prop_map(|len| Frame::Record(Record::Hole { len })),
        3 => len().prop_map(|len| Frame::Record(Record::Keep { len })),
        1 => Just(Frame::Wait),
        // Ends in LF, so that what is left over is a whole line.
        3 => (0..6_usize).prop_map(|len| Frame::Payload([vec![0xff; len], vec![b'\n']].concat().into())),
        2 => end.prop_map(|(lines, result)| Frame::End(Trailer { lines, result })),
        1 => "[ -~]{1,20}".prop_map(|text| Frame::Fail(FailReason::new(&text))),
    ]
}

/// An opening that fits, mostly, and what may come behind it.
fn any_items() -> impl Strategy<Value = Vec<Frame>> {
    let size = prop_oneof![0..12_u64, Just(512), Just(4096), Just(4608), Just(LEN_MAX)];
    let opening = (size, any_sums(), proptest::option::of(0..10000_u64)).prop_map(|(size, sums, base)| {
        let base = base.map(|size| Frame::Base(Base { size, digest: None }));
        std::iter::once(Frame::Open(StreamHeader { size, sums })).chain(base).collect::<Vec<_>>()
    });
    let rest = prop::collection::vec(any_item(), 0..16);
    (prop_oneof![1 => Just(Vec::new()), 9 => opening], rest).prop_map(|(opening, rest)| [opening, rest].concat())
}

/// Decodes without end of file.
fn decode_open_end(bytes: &[u8]) -> Result<Vec<Frame>, StreamError> {
    let (mut decoder, mut src, mut items) = (StreamDecoder::new(Dialect::V1), BytesMut::from(bytes), Vec::new());
    while let Some(item) = decoder.decode(&mut src)? {
        items.push(item);
    }
    assert!(src.is_empty(), "a line was left in the dark");
    Ok(items)
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn the_encoder_refuses_exactly_what_the_decoder_refuses(items in any_items()) {
        let (mut encoder, mut accepted) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
        for mut item in items {
            let due = encoder.payload_left() > 0;
            if let Frame::End(end) = &mut item
                && end.lines == Some(Digest::of(&[1]))
            {
                // A right digest, where chance would never find it.
                end.lines = encoder.end().lines.or(end.lines);
            }
            let by_hand = match &item {
                Frame::Payload(piece) => piece.to_vec(),
                line => text(line).into_bytes(),
            };
            let before = accepted.clone();
            let verdict = encoder.encode(item.clone(), &mut accepted);
            let decoded = decode_open_end(&[&before[..], &by_hand[..]].concat());
            match verdict {
                Ok(()) => {
                    prop_assert_eq!(&accepted[before.len()..], &by_hand[..]);
                    let decoded = decoded.unwrap();
                    match (decoded.last(), &item) {
                        (Some(Frame::Payload(all)), Frame::Payload(piece)) => prop_assert!(all.ends_with(piece)),
                        (last, item) => prop_assert_eq!(last, Some(item)),
                    }
                }
                Err(_) if due && !matches!(item, Frame::Payload(_)) => {
                    // Where payload is due, the text of a line would be payload: the reader can't refuse it as a line.
                    prop_assert_eq!(&accepted, &before);
                    prop_assert!(decoded.map_or(true, |items| items.last() != Some(&item)));
                }
                Err(error) => {
                    prop_assert_eq!(&accepted, &before, "a refused item was written");
                    prop_assert!(decoded.is_err(), "{} but decoded {:?}", error, decoded);
                }
            }
            if matches!(item, Frame::Fail(_)) {
                break;
            }
        }
    }
}

#[test]
fn nothing_is_written_behind_fail() {
    let mut encoder = StreamEncoder::new(Dialect::V1);
    let mut dst = BytesMut::new();
    encoder.encode(Frame::Open(StreamHeader { size: 1, sums: None }), &mut dst).unwrap();
    encoder.encode(Frame::Fail(FailReason::new("no")), &mut dst).unwrap();
    let written = dst.clone();
    let others = [Frame::Wait, Frame::Record(Record::Hole { len: 1 }), Frame::End(Trailer::default())];
    for item in
        others.into_iter().chain([Frame::Fail(FailReason::new("again")), Frame::Payload(Bytes::from_static(b"x"))])
    {
        assert!(encoder.encode(item, &mut dst).is_err());
    }
    assert_eq!(dst, written);
}

#[test]
fn after_an_error_nothing_more_comes() {
    let tails: [&[u8]; 3] = [b"HOLE 4096\nEND\n", b"END\n", b"XFER-HOLE 1 0\nEND\n"];
    for head in [&b"?"[..], b"XFER-HOLE 2 4096\n", b"XFER-HOLE 1 4096\nKEEP 4096\n", b"XFER-HOLE 1 0\nEND\nEND\n"] {
        for tail in tails {
            let (mut decoder, mut src) = (StreamDecoder::new(Dialect::V1), BytesMut::from(head));
            while decoder.decode(&mut src).is_ok_and(|item| item.is_some()) {}
            src.extend_from_slice(tail);
            assert!(matches!(decoder.decode(&mut src), Ok(None)));
            assert!(matches!(decoder.decode_eof(&mut src), Ok(None)));
            assert!(src.is_empty());
        }
    }
}

#[test]
fn end_with_the_digest_of_the_result_alone_is_refused() {
    let sums = HashParams::new(4096, 4096);
    for sums in [None, sums] {
        let mut encoder = StreamEncoder::new(Dialect::V1);
        let mut dst = BytesMut::new();
        encoder.encode(Frame::Open(StreamHeader { size: 0, sums }), &mut dst).unwrap();
        let end = Trailer { lines: None, result: Some(Digest::of(b"")) };
        assert!(encoder.encode(Frame::End(end), &mut dst).is_err());
    }
}

#[test]
fn the_2014_dialect_has_no_words_but_data_and_hole() {
    let digest = Some(Digest::of(b""));
    for item in [
        Frame::Open(StreamHeader { size: 0, sums: None }),
        Frame::Base(Base { size: 0, digest: None }),
        Frame::Record(Record::Keep { len: 1 }),
        Frame::Record(Record::Data { len: 1, digest }),
        Frame::Wait,
        Frame::Fail(FailReason::new("no")),
        Frame::End(Trailer { lines: digest, result: None }),
        Frame::Payload(Bytes::from_static(b"x")),
    ] {
        assert!(encode(std::slice::from_ref(&item), Dialect::Classic).is_err(), "{item:?}");
    }
}

#[test]
fn memory_for_a_line_is_bounded_however_long_it_is() {
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
