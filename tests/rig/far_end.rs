//! Another machine as a user meets one: a server, a fresh account there, and images at this end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Account, Belongings, HOST, Outcome, Setup, Sshd, TestDisk, Tools, run};

/// A fresh account on a server of its own, and a folder at this end.
#[derive(Debug)]
pub struct FarEnd {
    /// Who logs in.
    pub account: Account,
    /// Where to.
    pub sshd: Sshd,
    folder: TempDir,
    tools: Tools,
}

impl FarEnd {
    /// An account with this login shell, and nothing of ours installed.
    pub fn new(tools: Tools, shell: &str) -> Self {
        Self::with(tools, shell, Setup::default())
    }

    /// The same on a server that is set up so.
    pub fn with(tools: Tools, shell: &str, setup: Setup<'_>) -> Self {
        Self::within(tools, shell, setup, &std::env::temp_dir())
    }

    /// The same, with the account's home and the folder at this end below this one, which everybody can enter.
    pub fn within(tools: Tools, shell: &str, setup: Setup<'_>, folder: &Path) -> Self {
        let (sshd, account) = (Sshd::with(setup), Account::within(shell, folder));
        Self { account, sshd, folder: tempfile::tempdir_in(folder).unwrap(), tools }
    }

    /// A name in the folder at this end.
    pub fn near(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image at this end.
    pub fn image(&self, name: &str, disk: &TestDisk) -> PathBuf {
        let image = self.near(name);
        disk.make(&image);
        image
    }

    /// `ACCOUNT@far-end:PATH`
    pub fn place(&self, path: impl AsRef<Path>) -> OsString {
        let mut place: OsString = format!("{}@{HOST}:", self.account.name()).into();
        place.push(path.as_ref());
        place
    }

    /// `xfer-hole -F CONFIG`, to which more words are yet to be added.
    pub fn sender(&self) -> Command {
        self.sshd.reach(&self.tools.xfer_hole)
    }

    /// `recv-hole -F CONFIG`
    pub fn receiver(&self) -> Command {
        self.sshd.reach(&self.tools.recv_hole)
    }

    /// `xfer-hole ARGS IMAGE ACCOUNT@far-end:PATH`
    pub fn push(&self, args: &[&str], image: &Path, path: impl AsRef<Path>) -> Outcome {
        run(self.sender().args(args).arg(image).arg(self.place(path)), b"")
    }

    /// `recv-hole ARGS ACCOUNT@far-end:PATH DEST`
    pub fn pull(&self, args: &[&str], path: impl AsRef<Path>, dest: &Path) -> Outcome {
        run(self.receiver().args(args).arg(self.place(path)).arg(dest), b"")
    }

    /// What the account has, once it has logged in for the first time: some shells make files then.
    pub fn belongings(&self) -> Belongings {
        run(self.sshd.ssh_as(&self.account).arg("true"), b"").ok();
        self.account.belongings()
    }
}

impl Outcome {
    /// Fails unless it exited 2, all that was said is ours, and the last line (but for its hint) is the reason: it names the host, and
    /// holds all of `words` (capitals don't count). Nothing blames a pipe.
    #[track_caller]
    pub fn blamed(self, host: &str, words: &[&str]) -> Self {
        self.blamed_as(2, host, words)
    }

    /// Fails unless it exited 75, which says that trying again can help, and all is as [`blamed`](Self::blamed) has it.
    #[track_caller]
    pub fn blamed_for_now(self, host: &str, words: &[&str]) -> Self {
        self.blamed_as(75, host, words)
    }

    #[track_caller]
    fn blamed_as(self, code: i32, host: &str, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.err);
        let ours = |line: &str| line.starts_with("xfer-hole: ") || line.starts_with("recv-hole: ");
        assert!(self.err.lines().all(ours), "{}", self.err);
        let last = self.complaints().last().copied().unwrap_or_default().to_lowercase();
        for word in [&[host], words].concat() {
            assert!(last.contains(&word.to_lowercase()), "\"{word}\" is not in: {}", self.err);
        }
        assert!(!self.err.to_lowercase().contains("broken pipe"), "{}", self.err);
        self
    }

    /// The fingerprint that it said: interval, grain, and the whole.
    #[track_caller]
    pub fn fingerprint(&self) -> (String, String, String) {
        let found = self.err.split_whitespace().find(|word| word.starts_with("sha256:"));
        let found = found.unwrap_or_else(|| panic!("no fingerprint in: {}", self.err));
        let fields: Vec<_> = found.split(':').collect();
        (fields[1].to_owned(), fields[2].to_owned(), found.to_owned())
    }
}
