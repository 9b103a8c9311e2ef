//! Bytes to items and back, by `tokio_util::codec` on `BytesMut`: the same for blocking and for async callers.
//!
//! Both directions ask one [`StreamState`], so the encoder refuses what the decoder refuses.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::error::Violation;
use crate::frame::Frame;
use crate::line::{self, FAIL, MAGIC};
use crate::{
    CoverageChecker, Dialect, Digest, FAIL_LINE_MAX, Fingerprint, HashParams, Hasher, LEN_MAX, LINE_MAX, Record,
    StreamError, StreamErrorKind, StreamHeader, Trailer,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Base,
    Records,
    Ended,
    Failed,
}

/// Holds the state of a stream and judges each item: order, coverage, form, digests of lines.
#[derive(Clone, Debug)]
struct StreamState {
    dialect: Dialect,
    stage: Stage,
    open: Option<StreamHeader>,
    cursor: CoverageChecker,
    /// Record lines so far.
    records: u64,
    /// Where the last record begins.
    start: u64,
    payload_left: u64,
    lines: Hasher,
    kept: bool,
    /// The receiver has told what it holds, so that END tells the fingerprint of the whole result.
    agreed: bool,
    /// That of END.
    result: Option<Digest>,
}

impl StreamState {
    fn new(dialect: Dialect) -> Self {
        let (stage, cursor) = match dialect {
            Dialect::V1 => (Stage::Open, CoverageChecker::new(&StreamHeader { size: 0, sums: None }, None)),
            Dialect::Classic => (Stage::Records, CoverageChecker::unsized_disk()),
        };
        let lines = Hasher::default();
        Self {
            dialect,
            stage,
            open: None,
            cursor,
            records: 0,
            start: 0,
            payload_left: 0,
            lines,
            kept: false,
            agreed: false,
            result: None,
        }
    }

    fn hashed(&self) -> bool {
        self.open.is_some_and(|open| open.sums.is_some())
    }

    /// The place of the line that is awaited.
    fn place_next(&self) -> (u64, u64) {
        match self.stage {
            Stage::Open => (0, 0),
            _ => (self.records + 1, self.cursor.at()),
        }
    }

    /// The place of a line that has come: BASE where it belongs is part of the opening, as the open line is.
    fn place_line(&self, is_base: bool) -> (u64, u64) {
        if is_base && self.stage == Stage::Base { (0, 0) } else { self.place_next() }
    }

    /// The place of the record whose payload is awaited, else of the line that is.
    fn place(&self) -> (u64, u64) {
        if self.payload_left > 0 { (self.records, self.start) } else { self.place_next() }
    }

    fn admit(&mut self, item: &Frame, text: &[u8]) -> Result<(), StreamError> {
        let (record, offset) = self.place_line(matches!(item, Frame::Base(_)));
        self.admit_line(item, text).map_err(|flaw| flaw.at(record, offset))
    }

    fn admit_line(&mut self, item: &Frame, text: &[u8]) -> Result<(), Violation> {
        let order = |what: &str| Err(Violation::new(StreamErrorKind::Order, what));
        match (self.stage, item) {
            (Stage::Ended, _) => return Err(Violation::new(StreamErrorKind::Trailing, "something follows END")),
            (Stage::Failed, _) => return order("something follows FAIL"),
            (Stage::Open, Frame::Open(_)) => {}
            (Stage::Open, _) => return order("a line before the open line"),
            (_, Frame::Open(_)) => return order("a second open line"),
            _ if self.payload_left > 0 => return order("a line inside a payload"),
            _ => {}
        }
        match item {
            Frame::Open(open) => {
                if open.size > LEN_MAX {
                    return Err(Violation::new(
                        StreamErrorKind::Number,
                        format!("size {} is larger than {LEN_MAX}", open.size),
                    ));
                }
                self.open = Some(*open);
                self.cursor = CoverageChecker::new(open, None);
                self.stage = Stage::Base;
            }
            Frame::Base(base) => {
                let (Stage::Base, Some(open)) = (self.stage, &self.open) else {
                    return order("BASE that is not behind the open line");
                };
                if base.size > LEN_MAX {
                    return Err(Violation::new(
                        StreamErrorKind::Number,
                        format!("BASE {} is larger than {LEN_MAX}", base.size),
                    ));
                }
                self.cursor = CoverageChecker::new(open, Some(base));
                self.stage = Stage::Records;
            }
            Frame::Record(record) => self.admit_record(record, text)?,
            Frame::Wait => {
                if self.dialect == Dialect::Classic {
                    return order("WAIT in the 2014 dialect");
                }
                self.records += 1;
                self.start = self.cursor.at();
                self.stage = Stage::Records;
            }
            Frame::Payload(_) => return order("payload without DATA"),
            Frame::End(end) => {
                self.admit_end(end)?;
                self.result = end.result;
                self.stage = Stage::Ended;
            }
            Frame::Fail(_) => {
                if self.dialect == Dialect::Classic {
                    return order("FAIL in the 2014 dialect");
                }
                self.stage = Stage::Failed;
            }
        }
        Ok(())
    }

