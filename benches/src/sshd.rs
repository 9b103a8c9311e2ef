//! An sshd of the bench's own on the loopback interface: its keys, its configuration, and nobody else's.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{User, geteuid};

use crate::error::{Error, Result, Told};
use crate::link::Link;

/// The name that it is reached by.
pub const HOST: &str = "far-end";

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct Sshd {
    server: Child,
    /// The client's configuration: `ssh -F CONFIG far-end`.
    pub config: PathBuf,
}

impl Sshd {
    /// Starts one that keeps its files in `folder` and finds programs in `tools` first: on the loopback interface, or at the far end of
    /// a link.
    ///
    /// # Errors
    /// If it doesn't listen within some seconds.
    pub fn start(folder: &Path, tools: &Path, link: Option<&Link>) -> Result<Self> {
        let folder = folder.join(if link.is_some() { "sshd-slow" } else { "sshd" });
        fs::create_dir_all(&folder).told(folder.display())?;
        if geteuid().is_root() {
            // Where it gives up its rights; on some systems it is made only at boot.
            fs::create_dir_all("/run/sshd").told("/run/sshd")?;
        }
        let at = |name: &str| folder.join(name).display().to_string();
        for key in ["host_key", "user_key"] {
            let status = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]).status();
            if !status.told("ssh-keygen")?.success() {
                return Err(Error::new("ssh-keygen: it makes no keys"));
            }
        }
        let address = link.map_or("127.0.0.1".to_owned(), Link::address);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).told("127.0.0.1")?;
        // At the far end of a link nobody else listens.
        let port = listener.local_addr().told("127.0.0.1")?.port();
        drop(listener);
        let path = std::env::var("PATH").unwrap_or_default();
        let server = format!(
            "ListenAddress {address}:{port}\nHostKey {}\nAuthorizedKeysFile {}.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\n\
             SetEnv PATH={}:{path}\n",
            at("host_key"),
            at("user_key"),
            tools.display(),
        );
        let user =
            User::from_uid(geteuid()).told("our account")?.ok_or_else(|| Error::new("our account has no name"))?;
        let key = fs::read_to_string(folder.join("host_key.pub")).told("host_key.pub")?;
        let client = format!(
            "Host {HOST}\n HostName {address}\n Port {port}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n \
             UserKnownHostsFile {}\n GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n",
            user.name,
            at("user_key"),
            at("known_hosts"),
        );
        for (name, text) in
            [("sshd_config", server), ("ssh_config", client), ("known_hosts", format!("[{address}]:{port} {key}"))]
        {
            fs::write(folder.join(name), text).told(name)?;
        }
        let said = File::create(folder.join("said")).told("sshd")?;
        // It starts itself anew for each connection, so it wants to be called by its full name.
        let program =
            ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"].into_iter().find(|p| Path::new(p).exists());
        let program = program.ok_or_else(|| Error::new("sshd isn't installed"))?;
        let mut words = link.map(Link::far).unwrap_or_default();
        words.push(program.to_owned());
        // What stands in front of it becomes it.
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["-D", "-e", "-f", &at("sshd_config")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        let mut sshd = Self { server: command.spawn().told("sshd")?, config: folder.join("ssh_config") };
        let began = Instant::now();
        while TcpStream::connect((address.as_str(), port)).is_err() {
            if began.elapsed() > Duration::from_secs(10) || sshd.server.try_wait().told("sshd")?.is_some() {
                let said = fs::read_to_string(folder.join("said")).unwrap_or_default();
                return Err(Error::new(format!("sshd: it doesn't listen: {said}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(sshd)
    }

    /// The server's process, of which all far ends descend.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let (_ended, _reaped) = (self.server.kill(), self.server.wait());
    }
}
