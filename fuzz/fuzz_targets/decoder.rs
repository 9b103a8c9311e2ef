//! Any bytes, cut anyhow: no panic, no line beyond its limit held, and what is decoded encodes to what was consumed.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder};
use xfer_hole_proto::{Dialect, FAIL_LINE_MAX, Frame, StreamDecoder, StreamEncoder};

/// The decoder and the encoder, side by side.
struct Mirror {
    decoder: StreamDecoder,
    encoder: StreamEncoder,
    written: BytesMut,
    covered: u64,
    size: Option<u64>,
    ended: bool,
}

impl Mirror {
    fn item(&mut self, item: Frame) {
        assert!(!self.ended, "{item:?} follows the end");
        match &item {
            Frame::Open(open) => self.size = Some(open.size),
            Frame::Record(record) => self.covered += record.len(),
            Frame::Payload(piece) => assert!(!piece.is_empty()),
            Frame::End(_) => {
                assert!(self.size.is_none_or(|size| size == self.covered));
                self.ended = true;
            }
            Frame::Fail(_) => self.ended = true,
            Frame::Base(_) | Frame::Wait => {}
        }
        self.encoder.encode(item, &mut self.written).expect("the encoder refuses what the decoder took");
        assert_eq!(self.decoder.at(), self.covered);
        assert_eq!(self.decoder.payload_left(), self.encoder.payload_left());
    }
}

fuzz_target!(|bytes: &[u8]| {
    // A stream may come as it is, so that the vectors can be the corpus; else its first bytes say how it is cut.
    let (dialect, cuts, stream) = match bytes {
        stream if stream.starts_with(b"XFER-HOLE ") => (Dialect::V1, [0; 4], stream),
        stream if stream.starts_with(b"DATA\n") || stream.starts_with(b"HOLE\n") => (Dialect::Classic, [0; 4], stream),
        [how, a, b, c, d, stream @ ..] => {
            (if how % 2 == 0 { Dialect::V1 } else { Dialect::Classic }, [*a, *b, *c, *d], stream)
        }
        _ => return,
    };
    let (decoder, encoder) = (StreamDecoder::new(dialect), StreamEncoder::new(dialect));
    let mut mirror = Mirror { decoder, encoder, written: BytesMut::new(), covered: 0, size: None, ended: false };
    let (mut src, mut rest) = (BytesMut::new(), stream);
    for cut in cuts.iter().cycle() {
        let piece = if *cut == 0 { rest.len() } else { usize::from(*cut).min(rest.len()) };
        src.extend_from_slice(&rest[..piece]);
        rest = &rest[piece..];
        let last = rest.is_empty();
        loop {
            let decoded = if last { mirror.decoder.decode_eof(&mut src) } else { mirror.decoder.decode(&mut src) };
            match decoded {
                Ok(Some(item)) => mirror.item(item),
                Ok(None) => break,
                Err(error) => {
                    // What was taken before the error is still a part of the stream, byte for byte.
                    assert!(stream.starts_with(&mirror.written), "{error}");
                    let (record, offset) = (error.record(), error.offset());
                    assert!(offset <= mirror.covered && (record > 0 || offset == 0), "{error}");
                    src.extend_from_slice(b"HOLE 1\nEND\n");
                    assert!(matches!(mirror.decoder.decode_eof(&mut src), Ok(None)), "{error} was not the last");
                    return;
                }
            }
        }
        assert!(src.len() < FAIL_LINE_MAX, "more than a line is held");
        if last {
            break;
        }
    }
    assert!(mirror.ended, "end of file was accepted without END or FAIL");
    assert!(stream.starts_with(&mirror.written));
});
