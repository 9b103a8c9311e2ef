//! The recipes of the README, run as they stand there: against a real sshd, with its host names, folders and devices.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{
    Disk, Filesystem, Fs, LoopDevice, Outcome, Sshd, checkout, holes, part_of, requires, requires_root, run, tool,
    tools,
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// The disk that the recipes send. A hole at its beginning, so that stale octets of a device would be seen.
const SIZE: u64 = 48 * MIB;
/// Set in the process that has mounts of its own.
const INSIDE: &str = "XFER_HOLE_RECIPES_INSIDE";

/// What stands in the fences of that kind, without LF at their ends.
fn fenced(kind: &str) -> Vec<String> {
    let readme = fs::read_to_string(checkout("README.md")).unwrap();
    let fence = format!("```{kind}\n");
    readme.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0.trim_end().to_owned()).collect()
}

/// A machine as the README has it: folders in /srv, a device in /dev/vg0, ssh that knows the hosts' names. All of it in
/// mounts of this process's own.
struct Machine {
    sshd: Sshd,
    _srv: Filesystem,
    device: LoopDevice,
    /// Where the user is, and where the user's tools are installed.
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let srv = Filesystem::new(Fs::Xfs, 512 * MIB);
        tool("mount", &["--bind", srv.path().to_str().unwrap(), "/srv"]);
        for name in ["images", "vault"] {
            fs::create_dir(Path::new("/srv").join(name)).unwrap();
        }
        let device = device_in_vg0();
        // What is installed for all, such as at the far end: nothing at first.
        tool("mount", &["-t", "tmpfs", "tmpfs", "/usr/local/bin"]);
        let folder = tempfile::tempdir().unwrap();
        install(&folder.path().join("bin"), &["xfer-hole", "recv-hole"]);
        fs::create_dir(folder.path().join("work")).unwrap();
        let sshd = Sshd::start();
        tool("mount", &["-t", "tmpfs", "tmpfs", "/etc/ssh/ssh_config.d"]);
        fs::write("/etc/ssh/ssh_config.d/recipes.conf", hosts(&sshd)).unwrap();
        let machine = Self { sshd, _srv: srv, device, folder };
        machine.make_disk();
        machine
    }

    fn work(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    fn make_disk(&self) {
        let raw = self.work("raw");
        Disk::empty(SIZE).with(5 * MIB, 2 * MIB, 1).with(40 * MIB, MIB, 2).make(&raw);
        let (raw, image) = (raw.to_str().unwrap().to_owned(), self.work("web.qcow2"));
        tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-c", &raw, image.to_str().unwrap()]);
    }

    /// Runs a recipe as its user would.
    fn follow(&self, recipe: &str) -> Outcome {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.path().join("bin").display());
        // Two minutes are a hang.
        let mut shell = Command::new("timeout");
        shell.args(["-s", "KILL", "120", "sh", "-e", "-c", recipe]).current_dir(self.work("")).env("PATH", path);
        run(&mut shell, b"")
    }

    /// Runs a recipe that must succeed, whose image must be there then.
    #[track_caller]
    fn cook(&self, recipe: &str, image: &Path) {
        let outcome = self.follow(recipe);
        assert_eq!(outcome.code, Some(0), "{recipe}\n{}", outcome.err);
        // One line of summary, and no other.
        let said: Vec<_> = outcome.err.lines().collect();
        assert!(said.len() == 1 && said[0].contains("disk 48 MiB"), "{recipe}\n{}", outcome.err);
        let compared = run(
            Command::new("qemu-img")
                .args(["compare", "-f", "qcow2", "-F", "raw"])
                .arg(self.work("web.qcow2"))
                .arg(image),
            b"",
        );
        assert_eq!(compared.code, Some(0), "{recipe}\n{}{}", String::from_utf8_lossy(&compared.out), compared.err);
        if image.metadata().unwrap().is_file() {
            assert_eq!(holes(image), holes(&self.work("raw")), "{recipe}");
            assert!(!part_of(image).exists(), "{recipe}");
        }
    }
}

