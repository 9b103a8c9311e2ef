//! Processes of this machine, read from /proc.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    parent: i32,
    uid: u32,
    /// The command line, with spaces between the words.
    pub argv: String,
}

impl Process {
    /// All processes except zombies.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| Self::read(&entry.path())).collect()
    }

    /// The processes of a user.
    pub fn of_user(uid: u32) -> Vec<Self> {
        Self::all().into_iter().filter(|process| process.uid == uid).collect()
    }

    /// The descendants of a process.
    pub fn below(pid: u32) -> Vec<Self> {
        let mut all = Self::all();
        let mut found: Vec<Self> = Vec::new();
        let mut parents = vec![pid.cast_signed()];
        while let Some(parent) = parents.pop() {
            let (children, others) = all.into_iter().partition(|process| process.parent == parent);
            all = others;
            parents.extend(children.iter().map(|process: &Self| process.pid));
            found.extend(children);
        }
        found
    }

    /// Reads one process; `None` if it has ended.
    fn read(folder: &Path) -> Option<Self> {
        let pid = folder.file_name()?.to_str()?.parse().ok()?;
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let argv = fs::read(folder.join("cmdline")).ok()?;
        let argv = String::from_utf8_lossy(&argv).trim_end_matches('\0').replace('\0', " ");
        let ended = field("State:")? == "Z";
        (!ended).then_some(Self { pid, parent: field("PPid:")?.parse().ok()?, uid: field("Uid:")?.parse().ok()?, argv })
    }

    /// Sends a signal. A process that has ended is ignored.
    pub fn signal(&self, signal: Signal) {
        let _gone = kill(Pid::from_raw(self.pid), signal);
    }
}
