//! The machine that the README and doc/*.md describe, with their hosts, directories and devices, so that their
//! recipes run unchanged. It is in a mount namespace of the test's process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{
    Filesystem, Fs, LoopDevice, Network, Outcome, Setup, Sshd, TestDisk, Tools, checkout, requires, requires_root, run,
    tool,
};

const MIB: u64 = 1 << 20;
/// The size in bytes of the disk that the recipes send. It starts with a hole, so that stale bytes of a device would
/// be noticed.
const SIZE: u64 = 48 * MIB;
/// The environment variable that is set in the process with its own mount namespace.
const INSIDE: &str = "XFER_HOLE_RECIPES_INSIDE";

/// The contents of a document's code blocks of this kind, without the final newline.
fn fenced(document: &str, kind: &str) -> Vec<String> {
    let text = fs::read_to_string(checkout(document)).unwrap();
    let fence = format!("```{kind}\n");
    text.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0.trim_end().to_owned()).collect()
}

/// The documents with recipes. A test runs every recipe of each.
pub const RECIPE_DOCUMENTS: [&str; 3] = ["README.md", "doc/sync.md", "doc/restricted-receivers.md"];

/// The recipes of a document, in order. Fails unless there are `COUNT`.
#[track_caller]
pub fn recipes<const COUNT: usize>(document: &str) -> [String; COUNT] {
    assert!(RECIPE_DOCUMENTS.contains(&document), "{document} is no document with recipes");
    fenced(document, "sh recipe")
        .try_into()
        .unwrap_or_else(|found: Vec<String>| panic!("{document} has {} recipes, not {COUNT}", found.len()))
}

/// The machine of the documents: directories in /srv, a device in /dev/vg0, and an ssh configuration with the hosts'
/// names.
#[derive(Debug)]
pub struct Machine {
    /// The server, which stands for all hosts.
    pub sshd: Sshd,
    /// The network to the server, if it is not on the loopback interface.
    pub network: Option<Network>,
    _srv: Filesystem,
    /// The device behind /dev/vg0/web, filled with old bytes.
    pub device: LoopDevice,
    tools: Tools,
    /// The user's directory, which contains the installed tools; it is on the same file system as /srv.
    home: PathBuf,
}

impl Machine {
    /// True in a process with its own mount namespace. Elsewhere this runs the test in such a process, which must
    /// succeed, and returns false.
    #[track_caller]
    pub fn inside(test: &str) -> bool {
        requires_root();
        requires(&["unshare", "sshd", "ssh", "qemu-img", "timeout"]);
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        let mut inside = Command::new("unshare");
        inside.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        let outcome = run(inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "yes"), b"");
        assert_eq!(outcome.code, Some(0), "{}\n{}", String::from_utf8_lossy(&outcome.out), outcome.err);
        false
    }

    /// Creates the machine with the server on the loopback interface.
    pub fn alone(tools: Tools) -> Self {
        Self::new(tools, None)
    }

    /// Creates the machine with the server behind a network.
    pub fn apart(tools: Tools) -> Self {
        Self::new(tools, Some(Network::new()))
    }

    fn new(tools: Tools, network: Option<Network>) -> Self {
        let srv = Filesystem::new(Fs::Xfs, 512 * MIB);
        tool("mount", &["--bind", srv.path().to_str().unwrap(), "/srv"]);
        for name in ["images", "vault", "backup", "volumes"] {
            fs::create_dir(Path::new("/srv").join(name)).unwrap();
        }
        let device = device_in_vg0();
        // The directory for programs of all users, which is empty at first.
        tool("mount", &["-t", "tmpfs", "tmpfs", "/usr/local/bin"]);
        let home = srv.join("home");
        fs::create_dir_all(home.join("work")).unwrap();
        let sshd = Sshd::with(Setup { network: network.as_ref(), ..Setup::default() });
        tool("mount", &["-t", "tmpfs", "tmpfs", "/etc/ssh/ssh_config.d"]);
        let address = network.as_ref().map_or("127.0.0.1", Network::address);
        fs::write("/etc/ssh/ssh_config.d/recipes.conf", hosts(&sshd, address)).unwrap();
        let machine = Self { sshd, network, _srv: srv, device, tools, home };
        machine.install(&machine.home.join("bin"));
        machine.make_disk();
        machine
    }

    /// A path in the user's work directory, which contains web.qcow2 and its disk as `raw`.
    pub fn work(&self, name: &str) -> PathBuf {
        self.home.join("work").join(name)
    }

    fn make_disk(&self) {
        let raw = self.work("raw");
        TestDisk::empty(SIZE).with(5 * MIB, 2 * MIB, 1).with(40 * MIB, MIB, 2).make(&raw);
        let (raw, image) = (raw.to_str().unwrap().to_owned(), self.work("web.qcow2"));
        tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-c", &raw, image.to_str().unwrap()]);
    }

    /// Installs the tools on the hosts.
    pub fn equip_hosts(&self) {
        self.install(Path::new("/usr/local/bin"));
    }

    /// Copies the tools that cargo built into a directory.
    fn install(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for (name, built) in [("xfer-hole", &self.tools.xfer_hole), ("recv-hole", &self.tools.recv_hole)] {
            fs::copy(built, folder.join(name)).unwrap();
        }
    }

    /// The command that runs a recipe as the user.
    pub fn following(&self, recipe: &str) -> Command {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.home.join("bin").display());
        // A recipe that takes two minutes is taken for hung.
        let mut shell = Command::new("timeout");
        shell.args(["-s", "KILL", "120", "sh", "-e", "-c", recipe]);
        if let Some(network) = &self.network {
            shell = network.near(&shell);
        }
        shell.current_dir(self.work("")).env("PATH", path);
        shell
    }

    /// Runs a recipe.
    pub fn follow(&self, recipe: &str) -> Outcome {
        run(&mut self.following(recipe), b"")
    }
}

