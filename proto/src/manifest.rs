//! A disk's record lines without its bytes: what is where, by digest (SPEC.md, "The manifest"). A document of its own, and what a
//! receiver answers a sender that asks what it has.

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
    /// How it was cut.
    pub sums: HashParams,
    /// Bytes from the disk's beginning that the records cover: `size`, or less, and then a multiple of the interval.
    pub offered: u64,
}

impl ManifestHeader {
    /// How every such line begins.
    pub const WORD: &[u8] = b"XFER-HOLE-MANIFEST ";

    /// Of a whole disk.
    #[must_use]
    pub fn whole(size: u64, sums: HashParams) -> Self {
        Self { size, sums, offered: size }
    }

    /// Reads the line, without its LF.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::NotAStream`] for a line that doesn't begin as a manifest does, [`StreamErrorKind::Version`] for one of another version,
    /// [`StreamErrorKind::TooLong`], [`StreamErrorKind::Number`] and [`StreamErrorKind::Line`] for what the grammar doesn't have.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        // What doesn't even begin as one is none, however long it is.
        if line.starts_with(Self::WORD) {
            check_length(line)?;
        }
        parse_header(line)
    }

    fn cursor(&self) -> CoverageChecker {
        CoverageChecker::new(&StreamHeader { size: self.offered, sums: Some(self.sums) }, None)
    }

    /// The fingerprint of a disk with these record lines; none if they don't cover it.
    fn fingerprint(&self, digest: Digest) -> Option<Fingerprint> {
        (self.offered == self.size).then_some(Fingerprint { sums: self.sums, digest })
    }
}

/// The line without its LF.
impl fmt::Display for ManifestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interval, grain) = (self.sums.interval(), self.sums.grain());
        write!(f, "XFER-HOLE-MANIFEST 1 {} sha256 {interval} {grain}", self.size)?;
        if self.offered < self.size { write!(f, " {}", self.offered) } else { Ok(()) }
    }
}

/// A line of a manifest behind the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestEntry {
    /// DATA with its digest, or HOLE: so many bytes of the disk, behind those of the record before.
    Record(Record),
    /// Nothing yet.
    Wait,
    /// All that is offered is covered, and the lines have this digest.
    End(Digest),
    /// Whoever writes it gives up.
    Fail(FailReason),
}

/// Judges a manifest line by line: order, coverage, form, and the digest of the lines. Holds no line.
#[derive(Clone, Debug)]
pub struct ManifestReader {
    manifest: ManifestHeader,
    cursor: CoverageChecker,
    lines: Hasher,
    records: u64,
    ended: Option<Digest>,
    failed: bool,
}

impl ManifestReader {
    /// Behind this first line.
    #[must_use]
    pub fn new(manifest: ManifestHeader) -> Self {
        Self { manifest, cursor: manifest.cursor(), lines: Hasher::default(), records: 0, ended: None, failed: false }
    }

    /// The first line.
    #[must_use]
    pub fn manifest(&self) -> &ManifestHeader {
        &self.manifest
    }

    /// The disk offset that the records have reached, in bytes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.cursor.at()
    }

    /// The number that the next record would have, from 1: WAIT counts, too.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.records + 1
    }

    /// True once END has come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The disk's fingerprint, once END has come, if all of it was offered.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.manifest.fingerprint(self.ended?)
    }

    /// Takes the next line, without its LF.
    ///
    /// # Errors
    ///
    /// Whatever is no line of a manifest at this place, with the record's number and its disk offset. Nothing more is to be taken then.
    pub fn line(&mut self, line: &[u8]) -> Result<ManifestEntry, StreamError> {
        let (record, offset) = (self.records + 1, self.cursor.at());
        self.take(line).map_err(|flaw| flaw.at(record, offset))
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
                self.cursor.step(&record)?;
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
                self.cursor.finish()?;
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

    /// Says whether the manifest was whole: the question that the end of a file asks.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::Cut`] if END has not come.
    pub fn finish(&self) -> Result<(), StreamError> {
        if self.ended.is_some() {
            return Ok(());
        }
        let what = "the manifest was cut before END";
        Err(StreamError::new(StreamErrorKind::Cut, self.records + 1, self.cursor.at(), what))
    }
}

/// Puts runs of zeros and of data together to the record lines of a manifest, and those to their digest. What it is given has to be in
/// canonical form but for zeros, which it joins (SPEC.md, "The canonical form").
#[derive(Clone, Debug)]
pub struct ManifestWriter {
    manifest: ManifestHeader,
    cursor: CoverageChecker,
    lines: Hasher,
    records: u64,
    /// Zeros that more may follow, in bytes.
    hole: u64,
}

impl ManifestWriter {
    /// Of a manifest that begins so.
    #[must_use]
    pub fn new(manifest: ManifestHeader) -> Self {
        Self { manifest, cursor: manifest.cursor(), lines: Hasher::default(), records: 0, hole: 0 }
    }

