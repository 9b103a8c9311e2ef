//! An account at the far end, on this machine and without ssh: its login shell, and pushes to it.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use rig::{Outcome, preamble, requires, run, tool, wait_until};
use tempfile::TempDir;
use xfer_hole_transport::PushRequest;

/// An account at the far end: a login shell, an `sh`, and folders that are to stay empty.
pub(crate) struct Account {
    login: &'static str,
    folder: TempDir,
    mark: String,
    /// What the login shell puts into its home by itself.
    own: Vec<OsString>,
}

impl Account {
    pub(crate) fn new(login: &'static str, sh: &str) -> Self {
        static ACCOUNTS: AtomicUsize = AtomicUsize::new(0);
        requires(&[login, sh]);
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "home", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let sh = tool("sh", &["-c", &format!("command -v {sh}")]);
        symlink(sh.trim_end(), folder.path().join("bin/sh")).unwrap();
        let mark = format!("FAR_END={}.{}", std::process::id(), ACCOUNTS.fetch_add(1, Ordering::Relaxed));
        let mut account = Self { login, folder, mark, own: Vec::new() };
        run(&mut account.command("true"), b"").ok();
        account.own = names(&account.at("home"));
        account
    }

    /// What sshd runs there. A recv-hole is found only in `bin`.
    pub(crate) fn command(&self, command: &str) -> Command {
        let (key, value) = self.mark.split_once('=').unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new(self.login);
        if self.login == "busybox" {
            shell.arg("ash");
        }
        shell.args(["-c", command]).env(key, value).env("PATH", format!("{}:{path}", self.at("bin").display()));
        shell.env("HOME", self.at("home")).env("TMPDIR", self.at("tmp")).env("LC_ALL", "C.UTF-8");
        shell.current_dir(self.at("home"));
        shell
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A push of this stream.
    pub(crate) fn push(&self, options: &[&str], dest: &Path, stream: &[u8]) -> Outcome {
        run(&mut self.command(&request(options, dest)), &[preamble().as_bytes(), stream].concat())
    }

    /// A push that has got so much of its stream, and waits for more.
    pub(crate) fn begin(&self, options: &[&str], dest: &Path, stream: &[u8]) -> Child {
        let mut command = self.command(&request(options, dest));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(&[preamble().as_bytes(), stream].concat()).unwrap();
        child
    }

    /// The processes of pushes that live, by what they had in their environment.
    fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|&byte| byte == 0).any(|word| word == self.mark.as_bytes()) {
                found.push(format!("{} {}", entry.path().display(), text(&entry.path().join("stat"))));
            }
        }
        found
    }

    /// Fails if anything was left in the home or in the temporary folder, or runs on.
    #[track_caller]
    pub(crate) fn left_nothing(&self, why: &str) {
        assert_eq!(names(&self.at("home")), self.own, "{why}");
        assert_eq!(names(&self.at("tmp")), [""; 0], "{why}");
        wait_until("all processes are gone", || {
            self.processes().is_empty() || {
                // A look at all processes is no small thing to the others that run.
                thread::sleep(Duration::from_millis(50));
                false
            }
        });
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

pub(crate) fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

pub(crate) fn request(options: &[&str], dest: &Path) -> String {
    let mut options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
    if !options.iter().any(|option| option.starts_with("receiver=")) {
        options.push("receiver=sh".to_owned());
    }
    PushRequest { options, dest: dest.into(), name: "it's.img".into(), ..PushRequest::default() }
        .command(preamble().len())
}
