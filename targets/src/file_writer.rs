//! A file or device that is written at offsets, and remembers whether it was.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, Stamp, shown, sys};

use crate::direct_writer::DirectWriter;
use crate::disk_writer::{StoredFile, write_zeros};
use crate::file_name::is_at;
use crate::written_stamp::WrittenStamp;

/// No file system's block is larger, in bytes.
pub(crate) const BLOCK_MAX: u64 = 64 << 10;

pub(crate) struct FileWriter {
    pub file: File,
    /// As it stands in messages.
    pub path: PathBuf,
    /// Set when the file is published, if it is wanted.
    pub mark: WrittenStamp,
    touched: AtomicBool,
    /// The file is never shorter than this, in bytes, as long as only we write to it. 0 where it grows.
    least: u64,
    /// About how many bytes of data are to come in all, and how many have come; 0 if that isn't known.
    announced: AtomicU64,
    come: AtomicU64,
    /// How many bytes were written, and not shared or copied by the kernel, which leaves holes out.
    written: AtomicU64,
    /// It is a temporary file, of which nothing is needed to write the disk anew.
    temporary: bool,
    /// The way past the page cache, if it is to stay as it is.
    bypass: Option<DirectWriter>,
}

impl FileWriter {
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        Self {
            file,
            path,
            mark: WrittenStamp::default(),
            touched: AtomicBool::new(false),
            least: 0,
            announced: AtomicU64::new(0),
            come: AtomicU64::new(0),
            written: AtomicU64::new(0),
            temporary: false,
            bypass: None,
        }
    }

    /// What its fingerprint can be noted by, once it is published.
    pub(crate) fn mark(&self) -> WrittenStamp {
        self.mark.want();
        self.mark.clone()
    }

    /// The same, to be written past the page cache, as far as that can be.
    pub(crate) fn directly(self) -> Result<Self> {
        let bypass =
            DirectWriter::open(&self.file).map_err(|source| DiskError::io(&self.path, "cannot open", source))?;
        Ok(Self { bypass: Some(bypass), ..self })
    }

    /// It was made so many bytes long for the disk: it is checked that no other program makes it shorter.
    pub(crate) fn of_len(self, least: u64) -> Self {
        Self { least, ..self }
    }

    /// A temporary file, which may be removed.
    pub(crate) fn temporary(self) -> Self {
        Self { temporary: true, ..self }
    }

    /// All that is held back is written; what the user should know of it comes back.
    pub(crate) fn settle(&self) -> Result<Vec<String>> {
        let Some(bypass) = &self.bypass else { return Ok(Vec::new()) };
        bypass.settle().map_err(|(at, source)| self.cannot_write(at, source))?;
        Ok(bypass.noticed().map(ToOwned::to_owned).into_iter().collect())
    }

    /// Takes note that it isn't as it was.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// True if it isn't as it was.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// About so many bytes of data are to come in all.
    pub(crate) fn announce(&self, data: u64) {
        self.announced.store(data, Ordering::Relaxed);
    }

    fn count(&self, bytes: u64) {
        self.come.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_written(&self, bytes: u64) {
        self.count(bytes);
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn begin_write(&self) -> Result<()> {
        self.check_len()?;
        self.touch();
        Ok(())
    }

    /// Fails if another program has made it shorter: a write behind its end would make zeros of what was there.
    pub(crate) fn check_len(&self) -> Result<()> {
        if self.least == 0 {
            return Ok(());
        }
        let len =
            sys::known_len(&self.file).map_err(|source| DiskError::io(&self.path, "cannot tell the size", source))?;
        match len < self.least {
            true => Err(self.changed("was truncated by another program")),
            false => Ok(()),
        }
    }

    /// Fails if a file that was empty, and is synced now, has fewer blocks than were written: another program has truncated it, and it got its
    /// length again by that program, or by a later write. Where the file system doesn't count blocks so, it isn't known.
    pub(crate) fn check_blocks(&self) -> Result<()> {
        let stat = self.file.metadata().map_err(|source| DiskError::io(&self.path, "cannot look at it", source))?;
        // A small file may have its bytes in the inode.
        let counts = stat.len() >= BLOCK_MAX && sys::counts_blocks(&self.file);
        match counts && stat.blocks().saturating_mul(512) < self.written.load(Ordering::Relaxed) {
            true => Err(self.changed("was truncated by another program")),
            false => Ok(()),
        }
    }

    /// What it is once the last byte was written.
    pub(crate) fn stamp(&self) -> Result<Stamp> {
        let stat = self.file.metadata().map_err(|source| DiskError::io(&self.path, "cannot look at it", source))?;
        Ok(Stamp::of(&stat))
    }

    /// Fails if another program has changed the file since it had this stamp, if it is not `size` bytes long, or if its name is another
    /// file's. `times` count only where all was synced: until then, a server may set them late.
    pub(crate) fn check_untouched(&self, written: &Stamp, size: u64, times: bool) -> Result<()> {
        let now = self.stamp()?;
        if now.size() != size {
            return Err(self.changed("was truncated or extended by another program"));
        }
        if times && !now.is_same_content(written) {
            return Err(self.changed("was changed by another program"));
        }
        if !self.is_named() {
            return Err(self.changed("was replaced or removed by another program").leaving_nothing());
        }
        Ok(())
    }

    fn changed(&self, what: &str) -> DiskError {
        DiskError::new(DiskErrorKind::Changed, &self.path, format!("{what} while it was written"))
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.begin_write()?;
        match &self.bypass {
            None => self.file.write_all_at(bytes, at).map_err(|source| self.cannot_write(at, source))?,
            Some(bypass) => bypass.write(at, bytes).map_err(|(at, source)| self.cannot_write(at, source))?,
        }
        self.count_written(bytes.len() as u64);
        Ok(())
    }

    /// The same of bytes one behind the other, with nothing held back: what is written or punched there later stands.
    pub(crate) fn write_row(&self, mut at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        self.begin_write()?;
        let Some(bypass) = &self.bypass else {
            return sys::write_row_at(&self.file, at, row).map_err(|source| self.cannot_write(at, source));
        };
        for bytes in row {
            bypass.write_at_once(at, bytes).map_err(|(at, source)| self.cannot_write(at, source))?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes zeros, byte for byte.
    pub(crate) fn write_zeros(&self, at: u64, len: u64) -> Result<()> {
        write_zeros(at, len, |at, zeros| self.write(at, zeros))
    }

    /// Makes zeros of old bytes, which the file had up to `held`: a hole, where one is to be had. `last`: the disk ends there.
    pub(crate) fn erase(&self, at: u64, len: u64, held: u64, last: bool) -> Result<()> {
        let old = len.min(held.saturating_sub(at));
        if old == 0 {
            return Ok(());
        }
        self.touch();
        // Where old bytes, or the disk, end within a block, the whole block is to go: nothing that stays is behind it.
        let whole = if last { old.saturating_add(BLOCK_MAX) } else { len.min(old + BLOCK_MAX) };
        // Each refuses where the file system can't; writing zeros then says what is really wrong.
        let file = &self.file;
        if sys::punch(file, at, whole).is_ok()
            || sys::punch(file, at, old).is_ok()
            || sys::zero_range(file, at, old).is_ok()
        {
            return Ok(());
        }
        self.write_zeros(at, old)
    }

    /// Makes a hole of zeros, which the file has up to `held`, where one is to be had. `last`: the disk ends there.
    pub(crate) fn vacate(&self, at: u64, len: u64, held: u64, last: bool) {
        let old = len.min(held.saturating_sub(at));
        if old > 0 {
            // They are zeros already, allocated or not.
            let whole = if last { old.saturating_add(BLOCK_MAX) } else { old };
            let _saved = sys::punch(&self.file, at, whole);
        }
    }

    /// Moves bytes from a pipe.
    pub(crate) fn splice(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        if self.bypass.is_some() {
            return Ok(sys::Spliced::Refused);
        }
        self.begin_write()?;
        let spliced = self.counted(sys::splice_from_pipe(pipe, &self.file, at, len), at)?;
        if let sys::Spliced::Moved(bytes) = spliced {
            self.written.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(spliced)
    }

    /// Has the kernel copy bytes of a file.
    pub(crate) fn copy(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        if self.bypass.is_some() {
            return Ok(sys::Spliced::Refused);
        }
        self.begin_write()?;
        let copied = sys::copy_range(file, from, &self.file, at, len);
        self.counted(copied, at)
    }

    fn counted(&self, moved: io::Result<sys::Spliced>, at: u64) -> Result<sys::Spliced> {
        let moved = moved.map_err(|source| self.cannot_write(at, source))?;
        if let sys::Spliced::Moved(bytes) = moved {
            self.count(bytes);
        }
        Ok(moved)
    }

    /// True if its name is still this file's: nobody put another in its place.
    pub(crate) fn is_named(&self) -> bool {
        self.file.metadata().is_ok_and(|stat| is_at(&self.path, &stat))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|source| DiskError::io(&self.path, "cannot sync", source))
    }

    /// Waits until all that was written is stored, and opens it to be read from where it is stored.
    pub(crate) fn stored(&self) -> Result<StoredFile> {
        // What is noticed is told at the end.
        self.settle()?;
        self.sync()?;
        sys::drop_cached(&self.file, 0, 0);
        self.opened()
    }

    /// The file, to be read.
    pub(crate) fn opened(&self) -> Result<StoredFile> {
        let file = self.file.try_clone().map_err(|source| DiskError::io(&self.path, "cannot open", source))?;
        Ok(StoredFile { file, path: self.path.clone() })
    }

    pub(crate) fn set_len(&self, size: u64) -> Result<()> {
        // XFS writes a file out when it is closed after it was set to the size that it had: nobody asked for that.
        if self.file.metadata().is_ok_and(|stat| stat.len() == size) {
            return Ok(());
        }
        self.file.set_len(size).map_err(|source| DiskError::io(&self.path, "cannot set the size", source))
    }

    fn cannot_write(&self, at: u64, source: io::Error) -> DiskError {
        let Some(missing) = self.missing(at, &source) else {
            return DiskError::io(&self.path, format!("cannot write at disk offset {at}"), source);
        };
        let or_removed = match self.temporary {
            true => format!(", or remove {}", shown(&self.path)),
            false => String::new(),
        };
        DiskError::io(&self.path, format!("cannot write at disk offset {at}: {missing}"), source)
            .hint(format!("free some space and run it again to go on{or_removed}"))
    }

    /// How much space is missing on a full file system: half a sentence. Where it is unknown how much data is to come, all that is left of
    /// the disk may be data.
    fn missing(&self, at: u64, source: &io::Error) -> Option<String> {
        let rest = self.least.checked_sub(at).filter(|_| source.raw_os_error() == Some(libc::ENOSPC))?;
        let (announced, come) = (self.announced.load(Ordering::Relaxed), self.come.load(Ordering::Relaxed));
        let told = announced.checked_sub(come).filter(|&left| left > 0 && left < rest);
        let (left, about) = told.map_or((rest, "up to"), |left| (left, "about"));
        let free = sys::free_space(&self.file).ok()?;
        let missing = left.saturating_sub(free);
        Some(format!("{about} {missing} bytes of free space are missing ({about} {left} to be written, {free} free)"))
    }
}
