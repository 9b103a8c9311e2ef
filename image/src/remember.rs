//! Fingerprints that are remembered: a small file beside the image says what its content was, and as long as the image's files are the
//! same to the nanosecond, nobody has to read them again. It is never more than haste: whatever doesn't match is hashed.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use xfer_hole_proto::{Digest, Fingerprint, Sums};

use crate::sink::parent;
use crate::{Chain, Format, Host, Stamp, reason, sys};

/// How such a file begins; what doesn't begin so is somebody else's.
const MAGIC: &str = "XFER-HOLE-FINGERPRINT 1\n";
/// The longest that is read, in octets.
const LONGEST: u64 = 64 << 10;
/// A file that was touched so short a time ago may yet change, with the same times.
const SETTLED: Duration = Duration::from_secs(2);

/// What a disk consists of, as the system tells it without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The image, links followed.
    top: PathBuf,
    /// The disk's size in octets.
    size: u64,
    /// What each image is read as, the top first: the same files can be read as other disks.
    formats: Vec<Format>,
    /// One for each file, the top's first.
    stamps: Vec<Stamp>,
    /// Nothing of it was read before, since 1970.
    begun: Option<Duration>,
}

impl Identity {
    /// Of an image with all that it is backed by, as it was when it was opened, at `begun` or later. None if a part of it is a device,
    /// which nobody can tell the changes of.
    #[must_use]
    pub fn of_chain(chain: &Chain, begun: SystemTime) -> Option<Self> {
        let stamps: Option<Vec<_>> = chain.files().map(Host::stamp).collect();
        let top = fs::canonicalize(chain.files().next()?.path()).ok()?;
        let formats = chain.floors.iter().map(|floor| floor.format()).collect();
        Some(Self { top, size: chain.size, formats, stamps: stamps?, begun: since_1970(begun) })
    }

    /// Of a raw file as it is now. None if it is none.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let top = fs::canonicalize(path).ok()?;
        let begun = now();
        let stat = fs::symlink_metadata(&top).ok().filter(Metadata::is_file)?;
        Some(Self { top, size: stat.size(), formats: vec![Format::Raw], stamps: vec![Stamp::of(&stat)], begun })
    }

    /// The disk's size in octets.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the fingerprint that was noted of it, if it was, with these parameters.
    #[must_use]
    pub fn recall(&self, sums: Sums) -> Option<Digest> {
        places(&self.top).iter().find_map(|place| self.read(place, sums))
    }

    fn read(&self, place: &Path, sums: Sums) -> Option<Digest> {
        let (octets, stat) = look(place).ok()??;
        // Somebody else's word is none.
        if !is_ours(&octets, &stat, &fs::metadata(&self.top).ok()?) {
            return None;
        }
        let text = String::from_utf8(octets).ok()?;
        let rest = text.strip_prefix(MAGIC)?;
        let (fingerprint, rest) = rest.split_once('\n')?;
        let named = format!("sha256:{}:{}:", sums.interval(), sums.grain());
        let digest = Digest::parse(fingerprint.strip_prefix(&named)?.as_bytes())?;
        let rest = rest.strip_prefix(&self.text())?;
        let (seconds, nanoseconds) = rest.strip_prefix("noted ")?.strip_suffix('\n')?.split_once('.')?;
        let noted = Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?);
        (noted <= now()? && self.touched()? + SETTLED <= noted).then_some(digest)
    }

    /// When the last of its files changed, since 1970.
    fn touched(&self) -> Option<Duration> {
        self.stamps.iter().map(Stamp::touched).max()?
    }

    fn text(&self) -> String {
        let formats: Vec<_> = self.formats.iter().map(Format::to_string).collect();
        let mut text = format!("disk {} {}\n", self.size, formats.join(" "));
        for stamp in &self.stamps {
            let _infallible = writeln!(text, "file {stamp}");
        }
        text
    }

    /// Notes the fingerprint of what was read, beside the image, or in the user's cache where nothing can be written there. False, and
    /// nothing is noted, if its files had been touched less than two seconds before the reading began, or have been since.
    ///
    /// # Errors
    /// If it can't be written in either place.
    pub fn note(&self, fingerprint: &Fingerprint) -> io::Result<bool> {
        let begun = self.begun.ok_or_else(unknown)?;
        if begun < self.settled()? { Ok(false) } else { self.write(fingerprint) }
    }

    /// When it has not been touched for long enough, since 1970.
    fn settled(&self) -> io::Result<Duration> {
        Ok(self.touched().ok_or_else(unknown)? + SETTLED)
    }

    /// Writes the note if the top is still what it was. What backs it was asked when it was read.
    fn write(&self, fingerprint: &Fingerprint) -> io::Result<bool> {
        let (noted, settled) = (now().ok_or_else(unknown)?, self.settled()?);
        let image = fs::symlink_metadata(&self.top)?;
        if noted < settled || Some(&Stamp::of(&image)) != self.stamps.first() {
            return Ok(false);
        }
        let text =
            format!("{MAGIC}{fingerprint}\n{}noted {}.{:09}\n", self.text(), noted.as_secs(), noted.subsec_nanos());
        let mut failed = None;
        for place in places(&self.top) {
            match put(&place, &text, &image) {
                Ok(()) => return Ok(true),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(unknown))
    }
}