    /// The disk offset that it has been given all bytes up to.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.cursor.at().saturating_add(self.hole)
    }

    /// The next bytes are those of a record: DATA with its digest, or HOLE, of which more may follow.
    ///
    /// # Errors
    ///
    /// As [`CoverageChecker::step`] has them; [`StreamErrorKind::HashParams`] for DATA without a digest, [`StreamErrorKind::Order`] for KEEP.
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
        Err(StreamError::new(kind, self.records + 1, self.cursor.at(), what))
    }

    /// The next bytes are zeros.
    pub fn zeros(&mut self, len: u64) {
        self.hole = self.hole.saturating_add(len);
    }

    /// The next bytes are data with this digest: appends the lines that are certain now.
    ///
    /// # Errors
    ///
    /// As [`CoverageChecker::step`] has them.
    pub fn data(&mut self, len: u64, digest: Digest, lines: &mut String) -> Result<(), StreamError> {
        self.close(lines)?;
        self.push(&Record::Data { len, digest: Some(digest) }, lines)
    }

    /// All was given: appends the last lines, END among them. The digest is that of the record lines.
    ///
    /// # Errors
    ///
    /// As [`CoverageChecker::finish`] has them.
    pub fn end(&mut self, lines: &mut String) -> Result<Digest, StreamError> {
        self.close(lines)?;
        let (record, offset) = (self.records + 1, self.cursor.at());
        self.cursor.finish().map_err(|step| Violation::from(step).at(record, offset))?;
        let digest = self.lines.clone().digest();
        let _infallible = writeln!(lines, "END {digest}");
        Ok(digest)
    }

    /// The fingerprint of the disk whose record lines have this digest; none if they don't cover it.
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
        let (number, offset) = (self.records + 1, self.cursor.at());
        self.cursor.step(record).map_err(|step| Violation::from(step).at(number, offset))?;
        self.records += 1;
        let from = lines.len();
        lines.push_str(&line::text(&Frame::Record(*record)));
        self.lines.update(&lines.as_bytes()[from..]);
        Ok(())
    }
}

/// What a sender asks a receiver for: what it has of a disk of this size, cut so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestRequest {
    /// The disk's size in bytes, 0 to [`crate::LEN_MAX`].
    pub size: u64,
    /// How the sender cuts it.
    pub sums: HashParams,
    /// The digest of the disk's fingerprint, if the sender knows it already.
    pub digest: Option<Digest>,
}

impl ManifestRequest {
    /// How every such line begins.
    pub const WORD: &[u8] = b"WANT ";

    /// Reads the line, without its LF.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::TooLong`], [`StreamErrorKind::Number`] and [`StreamErrorKind::Line`] for what the grammar doesn't have.
    pub fn parse(line: &[u8]) -> Result<Self, Violation> {
        check_length(line)?;
        parse_request(line)
    }
}

/// The line without its LF.
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

/// The first line of a manifest, without its LF.
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
    let (disk, sums) = line::size_and_sums(&mut words)?;
    let offered = match words.next() {
        None => disk,
        word => {
            let offered = line::size(word, "offered length")?;
            if offered >= disk || !offered.is_multiple_of(sums.interval()) {
                let what = format!("offered length {offered} is no multiple of the interval below the size {disk}");
                return Err(Violation::new(StreamErrorKind::Number, what));
            }
            offered
        }
    };
    words.end()?;
    Ok(ManifestHeader { size: disk, sums, offered })
}

/// A WANT line, without its LF.
fn parse_request(line: &[u8]) -> Result<ManifestRequest, Violation> {
    let mut words = LineWords::of(line);
    if words.next() != Some(b"WANT") {
        return Err(Violation::new(StreamErrorKind::Line, format!("{} is no WANT", line::quoted(line))));
    }
    let (size, sums) = line::size_and_sums(&mut words)?;
    let digest = line::digest(words.next())?;
    words.end()?;
    Ok(ManifestRequest { size, sums, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> HashParams {
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
        let first = ManifestHeader::parse(lines.next().unwrap().as_bytes()).map_err(|flaw| flaw.at(0, 0))?;
        let mut reader = ManifestReader::new(first);
        let entries = lines.map(|line| reader.line(line.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Ok((entries, reader))
    }

    #[test]
    fn what_is_written_is_read_and_zeros_are_joined() {
        let manifest = ManifestHeader::whole(30_000, sums());
        let (text, digest) =
            written(manifest, &[(4096, false), (4096, false), (8192, true), (4096, true), (9520, false)]);
        let (entries, reader) = read(&text).unwrap();
        let data = |len: u64| ManifestEntry::Record(Record::Data { len, digest: Some(Digest::of(&len.to_be_bytes())) });
        let hole = |len| ManifestEntry::Record(Record::Hole { len });
        assert_eq!(entries, [hole(8192), data(8192), data(4096), hole(9520), ManifestEntry::End(digest)]);
        assert_eq!(reader.fingerprint(), Some(Fingerprint { sums: sums(), digest }));
        assert_eq!(text.lines().next(), Some("XFER-HOLE-MANIFEST 1 30000 sha256 8192 4096"));
    }

    #[test]
    fn a_part_that_is_offered_has_no_fingerprint() {
        let manifest = ManifestHeader { offered: 16384, ..ManifestHeader::whole(30_000, sums()) };
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
    fn lines_that_break_the_law_are_refused_with_their_place() {
        let manifest = ManifestHeader::whole(16384, sums());
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
    fn what_is_wanted_has_one_form() {
        for digest in [None, Some(Digest::of(b"x"))] {
            let want = ManifestRequest { size: 5, sums: sums(), digest };
            assert_eq!(ManifestRequest::parse(want.to_string().as_bytes()).unwrap(), want);
        }
        for wrong in ["WANT 5", "WANT 5 sha256 8192", "WANT 5 sha256 8192 4096 x", "WANT  5 sha256 8192 4096", "want 5"]
        {
            assert!(ManifestRequest::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
