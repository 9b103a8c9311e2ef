//! One line at a time: text to value and back (SPEC.md, "Grammar"). Knows no order and no disk.

use std::fmt::Write;

use crate::codec::Item;
use crate::error::Flaw;
use crate::{
    Base, Digest, End, FAIL_TEXT_MAX, GRAIN_MIN, INTERVAL_MAX, INTERVAL_MIN, Kind, LEN_MAX, Manifest, Open, Reason,
    Record, Sums, Want,
};

/// How every open line begins.
pub(crate) const MAGIC: &[u8] = b"XFER-HOLE ";
/// How every FAIL line begins.
pub(crate) const FAIL: &[u8] = b"FAIL ";
const VERSION: &[u8] = b"1";

/// The words of a line: exactly one space between two, none before the first or behind the last.
pub(crate) struct Words<'a>(std::slice::Split<'a, u8, fn(&u8) -> bool>);

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a [u8]) -> Self {
        Self(line.split(|&c| c == b' '))
    }

    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        self.0.next()
    }

    pub(crate) fn end(&mut self) -> Result<(), Flaw> {
        self.next().map_or(Ok(()), |word| Err(Flaw::new(Kind::Line, format!("unexpected {}", quoted(word)))))
    }
}

/// Stream text that is safe to print.
pub(crate) fn quoted(text: &[u8]) -> String {
    const SHOWN: usize = 40;
    let more = if text.len() > SHOWN { "..." } else { "" };
    format!("\"{}{more}\"", text[..text.len().min(SHOWN)].escape_ascii())
}

/// `size`: "0" or `len`.
fn size(word: Option<&[u8]>, what: &str) -> Result<u64, Flaw> {
    match word {
        Some(b"0") => Ok(0),
        word => len(word, what),
    }
}

/// `len`: 1 to 2^63 - 1, no sign, no leading zero.
fn len(word: Option<&[u8]>, what: &str) -> Result<u64, Flaw> {
    let word = word.ok_or_else(|| Flaw::new(Kind::Line, format!("{what} is missing")))?;
    let (Some(b'1'..=b'9'), true) = (word.first(), word.iter().all(u8::is_ascii_digit)) else {
        return Err(Flaw::new(Kind::Line, format!("{what} {} is not a number as the grammar has it", quoted(word))));
    };
    word.iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|&number| number <= LEN_MAX)
        .ok_or_else(|| Flaw::new(Kind::Number, format!("{what} {} is larger than {LEN_MAX}", quoted(word))))
}

/// A digest, if there is a word.
pub(crate) fn digest(word: Option<&[u8]>) -> Result<Option<Digest>, Flaw> {
    word.map(|word| {
        Digest::parse(word).ok_or_else(|| Flaw::new(Kind::Line, format!("{} is not a digest", quoted(word))))
    })
    .transpose()
}

/// The open line, without its LF.
pub(crate) fn parse_open(line: &[u8]) -> Result<Open, Flaw> {
    let rest = line.strip_prefix(MAGIC).ok_or_else(not_a_stream)?;
    let mut words = Words::of(rest);
    match words.next() {
        Some(VERSION) => {}
        other => {
            let version = quoted(other.unwrap_or_default());
            return Err(Flaw::new(Kind::Version, format!("version {version} is not spoken here, only version 1")));
        }
    }
    let size = size(words.next(), "size")?;
    let sums = match words.next() {
        None => None,
        Some(b"sha256") => Some(sums(&mut words)?),
        Some(word) => return Err(Flaw::new(Kind::Line, format!("unknown token {}", quoted(word)))),
    };
    words.end()?;
    Ok(Open { size, sums })
}

/// What stands behind `sha256`.
fn sums(words: &mut Words<'_>) -> Result<Sums, Flaw> {
    let (interval, grain) = (len(words.next(), "interval")?, len(words.next(), "grain")?);
    Sums::new(interval, grain).ok_or_else(|| {
        let what = format!(
            "interval {interval} and grain {grain} are not powers of two, \
             {INTERVAL_MIN} to {INTERVAL_MAX} and {GRAIN_MIN} to the interval"
        );
        Flaw::new(Kind::Number, what)
    })
}

/// `size` and `sums`, where both have to be.
fn size_and_sums(words: &mut Words<'_>) -> Result<(u64, Sums), Flaw> {
    let size = size(words.next(), "size")?;
    match words.next() {
        Some(b"sha256") => Ok((size, sums(words)?)),
        other => Err(Flaw::new(Kind::Line, format!("{} where sha256 belongs", quoted(other.unwrap_or_default())))),
    }
}

