//! The receiver's lines back to the sender, where a link has both directions (SPEC.md, "The conversation").

use std::fmt;

use crate::error::Violation;
use crate::line::{LineWords, digest, quoted};
use crate::{Digest, FAIL_TEXT_MAX, FailReason, StreamErrorKind};

/// The conversation's version, in the READY line and the one that wants text (SPEC.md, `ready` and `text`).
pub const CONVERSATION: u32 = 1;
/// The longest answer in bytes, its LF included (SPEC.md, "Limits").
pub const ANSWER_LINE_MAX: usize = 1024;
/// Bytes of other text that a sender passes over before the first answer (SPEC.md, "Limits").
pub const NOISE_MAX: usize = 64 << 10;
/// After this many seconds of silence either end may take the link for dead (SPEC.md, "Limits").
pub const SILENCE_SECONDS: u64 = 60;

const READY: &[u8] = b"XFER-HOLE-READY";
const TEXT: &[u8] = b"XFER-HOLE-TEXT";

/// A line from the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No receiver is there: the request's shell waits for the text of one.
    Text,
    /// The target has been looked at and may be written. The words say what the receiver is; each is printable ASCII
    /// without a space, and who doesn't know one ignores it.
    Ready(Vec<String>),
    /// Still here.
    Wait,
    /// The disk is whole, synced, under its name. With the digest of its fingerprint if the receiver has it.
    Done(Option<Digest>),
    /// The receiver gives up, and says why.
    Fail(Refusal),
    /// Something that the sender's user should know, though it works.
    Note(FailReason),
    /// The target has the fingerprint that the sender wants.
    Same,
}

impl Reply {
    /// The word of READY by which a receiver says that each record costs it a process.
    pub const SH: &str = "sh";
    /// The word of READY by which a receiver says that it checks the digest of BASE, and passes over WAIT ahead of the stream.
    pub const BASE: &str = "base";
    /// The word of READY by which a receiver says that it answers WANT.
    pub const DELTA: &str = "delta";
    /// The word of READY by which a receiver says that it writes all of its manifest before it reads the stream.
    pub const FIRST: &str = "manifest-first";
    /// The word of READY by which a receiver says that it writes to a block device.
    pub const DEVICE: &str = "device";
    /// The word of READY by which a receiver says that it holds a part of an earlier transfer.
    pub const PART: &str = "part";

    /// The word of READY by which a receiver says that the destination is a directory, and the file is made in it.
    pub const DIRECTORY: &str = "directory";

    /// Reads a line off the link, without its LF. It knows no order: that is the caller's.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::TooLong`] if the line with its LF would be longer than [`ANSWER_LINE_MAX`]; [`StreamErrorKind::Version`] for a READY
    /// of another version; [`StreamErrorKind::Line`] for all else that the grammar doesn't have.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        if line.len() >= ANSWER_LINE_MAX {
            return Err(Violation::new(
                StreamErrorKind::TooLong,
                format!("a line of more than {ANSWER_LINE_MAX} bytes"),
            ));
        }
        let mut words = LineWords::of(line);
        let first = words.next().unwrap_or_default();
        // FAIL and NOTE have text behind them, which may hold any number of spaces.
        let text = || line.get(first.len() + 1..).unwrap_or_default();
        let answer = match first {
            READY => return ready(words),
            TEXT => {
                version(&mut words)?;
                Self::Text
            }
            b"WAIT" => Self::Wait,
            b"SAME" => Self::Same,
            b"DONE" => Self::Done(digest(words.next())?),
            b"FAIL" => return Refusal::parse(text()).map(Self::Fail),
            b"NOTE" => return reason("NOTE", text()).map(Self::Note),
            _ => {
                return Err(Violation::new(
                    StreamErrorKind::Line,
                    format!("{} is no answer of a receiver", quoted(line)),
                ));
            }
        };
        words.end()?;
        Ok(answer)
    }

    /// The line with its LF, as it goes over the link.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{self}\n")
    }
}

/// Why a receiver gives up: a text for its reader, and what a program may decide by (SPEC.md, "FAIL").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kinds: Vec<String>,
    reason: FailReason,
}

impl Refusal {
    /// The same request may succeed later: the link failed, or another transfer holds the target.
    pub const AGAIN: &str = "again";
    /// The text says what is left at the target.
    pub const LEFT: &str = "left";
    /// The target's directory is missing, and the request's option `mkpath` would make it.
    pub const MKPATH: &str = "mkpath";
    /// Stands alone in front of a text that would else begin as kinds do.
    const NONE: &str = "none";

    /// Takes any text, as [`FailReason::new`] does. Kinds are words of lower-case letters.
    #[must_use]
    pub fn new(kinds: &[&str], text: &str) -> Self {
        let mut kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
        if kinds.is_empty() && split_kinds(text.as_bytes()).is_some() {
            kinds.push(Self::NONE.into());
        }
        let room = FAIL_TEXT_MAX.saturating_sub(shown_kinds(&kinds).len());
        let reason = FailReason::new(&text.chars().take(room).collect::<String>());
        Self { kinds, reason }
    }

