//! A user of this machine, made for a test: with a login shell, an empty home, and nothing installed.

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

/// Names of accounts begin so; then comes the test's process.
const PREFIX: &str = "xfer-hole-";

/// An account, removed with its home and its processes when dropped.
#[derive(Debug)]
pub struct Account {
    name: String,
    uid: u32,
    folder: TempDir,
}

impl Account {
    /// Makes one that logs in with this program; `busybox` is called as `sh`.
    pub fn new(shell: &str) -> Self {
        Self::within(shell, &std::env::temp_dir())
    }

    /// The same, with its home below this folder, which everybody can enter.
    pub fn within(shell: &str, folder: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        requires_root();
        requires(&["useradd", "userdel", shell]);
        // Its own things are its own, the way to them is everybody's.
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
            // A password of "*" fits nothing, and locks nothing.
            let settings = ["-r", "-l", "-M", "-N", "-g", "nogroup", "-p", "*"];
            tool("useradd", &[&settings[..], &["-d", home_name, "-s", login, &name]].concat());
        }
        let uid = User::from_name(&name).unwrap().unwrap().uid.as_raw();
        std::os::unix::fs::chown(&home, Some(uid), None).unwrap();
        Self { name, uid, folder }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that its files are known by.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// A name in its home, or for "" the home.
    pub fn home(&self, name: &str) -> PathBuf {
        let home = self.folder.path().join("home");
        if name.is_empty() { home } else { home.join(name) }
    }

    /// What runs in its name: sessions of sshd, shells, receivers.
    pub fn processes(&self) -> Vec<Process> {
        Process::of_user(self.uid)
    }

    /// All files in its home, and all that it owns where temporary files go.
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

/// Files by name, with what of them changes when they do: inode, mode, length, blocks, and time of the last change. Of folders: inode
/// and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongings(BTreeMap<PathBuf, (u64, u32, u64, u64, i64, i64)>);

impl Belongings {
    /// The names of what came, went or changed since `before`, but for notes of fingerprints.
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

/// What is in a folder and in those below, of the owners that are asked for. What vanishes meanwhile is others' business.
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

/// Held while accounts are made or removed: the tools for it fail where another holds the files.
fn alone() -> File {
    let file = File::create("/run/xfer-hole-tests.lock").unwrap();
    file.lock().unwrap();
    file
}

/// Removes what tests left that were killed.
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
    // It warns of a home that is not to be removed, and of mail that isn't there.
    let mut userdel = process::Command::new(find("userdel").unwrap());
    let _removed = userdel.arg("-f").arg(name).stderr(process::Stdio::null()).status();
}
