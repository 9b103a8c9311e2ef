//! Manifests: a disk's record lines without its bytes, so that each part is known by its digest (SPEC.md, "The
//! manifest"). A manifest can be a file, and it is a receiver's reply to WANT.

use std::fmt::{self, Write};

use crate::error::Violation;
use crate::frame::Frame;
use crate::line::{self, FAIL, LineWords, VERSION};
use crate::{
    CoverageChecker, Digest, FAIL_LINE_MAX, FailReason, Fingerprint, HashParams, Hasher, LINE_MAX, Record, StreamError,
    StreamErrorKind, StreamHeader,
};

/// The first line of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The disk's size in bytes, 0 to [`crate::LEN_MAX`].
    pub size: u64,
    /// Interval and grain of the records.
    pub sums: HashParams,
    /// Bytes from the disk's beginning that the records cover: `size`, or a smaller multiple of the interval.
    pub offered: u64,
}

impl ManifestHeader {
    /// The beginning of every such line.
    pub const WORD: &[u8] = b"XFER-HOLE-MANIFEST ";

    /// The header of a manifest that covers a whole disk of `size` bytes.
    #[must_use]
    pub fn whole(size: u64, hash_params: HashParams) -> Self {
        Self { size, sums: hash_params, offered: size }
    }

    /// Parses the line, without its LF.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::NotAStream`] if the line doesn't begin as a manifest does, [`StreamErrorKind::Version`] if it
    /// has another version; [`StreamErrorKind::TooLong`], [`StreamErrorKind::Number`] and [`StreamErrorKind::Line`] if
    /// it doesn't match the grammar.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        // A line with another beginning is reported as such, whatever its length.
        if line.starts_with(Self::WORD) {
            check_length(line)?;
        }
        parse_header(line)
    }

    fn coverage(&self) -> CoverageChecker {
        CoverageChecker::new(&StreamHeader { size: self.offered, sums: Some(self.sums) }, None)
    }

    /// The fingerprint of a disk whose record lines have this digest. `None` if the records cover only a part of it.
    fn fingerprint(&self, digest: Digest) -> Option<Fingerprint> {
        (self.offered == self.size).then_some(Fingerprint { sums: self.sums, digest })
    }
}

/// Writes the line without its LF.
impl fmt::Display for ManifestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interval, grain) = (self.sums.interval(), self.sums.grain());
        write!(f, "XFER-HOLE-MANIFEST 1 {} sha256 {interval} {grain}", self.size)?;
        if self.offered < self.size { write!(f, " {}", self.offered) } else { Ok(()) }
    }
}

/// A line of a manifest after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestEntry {
    /// DATA with its digest, or HOLE: the next `len` bytes of the disk.
    Record(Record),
    /// The writer is alive, and has no record yet.
    Wait,
    /// The records cover all that the header offers, and the record lines have this digest.
    End(Digest),
    /// The writer gives up, and states the reason.
    Fail(FailReason),
}

/// Checks a manifest line by line: order, coverage, canonical form, and the digest of the record lines. It stores no
/// lines.
#[derive(Clone, Debug)]
pub struct ManifestReader {
    manifest: ManifestHeader,
    coverage: CoverageChecker,
    lines: Hasher,
    records: u64,
    ended: Option<Digest>,
    failed: bool,
}

impl ManifestReader {
    /// Creates a reader for the lines that follow this first line.
    #[must_use]
    pub fn new(manifest: ManifestHeader) -> Self {
        Self {
            manifest,
            coverage: manifest.coverage(),
            lines: Hasher::default(),
            records: 0,
            ended: None,
            failed: false,
        }
    }

    /// The manifest's first line.
    #[must_use]
    pub fn manifest(&self) -> &ManifestHeader {
        &self.manifest
    }

