//! Encoder and decoder of a stream, as `tokio_util::codec` traits on `BytesMut`. Blocking and async callers use the
//! same code.
//!
//! Both use one [`StreamState`], so the encoder refuses what the decoder refuses.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::error::Violation;
use crate::frame::Frame;
use crate::line::{self, FAIL, MAGIC};
use crate::stream_state::{Stage, StreamState};
use crate::{
    Dialect, Digest, FAIL_LINE_MAX, Fingerprint, HashParams, LINE_MAX, Record, StreamError, StreamErrorKind, Trailer,
};

/// Decodes bytes to [`Frame`]s. It stores at most one line; payload is returned in pieces as it arrives.
///
/// `decode` returns `Ok(None)` when it needs more bytes, `decode_eof` when the stream has ended. The disk is complete
/// only if [`Frame::End`] came. After an error or [`Frame::Fail`] no further frames are returned.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    state: StreamState,
    classic_word: Option<fn(u64) -> Record>,
}

impl StreamDecoder {
    /// Creates a decoder at the beginning of a stream.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { state: StreamState::new(dialect), classic_word: None }
    }

    /// A record's number and the disk offset where it begins: the last record while its payload is incomplete, else the
    /// next record.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        self.state.place()
    }

    /// The last record's number, and the disk offset where it begins.
    #[must_use]
    pub fn place_last(&self) -> (u64, u64) {
        (self.state.records, self.state.start)
    }

    /// The end of the last record: a disk offset in bytes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.state.coverage.at()
    }

    /// The number of payload bytes that come before the next line.
    #[must_use]
    pub fn payload_left(&self) -> u64 {
        self.state.payload_left
    }

    /// Counts payload bytes that the caller took from the stream without this decoder.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::Order`](crate::StreamErrorKind::Order) if that is more than the DATA line announced.
    pub fn payload_passed(&mut self, bytes: u64) -> Result<(), StreamError> {
        self.state.pass_payload(bytes)
    }

    /// The disk's fingerprint, after END, if the stream has digests and no KEEP.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.state.fingerprint()
    }

    /// Requires END to contain the digest of the result's fingerprint, because the receiver has answered WANT.
    pub fn agree(&mut self) {
        self.state.agreed = true;
    }

    /// Interval and grain, after the open line, if the stream has digests.
    #[must_use]
    pub fn sums(&self) -> Option<HashParams> {
        self.state.open?.sums
    }

    /// True if END must contain the digest of the result's fingerprint.
    #[must_use]
    pub fn has_agreed(&self) -> bool {
        self.state.agreed
    }

    /// The digest of the result's fingerprint, after an END that contains it.
    #[must_use]
    pub fn result(&self) -> Option<Digest> {
        self.state.result
    }

    fn violation(&self, violation: Violation) -> StreamError {
        let (record, offset) = self.state.place_next();
        violation.at(record, offset)
    }

    /// The next line with its LF. `None` if it is incomplete.
    fn line(&self, src: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        let open = self.state.stage == Stage::Open;
        let shown = src.len().min(MAGIC.len());
        if open && src[..shown] != MAGIC[..shown] {
            return Err(self.violation(line::not_a_stream()));
        }
        let limit = if src.starts_with(FAIL) && !open { FAIL_LINE_MAX } else { LINE_MAX };
        let seen = &src[..src.len().min(limit)];
        match seen.iter().position(|&byte| byte == b'\n') {
            Some(end) => Ok(Some(src.split_to(end + 1).freeze())),
            None if src.len() < limit => Ok(None),
            None => {
                Err(self
                    .violation(Violation::new(StreamErrorKind::TooLong, format!("a line longer than {limit} bytes"))))
            }
        }
    }

    fn classic(&mut self, line: &[u8]) -> Result<Option<Frame>, Violation> {
        match (self.classic_word.take(), line) {
            (Some(record), number) => Ok(Some(Frame::Record(record(line::parse_classic_len(number)?)))),
            (None, b"DATA") => {
                self.classic_word = Some(|len| Record::Data { len, digest: None });
                Ok(None)
            }
            (None, b"HOLE") => {
                self.classic_word = Some(|len| Record::Hole { len });
                Ok(None)
            }
            (None, _) => Err(Violation::new(StreamErrorKind::Line, "a line that is neither DATA nor HOLE")),
        }
    }

    /// The next frame. `None` if it is incomplete.
    fn next(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
        loop {
            if src.is_empty() {
                return Ok(None);
            }
            match self.state.stage {
                Stage::Ended => {
                    return Err(self.violation(Violation::new(StreamErrorKind::Trailing, "something follows END")));
                }
                Stage::Failed => {
                    src.clear();
                    return Ok(None);
                }
                _ => {}
            }
            if self.state.payload_left > 0 {
                let piece = usize::try_from(self.state.payload_left).unwrap_or(usize::MAX).min(src.len());
                self.state.pass_payload(piece as u64)?;
                return Ok(Some(Frame::Payload(src.split_to(piece).freeze())));
            }
            let Some(text) = self.line(src)? else { return Ok(None) };
            let line = &text[..text.len() - 1];
            let frame = match (self.state.dialect, self.state.stage) {
                (Dialect::Classic, _) => self.classic(line),
                (Dialect::V1, Stage::Open) => line::parse_open(line).map(|open| Some(Frame::Open(open))),
                (Dialect::V1, _) => line::parse(line).map(Some),
            };
            let place = self.state.place_line(line::is_base(line));
            if let Some(frame) = frame.map_err(|violation| violation.at(place.0, place.1))? {
                self.state.admit(&frame, &text)?;
                return Ok(Some(frame));
            }
        }
    }

    fn cut(&self) -> StreamError {
        let (record, offset) = self.state.place();
        let what = match (self.state.stage, self.state.payload_left) {
            (Stage::Open, _) => "the stream is empty or was cut in its first line".into(),
            (_, 0) => "the stream was cut before END".into(),
            (_, left) => format!("the stream was cut with {left} bytes of the payload to come"),
        };
        StreamError::new(StreamErrorKind::Cut, record, offset, what)
    }
}

