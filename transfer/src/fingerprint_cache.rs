//! Fingerprints that are noted: what the content of an image was, and by which size, inode and times its files are known. As long as these
//! are the same to the nanosecond, the files need not be read again. A note only saves time: whatever doesn't match is hashed.
//!
//! Times alone don't tell of a page that is mapped and dirty: it can be stored to again without any trace. So a file is flushed before its
//! times are taken, which makes the next store show, and on file systems of which that isn't known nothing is noted and nothing believed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use xfer_hole_image::{BackingChain, Disk, Format, ImageFile};
use xfer_hole_os::{Stamp, flushed, reason, sys};
use xfer_hole_proto::{Digest, Fingerprint, HashParams};
use xfer_hole_target::{DiskWriter, Target, WrittenStamp, fingerprint_store};

/// A file that was touched so short a time before it is read may still be written to, by a call that has set its times already.
const SETTLED: Duration = Duration::from_secs(2);

/// What a disk consists of, as the system tells it without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    /// The image, links followed.
    top: PathBuf,
    /// The disk's size in bytes.
    size: u64,
    /// What each image is read as, the top first: the same files can be read as other disks.
    formats: Vec<Format>,
    /// One for each file, the top's first. Each was taken when the file had been flushed.
    stamps: Vec<Stamp>,
    /// Nothing of it was read before, since 1970.
    begun: Option<Duration>,
}

impl CacheKey {
    /// Of an image with all that it is backed by, which was opened to be known ([`crate::DiskOptions::flush`]), at `begun` or later. None if a
    /// part of it is a device, or lies on a file system that doesn't tell of all changes.
    #[must_use]
    pub fn of_chain(chain: &BackingChain, begun: SystemTime) -> Option<Self> {
        let stamps: Option<Vec<_>> = chain.files().map(ImageFile::flushed_stamp).collect();
        let top = fs::canonicalize(chain.files().next()?.path()).ok()?;
        let formats = chain.formats().collect();
        let begun = begun.duration_since(SystemTime::UNIX_EPOCH).ok();
        Some(Self { top, size: chain.size(), formats, stamps: stamps?, begun })
    }

    /// Of a raw file as it is now. None if it is none, can't be opened, or lies on a file system that doesn't tell of all changes.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let top = fs::canonicalize(path).ok()?;
        let begun = sys::coarse_now();
        let stamp = flushed(&open(&top)?)?;
        Some(Self { top, size: stamp.size(), formats: vec![Format::Raw], stamps: vec![stamp], begun })
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the fingerprint that was noted of it, if it was, with these parameters.
    #[must_use]
    pub fn recall(&self, sums: HashParams) -> Option<Digest> {
        self.recall_all().into_iter().find(|noted| noted.sums == sums).map(|noted| noted.digest)
    }

    /// All fingerprints that were noted of it: one for each pair of parameters.
    #[must_use]
    pub fn recall_all(&self) -> Vec<Fingerprint> {
        let Some(state) = self.state() else { return Vec::new() };
        fingerprint_store::read(&self.top, &state)
    }

    /// The lines that a note of it begins with: none if nothing that is noted could be believed. A note of an earlier run of the system
    /// has other ones: when power fails, what was written last may be stored, and the times that it set not.
    fn state(&self) -> Option<String> {
        let formats: Vec<_> = self.formats.iter().map(Format::to_string).collect();
        let mut text = format!("boot {}\ndisk {} {}\n", sys::boot()?, self.size, formats.join(" "));
        for stamp in &self.stamps {
            text += &format!("file {stamp}\n");
        }
        Some(text)
    }

    /// Notes the fingerprint of what was read, in the user's cache. False, and nothing is noted, if its files had been touched less than two
    /// seconds before the reading began, or have been since.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn note(&self, fingerprint: &Fingerprint) -> io::Result<bool> {
        let touched = self.stamps.iter().map(Stamp::touched).max().flatten();
        match (self.begun, touched) {
            (Some(begun), Some(touched)) if touched + SETTLED <= begun => self.write(fingerprint),
            _ => Ok(false),
        }
    }

    /// Writes the note if the top is still what it was. What backs it was asked when it was read.
    fn write(&self, fingerprint: &Fingerprint) -> io::Result<bool> {
        let now = open(&self.top).and_then(|file| file.metadata().ok()).map(|stat| Stamp::of(&stat));
        let Some(state) = self.state().filter(|_| now.as_ref() == self.stamps.first()) else { return Ok(false) };
        fingerprint_store::write(&self.top, &state, fingerprint).map(|()| true)
    }
}

/// The digest of the fingerprint that was noted of a target with these parameters, if it is a disk of `size` bytes that may stay as it is:
/// that was asked for, and nothing else is that its content doesn't tell.
#[must_use]
pub fn recall_target(target: &Target, size: u64, sums: HashParams) -> Option<Digest> {
    let key = CacheKey::of_file(target.recallable()?)?;
    key.recall(sums).filter(|_| key.size() == size)
}

/// Opens a regular file to look at it, and nothing else.
fn open(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().is_ok_and(|stat| stat.is_file()).then_some(file)
}

/// Notes the fingerprint of a target, once it is written.
#[derive(Clone, Debug)]
pub struct TargetNote {
    path: Option<PathBuf>,
    mark: WrittenStamp,
    /// The user counts on the note: it is told where it can't be written.
    tells: bool,
}

impl TargetNote {
    /// Prepares to note a target that is about to be opened.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        let path = target.noted().map(Path::to_owned);
        Self { path, mark: WrittenStamp::default(), tells: target.is_remembered() }
    }

    /// Ties the note to the file of an opened target.
    #[must_use]
    pub fn of_sink(self, sink: &dyn DiskWriter) -> Self {
        Self { mark: self.path.as_ref().map(|_| sink.mark()).unwrap_or_default(), ..self }
    }

    /// The target is whole, and durable. What the user should know of it comes back.
    #[must_use]
    pub fn note(&self, fingerprint: Option<&Fingerprint>) -> Option<String> {
        let (path, fingerprint) = (self.path.as_ref()?, fingerprint?);
        let left = self.mark.left()?;
        let key = CacheKey::of_file(path)?;
        if !key.stamps.first()?.is_same_content(&left) {
            return None;
        }
        let failed = key.write(fingerprint).err()?;
        self.tells.then(|| format!("cannot note its fingerprint: {}", reason(&failed)))
    }
}

#[cfg(test)]
mod tests;