/// Creates the device /dev/vg0/web, filled with old bytes, in a private /dev.
fn device_in_vg0() -> LoopDevice {
    let device = LoopDevice::filled(SIZE, 0xa5);
    let node = fs::canonicalize(device.path()).unwrap();
    let ours = tempfile::tempdir().unwrap();
    let at = |name: &str| ours.path().join(name).to_str().unwrap().to_owned();
    tool("mount", &["-t", "tmpfs", "-o", "dev,mode=755", "tmpfs", &at("")]);
    for name in ["null", "zero", "full", "random", "urandom", "tty", "loop-control"] {
        tool("cp", &["-a", &format!("/dev/{name}"), &at(name)]);
    }
    tool("cp", &["-a", node.to_str().unwrap(), &at(node.file_name().unwrap().to_str().unwrap())]);
    for (name, to) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(to, at(name)).unwrap();
    }
    fs::create_dir(at("shm")).unwrap();
    fs::create_dir(at("vg0")).unwrap();
    symlink(&node, at("vg0/web")).unwrap();
    tool("mount", &["--move", &at(""), "/dev"]);
    device
}

/// The ssh client configuration for the documents' hosts, all of which are one server. `inside` accepts connections
/// through `jump` only; `jump` only forwards; `vault` is restricted as doc/restricted-receivers.md describes.
fn hosts(sshd: &Sshd, address: &str) -> String {
    let client = fs::read_to_string(sshd.config()).unwrap();
    let value = |name: &str| {
        let found = client.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        found.trim().to_owned()
    };
    let folder = sshd.config().parent().unwrap().to_owned();
    let mut authorized = fs::read_to_string(folder.join("authorized_keys")).unwrap();
    let mut admit = |name: &str, options: &str| {
        let key = folder.join(name);
        drop(tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]));
        authorized += &format!("{options} {}", fs::read_to_string(key.with_extension("pub")).unwrap());
        format!(" IdentityFile {}\n", key.display())
    };
    let [locked_down] = &fenced("doc/restricted-receivers.md", "authorized_keys")[..] else {
        panic!("one line for authorized_keys")
    };
    let hypervisor = format!(" IdentityFile {}\n", value("IdentityFile "));
    let jump = admit("jump_key", "restrict,port-forwarding,command=\"/bin/false\"");
    let inside = admit("inside_key", "from=\"127.0.0.1\"") + " BindAddress 127.0.0.9\n";
    let vault = admit("vault_key", locked_down);
    fs::write(folder.join("authorized_keys"), authorized).unwrap();
    let hosts = [("hypervisor backup node-b", hypervisor), ("jump", jump), ("inside", inside), ("vault", vault)];
    // The server's key is stored under one alias for all host names.
    let common = format!(
        " HostName {address}\n Port {}\n HostKeyAlias the-server\n User root\n IdentitiesOnly yes\n IdentityAgent none\n \
         UserKnownHostsFile {}\n GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n",
        value("Port "),
        folder.join("known_by_name").display()
    );
    let key = fs::read_to_string(folder.join("host_key.pub")).unwrap();
    fs::write(folder.join("known_by_name"), format!("the-server {key}")).unwrap();
    hosts.map(|(name, own)| format!("Host {name}\n{own}{common}")).concat()
}
