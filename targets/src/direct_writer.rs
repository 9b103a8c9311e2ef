//! Writes past the page cache. Whole pages are written with O_DIRECT if the file system supports it; otherwise bytes
//! are written through the page cache and dropped from it.
//!
//! Writes that are small or not aligned in memory are buffered while they are consecutive. Full buffers are written by
//! a thread while the next one is filled. Pages that are written in pieces wait until they are whole; at the end,
//! incomplete pages are written through the page cache. So no page is written both ways, except by
//! [`DirectWriter::write_at_once`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use xfer_hole_os::{ALIGN, Aligned, DirectHandle, DropBehind, sys};

/// Size of a buffer, in bytes: large enough for several concurrent requests to a device.
const BUFFER: usize = 4 << 20;
/// Minimum length in bytes of aligned memory that is written without copying it to a buffer.
const DIRECT_MIN: usize = 256 << 10;
/// Maximum number of incomplete pages that wait.
const WAITING_MAX: usize = 256;

/// The disk offset of a failed write, and its error.
type WriteFailure = (u64, io::Error);

/// Writes a file or device without filling the page cache.
pub(crate) struct DirectWriter {
    handles: Arc<WriteHandles>,
    /// The buffer that is being filled.
    run: Mutex<Option<WriteRun>>,
    /// The thread that writes full buffers. `None` after [`DirectWriter::flush`], and if no thread could be started.
    worker: Mutex<Option<WriteThread>>,
}

/// A thread that writes buffers, and the queue to it.
struct WriteThread {
    queue: SyncSender<WriteRun>,
    thread: JoinHandle<()>,
}

/// A buffer of consecutive bytes.
struct WriteRun {
    /// Disk offset of the first byte.
    start: u64,
    /// Disk offset after the last byte.
    end: u64,
    /// The bytes. The buffer begins at the page that holds the first byte.
    buffer: Aligned,
}

impl DirectWriter {
    /// Opens a second handle with O_DIRECT on an open file or device. If O_DIRECT is not supported, writes go through
    /// the page cache.
    pub(crate) fn open(file: &File) -> io::Result<Self> {
        let handles = Arc::new(WriteHandles::open(file)?);
        let worker = if handles.direct().is_some() { WriteThread::start(&handles) } else { None };
        Ok(Self { handles, run: Mutex::default(), worker: Mutex::new(worker) })
    }

