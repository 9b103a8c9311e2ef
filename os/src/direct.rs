//! Reading past the page cache: by O_DIRECT where it is to be had, else through the page cache and out of it again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::aligned::{ALIGN, Aligned};
use crate::page_cache::{DropBehind, WINDOW};
use crate::sys::{self, DirectRules};

/// Bytes that are read at once where the caller's memory isn't aligned.
const BOUNCE: usize = 256 << 10;
/// The most bytes that one call is asked for, a multiple of all that devices are aligned to.
const MOST: usize = 1 << 30;

/// A file's second description, with O_DIRECT, and what it asks for.
#[derive(Debug)]
pub struct DirectHandle {
    /// The second description.
    pub file: File,
    /// How buffers, offsets and lengths have to be aligned.
    pub rules: DirectRules,
    /// It was asked for, and refused for what it isn't to blame for: not asked again.
    refused: AtomicBool,
    /// Nobody has said that nothing goes through the page cache all the same.
    pub doubtful: bool,
}

impl DirectHandle {
    /// The lane into this file, if there is one.
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

    /// True until it has refused what it had promised.
    pub fn is_open(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }

    /// Judges an error: true if it says that O_DIRECT isn't to be had here.
    pub fn is_refusal(&self, error: &io::Error) -> bool {
        let refusal = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP));
        if refusal {
            self.refused.store(true, Ordering::Relaxed);
        }
        refusal
    }
}

/// Reads a file so that the page cache stays as it is.
#[derive(Debug)]
pub struct DirectReader {
    lane: Option<DirectHandle>,
    behind: DropBehind,
    /// The user knows that there is no O_DIRECT.
    told: AtomicBool,
    /// For memory that isn't aligned.
    bounces: Mutex<Vec<Aligned>>,
}

impl DirectReader {
    /// The way past the page cache into a file of `len` bytes, which is read through it where there is none.
    pub fn open(file: &File, len: u64) -> io::Result<Self> {
        let lane = DirectHandle::open(file, false);
        // What is read ahead of us is nobody's to drop.
        sys::advise_random(file);
        let direct = Self {
            lane,
            behind: DropBehind::new(file.try_clone()?, false),
            told: AtomicBool::new(false),
            bounces: Mutex::default(),
        };
        // What was read to recognise the file; but where more of it lies in the page cache, that was there before.
        let warm = sys::cached_pages(file, WINDOW, len.saturating_sub(WINDOW)).is_some_and(|pages| pages > 0);
        if direct.lane().is_none() || !warm {
            direct.behind.passed(0, 1)?;
        }
        if len > 0
            && let Some(lane) = direct.lane()
        {
            // Some refuse only what is asked for.
            let asked = lane.file.read_at(&mut Aligned::zeroed(ALIGN), 0);
            let _refused = asked.is_err_and(|error| lane.is_refusal(&error));
        }
        Ok(direct)
    }

    fn lane(&self) -> Option<&DirectHandle> {
        self.lane.as_ref().filter(|lane| lane.is_open())
    }

    /// That there is no O_DIRECT, if that is so and wasn't said before: half a sentence.
    pub fn refusal(&self) -> Option<&'static str> {
        let refused = self.lane().is_none() && !self.told.swap(true, Ordering::Relaxed);
        refused.then_some("takes no O_DIRECT; what was read is dropped from the page cache instead")
    }

    /// What a user should know of it once it was read, and wasn't told before: half a sentence. Nothing of it is in the page cache
    /// any more.
    pub fn noticed(&self) -> Option<&'static str> {
        self.behind.close();
        let grown = self.lane().is_some_and(|lane| lane.doubtful) && self.behind.has_grown();
        let grown =
            grown.then_some("is read through the page cache in spite of O_DIRECT; what was read is dropped from it");
        self.refusal().or(grown)
    }

    /// Fills `buf` from `at`; that there is less is an [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
    pub fn read_exact_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<()> {
        let mut filled = 0;
        while let Some(lane) = self.lane().filter(|_| filled < buf.len()) {
            let rest = &mut buf[filled..];
            let now = at + filled as u64;
            match self.read_some(lane, rest, now) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    if lane.doubtful {
                        self.behind.passed(now, bytes as u64)?;
                    }
                    filled += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted || lane.is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.read_cached(file, &mut buf[filled..], at + filled as u64)
    }

    /// The same through the page cache, and out of it again.
    pub fn read_cached(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<()> {
        let read = file.read_exact_at(buf, at);
        self.behind.passed(at, buf.len() as u64)?;
        read
    }

    /// Reads at least one byte, unless the file has ended: straight into `buf` where it is aligned, else by way of a buffer that is.
    fn read_some(&self, lane: &DirectHandle, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let (memory, offset) = (align(lane.rules.memory), align(lane.rules.offset));
        let unit = memory.max(offset);
        let skew = usize::try_from(at % unit as u64).unwrap_or_default();
        let whole = buf.len().min(MOST) / unit * unit;
        if skew == 0 && whole > 0 && buf.as_ptr().align_offset(memory) == 0 {
            return lane.file.read_at(&mut buf[..whole], at);
        }
        // Only as far as to where it is aligned, if that comes.
        let head = unit - skew;
        let meets = buf.len() > head && buf[head..].as_ptr().align_offset(memory) == 0;
        let wanted = if meets && skew > 0 { head } else { buf.len() };
        let wanted = wanted.min(BOUNCE - skew);
        let kept = self.bounces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bounce = kept.unwrap_or_else(|| Aligned::zeroed(BOUNCE));
        let asked = (skew + wanted).next_multiple_of(unit).min(BOUNCE);
        let read = lane.file.read_at(&mut bounce[..asked], at - skew as u64);
        let read = read.map(|bytes| {
            let bytes = bytes.saturating_sub(skew).min(wanted);
            buf[..bytes].copy_from_slice(&bounce[skew..skew + bytes]);
            bytes
        });
        self.bounces.lock().unwrap_or_else(PoisonError::into_inner).push(bounce);
        read
    }
}

/// An alignment, which is [`ALIGN`] at most.
fn align(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(ALIGN)
}
