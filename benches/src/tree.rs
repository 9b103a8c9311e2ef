//! The processes that descend from us, as /proc shows them.

use std::fs;
use std::path::PathBuf;
use std::process;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// One process of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Whose child it is.
    pub parent: u32,
}

/// All that descend from this process, parents before their children.
#[must_use]
pub fn below(root: u32) -> Vec<Process> {
    let mut all = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for pid in children(parent) {
            all.push(Process { pid, parent });
            open.push(pid);
        }
    }
    all
}

/// Its children, of whichever of its threads, but for those that have ended and only wait to be waited for.
fn children(parent: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<u32> =
        lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    pids.into_iter().filter(|&pid| state(pid).is_some_and(|state| state != "Z" && state != "X")).collect()
}

fn state(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may have any byte in it.
    Some(stat.rsplit_once(") ")?.1.split(' ').next()?.to_owned())
}

/// Ends all that descend from us, at once.
pub fn kill_all() {
    below(process::id()).iter().for_each(kill);
}

/// Ends one.
pub fn kill(process: &Process) {
    // Process numbers are small.
    let _gone = signal::kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
}

/// Watches how much memory a tree holds.
#[derive(Debug, Default)]
pub struct Peak {
    /// Bytes at most, so far.
    pub bytes: u64,
    seen: Vec<u32>,
}

impl Peak {
    /// Looks once: each process counts with the most that it has had, what it shares with others included.
    pub fn look(&mut self, processes: &[Process]) {
        let mut sum = 0;
        for process in processes {
            // Between fork and exec it is its parent's memory that a process shows: it counts from the second look on.
            let new = !self.seen.contains(&process.pid);
            if new {
                self.seen.push(process.pid);
                if exe(process.pid) == exe(process.parent) {
                    continue;
                }
            }
            sum += high_water(process.pid).unwrap_or(0);
        }
        self.bytes = self.bytes.max(sum);
    }
}

fn exe(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The most resident memory that a process has had, in bytes.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// The processor time of all children that a process has waited for, and of theirs, in clock ticks.
#[must_use]
pub fn waited_for(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let words: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // cutime and cstime, fields 16 and 17; the first behind the name is 3.
    Some(words.get(13)?.parse::<u64>().ok()? + words.get(14)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_grandchild_is_found_and_its_memory_counts() {
        // 64 MiB, kept in a variable of a grandchild.
        let text = "sh -c 'x=$(head -c 67108864 /dev/zero | tr \"\\\\0\" a); echo; cat'; :";
        let mut command = Command::new("sh");
        let mut child = command.arg("-c").arg(text).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let tree = below(child.id());
        assert!(tree.iter().any(|process| process.parent == child.id()), "{tree:?}");
        let mut peak = Peak::default();
        peak.look(&tree);
        peak.look(&tree);
        assert!(peak.bytes > 64 << 20, "{} bytes", peak.bytes);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(below(child.id()), []);
    }
}
