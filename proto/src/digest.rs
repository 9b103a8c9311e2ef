//! SHA-256 as the stream writes it: 64 lower-case hexadecimal digits (SPEC.md, "Digests").

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::Sums;

/// A SHA-256 value. Written as 64 lower-case hexadecimal digits, and in no other way.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Octets of its text form.
    pub const TEXT_LEN: usize = 64;

    /// The digest of these octets.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        Self(Sha256::digest(octets).into())
    }

    /// Reads the text form; `None` for anything but 64 of `0-9a-f`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_LEN {
            return None;
        }
        let mut octets = [0; 32];
        for (octet, pair) in octets.iter_mut().zip(text.chunks_exact(2)) {
            *octet = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(octets))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes in more octets.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// The digest of all octets so far.
    #[must_use]
    pub fn digest(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// The name of a disk's content: the digest of its canonical record lines, with the parameters they were cut by
/// (SPEC.md, "The fingerprint"). Written `sha256:interval:grain:digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// How the canonical form was cut.
    pub sums: Sums,
    /// SHA-256 of the record lines.
    pub digest: Digest,
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
    fn text_form_is_lower_case_hex_and_nothing_else() {
        let digest = Digest::of(b"");
        let text = digest.to_string();
        assert_eq!(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(text.as_bytes()), Some(digest));
        assert_eq!(Digest::parse(text.to_uppercase().as_bytes()), None);
        assert_eq!(Digest::parse(&text.as_bytes()[1..]), None);
        assert_eq!(Digest::parse(format!("{text}0").as_bytes()), None);
        assert_eq!(Digest::parse(text.replace('e', "g").as_bytes()), None);
    }

    #[test]
    fn hasher_in_pieces_equals_digest_at_once() {
        let mut hasher = Hasher::default();
        hasher.update(b"HOLE ");
        hasher.update(b"4096\n");
        assert_eq!(hasher.digest(), Digest::of(b"HOLE 4096\n"));
    }
}