/// The first line of a manifest, without its LF.
pub(crate) fn parse_manifest(line: &[u8]) -> Result<Manifest, Flaw> {
    let rest = line.strip_prefix(Manifest::WORD).ok_or_else(|| Flaw::new(Kind::NotAStream, "this is no manifest"))?;
    let mut words = Words::of(rest);
    match words.next() {
        Some(VERSION) => {}
        other => {
            let version = quoted(other.unwrap_or_default());
            let what = format!("version {version} of a manifest is not read here, only version 1");
            return Err(Flaw::new(Kind::Version, what));
        }
    }
    let (disk, sums) = size_and_sums(&mut words)?;
    let offered = match words.next() {
        None => disk,
        word => {
            let offered = size(word, "offered length")?;
            if offered >= disk || !offered.is_multiple_of(sums.interval()) {
                let what = format!("offered length {offered} is no multiple of the interval below the size {disk}");
                return Err(Flaw::new(Kind::Number, what));
            }
            offered
        }
    };
    words.end()?;
    Ok(Manifest { size: disk, sums, offered })
}

/// A WANT line, without its LF.
pub(crate) fn parse_want(line: &[u8]) -> Result<Want, Flaw> {
    let mut words = Words::of(line);
    if words.next() != Some(b"WANT") {
        return Err(Flaw::new(Kind::Line, format!("{} is no WANT", quoted(line))));
    }
    let (size, sums) = size_and_sums(&mut words)?;
    let digest = digest(words.next())?;
    words.end()?;
    Ok(Want { size, sums, digest })
}

/// The error of a first line that is no open line.
pub(crate) fn not_a_stream() -> Flaw {
    Flaw::new(Kind::NotAStream, "this is no xfer-hole stream")
}

/// Whether the line's first word is BASE.
pub(crate) fn is_base(line: &[u8]) -> bool {
    line.strip_prefix(b"BASE").is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
}

/// Any line but the open line, without its LF.
pub(crate) fn parse(line: &[u8]) -> Result<Item, Flaw> {
    if let Some(text) = line.strip_prefix(FAIL) {
        let what =
            || Flaw::new(Kind::Line, format!("FAIL whose text is not 1 to {FAIL_TEXT_MAX} printable characters"));
        return Reason::parse(text).map(Item::Fail).ok_or_else(what);
    }
    let mut words = Words::of(line);
    let item = match words.next().unwrap_or_default() {
        b"DATA" => Item::Record(Record::Data { len: len(words.next(), "length")?, digest: digest(words.next())? }),
        b"HOLE" => Item::Record(Record::Hole { len: len(words.next(), "length")? }),
        b"KEEP" => Item::Record(Record::Keep { len: len(words.next(), "length")? }),
        b"WAIT" => Item::Wait,
        b"BASE" => Item::Base(Base { size: size(words.next(), "BASE size")?, digest: digest(words.next())? }),
        b"END" => Item::End(End { lines: digest(words.next())?, result: digest(words.next())? }),
        _ => return Err(Flaw::new(Kind::Line, format!("{} is no line of this version", quoted(line)))),
    };
    words.end()?;
    Ok(item)
}

/// A line of the 2014 dialect that holds a number, without its LF.
pub(crate) fn parse_classic_len(line: &[u8]) -> Result<u64, Flaw> {
    len(Some(line), "length")
}

/// The line's text with its LF. Payload has none.
pub(crate) fn text(item: &Item) -> String {
    let optional = |line: &mut String, digest: Option<Digest>| {
        if let Some(digest) = digest {
            let _infallible = write!(line, " {digest}");
        }
    };
    let mut line = match item {
        Item::Open(Open { size, sums: None }) => format!("XFER-HOLE 1 {size}"),
        Item::Open(Open { size, sums: Some(sums) }) => {
            format!("XFER-HOLE 1 {size} sha256 {} {}", sums.interval(), sums.grain())
        }
        Item::Base(base) => format!("BASE {}", base.size),
        Item::Record(Record::Data { len, .. }) => format!("DATA {len}"),
        Item::Record(Record::Hole { len }) => format!("HOLE {len}"),
        Item::Record(Record::Keep { len }) => format!("KEEP {len}"),
        Item::Wait => "WAIT".into(),
        Item::End(_) => "END".into(),
        Item::Fail(reason) => format!("FAIL {reason}"),
        Item::Payload(_) => return String::new(),
    };
    match *item {
        Item::Base(Base { digest, .. }) | Item::Record(Record::Data { digest, .. }) => optional(&mut line, digest),
        Item::End(End { lines, result }) => {
            optional(&mut line, lines);
            optional(&mut line, result);
        }
        _ => {}
    }
    line.push('\n');
    line
}

/// The same in the 2014 dialect, which has two words.
pub(crate) fn classic_text(item: &Item) -> String {
    match item {
        Item::Record(Record::Data { len, .. }) => format!("DATA\n{len}\n"),
        Item::Record(Record::Hole { len }) => format!("HOLE\n{len}\n"),
        _ => String::new(),
    }
}