impl Decoder for StreamDecoder {
    type Item = Frame;
    type Error = StreamError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
        let next = self.next(src);
        if next.is_err() {
            self.state.stage = Stage::Failed;
        }
        next
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
        if let Some(frame) = self.decode(src)? {
            return Ok(Some(frame));
        }
        let whole = src.is_empty() && self.state.payload_left == 0 && self.classic_word.is_none();
        let ended = match (self.state.dialect, self.state.stage) {
            (_, Stage::Ended | Stage::Failed) => return Ok(None),
            (Dialect::Classic, _) if whole => {
                let end = Frame::End(Trailer::default());
                self.state.admit(&end, b"").map(|()| Some(end))
            }
            _ => Err(self.cut()),
        };
        if ended.is_err() {
            self.state.stage = Stage::Failed;
        }
        ended
    }
}

/// Encodes [`Frame`]s to bytes. It refuses every frame that the decoder would refuse, and writes nothing then.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    state: StreamState,
}

impl StreamEncoder {
    /// Creates an encoder at the beginning of a stream.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { state: StreamState::new(dialect) }
    }

    /// The END line for the records so far: with the digest of their lines, if the stream has digests.
    #[must_use]
    pub fn end(&self) -> Trailer {
        let lines = self.state.hashed().then(|| self.state.lines.clone().digest());
        Trailer { lines, result: None }
    }

    /// Requires END to contain the digest of the result's fingerprint, because the receiver has answered WANT.
    pub fn agree(&mut self) {
        self.state.agreed = true;
    }

    /// Interval and grain, after the open line, if the stream has digests.
    #[must_use]
    pub fn sums(&self) -> Option<HashParams> {
        self.state.open?.sums
    }

    /// The number of payload bytes that must come before the next line.
    #[must_use]
    pub fn payload_left(&self) -> u64 {
        self.state.payload_left
    }

    /// Counts payload bytes that the caller wrote to the stream without this encoder.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::Order`](crate::StreamErrorKind::Order) if that is more than the DATA line announced.
    pub fn payload_passed(&mut self, bytes: u64) -> Result<(), StreamError> {
        self.state.pass_payload(bytes)
    }

    /// The disk's fingerprint, after END, if the stream has digests and no KEEP.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.state.fingerprint()
    }
}

impl Encoder<Frame> for StreamEncoder {
    type Error = StreamError;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), StreamError> {
        if let Frame::Payload(piece) = frame {
            self.state.pass_payload(piece.len() as u64)?;
            dst.extend_from_slice(&piece);
            return Ok(());
        }
        let text = match self.state.dialect {
            Dialect::V1 => line::text(&frame),
            Dialect::Classic => line::classic_text(&frame),
        };
        self.state.admit(&frame, text.as_bytes())?;
        dst.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
