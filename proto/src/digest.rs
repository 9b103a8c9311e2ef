//! SHA-256 values in the stream's text form: 64 lower-case hexadecimal digits (SPEC.md, "Digests").

use std::{fmt, slice};

use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

/// Sizes in bytes: a block of SHA-256, and the message length at the end of the last block.
const BLOCK: usize = 64;
const LENGTH: usize = 8;
/// The state before the first block (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A SHA-256 value. Its only text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Length of the text form, in bytes.
    pub const TEXT_LEN: usize = 64;
    /// Length of the binary form, in bytes.
    pub const BYTES: usize = 32;

    /// The binary form.
    #[must_use]
    pub fn bytes(self) -> [u8; Self::BYTES] {
        self.0
    }

    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Hashes many texts, two at a time, which is faster than one after the other: a processor with SHA-256
    /// instructions has idle cycles while it waits for the result of an instruction. `tell` is called once for each
    /// text, with its index and its digest, in no particular order.
    pub fn of_each<'a>(texts: impl IntoIterator<Item = &'a [u8]>, mut tell: impl FnMut(usize, Self)) {
        let mut texts = texts.into_iter().enumerate().map(|(number, text)| HashLane::new(number, text));
        let (mut here, mut there) = (texts.next(), texts.next());
        while let (Some(one), Some(other)) = (&mut here, &mut there) {
            let both = one.blocks.len().min(other.blocks.len());
            let (first, second) = (one.next(both), other.next(both));
            for (block, opposite) in first.iter().zip(second) {
                compress256(&mut one.state, slice::from_ref(block));
                compress256(&mut other.state, slice::from_ref(opposite));
            }
            for lane in [&mut here, &mut there] {
                if let Some(done) = lane.take_if(|lane| lane.blocks.is_empty()) {
                    tell(done.number, done.finish());
                    *lane = texts.next();
                }
            }
        }
        if let Some(last) = here.or(there) {
            tell(last.number, last.finish());
        }
    }

    /// Parses the text form. `None` for anything but 64 characters of `0-9a-f`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_LEN {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl From<[u8; Digest::BYTES]> for Digest {
    fn from(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }
}

/// The state of one text that is being hashed (FIPS 180-4, 5.1.1 and 6.2).
struct HashLane<'a> {
    number: usize,
    state: [u32; 8],
    /// The whole blocks that are not hashed yet; `rest` is the partial block after them.
    blocks: &'a [[u8; BLOCK]],
    rest: &'a [u8],
    /// Length of the whole text, in bytes.
    len: usize,
}

impl<'a> HashLane<'a> {
    fn new(number: usize, text: &'a [u8]) -> Self {
        let (blocks, rest) = text.as_chunks();
        Self { number, state: INITIAL, blocks, rest, len: text.len() }
    }

    fn next(&mut self, count: usize) -> &'a [[u8; BLOCK]] {
        let (now, later) = self.blocks.split_at(count);
        self.blocks = later;
        now
    }

    fn finish(mut self) -> Digest {
        compress256(&mut self.state, self.blocks);
        let mut last = [0; 2 * BLOCK];
        last[..self.rest.len()].copy_from_slice(self.rest);
        last[self.rest.len()] = 0x80;
        let end = if self.rest.len() + 1 + LENGTH > BLOCK { 2 * BLOCK } else { BLOCK };
        last[end - LENGTH..end].copy_from_slice(&(self.len as u64 * 8).to_be_bytes());
        compress256(&mut self.state, last[..end].as_chunks().0);
        let mut digest = [0; 32];
        digest.as_chunks_mut().0.iter_mut().zip(self.state).for_each(|(place, word)| *place = word.to_be_bytes());
        Digest(digest)
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
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut text = [0; Self::TEXT_LEN];
        text.iter_mut().zip(digits).for_each(|(place, digit)| *place = b"0123456789abcdef"[usize::from(digit)]);
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An incremental SHA-256 computation.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Appends bytes to the hashed text.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_lower_case_hexadecimal_only() {
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
    fn of_each_equals_of_for_every_text() {
        let bytes: Vec<u8> = (0..700_u32).map(|at| at.to_be_bytes()[3].wrapping_mul(31)).collect();
        let lengths = [0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 128, 129, 500];
        for count in 0..4 {
            for first in lengths {
                for then in lengths {
                    let texts: Vec<_> =
                        [first, then, 64, first].into_iter().take(count).map(|len| &bytes[len / 3..][..len]).collect();
                    let mut digests = vec![None; count];
                    Digest::of_each(texts.iter().copied(), |number, digest| digests[number] = Some(digest));
                    let alone: Vec<_> = texts.iter().map(|text| Some(Digest::of(text))).collect();
                    assert_eq!(digests, alone);
                }
            }
        }
    }

    #[test]
    fn hasher_equals_digest_of_the_whole_text() {
        let mut hasher = Hasher::default();
        hasher.update(b"HOLE ");
        hasher.update(b"4096\n");
        assert_eq!(hasher.digest(), Digest::of(b"HOLE 4096\n"));
    }
}
