//! The fingerprint of a disk: identifies its content independently of the format that stores it (SPEC.md, "The
//! fingerprint").

use std::fmt;

use crate::digest::Digest;
use crate::record::HashParams;

/// Identifies a disk's content: the digest of its canonical record lines, and the interval and grain of that form
/// (SPEC.md, "The fingerprint"). Its text form is `sha256:interval:grain:digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Interval and grain of the canonical form.
    pub sums: HashParams,
    /// SHA-256 of the record lines.
    pub digest: Digest,
}

impl Fingerprint {
    /// Parses the text form. `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_prefix("sha256:")?.split(':');
        let (interval, grain, digest) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?);
        let found = Self { sums: HashParams::new(interval, grain)?, digest: Digest::parse(digest.as_bytes())? };
        // Rejects other spellings of a number, and text after the digest.
        (found.to_string() == text).then_some(found)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}:{}:{}", self.sums.interval(), self.sums.grain(), self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_has_one_text_form() {
        let found = Fingerprint { sums: HashParams::default(), digest: Digest::of(b"") };
        let text = found.to_string();
        assert_eq!(Fingerprint::parse(&text), Some(found));
        let others =
            [text.to_uppercase(), format!("{text}:"), format!("{text}:1"), text[1..].into(), text[..80].into()];
        let numbers = ["01048576", "+1048576", "1048577", "1048576 ", ""].map(|number| text.replace("1048576", number));
        for other in others.iter().chain(&numbers) {
            assert_eq!(Fingerprint::parse(other), None, "{other}");
        }
    }
}
