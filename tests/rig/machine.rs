//! A machine as the README and doc/*.md have it, so that their recipes can be run as they stand there: its hosts, folders and devices, in
//! mounts of one process's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{
    Filesystem, Fs, LoopDevice, Network, Outcome, Setup, Sshd, TestDisk, Tools, checkout, requires, requires_root, run,
    tool,
};

const MIB: u64 = 1 << 20;
/// Bytes of the disk that the recipes send. A hole at its beginning, so that stale bytes of a device would be seen.
const SIZE: u64 = 48 * MIB;
/// Set in the process that has mounts of its own.
const INSIDE: &str = "XFER_HOLE_RECIPES_INSIDE";

/// What stands in a document's fences of that kind, without LF at their ends.
fn fenced(document: &str, kind: &str) -> Vec<String> {
    let text = fs::read_to_string(checkout(document)).unwrap();
    let fence = format!("```{kind}\n");
    text.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0.trim_end().to_owned()).collect()
}

/// The documents that have recipes. A test runs every recipe of each.
pub const RECIPE_DOCUMENTS: [&str; 3] = ["README.md", "doc/sync.md", "doc/restricted-receivers.md"];

/// The recipes of a document, in order; there must be that many.
#[track_caller]
pub fn recipes<const COUNT: usize>(document: &str) -> [String; COUNT] {
    assert!(RECIPE_DOCUMENTS.contains(&document), "{document} is no document with recipes");
    fenced(document, "sh recipe")
        .try_into()
        .unwrap_or_else(|found: Vec<String>| panic!("{document} has {} recipes, not {COUNT}", found.len()))
}

/// A machine as the documents have it: folders in /srv, a device in /dev/vg0, ssh that knows the hosts' names. All of it in
/// mounts of this process's own.
#[derive(Debug)]
pub struct Machine {
    /// All the hosts are this server.
    pub sshd: Sshd,
    /// The way to it, where it isn't this machine.
    pub network: Option<Network>,
    _srv: Filesystem,
    /// What /dev/vg0/web is: a disk full of old bytes.
    pub device: LoopDevice,
    tools: Tools,
    /// Where the user is, and the user's tools are installed; on the same file system as /srv.
    home: PathBuf,
}

impl Machine {
    /// True in a process that has mounts of its own; elsewhere it runs this test in one, which must succeed.
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

    /// The hosts are this machine.
    pub fn alone(tools: Tools) -> Self {
        Self::new(tools, None)
    }

    /// The hosts are at the far end of a cable.
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
        // What is installed for all, such as at the far end: nothing at first.
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

    /// A name in the folder where the user is: web.qcow2 lies there, and its disk as `raw`.
    pub fn work(&self, name: &str) -> PathBuf {
        self.home.join("work").join(name)
    }

    fn make_disk(&self) {
        let raw = self.work("raw");
        TestDisk::empty(SIZE).with(5 * MIB, 2 * MIB, 1).with(40 * MIB, MIB, 2).make(&raw);
        let (raw, image) = (raw.to_str().unwrap().to_owned(), self.work("web.qcow2"));
        tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-c", &raw, image.to_str().unwrap()]);
    }

    /// From now on the tools are installed at the far end.
    pub fn equip_hosts(&self) {
        self.install(Path::new("/usr/local/bin"));
    }

    /// Copies the tools that cargo built.
    fn install(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for (name, built) in [("xfer-hole", &self.tools.xfer_hole), ("recv-hole", &self.tools.recv_hole)] {
            fs::copy(built, folder.join(name)).unwrap();
        }
    }

    /// A recipe, to be run as its user would.
    pub fn following(&self, recipe: &str) -> Command {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.home.join("bin").display());
        // Two minutes are a hang.
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

/// A device called /dev/vg0/web, full of old bytes, in a /dev of this process's own.
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

/// What ssh knows of the documents' hosts, all of which are one server. `inside` lets nobody in who doesn't come through `jump`;
/// `jump` is a way only; `vault` is locked down as doc/restricted-receivers.md says.
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
    // The server's key is known by its address, whatever it is called.
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
