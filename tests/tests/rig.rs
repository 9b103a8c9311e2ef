//! The rig does what the tests believe of it: accounts, servers, networks.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::{Account, HOST, Network, Process, Setup, Sshd, Toolbox, run, tools, wait_until};

#[test]
fn an_account_logs_in_with_its_shell_and_is_gone_with_its_processes() {
    let (sshd, fs) = (Sshd::start(), tempfile::tempdir().unwrap());
    for shell in ["dash", "busybox", "bash", "fish", "csh", "tcsh", "zsh", "mksh"] {
        let account = Account::new(shell);
        run(sshd.ssh_as(&account).arg("true"), b"").ok();
        let before = account.belongings();
        let connections = sshd.connections();
        let said = run(sshd.ssh_as(&account).arg("exec sh -c 'cat >new; id -un; pwd'"), b"content").ok();
        assert_eq!(said.out, format!("{}\n{}\n", account.name(), account.home("").display()).into_bytes(), "{shell}");
        assert_eq!(sshd.connections(), connections + 1, "{shell}");
        assert_eq!(account.belongings().changed_since(&before), [account.home("new")], "{shell}");
        let owned = fs.path().join(shell);
        fs::write(&owned, "").unwrap();
        let mut sleeps = sshd.ssh_as(&account).arg("sleep 1000").stderr(Stdio::null()).spawn().unwrap();
        wait_until("it sleeps", || account.processes().iter().any(|process| process.argv == "sleep 1000"));
        let (name, uid) = (account.name().to_owned(), account.uid());
        drop(account);
        assert!(!sleeps.wait().unwrap().success());
        assert_eq!(Process::of_user(uid), []);
        assert_eq!(run(Command::new("id").arg(name), b"").code, Some(1));
    }
}

#[test]
fn a_server_runs_what_is_installed_or_what_alone_it_may() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let sshd = Sshd::with(Setup { path: Some(&path), ..Setup::default() });
    let account = Account::new("fish");
    run(sshd.ssh_as(&account).arg("recv-hole --version"), b"").ok();
    assert_eq!(toolbox.calls(), ["recv-hole --version"]);
    sshd.admit_only(&account, "echo \"$SSH_ORIGINAL_COMMAND\"");
    assert_eq!(run(sshd.ssh_as(&account).arg("rm -rf /"), b"").ok().out, b"rm -rf /\n");
    sshd.forge();
    let refused = run(sshd.ssh_as(&account).arg("true"), b"");
    assert!(refused.code == Some(255) && refused.err.contains("Host key verification failed"), "{}", refused.err);

    let toolbox = Toolbox::busybox();
    let path = toolbox.path();
    let sshd = Sshd::with(Setup { path: Some(&path), ..Setup::default() });
    let said = run(sshd.ssh_as(&Account::new("busybox")).arg("dd --help 2>&1 | grep -i busybox; ip"), b"");
    assert!(String::from_utf8_lossy(&said.out).contains("BusyBox"), "{said:?}");
}

#[test]
fn a_link_is_slowed_cut_and_restored() {
    let network = Network::new();
    let sshd = Sshd::with(Setup { network: Some(&network), ..Setup::default() });
    let account = Account::new("dash");
    let far = |command: &str| network.near(sshd.ssh_as(&account).arg(command));
    run(&mut far("true"), b"").ok();
    network.slow("20mbit");
    let start = Instant::now();
    run(&mut far("cat >/dev/null"), &vec![1; 10 << 20]).ok();
    assert!(start.elapsed() > Duration::from_secs(3), "10 MiB in {:?}", start.elapsed());
    network.restore();
    let mut holds = far("cat").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it runs", || account.processes().iter().any(|process| process.argv == "cat"));
    let below = Process::below(std::process::id());
    assert!(below.iter().any(|process| process.argv.starts_with("ssh -F")), "{below:?}");
    network.cut();
    let mut new = Command::new("ssh");
    new.arg("-F").arg(sshd.config()).args(["-o", "ConnectTimeout=1", HOST, "true"]);
    assert_eq!(run(&mut network.near(&new), b"").code, Some(255));
    account.processes().iter().for_each(|process| process.signal(Signal::SIGKILL));
    wait_until("it is gone", || account.processes().is_empty());
    assert!(holds.try_wait().unwrap().is_none(), "nobody told the near end");
    network.restore();
    wait_until("the near end hears of it", || holds.try_wait().unwrap().is_some());
    run(&mut far("true"), b"").ok();
}
