//! An sshd on the loopback interface or in a network namespace, with its own keys and configuration.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use tempfile::TempDir;

use crate::run::find;
use crate::{Account, Network, requires, requires_root, tool};

/// The default host name of a server.
pub const HOST: &str = "far-end";

/// The setup of a server.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The server's host name.
    pub host: &'a str,
    /// The PATH of its sessions; the system's if `None`.
    pub path: Option<&'a str>,
    /// The network at whose far end the server runs.
    pub network: Option<&'a Network>,
    /// More lines for the server's configuration.
    pub lines: &'a str,
    /// More lines for the client's configuration.
    pub client: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { host: HOST, path: None, network: None, lines: "", client: "" }
    }
}

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct Sshd {
    server: Child,
    port: u16,
    host: String,
    log: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Sshd {
    /// Starts a server and waits until it listens.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// Starts a server with this setup. It accepts root and every [`Account`], all with the same key.
    pub fn with(setup: Setup<'_>) -> Self {
        requires_root();
        requires(&["sshd", "ssh", "ssh-keygen"]);
        // The directory for privilege separation, which some systems create only at boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for key in ["host_key", "user_key"] {
            drop(tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::copy(at("user_key.pub"), at("authorized_keys")).unwrap();
        fs::create_dir(at("keys")).unwrap();
        let (server, port, log) =
            (0..10).find_map(|_| listen(folder.path(), setup)).expect("sshd listens on none of ten ports");
        let key = fs::read_to_string(at("host_key.pub")).unwrap();
        let address = setup.network.map_or("127.0.0.1", Network::address);
        fs::write(at("known_hosts"), format!("[{address}]:{port} {key}")).unwrap();
        // The host can also be named by its address.
        let client = format!(
            "Host {host} {address}\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {}\n \
             GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n{}\n\
             Host {host}\n HostName {address}\n Port {port}\n",
            at("user_key"),
            at("known_hosts"),
            setup.client,
            host = setup.host,
        );
        fs::write(at("ssh_config"), client).unwrap();
        Self { server, port, host: setup.host.to_owned(), log, folder }
    }

    /// The path of the client's configuration: `ssh -F CONFIG far-end`.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("ssh_config")
    }

    /// The path of the accepted private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("user_key")
    }

    /// The path of the client's file of host keys.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The command `ssh far-end`, to which the caller adds the remote command.
    pub fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.config()).arg(&self.host);
        ssh
    }

    /// `ssh ACCOUNT@far-end`
    pub fn ssh_as(&self, account: &Account) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.config()).arg(format!("{}@{}", account.name(), self.host));
        ssh
    }

    /// The command `TOOL -F CONFIG`, killed after two minutes.
    pub fn reach(&self, tool: &Path) -> Command {
        let mut guarded = Command::new("timeout");
        guarded.args(["-s", "KILL", "120"]).arg(tool).arg("-F").arg(self.config());
        guarded
    }

    /// Restricts an account to one command, by `command=` in its authorized keys.
    pub fn admit_only(&self, account: &Account, command: &str) {
        let key = fs::read_to_string(self.folder.path().join("user_key.pub")).unwrap();
        let line = format!("command=\"{}\",restrict {key}", command.replace('"', "\\\""));
        fs::write(self.folder.path().join("keys").join(account.name()), line).unwrap();
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.said("Connection from ")
    }

    /// The number of log lines that contain this text.
    pub fn said(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    /// Replaces the host key that the client expects by another one.
    pub fn forge(&self) {
        let other = self.folder.path().join("other_key");
        drop(tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", other.to_str().unwrap()]));
        let known = fs::read_to_string(self.known_hosts()).unwrap();
        let key = fs::read_to_string(other.with_extension("pub")).unwrap();
        fs::write(self.known_hosts(), format!("{} {key}", known.split(' ').next().unwrap())).unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}

/// The lines of a server's log.
type Log = Arc<Mutex<Vec<String>>>;

/// Starts a server on a port that was free a moment ago; `None` if the port is taken.
fn listen(folder: &Path, setup: Setup<'_>) -> Option<(Child, u16, Log)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = setup.network.map_or("127.0.0.1", Network::address);
    let config = folder.join("sshd_config");
    let at = |name: &str| folder.join(name).display().to_string();
    let path = setup.path.map_or(String::new(), |path| format!("SetEnv PATH={path}\n"));
    // An account's own keys precede the common ones.
    let lines = format!(
        "ListenAddress {address}:{port}\nHostKey {}\nAuthorizedKeysFile {}/%u {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\nAcceptEnv none\n\
         LogLevel VERBOSE\nMaxStartups 100\n{path}{}",
        at("host_key"),
        at("keys"),
        at("authorized_keys"),
        setup.lines,
    );
    fs::write(&config, lines).unwrap();
    // sshd executes itself for each connection, so its full path is needed.
    let mut command = Command::new(find("sshd").unwrap());
    command.args(["-D", "-e", "-f"]).arg(&config);
    if let Some(network) = setup.network {
        command = network.far(&command);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    if !lines.by_ref().any(|line| line.contains("Server listening on")) {
        let _reaped = server.wait();
        return None;
    }
    let log = Log::default();
    let log_writer = Arc::clone(&log);
    // The thread ends when the server does.
    thread::spawn(move || lines.for_each(|line| log_writer.lock().unwrap().push(line)));
    Some((server, port, log))
}
