//! A file or device that is written at offsets. It records whether anything was written.

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

/// Maximum block size of any file system, in bytes.
pub(crate) const BLOCK_MAX: u64 = 64 << 10;

pub(crate) struct FileWriter {
    pub file: File,
    /// Path for messages.
    pub path: PathBuf,
    /// Set when the file is published, if it was requested.
    pub mark: WrittenStamp,
    touched: AtomicBool,
    /// Length in bytes that the file never falls below while only this process writes to it; 0 if the file grows.
    min_len: u64,
    /// Approximate bytes of data announced in total; 0 if unknown.
    announced: AtomicU64,
    /// Bytes of data written so far, including those that the kernel copied or moved.
    data_written: AtomicU64,
    /// Bytes that were written by this process. Bytes that the kernel copied or shared don't count, since it may leave
    /// holes out.
    written: AtomicU64,
    /// True for a temporary file: the disk can be written again without it.
    temporary: bool,
    /// Writes past the page cache, if that was requested.
    direct: Option<DirectWriter>,
}

impl FileWriter {
    pub(crate) fn new(file: File, path: PathBuf) -> Self {
        Self {
            file,
            path,
            mark: WrittenStamp::default(),
            touched: AtomicBool::new(false),
            min_len: 0,
            announced: AtomicU64::new(0),
            data_written: AtomicU64::new(0),
            written: AtomicU64::new(0),
            temporary: false,
            direct: None,
        }
    }

    /// Returns a handle to the stamp with which the fingerprint is noted once the file is published.
    pub(crate) fn mark(&self) -> WrittenStamp {
        self.mark.want();
        self.mark.clone()
    }

    /// Makes the writer write past the page cache if possible.
    pub(crate) fn directly(self) -> Result<Self> {
        let direct =
            DirectWriter::open(&self.file).map_err(|source| DiskError::io(&self.path, "cannot open", source))?;
        Ok(Self { direct: Some(direct), ..self })
    }

    /// Sets the length in bytes that the file was created with. Writes then check that no other program truncated it.
    pub(crate) fn of_len(self, min_len: u64) -> Self {
        Self { min_len, ..self }
    }

    /// Marks the file as a temporary file, which may be removed.
    pub(crate) fn temporary(self) -> Self {
        Self { temporary: true, ..self }
    }

    /// Writes all buffered bytes, and returns messages for the user.
    pub(crate) fn flush(&self) -> Result<Vec<String>> {
        let Some(direct) = &self.direct else { return Ok(Vec::new()) };
        direct.flush().map_err(|(at, source)| self.cannot_write(at, source))?;
        Ok(direct.noticed().map(ToOwned::to_owned).into_iter().collect())
    }

    /// Records that the file was changed.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Returns true if the file was changed.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Sets approximately how many bytes of data follow in total.
    pub(crate) fn announce(&self, data: u64) {
        self.announced.store(data, Ordering::Relaxed);
    }

    fn count(&self, bytes: u64) {
        self.data_written.fetch_add(bytes, Ordering::Relaxed);
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

    /// Fails if another program truncated the file: a write after its end would turn the truncated bytes into zeros.
    pub(crate) fn check_len(&self) -> Result<()> {
        if self.min_len == 0 {
            return Ok(());
        }
        let len =
            sys::known_len(&self.file).map_err(|source| DiskError::io(&self.path, "cannot tell the size", source))?;
        match len < self.min_len {
            true => Err(self.changed("was truncated by another program")),
            false => Ok(()),
        }
    }

    /// Fails if a synced file that was empty at first has fewer blocks than were written: another program truncated it,
    /// and a later write or that program extended it again. The check is skipped on file systems whose block counts
    /// don't allow it.
    pub(crate) fn check_blocks(&self) -> Result<()> {
        let stat = self.file.metadata().map_err(|source| DiskError::io(&self.path, "cannot look at it", source))?;
        // A small file may have its bytes in the inode.
        let counts = stat.len() >= BLOCK_MAX && sys::counts_blocks(&self.file);
        match counts && stat.blocks().saturating_mul(512) < self.written.load(Ordering::Relaxed) {
            true => Err(self.changed("was truncated by another program")),
            false => Ok(()),
        }
    }

    /// Returns the file's stamp, after the last write.
    pub(crate) fn stamp(&self) -> Result<Stamp> {
        let stat = self.file.metadata().map_err(|source| DiskError::io(&self.path, "cannot look at it", source))?;
        Ok(Stamp::of(&stat))
    }

    /// Fails if another program changed the file since it had the stamp `written`, if it is not `size` bytes long, or
    /// if its name belongs to another file. Times are compared only if `times` is true: before a sync, a server may
    /// still change them.
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
        match &self.direct {
            None => self.file.write_all_at(bytes, at).map_err(|source| self.cannot_write(at, source))?,
            Some(direct) => direct.write(at, bytes).map_err(|(at, source)| self.cannot_write(at, source))?,
        }
        self.count_written(bytes.len() as u64);
        Ok(())
    }

