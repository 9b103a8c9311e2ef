//! The page cache behind a reader or writer: what was moved through it leaves it again, a window at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Bytes of a window, a power of two.
pub(crate) const WINDOW: u64 = 8 << 20;
/// Windows that may be in work at a time: as many as there are readers or writers, more or less.
const OPEN: usize = 8;
/// Pages that were there before may come and go: fewer than these are no proof.
const FEW: u64 = 64;

/// What is in the page cache of a file because of us.
#[derive(Debug)]
pub struct DropBehind {
    /// The file, by a description of our own.
    file: File,
    /// What was moved has to be written back before it can leave.
    writes: bool,
    /// The numbers of the windows in work, the one that was used last at the end.
    open: Mutex<VecDeque<u64>>,
    /// Pages of the whole file that the page cache had at the beginning, where the kernel tells.
    before: Option<u64>,
    /// More was found in a window than in the whole file at the beginning.
    grown: AtomicBool,
}

impl DropBehind {
    /// Nothing yet.
    pub fn new(file: File, writes: bool) -> Self {
        let before = sys::cached_pages(&file, 0, u64::MAX);
        Self { file, writes, open: Mutex::default(), before, grown: AtomicBool::new(false) }
    }

    /// These bytes have been moved through the page cache: said afterwards, so that nothing comes behind what leaves. What lies some
    /// windows behind leaves it. Fails if that couldn't be written.
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

    /// True if the page cache has filled, though nothing was to go through it.
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// Takes note of a window: the one before it, if this is a new one, and the one that is given up for it.
    fn enter(&self, window: u64) -> (Option<u64>, Option<u64>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.iter().position(|&other| other == window) {
            open.remove(place);
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

    /// All that was moved leaves the page cache, as far as it is written: who wants all of it to leave syncs before.
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

/// Has what is in the page cache written, where the file system may not know of it yet: OpenZFS and FUSE can call it a hole. Where nothing
/// waits to be written, it costs a system call.
///
/// # Errors
/// If it can't be written.
pub fn settle(file: &File) -> io::Result<()> {
    if !file.metadata()?.is_file() || sys::seeks_in_cache(file) {
        return Ok(());
    }
    match file.sync_data() {
        // There is nothing to be written where this can't be done.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem) => Ok(()),
        done => done,
    }
}
