//! The folders that everything is made in, and that nothing of remains.

use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::time::Duration;
use std::{env, fs, thread};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use crate::error::{Error, Result, Told};
use crate::{link, tree};

/// A folder of ours, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one in `parent`, named after this process.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn make(parent: &Path) -> Result<Self> {
        // Paths are handed to far ends and servers, which stand elsewhere.
        let parent = fs::create_dir_all(parent).and_then(|()| parent.canonicalize()).told(parent.display())?;
        let path = parent.join(name(process::id()));
        fs::create_dir(&path).told(path.display())?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {}: {why}", self.0.display());
        }
    }
}

/// Has this program do its work in a process of its own, with these arguments more. A signal that asks us to end has all of our
/// processes ended, and the folders that it made in `parents` removed. To be called before any thread is started.
///
/// # Errors
/// If it can't be started.
pub fn supervise(more: &str, parents: [PathBuf; 2]) -> Result<ExitCode> {
    let signals = asking_to_end();
    signals.thread_block().told("signals")?;
    let program = env::current_exe().told("this program")?;
    let mut worker = Command::new(program).args(env::args_os().skip(1)).arg(more).spawn().told("this program")?;
    let pid = worker.id();
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        tree::kill_all();
        link::remove(pid);
        for folder in parents.iter().map(|parent| parent.join(name(pid))) {
            // A process that is just ending may still make a file.
            (0..3).for_each(|_| drop(fs::remove_dir_all(&folder)));
        }
        process::exit(128 + signal as i32);
    });
    let status = worker.wait().told("this program")?;
    // Ended by the signal that we are ending by, too.
    let Some(code) = status.code() else {
        thread::sleep(Duration::from_secs(5));
        return Err(Error::new(format!("it ended by {status}")));
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

/// Takes signals as any program does: what we start takes them as we do, and some servers are ended by them.
///
/// # Errors
/// If that can't be had.
pub fn heed_signals() -> Result<()> {
    asking_to_end().thread_unblock().told("signals")
}

fn asking_to_end() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

fn name(pid: u32) -> String {
    format!("xfer-hole-bench.{pid}")
}

/// What its file system is called.
#[must_use]
pub fn file_system(folder: &Path) -> &'static str {
    let known: [(FsType, &str); 3] = [(EXT4_SUPER_MAGIC, "ext4"), (TMPFS_MAGIC, "tmpfs"), (XFS_SUPER_MAGIC, "xfs")];
    let kind = statfs(folder).map(|about| about.filesystem_type());
    known.iter().find(|(magic, _)| kind == Ok(*magic)).map_or("another", |(_, name)| name)
}

/// The bytes that we may still write there.
///
/// # Errors
/// If its file system doesn't tell.
pub fn room(folder: &Path) -> Result<u64> {
    let about = statvfs(folder).told(folder.display())?;
    Ok(about.blocks_available() * about.fragment_size())
}