/// A file that a disk was written to, as its writer left it: by its path alone, another's could be taken for it.
#[derive(Clone, Debug, Default)]
pub struct Mark(Arc<OnceLock<Stamp>>);

impl Mark {
    /// All is written and durable, and nobody else has been let in yet.
    pub(crate) fn set(&self, file: &File) {
        if let Ok(stat) = file.metadata() {
            let _first = self.0.set(Stamp::of(&stat));
        }
    }

    /// Notes the fingerprint of the file if it is what stands at `path` now, and still does, untouched, two seconds after its last
    /// change, which are waited for. Half a sentence if it can't be written.
    #[must_use]
    pub fn note(&self, path: &Path, fingerprint: &Fingerprint) -> Option<String> {
        let written = self.0.get()?;
        let identity = Identity::of_file(path)?;
        if !identity.stamps.first()?.is_same_content(written) {
            return None;
        }
        let noted = identity.settled().and_then(|settled| {
            if let Some(left) = settled.checked_sub(now().ok_or_else(unknown)?) {
                thread::sleep(left.min(SETTLED) + Duration::from_millis(1));
            }
            identity.write(fingerprint)
        });
        noted.err().map(|error| format!("cannot note its fingerprint: {}", reason(&error)))
    }
}

fn unknown() -> io::Error {
    io::Error::other("the time of its last change can't be told")
}

/// Removes what was noted of the file or image at `path`, for good: a power loss may leave octets that are written next, and lose the
/// file's new times.
pub(crate) fn forget(path: &Path) {
    let top = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    for place in places(&top) {
        if matches!(look(&place), Ok(Some((octets, _))) if octets.starts_with(MAGIC.as_bytes()))
            && fs::remove_file(&place).is_ok()
        {
            let _left = File::open(parent(&place)).and_then(|folder| folder.sync_all());
        }
    }
}

/// Where it may be noted: beside the image, or under the user's cache folder.
fn places(top: &Path) -> Vec<PathBuf> {
    let mut beside = OsString::from(top);
    beside.push(".fingerprint");
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let name = format!("{}.fingerprint", Digest::of(top.as_os_str().as_bytes()));
    let cached = cache.map(|cache| cache.join("xfer-hole").join(name));
    [Some(beside.into()), cached].into_iter().flatten().collect()
}

/// The regular file that is there, as far as it is worth reading: none if nothing is.
///
/// # Errors
/// If something else is there, or what can't be read.
fn look(place: &Path) -> io::Result<Option<(Vec<u8>, Metadata)>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(place);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let stat = file.metadata()?;
    if !stat.is_file() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut octets = Vec::new();
    file.take(LONGEST).read_to_end(&mut octets)?;
    Ok(Some((octets, stat)))
}

/// True for a note that we, root or the image's owner wrote.
fn is_ours(octets: &[u8], note: &Metadata, image: &Metadata) -> bool {
    octets.starts_with(MAGIC.as_bytes()) && [sys::effective_user(), 0, image.uid()].contains(&note.uid())
}

/// Writes it whole, or not at all: where nothing is, or in the place of one of ours.
fn put(place: &Path, text: &str, image: &Metadata) -> io::Result<()> {
    let folder = parent(place);
    if !folder.exists() {
        fs::create_dir_all(folder)?;
    }
    let old = look(place)?;
    if old.as_ref().is_some_and(|(octets, stat)| !is_ours(octets, stat, image)) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let new = unfinished(place);
    let mut file = open_new(&new, image.mode() & 0o644)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let written = written.and_then(|()| if old.is_some() { fs::rename(&new, place) } else { name_new(&new, place) });
    if written.is_err() {
        let _left = fs::remove_file(&new);
    }
    written.and_then(|()| File::open(folder)?.sync_all())
}

/// What a note is called while it is written. It is always the same, so that what a kill leaves is found.
fn unfinished(place: &Path) -> PathBuf {
    let mut name = OsString::from(place);
    name.push(".new");
    name.into()
}

/// Makes it, and locks it as long as it is written. What somebody else, who is no more, has left of a note is removed first.
fn open_new(new: &Path, mode: u32) -> io::Result<File> {
    let make = || {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
        match file.try_lock() {
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            _ => Ok(file),
        }
    };
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_leftover(new) => {
            fs::remove_file(new)?;
            make()
        }
        made => made,
    }
}

/// True for the beginning of a note of our own that nobody is writing any more.
fn is_leftover(new: &Path) -> bool {
    let Ok(Some((octets, stat))) = look(new) else { return false };
    let begins = octets.starts_with(MAGIC.as_bytes()) || MAGIC.as_bytes().starts_with(&octets);
    let held = || File::open(new).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    begins && stat.nlink() == 1 && stat.uid() == sys::effective_user() && !held()
}

/// Gives it its name if nothing has that by now: the system tells, in one step.
fn name_new(new: &Path, place: &Path) -> io::Result<()> {
    match sys::rename_new(new, place) {
        // File systems that can't (NFS) can make a second name.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            fs::hard_link(new, place)?;
            fs::remove_file(new)
        }
        done => done,
    }
}

fn since_1970(time: SystemTime) -> Option<Duration> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok()
}

fn now() -> Option<Duration> {
    since_1970(SystemTime::now())
}

#[cfg(test)]
mod tests;
