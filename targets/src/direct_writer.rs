//! Writing past the page cache: whole pages by O_DIRECT where it is to be had, else through the page cache and out of it again.
//!
//! What is small or lies badly in memory is gathered as long as it goes on where it ended, and written in large pieces, while the next
//! is gathered. A page that is filled in pieces waits until it is whole; what never gets whole goes through the page cache. So no page is
//! written both ways, unless it is written at once before all that is held back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use xfer_hole_os::{ALIGN, Aligned, DirectHandle, DropBehind, sys};

/// Bytes that are gathered at most: enough for a device to have some requests at a time.
const GATHER: usize = 4 << 20;
/// Aligned bytes of this length are written from where they are.
const LARGE: usize = 256 << 10;
/// Pages that wait at a time.
const WAITING: usize = 256;

/// The disk offset of a failed write, and why it failed.
type WriteFailure = (u64, io::Error);

/// Writes a file or device so that the page cache stays as it is.
pub(crate) struct DirectWriter {
    ways: Arc<WriteHandles>,
    /// What may be gone on with.
    run: Mutex<Option<WriteRun>>,
    /// Who writes what was gathered, while the next is gathered. None once all is written, and where there is no thread to be had.
    worker: Mutex<Option<WriteThread>>,
}

/// A thread that writes runs, and how it gets them.
struct WriteThread {
    runs: SyncSender<WriteRun>,
    thread: JoinHandle<()>,
}

/// Bytes that follow each other.
struct WriteRun {
    /// Disk offset of the first, and of the one behind the last.
    start: u64,
    end: u64,
    /// The bytes, from the page on that the first lies in.
    buffer: Aligned,
}

impl DirectWriter {
    /// The way past the page cache into an open file or device, which is written through it where there is none.
    pub(crate) fn open(file: &File) -> io::Result<Self> {
        let ways = Arc::new(WriteHandles::open(file)?);
        let worker = if ways.lane().is_some() { WriteThread::start(&ways) } else { None };
        Ok(Self { ways, run: Mutex::default(), worker: Mutex::new(worker) })
    }

