//! A remote machine: a server, a new account on it, and a local directory for images.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Account, Belongings, HOST, Outcome, Setup, Sshd, TestDisk, Tools, run};

/// A new account on a server of its own, and a local directory.
#[derive(Debug)]
pub struct FarEnd {
    /// The account.
    pub account: Account,
    /// The server.
    pub sshd: Sshd,
    folder: TempDir,
    tools: Tools,
}

impl FarEnd {
    /// Creates a server and an account with this login shell, without recv-hole installed.
    pub fn new(tools: Tools, shell: &str) -> Self {
        Self::with(tools, shell, Setup::default())
    }

    /// Creates a server with this setup, and an account with this login shell.
    pub fn with(tools: Tools, shell: &str, setup: Setup<'_>) -> Self {
        Self::within(tools, shell, setup, &std::env::temp_dir())
    }

    /// Creates server and account, with the home directory and the local directory below `folder`, which all users
    /// can enter.
    pub fn within(tools: Tools, shell: &str, setup: Setup<'_>, folder: &Path) -> Self {
        let (sshd, account) = (Sshd::with(setup), Account::within(shell, folder));
        Self { account, sshd, folder: tempfile::tempdir_in(folder).unwrap(), tools }
    }

    /// A path in the local directory.
    pub fn near(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image in the local directory.
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

    /// The command `xfer-hole -F CONFIG`, to which the caller adds arguments.
    pub fn sender(&self) -> Command {
        self.sshd.reach(&self.tools.xfer_hole)
    }

    /// The command `recv-hole -F CONFIG`, to which the caller adds arguments.
    pub fn receiver(&self) -> Command {
        self.sshd.reach(&self.tools.recv_hole)
    }

    /// Runs `xfer-hole ARGS IMAGE ACCOUNT@far-end:PATH`.
    pub fn push(&self, args: &[&str], image: &Path, path: impl AsRef<Path>) -> Outcome {
        run(self.sender().args(args).arg(image).arg(self.place(path)), b"")
    }

    /// Runs `recv-hole ARGS ACCOUNT@far-end:PATH DEST`.
    pub fn pull(&self, args: &[&str], path: impl AsRef<Path>, dest: &Path) -> Outcome {
        run(self.receiver().args(args).arg(self.place(path)).arg(dest), b"")
    }

    /// The account's files after a first login, since some shells create files then.
    pub fn belongings(&self) -> Belongings {
        run(self.sshd.ssh_as(&self.account).arg("true"), b"").ok();
        self.account.belongings()
    }
}

impl Outcome {
    /// Fails unless the exit code is 2, all messages are from the tools, and the last one (except its hint) names the
    /// host and contains all of `words`, ignoring case. No message may mention a broken pipe.
    #[track_caller]
    pub fn blamed(self, host: &str, words: &[&str]) -> Self {
        self.blamed_as(2, host, words)
    }

    /// Fails unless the exit code is 75 (trying again can help); the messages are checked as in
    /// [`blamed`](Self::blamed).
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

    /// The fingerprint in the messages: interval, grain, and the whole text.
    #[track_caller]
    pub fn fingerprint(&self) -> (String, String, String) {
        let found = self.err.split_whitespace().find(|word| word.starts_with("sha256:"));
        let found = found.unwrap_or_else(|| panic!("no fingerprint in: {}", self.err));
        let fields: Vec<_> = found.split(':').collect();
        (fields[1].to_owned(), fields[2].to_owned(), found.to_owned())
    }
}