    /// The end of the last record: a disk offset in bytes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.coverage.at()
    }

    /// The number that the next record has, from 1. WAIT lines count as records.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.records + 1
    }

    /// True after END.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The disk's fingerprint, after END, if the manifest covers the whole disk.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.manifest.fingerprint(self.ended?)
    }

    /// Checks the next line, without its LF.
    ///
    /// # Errors
    ///
    /// A line that is not allowed here, with the record's number and disk offset. The caller must not pass further
    /// lines after an error.
    pub fn line(&mut self, line: &[u8]) -> Result<ManifestEntry, StreamError> {
        let (record, offset) = (self.records + 1, self.coverage.at());
        self.take(line).map_err(|violation| violation.at(record, offset))
    }

    fn take(&mut self, line: &[u8]) -> Result<ManifestEntry, Violation> {
        if self.ended.is_some() {
            return Err(Violation::new(StreamErrorKind::Trailing, "something follows END"));
        }
        if self.failed {
            return Err(Violation::new(StreamErrorKind::Order, "something follows FAIL"));
        }
        check_length(line)?;
        let entry = match line::parse(line)? {
            Frame::Record(record @ (Record::Data { digest: Some(_), .. } | Record::Hole { .. })) => {
                self.coverage.step(&record)?;
                self.records += 1;
                self.lines.update(line);
                self.lines.update(b"\n");
                ManifestEntry::Record(record)
            }
            Frame::Record(Record::Data { .. }) => {
                return Err(Violation::new(StreamErrorKind::Sums, "DATA without a digest in a manifest"));
            }
            Frame::Wait => {
                self.records += 1;
                ManifestEntry::Wait
            }
            Frame::End(end) => {
                self.coverage.finish()?;
                let said = end.lines.filter(|_| end.result.is_none());
                let said =
                    said.ok_or_else(|| Violation::new(StreamErrorKind::Sums, "END of a manifest has one digest"))?;
                if said != self.lines.clone().digest() {
                    return Err(Violation::new(
                        StreamErrorKind::Mismatch,
                        "the record lines don't have the digest that END gives",
                    ));
                }
                self.ended = Some(said);
                ManifestEntry::End(said)
            }
            Frame::Fail(reason) => {
                self.failed = true;
                ManifestEntry::Fail(reason)
            }
            _ => return Err(Violation::new(StreamErrorKind::Order, "a line that no manifest has")),
        };
        Ok(entry)
    }

    /// Checks, at the end of a file, that the manifest is complete.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::Cut`] if END is missing.
    pub fn finish(&self) -> Result<(), StreamError> {
        if self.ended.is_some() {
            return Ok(());
        }
        let what = "the manifest was cut before END";
        Err(StreamError::new(StreamErrorKind::Cut, self.records + 1, self.coverage.at(), what))
    }
}

/// Writes the record lines of a manifest and computes their digest. The caller passes records in canonical form;
/// adjacent zeros may be split, since the writer merges them (SPEC.md, "The canonical form").
#[derive(Clone, Debug)]
pub struct ManifestWriter {
    manifest: ManifestHeader,
    coverage: CoverageChecker,
    lines: Hasher,
    records: u64,
    /// Length in bytes of the pending HOLE, which later zeros may extend.
    hole: u64,
}

impl ManifestWriter {
    /// Creates a writer for the lines that follow this first line. The caller writes the first line.
    #[must_use]
    pub fn new(manifest: ManifestHeader) -> Self {
        Self { manifest, coverage: manifest.coverage(), lines: Hasher::default(), records: 0, hole: 0 }
    }

    /// The end of the bytes passed so far: a disk offset in bytes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.coverage.at().saturating_add(self.hole)
    }

    /// Adds the next record, DATA with its digest or HOLE, and appends the finished lines to `lines`. A HOLE is written
    /// when DATA or END follows.
    ///
    /// # Errors
    ///
    /// The errors of [`CoverageChecker::step`], as [`StreamError`]s; [`StreamErrorKind::Sums`] for DATA without a
    /// digest, [`StreamErrorKind::Order`] for KEEP.
    pub fn record(&mut self, record: &Record, lines: &mut String) -> Result<(), StreamError> {
        let (kind, what) = match *record {
            Record::Hole { len } => {
                self.zeros(len);
                return Ok(());
            }
            Record::Data { len, digest: Some(digest) } => return self.data(len, digest, lines),
            Record::Data { digest: None, .. } => (StreamErrorKind::Sums, "DATA without a digest in a manifest"),
            Record::Keep { .. } => (StreamErrorKind::Order, "a line that no manifest has"),
        };
        Err(StreamError::new(kind, self.records + 1, self.coverage.at(), what))
    }

    /// Adds `len` bytes of zeros.
    pub fn zeros(&mut self, len: u64) {
        self.hole = self.hole.saturating_add(len);
    }

    /// Adds `len` bytes of data with this digest, and appends the finished lines to `lines`.
    ///
    /// # Errors
    ///
    /// The errors of [`CoverageChecker::step`], as [`StreamError`]s.
    pub fn data(&mut self, len: u64, digest: Digest, lines: &mut String) -> Result<(), StreamError> {
        self.close(lines)?;
        self.push(&Record::Data { len, digest: Some(digest) }, lines)
    }

    /// Ends the manifest: appends the last lines, END included, and returns the digest of the record lines.
    ///
    /// # Errors
    ///
    /// The error of [`CoverageChecker::finish`], as a [`StreamError`].
    pub fn end(&mut self, lines: &mut String) -> Result<Digest, StreamError> {
        self.close(lines)?;
        let (record, offset) = (self.records + 1, self.coverage.at());
        self.coverage.finish().map_err(|error| Violation::from(error).at(record, offset))?;
        let digest = self.lines.clone().digest();
        let _infallible = writeln!(lines, "END {digest}");
        Ok(digest)
    }

    /// The fingerprint of a disk whose record lines have this digest. `None` if the records cover only a part of it.
    #[must_use]
    pub fn fingerprint(&self, digest: Digest) -> Option<Fingerprint> {
        self.manifest.fingerprint(digest)
    }

    fn close(&mut self, lines: &mut String) -> Result<(), StreamError> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            len => self.push(&Record::Hole { len }, lines),
        }
    }

    fn push(&mut self, record: &Record, lines: &mut String) -> Result<(), StreamError> {
        let (number, offset) = (self.records + 1, self.coverage.at());
        self.coverage.step(record).map_err(|error| Violation::from(error).at(number, offset))?;
        self.records += 1;
        let from = lines.len();
        lines.push_str(&line::text(&Frame::Record(*record)));
        self.lines.update(&lines.as_bytes()[from..]);
        Ok(())
    }
}

