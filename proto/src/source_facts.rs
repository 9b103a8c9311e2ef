//! The SOURCE line: facts about the sender's image, before the stream (SPEC.md, "SOURCE").

use std::fmt;

use crate::error::Violation;
use crate::line::{LineWords, quoted};
use crate::{LEN_MAX, StreamErrorKind};

/// Facts about the sender's image. The sender states them before the stream, to a receiver with the word
/// [`SourceFacts::ASKED`] in READY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceFacts {
    /// Not all users may read the image: a new file at the destination gets permissions for its owner only.
    pub private: bool,
    /// The number of bytes of the disk in data extents. It may be an estimate.
    pub data: Option<u64>,
}

impl SourceFacts {
    /// The beginning of the line.
    pub const WORD: &[u8] = b"SOURCE ";
    /// The word of READY by which a receiver asks for the line.
    pub const ASKED: &str = "source";

    /// Parses the line, without its LF. Unknown words are ignored.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::Line`] if it is no SOURCE line, [`StreamErrorKind::Number`] if `data=` exceeds the largest
    /// disk.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        let rest =
            line.strip_prefix(Self::WORD).ok_or_else(|| Violation::new(StreamErrorKind::Line, "SOURCE is missing"))?;
        let (mut words, mut facts) = (LineWords::of(rest), Self::default());
        while let Some(word) = words.next() {
            if word.is_empty() || !word.iter().all(u8::is_ascii_graphic) {
                return Err(Violation::new(StreamErrorKind::Line, format!("{} is no word of SOURCE", quoted(word))));
            }
            if word == b"private" {
                facts.private = true;
            } else if let Some(number) = word.strip_prefix(b"data=") {
                facts.data = Some(data(number)?);
            }
        }
        Ok(facts)
    }
}

/// Parses the number after `data=`: decimal digits without a leading zero.
fn data(number: &[u8]) -> Result<u64, Violation> {
    let digits =
        !number.is_empty() && number.iter().all(u8::is_ascii_digit) && (number.len() == 1 || number[0] != b'0');
    if !digits {
        return Err(Violation::new(
            StreamErrorKind::Line,
            format!("data {} is not a number as the grammar has it", quoted(number)),
        ));
    }
    let bytes = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    let too_large =
        || Violation::new(StreamErrorKind::Number, format!("data {} is larger than {LEN_MAX}", quoted(number)));
    bytes.filter(|&bytes| bytes <= LEN_MAX).ok_or_else(too_large)
}

impl fmt::Display for SourceFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.private { "SOURCE private" } else { "SOURCE public" })?;
        self.data.map_or(Ok(()), |data| write!(f, " data={data}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_inverts_writing() {
        for private in [false, true] {
            for data in [None, Some(0), Some(4096), Some(LEN_MAX)] {
                let facts = SourceFacts { private, data };
                assert_eq!(SourceFacts::parse(facts.to_string().as_bytes()).unwrap(), facts);
            }
        }
        let later = SourceFacts::parse(b"SOURCE private colour=blue").unwrap();
        assert_eq!(later, SourceFacts { private: true, data: None }, "a word of a later version");
    }

    #[test]
    fn line_outside_the_grammar_is_refused() {
        for wrong in [
            &b"SOURCE"[..],
            b"SOURCE ",
            b"SOURCE  private",
            b"SOURCE private ",
            b"SOURCE data=",
            b"SOURCE data=01",
            b"SOURCE data=-1",
            b"SOURCE data=9223372036854775808",
            b"SOURCE data=99999999999999999999999",
            b"SOURCE pri\0vate",
            b"source private",
        ] {
            assert!(SourceFacts::parse(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
