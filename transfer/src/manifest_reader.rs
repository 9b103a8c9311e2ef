//! Reads a manifest from a file or standard input, one line at a time, and checks each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, shown};
use xfer_hole_proto::{FAIL_LINE_MAX, ManifestEntry, ManifestHeader, ManifestReader, Record};
use xfer_hole_transport::shell_word;

/// A manifest that is being read. At most one line is in memory.
#[derive(Debug)]
pub struct ManifestInput {
    input: BufReader<File>,
    /// Path for messages.
    path: PathBuf,
    reader: ManifestReader,
    line: Vec<u8>,
}

impl ManifestInput {
    /// Opens a manifest and reads its first line. `-` is standard input.
    ///
    /// # Errors
    ///
    /// Read errors, and a first line that is not one of a manifest.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, path) = if path.as_os_str() == "-" {
            let path = Path::new("standard input");
            if io::stdin().is_terminal() {
                return Err(DiskError::new(
                    DiskErrorKind::Refused,
                    path,
                    "is a terminal, which no manifest comes from",
                ));
            }
            (io::stdin().as_fd().try_clone_to_owned().map(File::from), path)
        } else {
            (File::open(path), path)
        };
        let file = file.map_err(|source| DiskError::io(path, "cannot open", source))?;
        let (mut input, mut line) = (BufReader::new(file), Vec::new());
        if !next_line(&mut input, &mut line, path)? {
            return Err(DiskError::new(DiskErrorKind::Refused, path, "is empty or was cut in its first line"));
        }
        let manifest = ManifestHeader::parse(&line).map_err(|flaw| {
            let image = if path.exists() { shell_word(path.as_os_str()) } else { "IMAGE".into() };
            let hint = format!("if {} is an image: xfer-hole manifest {image} | xfer-hole verify IMAGE -", shown(path));
            DiskError::new(DiskErrorKind::Refused, path, flaw.to_string()).hint(hint)
        })?;
        Ok(Self { input, path: path.into(), reader: ManifestReader::new(manifest), line })
    }

    /// Returns the manifest's first line.
    #[must_use]
    pub fn manifest(&self) -> &ManifestHeader {
        self.reader.manifest()
    }

    /// Returns the next record, or `None` after END and the end of the file.
    ///
    /// # Errors
    ///
    /// Read errors, an invalid line, a missing END (the manifest was cut), and FAIL, with its reason.
    pub fn record(&mut self) -> Result<Option<Record>> {
        loop {
            let whole = next_line(&mut self.input, &mut self.line, &self.path)?;
            // The end of the file, rather than another line, has to follow END.
            if !whole && (self.line.is_empty() || !self.reader.has_ended()) {
                return self.reader.finish().map(|()| None).map_err(|error| self.wrong(&error));
            }
            let (number, at) = (self.reader.next_number(), self.reader.at());
            match self.reader.line(&self.line).map_err(|error| self.wrong(&error))? {
                ManifestEntry::Record(record) => return Ok(Some(record)),
                ManifestEntry::Wait | ManifestEntry::End(_) => {}
                ManifestEntry::Fail(reason) => {
                    let what = format!("its writer gave up at record {number}, disk offset {at}: {reason}");
                    return Err(DiskError::new(DiskErrorKind::Refused, &self.path, what));
                }
            }
        }
    }

    /// Makes an error of this manifest.
    pub fn error(&self, what: impl Into<String>) -> DiskError {
        DiskError::new(DiskErrorKind::Refused, &self.path, what)
    }

    fn wrong(&self, error: &xfer_hole_proto::StreamError) -> DiskError {
        self.error(format!("record {} at disk offset {}: {}", error.record(), error.offset(), error.what()))
    }
}

/// Reads a line. Returns true, and removes the LF, if the line is complete. At most the maximum length of a line is
/// read.
fn next_line(input: &mut BufReader<File>, line: &mut Vec<u8>, path: &Path) -> Result<bool> {
    line.clear();
    let read = input.take(FAIL_LINE_MAX as u64).read_until(b'\n', line);
    read.map_err(|source| DiskError::io(path, "cannot read", source))?;
    let whole = line.last() == Some(&b'\n');
    if whole {
        line.pop();
    }
    // A line that is too long was not cut: the parser rejects it.
    Ok(whole || line.len() >= FAIL_LINE_MAX)
}