    fn admit_record(&mut self, record: &Record, text: &[u8]) -> Result<(), Violation> {
        if let Record::Data { digest, .. } = record {
            self.check_sums("DATA", *digest)?;
        }
        let range = self.cursor.step(record)?;
        self.records += 1;
        self.start = range.start;
        self.stage = Stage::Records;
        self.kept |= matches!(record, Record::Keep { .. });
        self.payload_left = record.payload_len();
        if self.hashed() {
            self.lines.update(text);
        }
        Ok(())
    }

    fn check_sums(&self, line: &str, digest: Option<Digest>) -> Result<(), Violation> {
        match (self.hashed(), digest) {
            (true, None) => {
                Err(Violation::new(StreamErrorKind::Sums, format!("{line} without a digest in a stream with digests")))
            }
            (false, Some(_)) => {
                Err(Violation::new(StreamErrorKind::Sums, format!("{line} with a digest in a stream without digests")))
            }
            _ => Ok(()),
        }
    }

    fn admit_end(&self, end: &Trailer) -> Result<(), Violation> {
        if end.lines.is_none() && end.result.is_some() {
            return Err(Violation::new(
                StreamErrorKind::Sums,
                "END with the result's digest and without that of the lines",
            ));
        }
        if self.dialect == Dialect::Classic {
            if self.records == 0 {
                return Err(Violation::new(
                    StreamErrorKind::Cut,
                    "a stream of no bytes, which is no disk in the dialect of 2014",
                ));
            }
            return self.check_sums("END", end.lines);
        }
        self.cursor.finish()?;
        self.check_sums("END", end.lines)?;
        let Some(said) = end.lines else { return Ok(()) };
        let lines = self.lines.clone().digest();
        if said != lines {
            return Err(Violation::new(
                StreamErrorKind::Mismatch,
                "the record lines don't have the digest that END gives",
            ));
        }
        match end.result {
            None if self.agreed => Err(Violation::new(
                StreamErrorKind::Sums,
                "END without the result's digest, where the receiver has told what it holds",
            )),
            Some(_) if self.kept && self.agreed => Ok(()),
            Some(_) if self.kept => {
                Err(Violation::new(StreamErrorKind::Sums, "END with the result's digest, one way, after KEEP"))
            }
            Some(result) if result != lines => {
                Err(Violation::new(StreamErrorKind::Mismatch, "END's two digests differ in a stream without KEEP"))
            }
            _ => Ok(()),
        }
    }

    fn pass_payload(&mut self, bytes: u64) -> Result<(), StreamError> {
        let (record, offset) = self.place();
        let over = || StreamError::new(StreamErrorKind::Order, record, offset, "more payload than DATA announced");
        self.payload_left = self.payload_left.checked_sub(bytes).ok_or_else(over)?;
        Ok(())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let sums = self.open?.sums?;
        let whole = self.stage == Stage::Ended && !self.kept;
        whole.then(|| Fingerprint { sums, digest: self.lines.clone().digest() })
    }
}

/// Bytes to [`Frame`]s. Holds no more than one line; payload is handed on in the pieces it comes in.
///
/// `decode` gives `Ok(None)` when it wants more bytes, `decode_eof` when the stream has ended: the disk is whole only
/// if [`Frame::Trailer`] came before. After an error or [`Frame::Fail`] nothing more comes, whatever is fed.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    judge: StreamState,
    classic_word: Option<fn(u64) -> Record>,
}

