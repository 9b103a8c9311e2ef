//! The recipes of README.md and doc/restricted-receivers.md, run as they stand there: against a real sshd, with its host names, folders and devices. Those that send
//! only what changed are in sync_recipes.rs.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{Machine, holes, part_of, recipes, run, tools};

/// Runs a recipe that must succeed, whose image must be there then.
#[track_caller]
fn cook(machine: &Machine, recipe: &str, image: &Path) {
    let outcome = machine.follow(recipe);
    assert_eq!(outcome.code, Some(0), "{recipe}\n{}", outcome.err);
    // One line of summary, and no other.
    let said: Vec<_> = outcome.err.lines().collect();
    assert!(said.len() == 1 && said[0].contains("disk 48 MiB"), "{recipe}\n{}", outcome.err);
    let compared = run(
        Command::new("qemu-img")
            .args(["compare", "-f", "qcow2", "-F", "raw"])
            .arg(machine.work("web.qcow2"))
            .arg(image),
        b"",
    );
    assert_eq!(compared.code, Some(0), "{recipe}\n{}{}", String::from_utf8_lossy(&compared.out), compared.err);
    if image.metadata().unwrap().is_file() {
        assert_eq!(holes(image), holes(&machine.work("raw")), "{recipe}");
        assert!(!part_of(image).exists(), "{recipe}");
    }
}

#[test]
fn recipes_that_send_a_whole_disk_run_as_they_stand() {
    if !Machine::inside("recipes_that_send_a_whole_disk_run_as_they_stand") {
        return;
    }
    let machine = Machine::alone(tools!());
    let [deploy, device, pull, jump, _nightly, _resume] = &recipes("README.md");
    let [locked_down] = &recipes("doc/restricted-receivers.md");

    // At the far end nothing is installed.
    cook(&machine, deploy, Path::new("/srv/images/web.img"));
    fs::remove_file("/srv/images/web.img").unwrap();
    cook(&machine, device, Path::new("/dev/vg0/web"));
    assert_eq!(fs::canonicalize("/dev/vg0/web").unwrap(), fs::canonicalize(machine.device.path()).unwrap());

    // There is no other way inside than by the jump host.
    let direct = run(Command::new("ssh").args(["inside", "true"]), b"");
    assert!(direct.code == Some(255) && direct.err.contains("Permission denied"), "{}", direct.err);
    cook(&machine, jump, Path::new("/srv/images/web.img"));

    // From here on the tools are installed there.
    machine.equip_hosts();
    cook(&machine, pull, &machine.work("backup/web.img"));
    cook(&machine, locked_down, Path::new("/srv/vault/web.img"));
    // The key of the last is good for nothing else.
    let other = run(Command::new("ssh").args(["vault", "touch", "/srv/vault/touched"]), b"");
    assert_eq!(other.code, Some(2), "{}", other.err);
    assert!(!Path::new("/srv/vault/touched").exists());
    let out_of_it = machine.follow(&locked_down.replace("vault:web.img", "vault:../images/other.img"));
    assert_eq!(out_of_it.code, Some(2), "{}", out_of_it.err);
    assert!(!Path::new("/srv/images/other.img").exists());
    assert!(machine.sshd.config().exists());
}
