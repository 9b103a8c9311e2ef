//! Running programs, which are controlled through standard input and signals, and killed with their children.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Outcome;

/// A running program in its own process group, which ends when its input does.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Option<JoinHandle<(Vec<u8>, String)>>,
}

impl Running {
    /// Starts a program with a pipe as standard input.
    pub fn start(command: &mut Command) -> Self {
        Self::between(Stdio::piped(), command, Stdio::piped())
    }

    /// Starts a program with this standard input and output.
    pub fn between(stdin: impl Into<Stdio>, command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        let started = command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0).spawn();
        // The command's copies of the pipe ends are closed, so that readers see their end.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = started.unwrap();
        let stdin = child.stdin.take();
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take().unwrap());
        let output = thread::spawn(move || {
            let errors = thread::spawn(move || {
                let mut text = Vec::new();
                let _read = err.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            });
            let mut bytes = Vec::new();
            let _read = out.as_mut().map(|out| out.read_to_end(&mut bytes));
            (bytes, errors.join().unwrap())
        });
        Self { child, stdin, output: Some(output) }
    }

    /// Writes to the program's standard input. A program that has ended is ignored.
    pub fn say(&mut self, bytes: &[u8]) {
        let _broken_pipe = self.stdin.as_mut().unwrap().write_all(bytes);
    }

    /// Closes the program's input and waits for its end.
    pub fn end(mut self) -> Outcome {
        self.outcome()
    }

    /// Kills the program's process group with SIGKILL.
    pub fn kill(mut self) -> Outcome {
        killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL).unwrap();
        self.outcome()
    }

    /// Sends a signal once the program handles it.
    pub fn signal(&mut self, signal: Signal) {
        let status = format!("/proc/{}/status", self.child.id());
        wait_until("the signal is handled", || {
            let status = fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
            u64::from_str_radix(caught.trim(), 16).unwrap() >> (signal as u32 - 1) & 1 == 1
        });
        kill(self.pid(), signal).unwrap();
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits for the program's end while its input stays open.
    pub fn outlived(mut self) -> Outcome {
        let stdin = self.stdin.take();
        let outcome = self.outcome();
        drop(stdin);
        outcome
    }

    /// True while the program runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn outcome(&mut self) -> Outcome {
        drop(self.stdin.take());
        let code = self.child.wait().unwrap().code();
        let (out, err) = self.output.take().unwrap().join().unwrap();
        Outcome { code, out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.output.is_some() {
            let _gone = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
            let _reaped = self.child.wait();
        }
    }
}

/// Waits until `so` returns true, for a minute at most.
#[track_caller]
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A file's bytes and metadata, for a later comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    path: PathBuf,
    bytes: Vec<u8>,
    stat: (u64, u64, u32, u32, u32),
}

impl Before {
    /// Reads the file's present state.
    pub fn of(path: &Path) -> Self {
        let mut bytes = Vec::new();
        let mut file = File::open(path).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let stat = file.metadata().unwrap();
        let stat = (stat.ino(), stat.nlink(), stat.mode(), stat.uid(), stat.gid());
        Self { path: path.into(), bytes, stat }
    }

    /// The file's inode number.
    pub fn inode(&self) -> u64 {
        self.stat.0
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fails unless the path has the same inode, links, mode, owner, group and bytes.
    #[track_caller]
    pub fn untouched(&self, why: &str) {
        let now = Self::of(&self.path);
        assert_eq!(self.stat, now.stat, "inode, links, mode, owner, group of {}: {why}", self.path.display());
        assert!(self.bytes == now.bytes, "{} has other bytes: {why}", self.path.display());
    }
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Marks a file as the `DEST.part` of an interrupted transfer: private, and with the mark of a temporary file.
pub fn mark_part(part: &Path) {
    fs::set_permissions(part, fs::Permissions::from_mode(0o600)).unwrap();
    let marked = Command::new("setfattr").args(["-n", "user.xfer-hole.part", "-v", "1"]).arg(part).output().unwrap();
    if !marked.status.success() {
        let mut side = part.as_os_str().to_owned();
        side.push(".lines");
        let inode = fs::metadata(part).unwrap().ino();
        fs::write(side, format!("XFER-HOLE-PART 1 inode {inode}\n")).unwrap();
    }
}

/// The path with `.part` appended.
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
