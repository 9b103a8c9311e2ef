//! A real sshd on the loopback interface, or at the far end of a network, with keys and configuration of its own.

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

/// The name that a server is reached by, unless its setup says otherwise.
pub const HOST: &str = "far-end";

/// What is special about a server.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The name that it is reached by.
    pub host: &'a str,
    /// PATH of what it runs; the system's if not given.
    pub path: Option<&'a str>,
    /// Where it runs: at the far end of this network.
    pub network: Option<&'a Network>,
    /// More lines for its configuration.
    pub lines: &'a str,
    /// More lines for the client's.
    pub client: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { host: HOST, path: None, network: None, lines: "", client: "" }
    }
}

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct Sshd {
    server: Child,
    port: u16,
    host: String,
    said: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Sshd {
    /// Starts one, and waits until it listens.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// Starts one that is set up so. It lets in root and every [`Account`], all by the same key.
    pub fn with(setup: Setup<'_>) -> Self {
        requires_root();
        requires(&["sshd", "ssh", "ssh-keygen"]);
        // Where it gives up its rights; part of the package, but on some systems made only at boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for key in ["host_key", "user_key"] {
            drop(tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::copy(at("user_key.pub"), at("authorized_keys")).unwrap();
        fs::create_dir(at("keys")).unwrap();
        let (server, port, said) =
            (0..10).find_map(|_| listen(folder.path(), setup)).expect("sshd listens on none of ten ports");
        let key = fs::read_to_string(at("host_key.pub")).unwrap();
        let address = setup.network.map_or("127.0.0.1", Network::address);
        fs::write(at("known_hosts"), format!("[{address}]:{port} {key}")).unwrap();
        // Named by its address it is the same host, but for the port.
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
        Self { server, port, host: setup.host.to_owned(), said, folder }
    }

    /// The client's configuration: `ssh -F CONFIG far-end`.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("ssh_config")
    }

    /// The key that it lets in.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("user_key")
    }

    /// The file that says who it is.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `ssh far-end`, to which the remote command is yet to be added.
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

    /// `TOOL -F CONFIG`, killed after two minutes, which is a hang.
    pub fn reach(&self, tool: &Path) -> Command {
        let mut guarded = Command::new("timeout");
        guarded.args(["-s", "KILL", "120"]).arg(tool).arg("-F").arg(self.config());
        guarded
    }

    /// An account may do one thing only, whatever it asks for: `command=` in its authorized keys.
    pub fn admit_only(&self, account: &Account, command: &str) {
        let key = fs::read_to_string(self.folder.path().join("user_key.pub")).unwrap();
        let line = format!("command=\"{}\",restrict {key}", command.replace('"', "\\\""));
        fs::write(self.folder.path().join("keys").join(account.name()), line).unwrap();
    }

    /// Connections that were made to it so far.
    pub fn connections(&self) -> usize {
        self.said("Connection from ")
    }

    /// How often it said something with this in it.
    pub fn said(&self, text: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    /// It has another host key from now on, or so the client must think.
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

/// What a server says, line by line.
type Said = Arc<Mutex<Vec<String>>>;

/// A server on a port that was free a moment ago; `None` if it isn't any more.
fn listen(folder: &Path, setup: Setup<'_>) -> Option<(Child, u16, Said)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = setup.network.map_or("127.0.0.1", Network::address);
    let config = folder.join("sshd_config");
    let at = |name: &str| folder.join(name).display().to_string();
    let path = setup.path.map_or(String::new(), |path| format!("SetEnv PATH={path}\n"));
    // An account's own keys come before everybody's.
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
    // It starts itself anew for each connection, so it wants to be called by its full name.
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
    let said = Said::default();
    let saying = Arc::clone(&said);
    // The thread ends with the server.
    thread::spawn(move || lines.for_each(|line| saying.lock().unwrap().push(line)));
    Some((server, port, said))
}