    /// Writes bytes at disk offset `at`. They may stay in a buffer, and the error may be that of an earlier write.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        if self.handles.direct().is_none() {
            return self.handles.write_cached(at, bytes);
        }
        let whole = bytes.len() - bytes.len() % self.handles.page;
        let unbuffered =
            whole >= DIRECT_MIN && self.handles.in_page(at) == 0 && bytes.as_ptr().align_offset(ALIGN) == 0;
        let (now, later) = bytes.split_at(if unbuffered { whole } else { 0 });
        self.handles.write_pages(at, now)?;
        self.append(at + now.len() as u64, later)
    }

    /// Writes bytes at disk offset `at` through the page cache, immediately, and drops them from the cache. Buffered
    /// bytes must not overlap this range; then the range may be written again later.
    pub(crate) fn write_at_once(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        self.handles.write_cached(at, bytes)
    }

    /// Writes everything that is buffered.
    pub(crate) fn flush(&self) -> Result<(), WriteFailure> {
        self.stop_thread();
        let run = lock(&self.run).take();
        run.map_or(Ok(()), |run| self.handles.write_run(run))?;
        let failed = lock(&self.handles.failed).take();
        failed.map_or(Ok(()), Err)?;
        let waiting = std::mem::take(&mut *lock(&self.handles.waiting));
        self.handles.write_waiting(waiting)
    }

    /// Returns half a sentence for the user if O_DIRECT is not supported.
    pub(crate) fn noticed(&self) -> Option<&'static str> {
        let refused = self.handles.direct().is_none();
        refused.then_some("takes no O_DIRECT; what was written is dropped from the page cache instead")
    }

    /// Appends bytes to the buffer if they are consecutive, or begins a new buffer.
    fn append(&self, mut at: u64, mut bytes: &[u8]) -> Result<(), WriteFailure> {
        while !bytes.is_empty() {
            let mut held = lock(&self.run);
            let done = held.take_if(|run| run.end != at || self.handles.room(run) == 0);
            let run = held.get_or_insert_with(|| WriteRun { start: at, end: at, buffer: self.handles.buffer() });
            let (now, later) = bytes.split_at(self.handles.room(run).min(bytes.len()));
            let position = self.handles.position(run, at);
            run.buffer[position..position + now.len()].copy_from_slice(now);
            run.end += now.len() as u64;
            (at, bytes) = (run.end, later);
            // Other threads may fill the next buffer while this one is written.
            drop(held);
            done.map_or(Ok(()), |run| self.write_full(run))?;
        }
        Ok(())
    }

    /// Writes a full buffer: on the thread if the buffer is large and the thread is idle, else on this thread.
    fn write_full(&self, run: WriteRun) -> Result<(), WriteFailure> {
        let failed = lock(&self.handles.failed).take();
        failed.map_or(Ok(()), Err)?;
        let large = run.end - run.start >= DIRECT_MIN as u64;
        let left = match lock(&self.worker).as_ref().filter(|_| large) {
            None => Some(run),
            Some(worker) => match worker.queue.try_send(run) {
                Ok(()) => None,
                Err(TrySendError::Full(run) | TrySendError::Disconnected(run)) => Some(run),
            },
        };
        left.map_or(Ok(()), |run| self.handles.write_run(run))
    }

    /// Waits until the thread has written all buffers that it got, and ends it.
    fn stop_thread(&self) {
        if let Some(WriteThread { queue, thread }) = lock(&self.worker).take() {
            drop(queue);
            // An error of the thread is stored in `failed`.
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}

impl Drop for DirectWriter {
    /// Ends the thread, so that nothing is written after the file is released.
    fn drop(&mut self) {
        self.stop_thread();
    }
}

impl WriteThread {
    fn start(handles: &Arc<WriteHandles>) -> Option<Self> {
        let handles = Arc::clone(handles);
        let (queue, taken) = sync_channel(1);
        let work = move || handles.write_all(&taken);
        Some(Self { queue, thread: thread::Builder::new().spawn(work).ok()? })
    }
}

/// The pieces of an incomplete page, each with its offset in the page. Pieces don't overlap.
#[derive(Default)]
struct PartialPage {
    pieces: Vec<(usize, Vec<u8>)>,
}

impl PartialPage {
    fn filled(&self) -> usize {
        self.pieces.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// Both handles of a file: through and past the page cache.
struct WriteHandles {
    file: File,
    direct: Option<DirectHandle>,
    drop_behind: DropBehind,
    /// Page size in bytes: a multiple of the alignment that O_DIRECT needs.
    page: usize,
    /// Buffers that can be reused.
    buffers: Mutex<Vec<Aligned>>,
    /// Incomplete pages by their disk offsets.
    waiting: Mutex<BTreeMap<u64, PartialPage>>,
    /// Locked shared for direct writes and exclusively for writes through the page cache.
    cache_lock: RwLock<()>,
    /// The error of the thread, if a write failed.
    failed: Mutex<Option<WriteFailure>>,
}

impl WriteHandles {
    fn open(file: &File) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            direct: DirectHandle::open(file, true),
            drop_behind: DropBehind::new(file.try_clone()?, true),
            page: usize::try_from(sys::page()).unwrap_or(ALIGN).max(ALIGN),
            buffers: Mutex::default(),
            waiting: Mutex::default(),
            cache_lock: RwLock::default(),
            failed: Mutex::default(),
        })
    }

    fn direct(&self) -> Option<&DirectHandle> {
        self.direct.as_ref().filter(|direct| direct.is_open())
    }

    fn in_page(&self, at: u64) -> usize {
        usize::try_from(at % self.page as u64).unwrap_or_default()
    }

    /// Returns the position of a disk offset in a buffer.
    fn position(&self, run: &WriteRun, at: u64) -> usize {
        self.in_page(run.start) + usize::try_from(at - run.start).unwrap_or_default()
    }

    fn room(&self, run: &WriteRun) -> usize {
        run.buffer.len() - self.position(run, run.end)
    }

    fn buffer(&self) -> Aligned {
        let kept = lock(&self.buffers).pop();
        kept.unwrap_or_else(|| Aligned::zeroed(BUFFER))
    }

    /// The loop of the thread: writes buffers until the first failure.
    fn write_all(&self, queue: &Receiver<WriteRun>) {
        while let Ok(run) = queue.recv() {
            if let Err(failure) = self.write_run(run) {
                *lock(&self.failed) = Some(failure);
                return;
            }
        }
    }

    /// Writes the whole pages of a buffer. Its incomplete first and last page are added to the waiting pages.
    fn write_run(&self, run: WriteRun) -> Result<(), WriteFailure> {
        let page = self.page as u64;
        let first = run.start.next_multiple_of(page).min(run.end);
        let last = (run.end - run.end % page).max(first);
        let bytes = |from, to| &run.buffer[self.position(&run, from)..self.position(&run, to)];
        self.add_partial(run.start, bytes(run.start, first))?;
        self.write_pages(first, bytes(first, last))?;
        self.add_partial(last, bytes(last, run.end))?;
        lock(&self.buffers).push(run.buffer);
        Ok(())
    }

    /// Adds a piece of a page, and writes the page if it is whole.
    fn add_partial(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let within = self.in_page(at);
        let start = at - within as u64;
        let mut waiting = lock(&self.waiting);
        let page = waiting.entry(start).or_default();
        page.pieces.push((within, bytes.to_vec()));
        if page.filled() < self.page {
            let all = if waiting.len() > WAITING_MAX { std::mem::take(&mut *waiting) } else { BTreeMap::new() };
            drop(waiting);
            return self.write_waiting(all);
        }
        let page = waiting.remove(&start).unwrap_or_default();
        drop(waiting);
        let mut whole = Aligned::zeroed(self.page);
        for (within, bytes) in page.pieces {
            whole[within..within + bytes.len()].copy_from_slice(&bytes);
        }
        self.write_pages(start, &whole)
    }

    /// Writes incomplete pages through the page cache.
    fn write_waiting(&self, waiting: BTreeMap<u64, PartialPage>) -> Result<(), WriteFailure> {
        for (start, page) in waiting {
            for (within, bytes) in page.pieces {
                self.write_cached(start + within as u64, &bytes)?;
            }
        }
        Ok(())
    }

    /// Writes whole pages of aligned memory.
    fn write_pages(&self, mut at: u64, mut bytes: &[u8]) -> Result<(), WriteFailure> {
        while !bytes.is_empty() {
            let Some(direct) = self.direct() else { return self.write_cached(at, bytes) };
            let cache_lock = self.cache_lock.read().unwrap_or_else(PoisonError::into_inner);
            let written = direct.file.write_at(bytes, at);
            drop(cache_lock);
            let mut done = match written {
                Ok(0) => return Err((at, io::ErrorKind::WriteZero.into())),
                Ok(done) => done,
                Err(error) if error.kind() == io::ErrorKind::Interrupted || direct.is_refusal(&error) => continue,
                Err(error) => return Err((at, error)),
            };
            if done % self.page != 0 {
                // The write ended within a page: the rest of the page is written through the cache, which succeeds or
                // returns the error.
                let rest = done.next_multiple_of(self.page).min(bytes.len());
                self.write_cached(at + done as u64, &bytes[done..rest])?;
                done = rest;
            }
            if direct.doubtful {
                self.drop_behind.passed(at, done as u64).map_err(|source| (at, source))?;
            }
            at += done as u64;
            bytes = &bytes[done..];
        }
        Ok(())
    }

    /// Writes through the page cache and drops the bytes from it.
    fn write_cached(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        // Without direct writes, no lock is needed.
        let cache_lock = self.direct.as_ref().map(|_| self.cache_lock.write().unwrap_or_else(PoisonError::into_inner));
        self.file.write_all_at(bytes, at).map_err(|source| (at, source))?;
        drop(cache_lock);
        self.drop_behind.passed(at, bytes.len() as u64).map_err(|source| (at, source))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
