//! A real sshd on the loopback interface, with keys and configuration of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::run::find;
use crate::{requires, requires_root, tool};

/// The name that [`Sshd::ssh`] reaches it by.
pub const HOST: &str = "far-end";

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct Sshd {
    server: Child,
    config: PathBuf,
    _folder: TempDir,
}

impl Sshd {
    /// Starts one, and waits until it listens.
    pub fn start() -> Self {
        requires_root();
        requires(&["sshd", "ssh", "ssh-keygen"]);
        // Where it gives up its rights; part of the package, but on some systems made only at boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for key in ["host_key", "user_key"] {
            drop(tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::copy(at("user_key.pub"), at("authorized_keys")).unwrap();
        let (server, port) = (0..10).find_map(|_| listen(folder.path())).expect("sshd listens on none of ten ports");
        let key = fs::read_to_string(at("host_key.pub")).unwrap();
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {key}")).unwrap();
        let client = format!(
            "Host {HOST}\n HostName 127.0.0.1\n Port {port}\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n \
             UserKnownHostsFile {}\n GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n",
            at("user_key"),
            at("known_hosts")
        );
        fs::write(at("ssh_config"), client).unwrap();
        Self { server, config: at("ssh_config").into(), _folder: folder }
    }

    /// The client's configuration: `ssh -F CONFIG far-end`.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// `ssh far-end`, to which the remote command is yet to be added.
    pub fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).arg(HOST);
        ssh
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}

/// A server on a port that was free a moment ago; `None` if it isn't any more.
fn listen(folder: &Path) -> Option<(Child, u16)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let config = folder.join("sshd_config");
    let at = |name: &str| folder.join(name).display().to_string();
    let lines = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nAcceptEnv none\n",
        at("host_key"),
        at("authorized_keys")
    );
    fs::write(&config, lines).unwrap();
    // It starts itself anew for each connection, so it wants to be called by its full name.
    let mut command = Command::new(find("sshd").unwrap());
    command.args(["-D", "-e", "-f"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    if listens(server.stderr.take().unwrap()) {
        return Some((server, port));
    }
    let _reaped = server.wait();
    None
}

/// Reads what it says until it says that it listens; what it says later is read by a thread that ends with it.
fn listens(said: ChildStderr) -> bool {
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    let listening = lines.by_ref().any(|line| line.contains("Server listening on"));
    thread::spawn(move || lines.for_each(drop));
    listening
}
