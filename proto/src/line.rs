//! Converts single lines between text and values (SPEC.md, "Grammar"). It checks neither order nor coverage.

use std::fmt::Write;

use crate::error::Violation;
use crate::frame::Frame;
use crate::{
    Base, Digest, FAIL_TEXT_MAX, FailReason, GRAIN_MIN, HashParams, INTERVAL_MAX, INTERVAL_MIN, LEN_MAX, Record,
    StreamErrorKind, StreamHeader, Trailer,
};

/// The beginning of every open line.
pub(crate) const MAGIC: &[u8] = b"XFER-HOLE ";
/// The beginning of every FAIL line.
pub(crate) const FAIL: &[u8] = b"FAIL ";
/// The version of streams and manifests.
pub(crate) const VERSION: &[u8] = b"1";

/// Splits a line into words: exactly one space between two words, none before the first or after the last.
pub(crate) struct LineWords<'a>(std::slice::Split<'a, u8, fn(&u8) -> bool>);

impl<'a> LineWords<'a> {
    pub(crate) fn of(line: &'a [u8]) -> Self {
        Self(line.split(|&c| c == b' '))
    }

    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        self.0.next()
    }

    pub(crate) fn end(&mut self) -> Result<(), Violation> {
        self.next()
            .map_or(Ok(()), |word| Err(Violation::new(StreamErrorKind::Line, format!("unexpected {}", quoted(word)))))
    }
}

/// Text from the stream in a form that is safe to print.
pub(crate) fn quoted(text: &[u8]) -> String {
    const SHOWN: usize = 40;
    let more = if text.len() > SHOWN { "..." } else { "" };
    format!("\"{}{more}\"", text[..text.len().min(SHOWN)].escape_ascii())
}

/// Parses `size`: "0" or `len`.
pub(crate) fn size(word: Option<&[u8]>, what: &str) -> Result<u64, Violation> {
    match word {
        Some(b"0") => Ok(0),
        word => len(word, what),
    }
}

/// Parses `len`: 1 to 2^63 - 1, no sign, no leading zero.
fn len(word: Option<&[u8]>, what: &str) -> Result<u64, Violation> {
    let word = word.ok_or_else(|| Violation::new(StreamErrorKind::Line, format!("{what} is missing")))?;
    let (Some(b'1'..=b'9'), true) = (word.first(), word.iter().all(u8::is_ascii_digit)) else {
        return Err(Violation::new(
            StreamErrorKind::Line,
            format!("{what} {} is not a number as the grammar has it", quoted(word)),
        ));
    };
    word.iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|&number| number <= LEN_MAX)
        .ok_or_else(|| {
            Violation::new(StreamErrorKind::Number, format!("{what} {} is larger than {LEN_MAX}", quoted(word)))
        })
}

/// Parses a digest, if there is a word.
pub(crate) fn digest(word: Option<&[u8]>) -> Result<Option<Digest>, Violation> {
    word.map(|word| {
        Digest::parse(word)
            .ok_or_else(|| Violation::new(StreamErrorKind::Line, format!("{} is not a digest", quoted(word))))
    })
    .transpose()
}

/// Parses the open line, without its LF.
pub(crate) fn parse_open(line: &[u8]) -> Result<StreamHeader, Violation> {
    let rest = line.strip_prefix(MAGIC).ok_or_else(not_a_stream)?;
    let mut words = LineWords::of(rest);
    match words.next() {
        Some(VERSION) => {}
        other => {
            let version = quoted(other.unwrap_or_default());
            return Err(Violation::new(
                StreamErrorKind::Version,
                format!("version {version} is not spoken here, only version 1"),
            ));
        }
    }
    let size = size(words.next(), "size")?;
    let hash_params = match words.next() {
        None => None,
        Some(b"sha256") => Some(hash_params(&mut words)?),
        Some(word) => return Err(Violation::new(StreamErrorKind::Line, format!("unknown token {}", quoted(word)))),
    };
    words.end()?;
    Ok(StreamHeader { size, sums: hash_params })
}

/// Parses the words after `sha256`: interval and grain.
fn hash_params(words: &mut LineWords<'_>) -> Result<HashParams, Violation> {
    let (interval, grain) = (len(words.next(), "interval")?, len(words.next(), "grain")?);
    HashParams::new(interval, grain).ok_or_else(|| {
        let what = format!(
            "interval {interval} and grain {grain} are not powers of two, \
             {INTERVAL_MIN} to {INTERVAL_MAX} and {GRAIN_MIN} to the interval"
        );
        Violation::new(StreamErrorKind::Number, what)
    })
}