/// The sender's WANT line: asks the receiver for a manifest of what its target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestRequest {
    /// The disk's size in bytes, 0 to [`crate::LEN_MAX`].
    pub size: u64,
    /// Interval and grain that the sender uses.
    pub sums: HashParams,
    /// The digest of the disk's fingerprint, if the sender knows it already.
    pub digest: Option<Digest>,
}

impl ManifestRequest {
    /// The beginning of every such line.
    pub const WORD: &[u8] = b"WANT ";

    /// Parses the line, without its LF.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::TooLong`], [`StreamErrorKind::Number`] and [`StreamErrorKind::Line`] if it doesn't match the
    /// grammar.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        check_length(line)?;
        parse_request(line)
    }
}

/// Writes the line without its LF.
impl fmt::Display for ManifestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WANT {} sha256 {} {}", self.size, self.sums.interval(), self.sums.grain())?;
        self.digest.map_or(Ok(()), |digest| write!(f, " {digest}"))
    }
}

fn check_length(line: &[u8]) -> Result<(), Violation> {
    let limit = if line.starts_with(FAIL) { FAIL_LINE_MAX } else { LINE_MAX };
    if line.len() < limit {
        return Ok(());
    }
    Err(Violation::new(StreamErrorKind::TooLong, format!("a line longer than {limit} bytes")))
}

/// Parses the first line of a manifest, without its LF.
fn parse_header(line: &[u8]) -> Result<ManifestHeader, Violation> {
    let rest = line
        .strip_prefix(ManifestHeader::WORD)
        .ok_or_else(|| Violation::new(StreamErrorKind::NotAStream, "this is no manifest"))?;
    let mut words = LineWords::of(rest);
    match words.next() {
        Some(VERSION) => {}
        other => {
            let version = line::quoted(other.unwrap_or_default());
            let what = format!("version {version} of a manifest is not read here, only version 1");
            return Err(Violation::new(StreamErrorKind::Version, what));
        }
    }
    let (disk, hash_params) = line::size_and_hash_params(&mut words)?;
    let offered = match words.next() {
        None => disk,
        word => {
            let offered = line::size(word, "offered length")?;
            if offered >= disk || !offered.is_multiple_of(hash_params.interval()) {
                let what = format!("offered length {offered} is no multiple of the interval below the size {disk}");
                return Err(Violation::new(StreamErrorKind::Number, what));
            }
            offered
        }
    };
    words.end()?;
    Ok(ManifestHeader { size: disk, sums: hash_params, offered })
}