impl StreamDecoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { judge: StreamState::new(dialect), classic_word: None }
    }

    /// The record's number and the disk offset where it begins: of the last record while its payload is coming, else of
    /// the next.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        self.judge.place()
    }

    /// The record's number and the disk offset where it begins, of the last record.
    #[must_use]
    pub fn place_last(&self) -> (u64, u64) {
        (self.judge.records, self.judge.start)
    }

    /// The disk offset that the records have reached.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.judge.cursor.at()
    }

    /// Bytes of payload that are still to come before the next line.
    #[must_use]
    pub fn payload_left(&self) -> u64 {
        self.judge.payload_left
    }

    /// Takes note of payload that the caller moved past this decoder.
    pub fn payload_passed(&mut self, bytes: u64) -> Result<(), StreamError> {
        self.judge.pass_payload(bytes)
    }

    /// The disk's fingerprint, once END has come, if the stream had digests and no KEEP.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.judge.fingerprint()
    }

    /// From here on END has to tell the digest of the result's fingerprint: the receiver has answered a WANT.
    pub fn agree(&mut self) {
        self.judge.agreed = true;
    }

    /// How digests are taken, once the open line has come, if they are.
    #[must_use]
    pub fn sums(&self) -> Option<HashParams> {
        self.judge.open?.sums
    }

    /// True if END has to tell that.
    #[must_use]
    pub fn has_agreed(&self) -> bool {
        self.judge.agreed
    }

    /// The digest of the result's fingerprint, once END has come and has told it.
    #[must_use]
    pub fn result(&self) -> Option<Digest> {
        self.judge.result
    }

    fn flaw(&self, flaw: Violation) -> StreamError {
        let (record, offset) = self.judge.place_next();
        flaw.at(record, offset)
    }

    /// The next line with its LF; `None` if it hasn't come yet.
    fn line(&self, src: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        let open = self.judge.stage == Stage::Open;
        let shown = src.len().min(MAGIC.len());
        if open && src[..shown] != MAGIC[..shown] {
            return Err(self.flaw(line::not_a_stream()));
        }
        let limit = if src.starts_with(FAIL) && !open { FAIL_LINE_MAX } else { LINE_MAX };
        let seen = &src[..src.len().min(limit)];
        match seen.iter().position(|&byte| byte == b'\n') {
            Some(end) => Ok(Some(src.split_to(end + 1).freeze())),
            None if src.len() < limit => Ok(None),
            None => {
                Err(self.flaw(Violation::new(StreamErrorKind::TooLong, format!("a line longer than {limit} bytes"))))
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

    /// The next item; `None` if it hasn't come yet.
    fn next(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
        loop {
            if src.is_empty() {
                return Ok(None);
            }
            match self.judge.stage {
                Stage::Ended => {
                    return Err(self.flaw(Violation::new(StreamErrorKind::Trailing, "something follows END")));
                }
                Stage::Failed => {
                    src.clear();
                    return Ok(None);
                }
                _ => {}
            }
            if self.judge.payload_left > 0 {
                let piece = usize::try_from(self.judge.payload_left).unwrap_or(usize::MAX).min(src.len());
                self.judge.pass_payload(piece as u64)?;
                return Ok(Some(Frame::Payload(src.split_to(piece).freeze())));
            }
            let Some(text) = self.line(src)? else { return Ok(None) };
            let line = &text[..text.len() - 1];
            let item = match (self.judge.dialect, self.judge.stage) {
                (Dialect::Classic, _) => self.classic(line),
                (Dialect::V1, Stage::Open) => line::parse_open(line).map(|open| Some(Frame::Open(open))),
                (Dialect::V1, _) => line::parse(line).map(Some),
            };
            let place = self.judge.place_line(line::is_base(line));
            if let Some(item) = item.map_err(|flaw| flaw.at(place.0, place.1))? {
                self.judge.admit(&item, &text)?;
                return Ok(Some(item));
            }
        }
    }

    fn cut(&self) -> StreamError {
        let (record, offset) = self.judge.place();
        let what = match (self.judge.stage, self.judge.payload_left) {
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
            self.judge.stage = Stage::Failed;
        }
        next
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
        if let Some(item) = self.decode(src)? {
            return Ok(Some(item));
        }
        let whole = src.is_empty() && self.judge.payload_left == 0 && self.classic_word.is_none();
        let ended = match (self.judge.dialect, self.judge.stage) {
            (_, Stage::Ended | Stage::Failed) => return Ok(None),
            (Dialect::Classic, _) if whole => {
                let end = Frame::End(Trailer::default());
                self.judge.admit(&end, b"").map(|()| Some(end))
            }
            _ => Err(self.cut()),
        };
        if ended.is_err() {
            self.judge.stage = Stage::Failed;
        }
        ended
    }
}

/// [`Frame`]s to bytes. Refuses every item that the decoder would refuse, and then writes nothing.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    judge: StreamState,
}

impl StreamEncoder {
    /// An encoder at the beginning of a stream.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { judge: StreamState::new(dialect) }
    }

    /// What END has to say of the lines so far: their digest, if the stream has digests.
    #[must_use]
    pub fn end(&self) -> Trailer {
        let lines = self.judge.hashed().then(|| self.judge.lines.clone().digest());
        Trailer { lines, result: None }
    }

    /// From here on END has to tell the digest of the result's fingerprint: the receiver has answered a WANT.
    pub fn agree(&mut self) {
        self.judge.agreed = true;
    }

    /// How digests are taken, once the open line is written, if they are.
    #[must_use]
    pub fn sums(&self) -> Option<HashParams> {
        self.judge.open?.sums
    }

    /// Bytes of payload that are still due before the next line.
    #[must_use]
    pub fn payload_left(&self) -> u64 {
        self.judge.payload_left
    }

    /// Takes note of payload that the caller writes itself, past this encoder.
    pub fn payload_passed(&mut self, bytes: u64) -> Result<(), StreamError> {
        self.judge.pass_payload(bytes)
    }

    /// The disk's fingerprint, once END is written, if the stream has digests and no KEEP.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.judge.fingerprint()
    }
}

impl Encoder<Frame> for StreamEncoder {
    type Error = StreamError;

    fn encode(&mut self, item: Frame, dst: &mut BytesMut) -> Result<(), StreamError> {
        if let Frame::Payload(piece) = item {
            self.judge.pass_payload(piece.len() as u64)?;
            dst.extend_from_slice(&piece);
            return Ok(());
        }
        let text = match self.judge.dialect {
            Dialect::V1 => line::text(&item),
            Dialect::Classic => line::classic_text(&item),
        };
        self.judge.admit(&item, text.as_bytes())?;
        dst.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