/// Parses a size and `sha256 interval grain`, where both are mandatory.
pub(crate) fn size_and_hash_params(words: &mut LineWords<'_>) -> Result<(u64, HashParams), Violation> {
    let size = size(words.next(), "size")?;
    match words.next() {
        Some(b"sha256") => Ok((size, hash_params(words)?)),
        other => Err(Violation::new(
            StreamErrorKind::Line,
            format!("{} where sha256 belongs", quoted(other.unwrap_or_default())),
        )),
    }
}

/// The error for a first line that is no open line.
pub(crate) fn not_a_stream() -> Violation {
    Violation::new(StreamErrorKind::NotAStream, "this is no xfer-hole stream")
}

/// True if the line's first word is BASE.
pub(crate) fn is_base(line: &[u8]) -> bool {
    line.strip_prefix(b"BASE").is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
}

/// Parses any line but the open line, without its LF.
pub(crate) fn parse(line: &[u8]) -> Result<Frame, Violation> {
    if let Some(text) = line.strip_prefix(FAIL) {
        let what = || {
            Violation::new(
                StreamErrorKind::Line,
                format!("FAIL whose text is not 1 to {FAIL_TEXT_MAX} printable characters"),
            )
        };
        return FailReason::parse(text).map(Frame::Fail).ok_or_else(what);
    }
    let mut words = LineWords::of(line);
    let frame = match words.next().unwrap_or_default() {
        b"DATA" => Frame::Record(Record::Data { len: len(words.next(), "length")?, digest: digest(words.next())? }),
        b"HOLE" => Frame::Record(Record::Hole { len: len(words.next(), "length")? }),
        b"KEEP" => Frame::Record(Record::Keep { len: len(words.next(), "length")? }),
        b"WAIT" => Frame::Wait,
        b"BASE" => Frame::Base(Base { size: size(words.next(), "BASE size")?, digest: digest(words.next())? }),
        b"END" => Frame::End(Trailer { lines: digest(words.next())?, result: digest(words.next())? }),
        _ => return Err(Violation::new(StreamErrorKind::Line, format!("{} is no line of this version", quoted(line)))),
    };
    words.end()?;
    Ok(frame)
}

/// Parses a line of the 2014 dialect that holds a number, without its LF.
pub(crate) fn parse_classic_len(line: &[u8]) -> Result<u64, Violation> {
    len(Some(line), "length")
}

/// The line's text with its LF. Empty for payload.
pub(crate) fn text(frame: &Frame) -> String {
    let optional = |line: &mut String, digest: Option<Digest>| {
        if let Some(digest) = digest {
            let _infallible = write!(line, " {digest}");
        }
    };
    let mut line = match frame {
        Frame::Open(StreamHeader { size, sums: None }) => format!("XFER-HOLE 1 {size}"),
        Frame::Open(StreamHeader { size, sums: Some(params) }) => {
            format!("XFER-HOLE 1 {size} sha256 {} {}", params.interval(), params.grain())
        }
        Frame::Base(base) => format!("BASE {}", base.size),
        Frame::Record(Record::Data { len, .. }) => format!("DATA {len}"),
        Frame::Record(Record::Hole { len }) => format!("HOLE {len}"),
        Frame::Record(Record::Keep { len }) => format!("KEEP {len}"),
        Frame::Wait => "WAIT".into(),
        Frame::End(_) => "END".into(),
        Frame::Fail(reason) => format!("FAIL {reason}"),
        Frame::Payload(_) => return String::new(),
    };
    match *frame {
        Frame::Base(Base { digest, .. }) | Frame::Record(Record::Data { digest, .. }) => optional(&mut line, digest),
        Frame::End(Trailer { lines, result }) => {
            optional(&mut line, lines);
            optional(&mut line, result);
        }
        _ => {}
    }
    line.push('\n');
    line
}

/// The line's text in the 2014 dialect, with its LF. That dialect has DATA and HOLE only.
pub(crate) fn classic_text(frame: &Frame) -> String {
    match frame {
        Frame::Record(Record::Data { len, .. }) => format!("DATA\n{len}\n"),
        Frame::Record(Record::Hole { len }) => format!("HOLE\n{len}\n"),
        _ => String::new(),
    }
}