/// Parses a WANT line, without its LF.
fn parse_request(line: &[u8]) -> Result<ManifestRequest, Violation> {
    let mut words = LineWords::of(line);
    if words.next() != Some(b"WANT") {
        return Err(Violation::new(StreamErrorKind::Line, format!("{} is no WANT", line::quoted(line))));
    }
    let (size, hash_params) = line::size_and_hash_params(&mut words)?;
    let digest = line::digest(words.next())?;
    words.end()?;
    Ok(ManifestRequest { size, sums: hash_params, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_params() -> HashParams {
        HashParams::new(8192, 4096).unwrap()
    }

    fn written(manifest: ManifestHeader, runs: &[(u64, bool)]) -> (String, Digest) {
        let (mut writer, mut lines) = (ManifestWriter::new(manifest), format!("{manifest}\n"));
        for &(len, data) in runs {
            match data {
                true => writer.data(len, Digest::of(&len.to_be_bytes()), &mut lines).unwrap(),
                false => writer.zeros(len),
            }
        }
        let digest = writer.end(&mut lines).unwrap();
        (lines, digest)
    }

    fn read(text: &str) -> Result<(Vec<ManifestEntry>, ManifestReader), StreamError> {
        let mut lines = text.lines();
        let first = ManifestHeader::parse(lines.next().unwrap().as_bytes()).map_err(|violation| violation.at(0, 0))?;
        let mut reader = ManifestReader::new(first);
        let entries = lines.map(|line| reader.line(line.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Ok((entries, reader))
    }

    #[test]
    fn written_manifest_is_read_and_zeros_are_merged() {
        let manifest = ManifestHeader::whole(30_000, hash_params());
        let (text, digest) =
            written(manifest, &[(4096, false), (4096, false), (8192, true), (4096, true), (9520, false)]);
        let (entries, reader) = read(&text).unwrap();
        let data = |len: u64| ManifestEntry::Record(Record::Data { len, digest: Some(Digest::of(&len.to_be_bytes())) });
        let hole = |len| ManifestEntry::Record(Record::Hole { len });
        assert_eq!(entries, [hole(8192), data(8192), data(4096), hole(9520), ManifestEntry::End(digest)]);
        assert_eq!(reader.fingerprint(), Some(Fingerprint { sums: hash_params(), digest }));
        assert_eq!(text.lines().next(), Some("XFER-HOLE-MANIFEST 1 30000 sha256 8192 4096"));
    }

    #[test]
    fn partial_manifest_has_no_fingerprint() {
        let manifest = ManifestHeader { offered: 16384, ..ManifestHeader::whole(30_000, hash_params()) };
        let (text, _) = written(manifest, &[(8192, true), (8192, false)]);
        assert_eq!(text.lines().next(), Some("XFER-HOLE-MANIFEST 1 30000 sha256 8192 4096 16384"));
        let (_, reader) = read(&text).unwrap();
        assert_eq!((reader.fingerprint(), reader.at()), (None, 16384));
        for wrong in ["30000", "16385", "30001", "09"] {
            let line = format!("XFER-HOLE-MANIFEST 1 30000 sha256 8192 4096 {wrong}");
            assert!(ManifestHeader::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn invalid_lines_are_refused_with_their_position() {
        let manifest = ManifestHeader::whole(16384, hash_params());
        let (text, _) = written(manifest, &[(8192, true), (8192, false)]);
        let kind = |text: &str| {
            let error = read(text).unwrap_err();
            (error.kind(), error.record(), error.offset())
        };
        assert_eq!(kind(&text.replace("HOLE 8192", "HOLE 8193")), (StreamErrorKind::Coverage, 2, 8192));
        assert_eq!(kind(&text.replace("HOLE 8192", "HOLE 4096")), (StreamErrorKind::Coverage, 3, 12288));
        assert_eq!(kind(&text.replace("HOLE 8192", "KEEP 8192")), (StreamErrorKind::Order, 2, 8192));
        assert_eq!(kind(&text.replace("HOLE 8192", "DATA 8192")), (StreamErrorKind::Sums, 2, 8192));
        assert_eq!(kind(&text.replace("HOLE 8192", "BASE 8192")), (StreamErrorKind::Order, 2, 8192));
        assert_eq!(kind(&text.replace("HOLE 8192", "HOLE 4096\nHOLE 4096")), (StreamErrorKind::Form, 3, 12288));
        assert_eq!(kind(&format!("{text}WAIT\n")), (StreamErrorKind::Trailing, 3, 16384));
        assert_eq!(
            kind(text.split_inclusive('\n').take(3).collect::<String>().as_str()),
            (StreamErrorKind::Cut, 3, 16384)
        );
        let other = text.replace("DATA 8192 ", "DATA 8192 0").replacen("DATA 8192 0", "DATA 8192 ", 0);
        assert_eq!(kind(&other).0, StreamErrorKind::Line);
        let digest = Digest::of(&8192_u64.to_be_bytes()).to_string();
        assert_eq!(
            kind(&text.replacen(&digest, &Digest::of(b"").to_string(), 1)),
            (StreamErrorKind::Mismatch, 3, 16384)
        );
        assert_eq!(kind(&format!("{}\n", text.lines().next().unwrap())), (StreamErrorKind::Cut, 1, 0));
    }

    #[test]
    fn want_line_has_one_text_form() {
        for digest in [None, Some(Digest::of(b"x"))] {
            let want = ManifestRequest { size: 5, sums: hash_params(), digest };
            assert_eq!(ManifestRequest::parse(want.to_string().as_bytes()).unwrap(), want);
        }
        for wrong in ["WANT 5", "WANT 5 sha256 8192", "WANT 5 sha256 8192 4096 x", "WANT  5 sha256 8192 4096", "want 5"]
        {
            assert!(ManifestRequest::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