    /// These bytes are to stand at `at`. They may be held back, and another's failure may be told.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        if self.ways.lane().is_none() {
            return self.ways.write_cached(at, bytes);
        }
        let whole = bytes.len() - bytes.len() % self.ways.page;
        let straight = whole >= LARGE && self.ways.in_page(at) == 0 && bytes.as_ptr().align_offset(ALIGN) == 0;
        let (now, later) = bytes.split_at(if straight { whole } else { 0 });
        self.ways.write_pages(at, now)?;
        self.gather(at + now.len() as u64, later)
    }

    /// These bytes stand at `at` when this is back, by way of the page cache, and out of it again. What is held back takes no byte of
    /// its place twice: only so may a place be written to again.
    pub(crate) fn write_at_once(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        self.ways.write_cached(at, bytes)
    }

    /// Everything that is held back is written.
    pub(crate) fn settle(&self) -> Result<(), WriteFailure> {
        self.rest();
        let run = lock(&self.run).take();
        run.map_or(Ok(()), |run| self.ways.write_run(run))?;
        let failed = lock(&self.ways.failed).take();
        failed.map_or(Ok(()), Err)?;
        let waiting = std::mem::take(&mut *lock(&self.ways.waiting));
        self.ways.write_waiting(waiting)
    }

    /// What a user should know of it once it is written: half a sentence.
    pub(crate) fn noticed(&self) -> Option<&'static str> {
        let refused = self.ways.lane().is_none();
        refused.then_some("takes no O_DIRECT; what was written is dropped from the page cache instead")
    }

    /// Adds bytes to the run that they go on with, or begins one with them.
    fn gather(&self, mut at: u64, mut bytes: &[u8]) -> Result<(), WriteFailure> {
        while !bytes.is_empty() {
            let mut held = lock(&self.run);
            let done = held.take_if(|run| run.end != at || self.ways.room(run) == 0);
            let run = held.get_or_insert_with(|| WriteRun { start: at, end: at, buffer: self.ways.buffer() });
            let (now, later) = bytes.split_at(self.ways.room(run).min(bytes.len()));
            let place = self.ways.place(run, at);
            run.buffer[place..place + now.len()].copy_from_slice(now);
            run.end += now.len() as u64;
            (at, bytes) = (run.end, later);
            // Others may gather while it is written.
            drop(held);
            done.map_or(Ok(()), |run| self.pass(run))?;
        }
        Ok(())
    }

    /// Has a run written, by the hand if it is large and the hand is free.
    fn pass(&self, run: WriteRun) -> Result<(), WriteFailure> {
        let failed = lock(&self.ways.failed).take();
        failed.map_or(Ok(()), Err)?;
        let large = run.end - run.start >= LARGE as u64;
        let left = match lock(&self.worker).as_ref().filter(|_| large) {
            None => Some(run),
            Some(worker) => match worker.runs.try_send(run) {
                Ok(()) => None,
                Err(TrySendError::Full(run) | TrySendError::Disconnected(run)) => Some(run),
            },
        };
        left.map_or(Ok(()), |run| self.ways.write_run(run))
    }

    /// Waits until the hand has written all that it has.
    fn rest(&self) {
        if let Some(WriteThread { runs, thread }) = lock(&self.worker).take() {
            drop(runs);
            // What went wrong there stands in `failed`.
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}

impl Drop for DirectWriter {
    /// Nothing is written once the file is let go of.
    fn drop(&mut self) {
        self.rest();
    }
}

impl WriteThread {
    fn start(ways: &Arc<WriteHandles>) -> Option<Self> {
        let ways = Arc::clone(ways);
        let (runs, taken) = sync_channel(1);
        let work = move || ways.write_all(&taken);
        Some(Self { runs, thread: thread::Builder::new().spawn(work).ok()? })
    }
}

/// What is there of a page: pieces, and where in it they begin. No two of them overlap.
#[derive(Default)]
struct PartialPage {
    pieces: Vec<(usize, Vec<u8>)>,
}

impl PartialPage {
    fn filled(&self) -> usize {
        self.pieces.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// Both ways into a file.
struct WriteHandles {
    file: File,
    lane: Option<DirectHandle>,
    behind: DropBehind,
    /// Bytes of a page: both that of memory, and that which O_DIRECT asks for.
    page: usize,
    /// Buffers of runs that were written.
    buffers: Mutex<Vec<Aligned>>,
    /// Pages that aren't whole, by their offsets.
    waiting: Mutex<BTreeMap<u64, PartialPage>>,
    /// Held by all who write directly, and alone by who writes through the page cache.
    turn: RwLock<()>,
    /// What the hand couldn't write.
    failed: Mutex<Option<WriteFailure>>,
}

impl WriteHandles {
    fn open(file: &File) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            lane: DirectHandle::open(file, true),
            behind: DropBehind::new(file.try_clone()?, true),
            page: usize::try_from(sys::page()).unwrap_or(ALIGN).max(ALIGN),
            buffers: Mutex::default(),
            waiting: Mutex::default(),
            turn: RwLock::default(),
            failed: Mutex::default(),
        })
    }

    fn lane(&self) -> Option<&DirectHandle> {
        self.lane.as_ref().filter(|lane| lane.is_open())
    }

    fn in_page(&self, at: u64) -> usize {
        usize::try_from(at % self.page as u64).unwrap_or_default()
    }

    /// Where in a run's buffer a disk offset is held.
    fn place(&self, run: &WriteRun, at: u64) -> usize {
        self.in_page(run.start) + usize::try_from(at - run.start).unwrap_or_default()
    }

    fn room(&self, run: &WriteRun) -> usize {
        run.buffer.len() - self.place(run, run.end)
    }

    fn buffer(&self) -> Aligned {
        let kept = lock(&self.buffers).pop();
        kept.unwrap_or_else(|| Aligned::zeroed(GATHER))
    }

    /// Writes what it gets, up to the first failure.
    fn write_all(&self, runs: &Receiver<WriteRun>) {
        while let Ok(run) = runs.recv() {
            if let Err(failure) = self.write_run(run) {
                *lock(&self.failed) = Some(failure);
                return;
            }
        }
    }

    /// Writes a run: its whole pages, and what is left of it to the pages that wait.
    fn write_run(&self, run: WriteRun) -> Result<(), WriteFailure> {
        let page = self.page as u64;
        let first = run.start.next_multiple_of(page).min(run.end);
        let last = (run.end - run.end % page).max(first);
        let bytes = |from, to| &run.buffer[self.place(&run, from)..self.place(&run, to)];
        self.wait(run.start, bytes(run.start, first))?;
        self.write_pages(first, bytes(first, last))?;
        self.wait(last, bytes(last, run.end))?;
        lock(&self.buffers).push(run.buffer);
        Ok(())
    }

    /// A piece of one page, which is written if it is whole now.
    fn wait(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let within = self.in_page(at);
        let start = at - within as u64;
        let mut waiting = lock(&self.waiting);
        let page = waiting.entry(start).or_default();
        page.pieces.push((within, bytes.to_vec()));
        if page.filled() < self.page {
            let all = if waiting.len() > WAITING { std::mem::take(&mut *waiting) } else { BTreeMap::new() };
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

    /// Writes pages that aren't whole, byte for byte.
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
            let Some(lane) = self.lane() else { return self.write_cached(at, bytes) };
            let turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            let written = lane.file.write_at(bytes, at);
            drop(turn);
            let mut done = match written {
                Ok(0) => return Err((at, io::ErrorKind::WriteZero.into())),
                Ok(done) => done,
                Err(error) if error.kind() == io::ErrorKind::Interrupted || lane.is_refusal(&error) => continue,
                Err(error) => return Err((at, error)),
            };
            if done % self.page != 0 {
                // Cut short within a page: writing the rest of it says why, or goes on.
                let rest = done.next_multiple_of(self.page).min(bytes.len());
                self.write_cached(at + done as u64, &bytes[done..rest])?;
                done = rest;
            }
            if lane.doubtful {
                self.behind.passed(at, done as u64).map_err(|source| (at, source))?;
            }
            at += done as u64;
            bytes = &bytes[done..];
        }
        Ok(())
    }

    /// Writes through the page cache, and out of it again.
    fn write_cached(&self, at: u64, bytes: &[u8]) -> Result<(), WriteFailure> {
        // Where nothing is written directly, nobody has to wait for another.
        let turn = self.lane.as_ref().map(|_| self.turn.write().unwrap_or_else(PoisonError::into_inner));
        self.file.write_all_at(bytes, at).map_err(|source| (at, source))?;
        drop(turn);
        self.behind.passed(at, bytes.len() as u64).map_err(|source| (at, source))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
