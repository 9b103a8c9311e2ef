//! The receiver's lines to the sender, on a link with both directions (SPEC.md, "The conversation").

use std::fmt;

use crate::error::Violation;
use crate::line::{LineWords, digest, quoted};
use crate::{Digest, FAIL_TEXT_MAX, FailReason, StreamErrorKind};

/// The version of the conversation, which the lines XFER-HOLE-READY and XFER-HOLE-TEXT state (SPEC.md, `ready` and
/// `text`).
pub const CONVERSATION: u32 = 1;
/// The longest reply in bytes, its LF included (SPEC.md, "Limits").
pub const ANSWER_LINE_MAX: usize = 1024;
/// The number of bytes of other text that a sender ignores before the first reply (SPEC.md, "Limits").
pub const NOISE_MAX: usize = 64 << 10;
/// After this many seconds without a line, either end may treat the link as dead (SPEC.md, "Limits").
pub const SILENCE_SECONDS: u64 = 60;

const READY: &[u8] = b"XFER-HOLE-READY";
const TEXT: &[u8] = b"XFER-HOLE-TEXT";

/// A line from the receiver to the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The remote machine has no receiver: the remote shell waits for the text of one.
    Text,
    /// The receiver has checked the target, and can write it. The words state the receiver's abilities; each is
    /// printable ASCII without a space, and a sender ignores the words that it doesn't know.
    Ready(Vec<String>),
    /// The receiver is alive, and has no other reply yet.
    Wait,
    /// The disk is complete, synced and has its final name. With the digest of its fingerprint, if the receiver knows
    /// it.
    Done(Option<Digest>),
    /// The receiver gives up, and states the reason.
    Fail(Refusal),
    /// A message for the sender's user. The transfer goes on.
    Note(FailReason),
    /// The target already has the fingerprint that the sender asked for.
    Same,
}

impl Reply {
    /// A word of READY: each record costs this receiver a process.
    pub const SH: &str = "sh";
    /// A word of READY: this receiver checks the digest of BASE, and accepts WAIT before the stream.
    pub const BASE: &str = "base";
    /// A word of READY: this receiver answers WANT.
    pub const DELTA: &str = "delta";
    /// A word of READY: this receiver writes its whole manifest before it reads the stream.
    pub const FIRST: &str = "manifest-first";
    /// A word of READY: this receiver writes to a block device.
    pub const DEVICE: &str = "device";
    /// A word of READY: this receiver has a part of an earlier transfer.
    pub const PART: &str = "part";

    /// A word of READY: the destination is a directory, and this receiver creates the file in it.
    pub const DIRECTORY: &str = "directory";

    /// Parses a line, without its LF. It doesn't check the order of lines.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::TooLong`] if the line with its LF would be longer than [`ANSWER_LINE_MAX`];
    /// [`StreamErrorKind::Version`] if it states another version of the conversation; [`StreamErrorKind::Line`] if it
    /// doesn't match the grammar in another way.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        if line.len() >= ANSWER_LINE_MAX {
            return Err(Violation::new(
                StreamErrorKind::TooLong,
                format!("a line of more than {ANSWER_LINE_MAX} bytes"),
            ));
        }
        let mut words = LineWords::of(line);
        let first = words.next().unwrap_or_default();
        // After FAIL and NOTE comes text, which may contain any number of spaces.
        let text = || line.get(first.len() + 1..).unwrap_or_default();
        let reply = match first {
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
        Ok(reply)
    }

    /// The line with its LF, as it is sent.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{self}\n")
    }
}

/// The reason why a receiver gives up: kinds for programs, and a text for people (SPEC.md, "FAIL").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kinds: Vec<String>,
    reason: FailReason,
}

impl Refusal {
    /// A kind: the same request may succeed later, because the link failed or another transfer holds the target.
    pub const AGAIN: &str = "again";
    /// A kind: the text states what is left at the target.
    pub const LEFT: &str = "left";
    /// A kind: the target's directory is missing, and the request's option `mkpath` would create it.
    pub const MKPATH: &str = "mkpath";
    /// The only kind before a text that itself begins as kinds do.
    const NONE: &str = "none";

    /// Makes a refusal of any text, which is converted as [`FailReason::new`] does. Kinds are words of lower-case
    /// letters.
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

    /// True if it has this kind.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.kinds.iter().any(|said| said == kind)
    }

    /// All its kinds, including those that this version doesn't know.
    #[must_use]
    pub fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// The text for people.
    #[must_use]
    pub fn reason(&self) -> &FailReason {
        &self.reason
    }

    /// Parses the text after `FAIL` and a space.
    fn parse(text: &[u8]) -> Result<Self, Violation> {
        let whole = reason("FAIL", text)?;
        Ok(match split_kinds(text) {
            Some((kinds, rest)) => Self { kinds, reason: reason("FAIL", rest)? },
            None => Self { kinds: Vec::new(), reason: whole },
        })
    }
}

/// Splits a text into kinds and the rest. `None` if the text doesn't begin with kinds.
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

/// The text form of kinds, with a space after them. Empty if there are none.
fn shown_kinds(kinds: &[String]) -> String {
    if kinds.is_empty() { String::new() } else { format!("({}) ", kinds.join(" ")) }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", shown_kinds(&self.kinds), self.reason)
    }
}

/// Checks the version of the conversation: 1 is the only one.
fn version(words: &mut LineWords<'_>) -> Result<(), Violation> {
    let version = words.next().unwrap_or_default();
    if version != CONVERSATION.to_string().as_bytes() {
        let what = format!("conversation {} is not spoken here, only version {CONVERSATION}", quoted(version));
        return Err(Violation::new(StreamErrorKind::Version, what));
    }
    Ok(())
}

/// Parses the words after XFER-HOLE-READY.
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
    fn parsing_inverts_writing() {
        let ready = |words: &[&str]| Reply::Ready(words.iter().map(|&word| word.to_owned()).collect());
        let fail = |kinds: &[&str], text: &str| Reply::Fail(Refusal::new(kinds, text));
        for (reply, text) in [
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
            assert_eq!(reply.text(), text);
            assert_eq!(Reply::parse(text.trim_end_matches('\n').as_bytes()).unwrap(), reply);
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