    /// True if it is of this kind.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.kinds.iter().any(|said| said == kind)
    }

    /// Its kinds, those that this version doesn't know too.
    #[must_use]
    pub fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// The text.
    #[must_use]
    pub fn reason(&self) -> &FailReason {
        &self.reason
    }

    /// Reads what stands behind `FAIL` and a space.
    fn parse(text: &[u8]) -> Result<Self, Violation> {
        let whole = reason("FAIL", text)?;
        Ok(match split_kinds(text) {
            Some((kinds, rest)) => Self { kinds, reason: reason("FAIL", rest)? },
            None => Self { kinds: Vec::new(), reason: whole },
        })
    }
}

/// Kinds and the text behind them; `None` if the text doesn't begin with kinds.
fn split_kinds(text: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let inside = text.strip_prefix(b"(")?;
    let end = inside.iter().position(|&byte| byte == b')')?;
    let rest = inside[end + 1..].strip_prefix(b" ").filter(|rest| !rest.is_empty())?;
    let words = inside[..end].split(|&byte| byte == b' ');
    let word = |word: &[u8]| {
        let fits = !word.is_empty() && word.iter().all(u8::is_ascii_lowercase);
        fits.then(|| word.iter().copied().map(char::from).collect())
    };
    Some((words.map(word).collect::<Option<_>>()?, rest))
}

/// Kinds as they stand in front of a text, with a space behind them.
fn shown_kinds(kinds: &[String]) -> String {
    if kinds.is_empty() { String::new() } else { format!("({}) ", kinds.join(" ")) }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", shown_kinds(&self.kinds), self.reason)
    }
}

/// The conversation's version, which there is one of.
fn version(words: &mut LineWords<'_>) -> Result<(), Violation> {
    let version = words.next().unwrap_or_default();
    if version != CONVERSATION.to_string().as_bytes() {
        let what = format!("conversation {} is not spoken here, only version {CONVERSATION}", quoted(version));
        return Err(Violation::new(StreamErrorKind::Version, what));
    }
    Ok(())
}

/// What stands behind XFER-HOLE-READY.
fn ready(mut words: LineWords<'_>) -> Result<Reply, Violation> {
    version(&mut words)?;
    let mut said = Vec::new();
    while let Some(word) = words.next() {
        if word.is_empty() || !word.iter().all(u8::is_ascii_graphic) {
            return Err(Violation::new(StreamErrorKind::Line, format!("{} is no word of READY", quoted(word))));
        }
        said.push(word.iter().copied().map(char::from).collect());
    }
    Ok(Reply::Ready(said))
}

fn reason(word: &str, text: &[u8]) -> Result<FailReason, Violation> {
    let what = || format!("{word} whose text is not 1 to {FAIL_TEXT_MAX} printable characters");
    FailReason::parse(text).ok_or_else(|| Violation::new(StreamErrorKind::Line, what()))
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => write!(f, "XFER-HOLE-TEXT {CONVERSATION}"),
            Self::Ready(words) => {
                write!(f, "XFER-HOLE-READY {CONVERSATION}")?;
                words.iter().try_for_each(|word| write!(f, " {word}"))
            }
            Self::Wait => f.write_str("WAIT"),
            Self::Same => f.write_str("SAME"),
            Self::Done(None) => f.write_str("DONE"),
            Self::Done(Some(digest)) => write!(f, "DONE {digest}"),
            Self::Fail(refusal) => write!(f, "FAIL {refusal}"),
            Self::Note(reason) => write!(f, "NOTE {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let ready = |words: &[&str]| Reply::Ready(words.iter().map(|&word| word.to_owned()).collect());
        let fail = |kinds: &[&str], text: &str| Reply::Fail(Refusal::new(kinds, text));
        for (answer, text) in [
            (Reply::Text, "XFER-HOLE-TEXT 1\n".to_owned()),
            (ready(&[]), "XFER-HOLE-READY 1\n".to_owned()),
            (ready(&["recv-hole", "sh"]), "XFER-HOLE-READY 1 recv-hole sh\n".to_owned()),
            (Reply::Wait, "WAIT\n".to_owned()),
            (Reply::Same, "SAME\n".to_owned()),
            (Reply::Done(None), "DONE\n".to_owned()),
            (Reply::Done(Some(Digest::of(b"x"))), format!("DONE {}\n", Digest::of(b"x"))),
            (fail(&[], "disk.img:  no space"), "FAIL disk.img:  no space\n".to_owned()),
            (fail(&["again", "left"], "cut; kept x.part"), "FAIL (again left) cut; kept x.part\n".to_owned()),
            (fail(&[], "(again) and again"), "FAIL (none) (again) and again\n".to_owned()),
            (fail(&[], "(Again) x"), "FAIL (Again) x\n".to_owned()),
            (fail(&[], "() x"), "FAIL () x\n".to_owned()),
            (fail(&[], "(again)"), "FAIL (again)\n".to_owned()),
            (Reply::Note(FailReason::new(" old owner")), "NOTE  old owner\n".to_owned()),
        ] {
            assert_eq!(answer.text(), text);
            assert_eq!(Reply::parse(text.trim_end_matches('\n').as_bytes()).unwrap(), answer);
        }
    }

    #[test]
    fn the_longest_reason_fits_its_line() {
        for kinds in [&[][..], &[Refusal::AGAIN, Refusal::LEFT, Refusal::MKPATH]] {
            let long = Reply::Fail(Refusal::new(kinds, &"x".repeat(5000)));
            assert!(long.text().len() <= ANSWER_LINE_MAX);
            assert_eq!(Reply::parse(long.to_string().as_bytes()).unwrap(), long);
        }
    }
}
