//! Reads files without filling the page cache: with O_DIRECT if the file system supports it, else through the page
//! cache, from which the pages are dropped afterwards.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::aligned::{ALIGN, Aligned};
use crate::page_cache::{DropBehind, WINDOW};
use crate::sys::{self, DirectRules};

/// Size in bytes of the bounce buffer, for reads into memory that is not aligned.
const BOUNCE: usize = 256 << 10;
/// The maximum length of one read in bytes: a multiple of every device's alignment.
const MOST: usize = 1 << 30;

/// A second file description of an open file, with O_DIRECT, and its alignment rules.
#[derive(Debug)]
pub struct DirectHandle {
    /// The file description with O_DIRECT.
    pub file: File,
    /// The required alignment of buffers, offsets and lengths, in bytes.
    pub rules: DirectRules,
    /// A read or write failed because of O_DIRECT, so the handle is no longer used.
    refused: AtomicBool,
    /// The file system doesn't state its O_DIRECT rules, so it may use the page cache all the same.
    pub doubtful: bool,
}

impl DirectHandle {
    /// Opens `file` once more with O_DIRECT, for writing too if `write` is set. `None` if the file system doesn't
    /// support O_DIRECT, or requires an unusual alignment.
    pub fn open(file: &File, write: bool) -> Option<Self> {
        let told = sys::direct_rules(file);
        let rules = told.unwrap_or(DirectRules { memory: ALIGN as u64, offset: ALIGN as u64 });
        let usual = |align: u64| align.is_power_of_two() && align <= ALIGN as u64;
        if !usual(rules.memory) || !usual(rules.offset) {
            return None;
        }
        let file = sys::open_direct(file, write).ok()?;
        Some(Self { file, rules, refused: AtomicBool::new(false), doubtful: told.is_none() })
    }

    /// False once [`Self::is_refusal`] has recognised an error of O_DIRECT.
    pub fn is_open(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }

    /// True if the error means that O_DIRECT is not supported here. The handle is closed for further use then.
    pub fn is_refusal(&self, error: &io::Error) -> bool {
        let refusal = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP));
        if refusal {
            self.refused.store(true, Ordering::Relaxed);
        }
        refusal
    }
}

/// Reads a file and leaves the page cache as it was before.
#[derive(Debug)]
pub struct DirectReader {
    handle: Option<DirectHandle>,
    behind: DropBehind,
    /// The user was told that O_DIRECT is not available.
    told: AtomicBool,
    /// Bounce buffers for reads into memory that is not aligned.
    bounces: Mutex<Vec<Aligned>>,
}

impl DirectReader {
    /// Prepares to read a file of `len` bytes.
    ///
    /// # Errors
    ///
    /// The error of the system call that failed. Missing support for O_DIRECT is no error.
    pub fn open(file: &File, len: u64) -> io::Result<Self> {
        let handle = DirectHandle::open(file, false);
        // Without read-ahead, the page cache gets only pages that this reader asked for, and can drop.
        sys::advise_random(file);
        let direct = Self {
            handle,
            behind: DropBehind::new(file.try_clone()?, false),
            told: AtomicBool::new(false),
            bounces: Mutex::default(),
        };
        // Detecting the format has read the beginning of the file, so its first window is dropped later. If more of the
        // file is cached, those pages were there before and stay.
        let warm = sys::cached_pages(file, WINDOW, len.saturating_sub(WINDOW)).is_some_and(|pages| pages > 0);
        if direct.handle().is_none() || !warm {
            direct.behind.passed(0, 1)?;
        }
        if len > 0
            && let Some(handle) = direct.handle()
        {
            // Some file systems accept O_DIRECT in open(2) and refuse the first read.
            let asked = handle.file.read_at(&mut Aligned::zeroed(ALIGN), 0);
            let _refused = asked.is_err_and(|error| handle.is_refusal(&error));
        }
        Ok(direct)
    }

    fn handle(&self) -> Option<&DirectHandle> {
        self.handle.as_ref().filter(|handle| handle.is_open())
    }

    /// Returns once, if O_DIRECT is not available, the predicate of a message about it.
    pub fn refusal(&self) -> Option<&'static str> {
        let refused = self.handle().is_none() && !self.told.swap(true, Ordering::Relaxed);
        refused.then_some("takes no O_DIRECT; what was read is dropped from the page cache instead")
    }

    /// Returns once, after reading, the predicate of a message about the page cache, if there is something to report.
    /// Drops the pages that were read from the page cache.
    pub fn noticed(&self) -> Option<&'static str> {
        self.behind.close();
        let grown = self.handle().is_some_and(|handle| handle.doubtful) && self.behind.has_grown();
        let grown =
            grown.then_some("is read through the page cache in spite of O_DIRECT; what was read is dropped from it");
        self.refusal().or(grown)
    }

    /// Fills `buf` from file offset `at`.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file ends before `buf` is full; else the error of the
    /// system call.
    pub fn read_exact_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<()> {
        let mut filled = 0;
        while let Some(handle) = self.handle().filter(|_| filled < buf.len()) {
            let rest = &mut buf[filled..];
            let now = at + filled as u64;
            match self.read_some(handle, rest, now) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    if handle.doubtful {
                        self.behind.passed(now, bytes as u64)?;
                    }
                    filled += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted || handle.is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.read_cached(file, &mut buf[filled..], at + filled as u64)
    }

    /// Fills `buf` from file offset `at` through the page cache, and drops the pages afterwards.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file ends before `buf` is full; else the error of the
    /// system call.
    pub fn read_cached(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<()> {
        let read = file.read_exact_at(buf, at);
        self.behind.passed(at, buf.len() as u64)?;
        read
    }

    /// Reads at least one byte, unless the file has ended: directly into `buf` if it is aligned, else through a bounce
    /// buffer.
    fn read_some(&self, handle: &DirectHandle, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let (memory, offset) = (align(handle.rules.memory), align(handle.rules.offset));
        let unit = memory.max(offset);
        let skew = usize::try_from(at % unit as u64).unwrap_or_default();
        let whole = buf.len().min(MOST) / unit * unit;
        if skew == 0 && whole > 0 && buf.as_ptr().align_offset(memory) == 0 {
            return handle.file.read_at(&mut buf[..whole], at);
        }
        // If `buf` becomes aligned after `head` bytes, only those go through the bounce buffer.
        let head = unit - skew;
        let meets = buf.len() > head && buf[head..].as_ptr().align_offset(memory) == 0;
        let wanted = if meets && skew > 0 { head } else { buf.len() };
        let wanted = wanted.min(BOUNCE - skew);
        let kept = self.bounces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bounce = kept.unwrap_or_else(|| Aligned::zeroed(BOUNCE));
        let asked = (skew + wanted).next_multiple_of(unit).min(BOUNCE);
        let read = handle.file.read_at(&mut bounce[..asked], at - skew as u64);
        let read = read.map(|bytes| {
            let bytes = bytes.saturating_sub(skew).min(wanted);
            buf[..bytes].copy_from_slice(&bounce[skew..skew + bytes]);
            bytes
        });
        self.bounces.lock().unwrap_or_else(PoisonError::into_inner).push(bounce);
        read
    }
}

/// An alignment as `usize`. It is at most [`ALIGN`].
fn align(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(ALIGN)
}