    /// Writes consecutive buffers from `at` on. Nothing stays buffered, so that later writes and holes in this range
    /// apply after it.
    pub(crate) fn write_row(&self, mut at: u64, row: &mut [IoSlice<'_>]) -> Result<()> {
        self.begin_write()?;
        let Some(direct) = &self.direct else {
            return sys::write_row_at(&self.file, at, row).map_err(|source| self.cannot_write(at, source));
        };
        for bytes in row {
            direct.write_at_once(at, bytes).map_err(|(at, source)| self.cannot_write(at, source))?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes `len` zero bytes at `at`.
    pub(crate) fn write_zeros(&self, at: u64, len: u64) -> Result<()> {
        write_zeros(at, len, |at, zeros| self.write(at, zeros))
    }

    /// Turns old bytes into zeros, by a hole if possible. The file had bytes up to `held`. `last` is true if the disk
    /// ends at `at + len`.
    pub(crate) fn erase(&self, at: u64, len: u64, held: u64, last: bool) -> Result<()> {
        let old = len.min(held.saturating_sub(at));
        if old == 0 {
            return Ok(());
        }
        self.touch();
        // If the old bytes or the disk end within a block, the whole block is released: no byte after the end is
        // needed.
        let whole = if last { old.saturating_add(BLOCK_MAX) } else { len.min(old + BLOCK_MAX) };
        // Each call fails if the file system doesn't support it. A write of zeros then returns the actual error.
        let file = &self.file;
        if sys::punch(file, at, whole).is_ok()
            || sys::punch(file, at, old).is_ok()
            || sys::zero_range(file, at, old).is_ok()
        {
            return Ok(());
        }
        self.write_zeros(at, old)
    }

    /// Turns zeros into a hole if possible. The file had bytes up to `held`. `last` is true if the disk ends at `at +
    /// len`.
    pub(crate) fn vacate(&self, at: u64, len: u64, held: u64, last: bool) {
        let old = len.min(held.saturating_sub(at));
        if old > 0 {
            // The bytes are zeros already, allocated or not.
            let whole = if last { old.saturating_add(BLOCK_MAX) } else { old };
            let _saved = sys::punch(&self.file, at, whole);
        }
    }

    /// Moves up to `len` bytes from a pipe to `at`.
    pub(crate) fn splice(&self, at: u64, pipe: BorrowedFd<'_>, len: u64) -> Result<sys::Spliced> {
        if self.direct.is_some() {
            return Ok(sys::Spliced::Refused);
        }
        self.begin_write()?;
        let spliced = self.counted(sys::splice_from_pipe(pipe, &self.file, at, len), at)?;
        if let sys::Spliced::Moved(bytes) = spliced {
            self.written.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(spliced)
    }

    /// Lets the kernel copy up to `len` bytes of `file`, from its offset `from`, to `at`.
    pub(crate) fn copy(&self, at: u64, file: &File, from: u64, len: u64) -> Result<sys::Spliced> {
        if self.direct.is_some() {
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

    /// Returns true if the path still names this file.
    pub(crate) fn is_named(&self) -> bool {
        self.file.metadata().is_ok_and(|stat| is_at(&self.path, &stat))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|source| DiskError::io(&self.path, "cannot sync", source))
    }

    /// Syncs all that was written, and opens the file for reading, with its pages dropped from the cache.
    pub(crate) fn stored(&self) -> Result<StoredFile> {
        // Messages for the user are returned at the end, by `commit`.
        self.flush()?;
        self.sync()?;
        sys::drop_cached(&self.file, 0, 0);
        self.opened()
    }

    /// Opens the file for reading.
    pub(crate) fn opened(&self) -> Result<StoredFile> {
        StoredFile::of(&self.file, &self.path)
    }

    pub(crate) fn set_len(&self, size: u64) -> Result<()> {
        // XFS writes a file out on close if its size was set, even to the same value: avoid that.
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

    /// Returns half a sentence that says how much space is missing on a full file system. If it is unknown how much
    /// data follows, the rest of the disk counts as data.
    fn missing(&self, at: u64, source: &io::Error) -> Option<String> {
        let rest = self.min_len.checked_sub(at).filter(|_| source.raw_os_error() == Some(libc::ENOSPC))?;
        let (announced, data_written) =
            (self.announced.load(Ordering::Relaxed), self.data_written.load(Ordering::Relaxed));
        let expected = announced.checked_sub(data_written).filter(|&left| left > 0 && left < rest);
        let (left, about) = expected.map_or((rest, "up to"), |left| (left, "about"));
        let free = sys::free_space(&self.file).ok()?;
        let missing = left.saturating_sub(free);
        Some(format!("{about} {missing} bytes of free space are missing ({about} {left} to be written, {free} free)"))
    }
}
