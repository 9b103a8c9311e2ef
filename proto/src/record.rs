//! The lines of a stream as values (SPEC.md, "Grammar").

use std::fmt;

use crate::Digest;

/// The largest size and length, in bytes: 2^63 - 1, the largest file offset (SPEC.md, `len`).
pub const LEN_MAX: u64 = i64::MAX.unsigned_abs();
/// The longest line in bytes, its LF included (SPEC.md, "Limits").
pub const LINE_MAX: usize = 256;
/// The longest FAIL line in bytes, its LF included (SPEC.md, "Limits").
pub const FAIL_LINE_MAX: usize = 1024;
/// The longest text of a FAIL line in bytes (SPEC.md, `fail`).
pub const FAIL_TEXT_MAX: usize = 900;
/// The smallest interval in bytes (SPEC.md, `interval`).
pub const INTERVAL_MIN: u64 = 4 << 10;
/// The largest interval in bytes (SPEC.md, `interval`).
pub const INTERVAL_MAX: u64 = 16 << 20;
/// The default interval in bytes.
pub const INTERVAL_DEFAULT: u64 = 1 << 20;
/// The smallest grain in bytes (SPEC.md, `grain`).
pub const GRAIN_MIN: u64 = 512;
/// The default grain in bytes.
pub const GRAIN_DEFAULT: u64 = 4 << 10;
/// A sender that has written nothing for this many seconds writes WAIT (SPEC.md, `wait`).
pub const WAIT_SECONDS: u64 = 15;

/// The dialect of a stream. The caller always states it; it is never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Version 1, as in SPEC.md.
    #[default]
    V1,
    /// The 2014 dialect: it has no open line and no END, so a truncated stream can't be detected (SPEC.md, "The 2014
    /// dialect").
    Classic,
}

/// How digests are computed: interval and grain, as in the open line's `sha256 interval grain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashParams {
    interval: u64,
    grain: u64,
}

impl HashParams {
    /// `interval` and `grain` are in bytes: powers of two, 4 KiB to 16 MiB and 512 to `interval`. `None` for other
    /// values.
    #[must_use]
    pub fn new(interval: u64, grain: u64) -> Option<Self> {
        let fits = interval.is_power_of_two()
            && (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval)
            && grain.is_power_of_two()
            && (GRAIN_MIN..=interval).contains(&grain);
        fits.then_some(Self { interval, grain })
    }

    /// The interval in bytes. No DATA record crosses a multiple of it.
    #[must_use]
    pub fn interval(self) -> u64 {
        self.interval
    }

    /// The grain in bytes. Zeros are detected in blocks of this size.
    #[must_use]
    pub fn grain(self) -> u64 {
        self.grain
    }
}

impl Default for HashParams {
    fn default() -> Self {
        Self { interval: INTERVAL_DEFAULT, grain: GRAIN_DEFAULT }
    }
}

/// The open line: the first line of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The disk's size in bytes, 0 to [`LEN_MAX`].
    pub size: u64,
    /// Interval and grain, if the stream carries digests.
    pub sums: Option<HashParams>,
}

/// The BASE line: the content that the target must have before KEEP is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The minimum size of the target, in bytes.
    pub size: u64,
    /// The digest of the fingerprint that the target must have.
    pub digest: Option<Digest>,
}

/// A part of the disk. The records of a stream, in order, cover the disk exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// `len` bytes of payload follow. With digests, the line contains their SHA-256.
    Data {
        /// Length in bytes of the disk, 1 to [`LEN_MAX`].
        len: u64,
        /// SHA-256 of the payload.
        digest: Option<Digest>,
    },
    /// `len` bytes that read as zeros.
    Hole {
        /// Length in bytes of the disk, 1 to [`LEN_MAX`].
        len: u64,
    },
    /// `len` bytes that the target has already.
    Keep {
        /// Length in bytes of the disk, 1 to [`LEN_MAX`].
        len: u64,
    },
}

impl Record {
    /// The first word of its line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Data { .. } => "DATA",
            Self::Hole { .. } => "HOLE",
            Self::Keep { .. } => "KEEP",
        }
    }

    /// The number of bytes of the disk that it covers.
    #[must_use]
    pub fn len(&self) -> u64 {
        match *self {
            Self::Data { len, .. } | Self::Hole { len } | Self::Keep { len } => len,
        }
    }

    /// True for a length of 0, which no valid record has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of payload bytes that follow its line.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        match *self {
            Self::Data { len, .. } => len,
            Self::Hole { .. } | Self::Keep { .. } => 0,
        }
    }
}

/// The END line, which ends a complete stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// SHA-256 of all record lines. Present if, and only if, the stream has digests.
    pub lines: Option<Digest>,
    /// The digest of the fingerprint of the whole result (SPEC.md, "END").
    pub result: Option<Digest>,
}

/// The reason why a sender gives up: 1 to 900 bytes of printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailReason(String);

impl FailReason {
    /// Makes a reason of any text: characters that are not printable ASCII become `?`, text beyond 900 bytes is cut,
    /// and an empty text becomes `unknown`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        let line: String = text.chars().map(printable).take(FAIL_TEXT_MAX).collect();
        Self(if line.is_empty() { "unknown".into() } else { line })
    }

    /// Parses a reason from the wire. `None` unless it is 1 to 900 bytes of `%x20-7E`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let fits = (1..=FAIL_TEXT_MAX).contains(&text.len()) && text.iter().all(|c| matches!(c, b' '..=b'~'));
        fits.then(|| Self(text.iter().copied().map(char::from).collect()))
    }
}

impl fmt::Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_params_accept_powers_of_two_in_range_only() {
        assert!(HashParams::new(4096, 512).is_some());
        assert!(HashParams::new(16 << 20, 16 << 20).is_some());
        for (interval, grain) in
            [(2048, 512), (32 << 20, 512), (4096, 256), (4096, 8192), (12288, 4096), (8192, 1536), (0, 0)]
        {
            assert_eq!(HashParams::new(interval, grain), None, "{interval} {grain}");
        }
    }

    #[test]
    fn fail_reason_always_fits_its_line() {
        assert_eq!(FailReason::new("").to_string(), "unknown");
        assert_eq!(FailReason::new("a\nb\u{e9}").to_string(), "a?b?");
        let long = FailReason::new(&"x".repeat(5000));
        assert_eq!(FailReason::parse(long.to_string().as_bytes()), Some(long));
        assert_eq!(FailReason::parse(b""), None);
        assert_eq!(FailReason::parse(b"tab\there"), None);
    }
}
