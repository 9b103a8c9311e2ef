//! A user account made for a test: it has a login shell and an empty home directory, and nothing is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread, time};

use nix::sys::signal::Signal;
use nix::unistd::User;
use tempfile::TempDir;

use crate::run::find;
use crate::{Process, requires, requires_root, tool};

/// The prefix of account names; the test's process id follows.
const PREFIX: &str = "xfer-hole-";

/// An account, removed with its home directory and its processes when dropped.
#[derive(Debug)]
pub struct Account {
    name: String,
    uid: u32,
    folder: TempDir,
}

impl Account {
    /// Creates an account with this login shell; `busybox` is run under the name `sh`.
    pub fn new(shell: &str) -> Self {
        Self::within(shell, &std::env::temp_dir())
    }

    /// Creates an account with this login shell and a home directory below `folder`, which all users can enter.
    pub fn within(shell: &str, folder: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        requires_root();
        requires(&["useradd", "userdel", shell]);
        // The home directory is private; the directory above it is readable by all users.
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in(folder);
        let folder = folder.unwrap();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        let mut login = find(shell).unwrap();
        if shell == "busybox" {
            let name = folder.path().join("sh");
            symlink(&login, &name).unwrap();
            login = name;
        }
        let name = format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (home_name, login) = (home.to_str().unwrap(), login.to_str().unwrap());
        {
            let _alone = alone();
            sweep();
            // The password "*" matches no input, and does not lock the account.
            let settings = ["-r", "-l", "-M", "-N", "-g", "nogroup", "-p", "*"];
            tool("useradd", &[&settings[..], &["-d", home_name, "-s", login, &name]].concat());
        }
        let uid = User::from_name(&name).unwrap().unwrap().uid.as_raw();
        std::os::unix::fs::chown(&home, Some(uid), None).unwrap();
        Self { name, uid, folder }
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The account's user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// A path in the home directory; "" is the home directory itself.
    pub fn home(&self, name: &str) -> PathBuf {
        let home = self.folder.path().join("home");
        if name.is_empty() { home } else { home.join(name) }
    }

    /// The account's processes: sessions of sshd, shells, receivers.
    pub fn processes(&self) -> Vec<Process> {
        Process::of_user(self.uid)
    }

    /// All files in the home directory, and all files of the account in the directories for temporary files.
    pub fn belongings(&self) -> Belongings {
        let mut found = BTreeMap::new();
        walk(&self.home(""), &|_| true, &mut found);
        for folder in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
            walk(folder.as_ref(), &|uid| uid == self.uid, &mut found);
        }
        Belongings(found)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|process| process.signal(Signal::SIGKILL));
            thread::sleep(time::Duration::from_millis(10));
        }
        let _alone = alone();
        remove(&self.name);
    }
}

/// Files by path, with the metadata that changes when a file does: inode, mode, length, blocks and modification time.
/// For directories: inode and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongings(BTreeMap<PathBuf, (u64, u32, u64, u64, i64, i64)>);

impl Belongings {
    /// The paths that were created, removed or changed since `before`, except cached fingerprints.
    pub fn changed_since(&self, before: &Self) -> Vec<PathBuf> {
        let names: BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        let is_note = |name: &Path| {
            name.ends_with(".cache")
                || name.ends_with(".cache/xfer-hole")
                || (name.extension().is_some_and(|it| it == "fingerprint")
                    && name.parent().is_some_and(|it| it.ends_with(".cache/xfer-hole")))
        };
        let names = names.into_iter().filter(|name| !is_note(name));
        names.filter(|name| self.0.get(*name) != before.0.get(*name)).cloned().collect()
    }
}

/// Collects the files below a directory whose owner matches. A file that vanishes meanwhile is ignored.
fn walk(folder: &Path, of: &dyn Fn(u32) -> bool, found: &mut BTreeMap<PathBuf, (u64, u32, u64, u64, i64, i64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        if of(stat.uid()) {
            let content = (stat.len(), stat.blocks(), stat.mtime(), stat.mtime_nsec());
            let (len, blocks, mtime, nanos) = if stat.is_dir() { (0, 0, 0, 0) } else { content };
            found.insert(path.clone(), (stat.ino(), stat.mode(), len, blocks, mtime, nanos));
            if stat.is_dir() {
                walk(&path, of, found);
            }
        }
    }
}

/// Takes the lock for creating and removing accounts, since the system's tools fail if another process holds the
/// account files.
fn alone() -> File {
    let file = File::create("/run/xfer-hole-tests.lock").unwrap();
    file.lock().unwrap();
    file
}

/// Removes accounts that killed tests left behind.
fn sweep() {
    for line in fs::read_to_string("/etc/passwd").unwrap().lines() {
        let name = line.split(':').next().unwrap();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
}

fn remove(name: &str) {
    // userdel warns about the home directory, which it does not remove, and about a missing mail spool.
    let mut userdel = process::Command::new(find("userdel").unwrap());
    let _removed = userdel.arg("-f").arg(name).stderr(process::Stdio::null()).status();
}
