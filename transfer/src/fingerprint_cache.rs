//! Notes fingerprints of images, with the size, inode and times of their files. While these are the same, to the
//! nanosecond, the image need not be read again. A note only saves time: an image without a valid note is hashed.
//!
//! Times alone don't show changes to a dirty memory-mapped page: it can be written again without a trace. So a file is
//! flushed before its stamp is taken, which makes the next write change the times. On file systems for which that isn't
//! known to hold, nothing is noted or used.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use xfer_hole_image::{BackingChain, Disk, Format, ImageFile};
use xfer_hole_os::{Stamp, flushed, reason, sys};
use xfer_hole_proto::{Digest, Fingerprint, HashParams};
use xfer_hole_target::{DiskWriter, Target, WrittenStamp, fingerprint_store};

/// A file that was changed so recently may still be written by a system call that has set the times already.
const SETTLED: Duration = Duration::from_secs(2);

/// Identifies the content of a disk by attributes of its files, without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    /// Path of the image, links followed.
    top: PathBuf,
    /// Size of the disk, in bytes.
    size: u64,
    /// Format of each layer, the top first: the same files can be read as different disks.
    formats: Vec<Format>,
    /// Stamp of each file, the top first. A stamp is taken after its file was flushed.
    stamps: Vec<Stamp>,
    /// Time since 1970 at which the reading began, or an earlier one. `None` if it is unknown.
    begun: Option<Duration>,
}

impl CacheKey {
    /// Returns the key of a backing chain that was opened with [`xfer_hole_image::DiskOptions::flush`], at `begun` or
    /// later. Returns `None` if a layer is a device, or is on a file system that doesn't reliably record changes.
    #[must_use]
    pub fn of_chain(chain: &BackingChain, begun: SystemTime) -> Option<Self> {
        let stamps: Option<Vec<_>> = chain.files().map(ImageFile::flushed_stamp).collect();
        let top = fs::canonicalize(chain.files().next()?.path()).ok()?;
        let formats = chain.formats().collect();
        let begun = begun.duration_since(SystemTime::UNIX_EPOCH).ok();
        Some(Self { top, size: chain.size(), formats, stamps: stamps?, begun })
    }

    /// Returns the key of a raw file in its current state. Returns `None` if it is no regular file, can't be opened, or
    /// is on a file system that doesn't reliably record changes.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let top = fs::canonicalize(path).ok()?;
        let begun = sys::coarse_now();
        let stamp = flushed(&open(&top)?)?;
        Some(Self { top, size: stamp.size(), formats: vec![Format::Raw], stamps: vec![stamp], begun })
    }

    /// Returns the size of the disk, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the noted digest for these hash parameters, if there is one.
    #[must_use]
    pub fn recall(&self, params: HashParams) -> Option<Digest> {
        self.recall_all().into_iter().find(|noted| noted.sums == params).map(|noted| noted.digest)
    }

    /// Returns all noted fingerprints: one for each pair of hash parameters.
    #[must_use]
    pub fn recall_all(&self) -> Vec<Fingerprint> {
        let Some(state) = self.state() else { return Vec::new() };
        fingerprint_store::read(&self.top, &state)
    }

    /// Returns the lines that describe the state in a note, or `None` if no note can be trusted. They contain the boot
    /// ID: after a power failure, the last writes may be stored without the times that they set.
    fn state(&self) -> Option<String> {
        let formats: Vec<_> = self.formats.iter().map(Format::to_string).collect();
        let mut text = format!("boot {}\ndisk {} {}\n", sys::boot()?, self.size, formats.join(" "));
        for stamp in &self.stamps {
            text += &format!("file {stamp}\n");
        }
        Some(text)
    }

    /// Notes the fingerprint in the user's cache. Returns false, and notes nothing, if a file was changed less than two
    /// seconds before the reading began, or has changed since.
    ///
    /// # Errors
    ///
    /// If the note can't be written.
    pub fn note(&self, fingerprint: &Fingerprint) -> io::Result<bool> {
        let touched = self.stamps.iter().map(Stamp::touched).max().flatten();
        match (self.begun, touched) {
            (Some(begun), Some(touched)) if touched + SETTLED <= begun => self.write(fingerprint),
            _ => Ok(false),
        }
    }

    /// Writes the note if the top file has not changed. The lower layers were checked when they were read.
    fn write(&self, fingerprint: &Fingerprint) -> io::Result<bool> {
        let now = open(&self.top).and_then(|file| file.metadata().ok()).map(|stat| Stamp::of(&stat));
        let Some(state) = self.state().filter(|_| now.as_ref() == self.stamps.first()) else { return Ok(false) };
        fingerprint_store::write(&self.top, &state, fingerprint).map(|()| true)
    }
}

/// Returns the noted digest of a target for these hash parameters, if the target holds a disk of `size` bytes and may
/// stay as it is ([`Target::recallable`]).
#[must_use]
pub fn recall_target(target: &Target, size: u64, params: HashParams) -> Option<Digest> {
    let key = CacheKey::of_file(target.recallable()?)?;
    key.recall(params).filter(|_| key.size() == size)
}

/// Opens a regular file for reading, without following a link or blocking.
fn open(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().is_ok_and(|stat| stat.is_file()).then_some(file)
}

/// Notes the fingerprint of a target after it was written.
#[derive(Clone, Debug)]
pub struct TargetNote {
    path: Option<PathBuf>,
    stamp: WrittenStamp,
    /// True if the user requested the note: a failure to write it is reported.
    reports: bool,
}

impl TargetNote {
    /// Prepares a note for a target that is about to be opened.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        let path = target.noted().map(Path::to_owned);
        Self { path, stamp: WrittenStamp::default(), reports: target.is_remembered() }
    }

    /// Connects the note with the file of an opened target.
    #[must_use]
    pub fn of_sink(self, sink: &dyn DiskWriter) -> Self {
        Self { stamp: self.path.as_ref().map(|_| sink.mark()).unwrap_or_default(), ..self }
    }

    /// Notes the fingerprint of a complete and durable target. Returns a message for the user if that failed.
    #[must_use]
    pub fn note(&self, fingerprint: Option<&Fingerprint>) -> Option<String> {
        let (path, fingerprint) = (self.path.as_ref()?, fingerprint?);
        let left = self.stamp.left()?;
        let key = CacheKey::of_file(path)?;
        if !key.stamps.first()?.is_same_content(&left) {
            return None;
        }
        let failed = key.write(fingerprint).err()?;
        self.reports.then(|| format!("cannot note its fingerprint: {}", reason(&failed)))
    }
}

#[cfg(test)]
mod tests;