/// Copies the tools that cargo built.
fn install(folder: &Path, names: &[&str]) {
    fs::create_dir_all(folder).unwrap();
    for (name, built) in [("xfer-hole", tools!().xfer_hole), ("recv-hole", tools!().recv_hole)] {
        if names.contains(&name) {
            fs::copy(built, folder.join(name)).unwrap();
        }
    }
}

/// A device called /dev/vg0/web, full of old octets, in a /dev of this process's own.
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

/// What ssh knows of the README's hosts, all of which are one server. `inside` lets nobody in who doesn't come through `jump`;
/// `jump` is a way only; `vault` is locked down as the README says.
fn hosts(sshd: &Sshd) -> String {
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
    let [locked_down] = &fenced("authorized_keys")[..] else { panic!("one line for authorized_keys") };
    let hypervisor = format!(" IdentityFile {}\n", value("IdentityFile "));
    let jump = admit("jump_key", "restrict,port-forwarding,command=\"/bin/false\"");
    let inside = admit("inside_key", "from=\"127.0.0.1\"") + " BindAddress 127.0.0.9\n";
    let vault = admit("vault_key", locked_down);
    fs::write(folder.join("authorized_keys"), authorized).unwrap();
    let hosts = [("hypervisor", hypervisor), ("jump", jump), ("inside", inside), ("vault", vault)];
    // The server's key is known by its address, whatever it is called.
    let common = format!(
        " HostName 127.0.0.1\n Port {}\n HostKeyAlias the-server\n User root\n IdentitiesOnly yes\n IdentityAgent none\n \
         UserKnownHostsFile {}\n GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n",
        value("Port "),
        folder.join("known_by_name").display()
    );
    let key = fs::read_to_string(folder.join("host_key.pub")).unwrap();
    fs::write(folder.join("known_by_name"), format!("the-server {key}")).unwrap();
    hosts.map(|(name, own)| format!("Host {name}\n{own}{common}")).concat()
}

#[test]
fn every_recipe_of_the_readme_runs_as_it_stands_there() {
    requires_root();
    requires(&["unshare", "sshd", "ssh", "qemu-img", "timeout"]);
    if std::env::var_os(INSIDE).is_none() {
        // Once more, with mounts that nobody else sees.
        let mut inside = Command::new("unshare");
        inside.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        inside
            .args(["--exact", "every_recipe_of_the_readme_runs_as_it_stands_there", "--nocapture"])
            .env(INSIDE, "yes");
        let outcome = run(&mut inside, b"");
        assert_eq!(outcome.code, Some(0), "{}\n{}", String::from_utf8_lossy(&outcome.out), outcome.err);
        return;
    }
    let machine = Machine::new();
    let recipes = fenced("sh recipe");
    let [deploy, device, pull, jump, locked_down] = &recipes[..] else { panic!("five recipes, not {}", recipes.len()) };

    // At the far end nothing is installed.
    machine.cook(deploy, Path::new("/srv/images/web.img"));
    fs::remove_file("/srv/images/web.img").unwrap();
    machine.cook(device, Path::new("/dev/vg0/web"));
    assert_eq!(fs::canonicalize("/dev/vg0/web").unwrap(), fs::canonicalize(machine.device.path()).unwrap());

    // There is no other way inside than by the jump host.
    let direct = run(Command::new("ssh").args(["inside", "true"]), b"");
    assert!(direct.code == Some(255) && direct.err.contains("Permission denied"), "{}", direct.err);
    machine.cook(jump, Path::new("/srv/images/web.img"));

    // From here on the tools are installed there.
    install(Path::new("/usr/local/bin"), &["xfer-hole", "recv-hole"]);
    machine.cook(pull, &machine.work("backup/web.img"));
    machine.cook(locked_down, Path::new("/srv/vault/web.img"));
    // The key of the last is good for nothing else.
    let other = run(Command::new("ssh").args(["vault", "touch", "/srv/vault/touched"]), b"");
    assert_eq!(other.code, Some(2), "{}", other.err);
    assert!(!Path::new("/srv/vault/touched").exists());
    let out_of_it = machine.follow(&locked_down.replace("vault:web.img", "vault:../images/other.img"));
    assert_eq!(out_of_it.code, Some(2), "{}", out_of_it.err);
    assert!(!Path::new("/srv/images/other.img").exists());
    assert!(machine.sshd.config().exists());
}
