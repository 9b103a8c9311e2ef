//! Drops the pages that a reader or writer has used from the page cache, one window after the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Size of a window in bytes, a power of two.
pub(crate) const WINDOW: u64 = 8 << 20;
/// The maximum number of windows in use at a time: about as many as there are threads.
const OPEN: usize = 8;
/// Pages that other programs use may come and go, so a growth of fewer pages proves nothing.
const FEW: u64 = 64;

/// Tracks the pages of a file that this process brings into the page cache.
#[derive(Debug)]
pub struct DropBehind {
    /// The file, with a file description of its own.
    file: File,
    /// The pages are written, so they must be written back before they can be dropped.
    writes: bool,
    /// The numbers of the windows in use. The last one was used most recently.
    open: Mutex<VecDeque<u64>>,
    /// Pages of the whole file in the page cache at the beginning, if the kernel tells.
    before: Option<u64>,
    /// A window had more cached pages than the whole file had at the beginning.
    grown: AtomicBool,
}

impl DropBehind {
    /// Creates a tracker. `writes` states that the file is written, not read.
    pub fn new(file: File, writes: bool) -> Self {
        let before = sys::cached_pages(&file, 0, u64::MAX);
        Self { file, writes, open: Mutex::default(), before, grown: AtomicBool::new(false) }
    }

    /// Notes that bytes `at..at + len` were read or written through the page cache. Call it afterwards, so that no page
    /// enters a dropped window again. Windows that were not used lately are written back and dropped.
    ///
    /// # Errors
    ///
    /// The error of writing dirty pages back.
    pub fn passed(&self, at: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        for window in at / WINDOW..=(at + (len - 1)) / WINDOW {
            let (begun, gone) = self.enter(window);
            if let Some(begun) = begun.filter(|_| self.writes) {
                sys::write_back(&self.file, begun * WINDOW, WINDOW, false)?;
            }
            if let Some(gone) = gone {
                self.leave(gone)?;
            }
        }
        Ok(())
    }

    /// True if the page cache grew, although O_DIRECT should have bypassed it.
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// Marks a window as used. Returns the window used before it, if `window` is new, and the window that is now to be
    /// dropped.
    fn enter(&self, window: u64) -> (Option<u64>, Option<u64>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = open.iter().position(|&other| other == window) {
            open.remove(index);
            open.push_back(window);
            return (None, None);
        }
        let before = open.back().copied();
        open.push_back(window);
        (before, if open.len() > OPEN { open.pop_front() } else { None })
    }

    fn leave(&self, window: u64) -> io::Result<()> {
        if self.writes {
            sys::write_back(&self.file, window * WINDOW, WINDOW, true)?;
        }
        self.drop_cached(window);
        Ok(())
    }

    fn drop_cached(&self, window: u64) {
        let at = window * WINDOW;
        let found = self.before.and_then(|before| Some((before, sys::cached_pages(&self.file, at, WINDOW)?)));
        if found.is_some_and(|(before, now)| now > before + FEW) {
            self.grown.store(true, Ordering::Relaxed);
        }
        sys::drop_cached(&self.file, at, WINDOW);
    }

    /// Drops the pages of all windows in use, except those not written back yet. To drop all, sync the file first.
    pub fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for window in open {
            self.drop_cached(window);
        }
    }
}

impl Drop for DropBehind {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes dirty pages of the file to disk on file systems whose SEEK_DATA may not see them: OpenZFS and FUSE can report
/// dirty data as a hole. If the file has no dirty pages, this costs one system call.
///
/// # Errors
///
/// The error of writing the pages.
pub fn settle(file: &File) -> io::Result<()> {
    if !file.metadata()?.is_file() || sys::seeks_in_cache(file) {
        return Ok(());
    }
    match file.sync_data() {
        // Files that can't be synced have no dirty pages.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem) => Ok(()),
        done => done,
    }
}
