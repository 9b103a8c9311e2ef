//! The options for opening an image, and the steps that open its top file.

use std::path::Path;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, lock_for_reading};

use crate::guessed_format::GuessedFormat;
use crate::{Content, ExtentMethod, Format, ImageFile, ImplicitOpenGate, IncrementalBase};

/// The options for opening an image.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// The format of the top image. `None`: it is detected.
    pub format: Option<Format>,
    /// The format of backing files for which the image declares none. It is never detected.
    pub backing_format: Option<Format>,
    /// Which of the files that images refer to may be opened.
    pub gate: ImplicitOpenGate,
    /// Read images although another program may be writing to them.
    pub force_share: bool,
    /// Read this internal snapshot, given by its ID or name.
    pub snapshot: Option<String>,
    /// Compare with this older state of the disk ([`crate::Disk::older`]).
    pub since: Option<IncrementalBase>,
    /// The extent method for raw images.
    pub method: Option<ExtentMethod>,
    /// Read data past the page cache, if possible.
    pub direct: bool,
    /// Flush the files before reading, so that their stamp identifies their content
    /// ([`ImageFile::flushed_stamp`](crate::ImageFile::flushed_stamp)).
    pub flush: bool,
}

/// An open top file.
pub struct TopFile {
    pub file: ImageFile,
    /// Its format, which this crate reads.
    pub format: Format,
    /// The options for opening the files that it refers to.
    pub options: DiskOptions,
    /// A warning about it, without its name.
    pub warning: Option<String>,
    /// Its content, if that is no disk and the format was not named.
    pub content: Option<Content>,
}

impl DiskOptions {
    /// Opens the top file and determines its format.
    pub fn top(&self, path: &Path) -> Result<TopFile> {
        let file = self.gate.bounds().map_or_else(|| ImageFile::open(path), |bounds| bounds.open(path))?;
        let file = self.lock(file)?;
        let GuessedFormat { format, by_content, warning, content } =
            self.format.map_or_else(|| GuessedFormat::of(&file), |format| Ok(GuessedFormat::known(format)))?;
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
            let error = file.error(DiskErrorKind::Unsupported, format!("is a raw image, which has no {lacks}"));
            return Err(warning.into_iter().fold(error, DiskError::hint));
        }
        let gate = if by_content { self.gate.of_guess() } else { self.gate.clone() };
        Ok(TopFile { file, format, options: Self { gate, ..self.clone() }, warning, content })
    }

    /// Takes the lock of a reader on a file, unless the options force sharing. Returns the file with the size and times
    /// that it has once it is locked.
    ///
    /// # Errors
    ///
    /// Another program may be writing to the file.
    pub fn lock(&self, file: ImageFile) -> Result<ImageFile> {
        let file = if self.force_share {
            file
        } else {
            lock_for_reading(file.file(), file.path())?;
            file.looked_at_again()?
        };
        Ok(if self.flush { file.flush() } else { file })
    }
}
