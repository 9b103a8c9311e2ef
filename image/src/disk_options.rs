//! How the user wants an image opened, and what follows from it for its top file.

use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, lock_for_reading};

use crate::guessed_format::GuessedFormat;
use crate::{Content, ExtentMethod, Format, ImageFile, ImplicitOpenGate, IncrementalBase};

/// What is known, allowed and asked for, before an image is opened.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// The top image's format; looked for if not given.
    pub format: Option<Format>,
    /// The format of backing files that are not declared to have one. It is never looked for in them.
    pub backing_format: Option<Format>,
    /// Which of the files that images name may be opened.
    pub gate: ImplicitOpenGate,
    /// Images that another program may be writing to are read all the same.
    pub force_share: bool,
    /// The internal snapshot to be read, by its ID or name.
    pub snapshot: Option<String>,
    /// The older state of the disk that it is to be compared with ([`crate::Disk::older`]).
    pub since: Option<IncrementalBase>,
    /// How the extents of raw images are found.
    pub method: Option<ExtentMethod>,
    /// The disk's bytes are read past the page cache, as far as that can be.
    pub direct: bool,
    /// Its files are flushed before anything of them is read, so that it can be known by their times ([`crate::Identity`]).
    pub flush: bool,
}

/// A top file.
pub struct TopFile {
    pub host: ImageFile,
    /// One that we read.
    pub format: Format,
    /// How the files that it names are opened.
    pub how: DiskOptions,
    /// What the user should know of it, without its name.
    pub warning: Option<String>,
    /// What it holds, if that is no disk and was not asked for.
    pub content: Option<Content>,
}

impl DiskOptions {
    /// Opens the top file, and finds out what it is read as.
    pub fn top(&self, path: &Path) -> Result<TopFile> {
        let host = self.gate.bounds().map_or_else(|| ImageFile::open(path), |bounds| bounds.open(path))?;
        let host = self.guard(host)?;
        let GuessedFormat { format, by_content, warning, content } =
            self.format.map_or_else(|| GuessedFormat::of(&host), |format| Ok(GuessedFormat::known(format)))?;
        if !format.is_read() {
            return Err(format.refusal(path));
        }
        let lacks = match &self.since {
            _ if format != Format::Raw => None,
            _ if self.snapshot.is_some() => Some("snapshots"),
            Some(IncrementalBase::Snapshot(_)) => Some("snapshots"),
            Some(IncrementalBase::Base(_)) => Some("backing files"),
            Some(IncrementalBase::Bitmap(_)) => Some("bitmaps"),
            None => None,
        };
        if let Some(lacks) = lacks {
            let error = host.error(DiskErrorKind::Unsupported, format!("is a raw image, which has no {lacks}"));
            return Err(warning.into_iter().fold(error, DiskError::hint));
        }
        let gate = if by_content { self.gate.of_guess() } else { self.gate.clone() };
        Ok(TopFile { host, format, how: Self { gate, ..self.clone() }, warning, content })
    }

    /// Refuses a file that another program may be writing to, unless that is accepted. The file is returned in the state that
    /// it has once it is locked, and nothing of it has been read.
    pub fn guard(&self, host: ImageFile) -> Result<ImageFile> {
        let host = if self.force_share {
            host
        } else {
            lock_for_reading(host.file(), host.path())?;
            host.looked_at_again()?
        };
        Ok(if self.flush { host.flush() } else { host })
    }
}
