//! Runs a line and says what it took.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::Value;

use crate::contender::Contender;
use crate::error::{Error, Result, Told};
use crate::floor;
use crate::line::{Line, Tap};
use crate::tool::text;
use crate::tree::{self, Peak, Process};

/// What one run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Took {
    /// Seconds from before its first program is started until its last one has ended.
    pub time: f64,
    /// Seconds of processors, in all of its processes at both ends.
    pub cpu: f64,
}

/// Memory at most, in bytes: each process with the most that it has had, those that are there at the same time together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the programs that were started here.
    pub near: u64,
    /// Of those that sshd started.
    pub far: u64,
}

/// Measures lines.
#[derive(Debug)]
pub struct Measure {
    /// Takes what the programs say.
    pub said: PathBuf,
    /// All sshd, whose children are the far ends.
    pub servers: Vec<u32>,
}

/// How long processes that are left behind may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whoever needs longer is out of the race: nbdcopy does, for 16 TiB of nothing.
const TOO_LONG: Duration = Duration::from_secs(120);
/// A run that takes longer is seen often enough.
const LONG: Duration = Duration::from_millis(100);
/// Others are run so many times.
const LOOKED_AT: u32 = 5;
/// Between two looks: short enough for commands that take some milliseconds.
const LOOK: Duration = Duration::from_micros(200);

impl Measure {
    /// Runs it for its time.
    ///
    /// # Errors
    /// If one of its programs fails.
    pub fn time(&self, line: &Line, tap: Tap) -> Result<Took> {
        let (before, began) = (self.cpu()?, Instant::now());
        line.start(tap, &self.said)?.end(&self.said)?;
        let time = began.elapsed().as_secs_f64();
        self.settle();
        Ok(Took { time, cpu: self.cpu()? - before })
    }

    /// Runs it for its memory: more than once if it is so short that it is soon over between two looks. `clear` comes before each run.
    ///
    /// # Errors
    /// If one of its programs fails, or `clear`, or it takes minutes.
    pub fn memory(&self, line: &Line, tap: Tap, clear: impl Fn() -> Result<()>) -> Result<Memory> {
        let mut most = Memory::default();
        for _ in 0..LOOKED_AT {
            clear()?;
            let began = Instant::now();
            let memory = self.memory_once(line, tap)?;
            most = Memory { near: most.near.max(memory.near), far: most.far.max(memory.far) };
            if began.elapsed() > LONG {
                break;
            }
        }
        Ok(most)
    }

    fn memory_once(&self, line: &Line, tap: Tap) -> Result<Memory> {
        let (mut near, mut far) = (Peak::default(), Peak::default());
        let mut running = line.start(tap, &self.said)?;
        let began = Instant::now();
        while running.lives()? {
            if began.elapsed() > TOO_LONG {
                drop(running);
                self.split().1.iter().for_each(tree::kill);
                self.settle();
                return Err(Error::new(format!("more than {} s", TOO_LONG.as_secs())));
            }
            let (there, here) = self.split();
            near.look(&here);
            far.look(&there);
            thread::sleep(LOOK);
        }
        running.end(&self.said)?;
        self.settle();
        Ok(Memory { near: near.bytes, far: far.bytes })
    }

    /// Runs it for the bytes that its first program writes.
    ///
    /// # Errors
    /// If one of its programs fails.
    pub fn wire(&self, line: &Line) -> Result<Option<u64>> {
        let bytes = line.start(Tap::First, &self.said)?.end(&self.said);
        self.settle();
        bytes
    }

    /// Runs it for the bytes that our sender says it has put on the wire, in the last of its lines of JSON.
    ///
    /// # Errors
    /// If it fails or says nothing of the kind.
    pub fn told_wire(&self, line: &Line) -> Result<Option<u64>> {
        line.with(&["--progress", "json"]).start(Tap::Closed, &self.said)?.end(&self.said)?;
        self.settle();
        let said = fs::read_to_string(&self.said).told(self.said.display())?;
        let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).told("progress")?;
        Ok(last["wire"].as_u64())
    }

    /// Runs it for the bytes that go through its remote shell, there and back. `None` without `floor`, which counts.
    ///
    /// # Errors
    /// If it fails or says nothing of the kind.
    pub fn wire_both(&self, contender: &Contender, shell: &str, floor: &Path) -> Result<Option<u64>> {
        if !floor.is_file() {
            return Ok(None);
        }
        let counts = self.said.with_extension("counts");
        let tap = format!("{} tap {} {shell}", text(floor)?, text(&counts)?);
        let line = contender.line.replacing(shell, &tap);
        let _former = fs::remove_file(&counts);
        self.time(&line, Tap::Closed)?;
        let [there, back] = floor::counts(&counts)?;
        Ok(Some(there + back))
    }

    /// Our descendants: those of sshd, without itself, and all others.
    fn split(&self) -> (Vec<Process>, Vec<Process>) {
        let there: Vec<Process> = self.servers.iter().copied().flat_map(tree::below).collect();
        let mut here = tree::below(process::id());
        here.retain(|process| !self.servers.contains(&process.pid) && !there.iter().any(|far| far.pid == process.pid));
        (there, here)
    }

    /// Waits for what is still there behind a run: a server's process, or one that was left behind and so became ours.
    fn settle(&self) {
        let began = Instant::now();
        let mut orphans: BTreeSet<u32> = BTreeSet::new();
        while began.elapsed() < PATIENCE {
            let (there, here) = self.split();
            orphans.extend(here.iter().filter(|process| process.parent == process::id()).map(|process| process.pid));
            // Until they are waited for, their processor time doesn't count.
            orphans.retain(|pid| {
                waitpid(Pid::from_raw(pid.cast_signed()), Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
            });
            if there.is_empty() && here.is_empty() && orphans.is_empty() {
                return;
            }
            thread::sleep(LOOK);
        }
    }

    /// Seconds of processors, of all that has been waited for.
    fn cpu(&self) -> Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).told("getrusage")?;
        let near = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let ticks: u64 = self.servers.iter().copied().filter_map(tree::waited_for).sum();
        let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Ok(near as f64 / 1e6 + ticks as f64 / second as f64)
    }
}
