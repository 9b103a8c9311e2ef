//! Far ends that don't get on: a worker that was stopped, a fifo that nobody reads.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use rig::{Process, run, tools, wait_until};
use tempfile::TempDir;

use crate::account::Account;
use crate::{HERE, LENGTH, READY, SHELLS, after_here, at_once, sample, written};

/// The process of the script that reads the stream: of the first one's children the one whose input isn't closed.
fn worker(first: u32) -> i32 {
    let link = |pid: &str| fs::read_link(format!("/proc/{pid}/fd/0")).unwrap_or_default();
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
    let all: Vec<_> = children.split_whitespace().map(|child| (child, link(child))).collect();
    let reads = all.iter().find(|(_, link)| link != Path::new("/dev/null"));
    reads.unwrap_or_else(|| panic!("none has the stream: {all:?}")).0.parse().unwrap()
}

#[test]
fn wait_is_not_said_of_a_worker_that_was_stopped() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (_, stream) = sample(target.path());
        let dest = target.path().join("out.img");
        let mut child = account.begin(&["max-wait=6"], &dest, &stream[..1000]);
        written(&dest, LENGTH);
        let (heard, mut answers) = (Mutex::new(Vec::new()), child.stdout.take().unwrap());
        let (before, code) = thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 4096];
                while let Ok(bytes @ 1..) = answers.read(&mut buffer) {
                    heard.lock().unwrap().extend_from_slice(&buffer[..bytes]);
                }
            });
            kill(Pid::from_raw(worker(child.id())), Signal::SIGSTOP).unwrap();
            let before = heard.lock().unwrap().len();
            let _held = child.stdin.take();
            (before, child.wait().unwrap().code())
        });
        let heard = heard.into_inner().unwrap();
        let after =
            String::from_utf8_lossy(&heard[before..]).replace(HERE, "").replace("XFER-HOLE-READY 1 sh new\n", "");
        // One may have been on its way.
        assert!(after.matches("WAIT\n").count() < 2, "{sh}: {after}");
        assert!(after.ends_with("FAIL (again) the receiver has been stopped for 6 seconds\n"), "{sh}: {after}");
        assert_eq!(code, Some(2), "{sh}");
        account.left_nothing(sh);
    });
}

#[test]
fn a_fifo_that_nobody_reads_is_given_up_by_sh() {
    at_once(SHELLS, |sh| {
        let (account, target) = (Account::new("dash", sh), TempDir::new().unwrap());
        let (_, stream) = sample(target.path());
        let fifo = target.path().join("fifo");
        mkfifo(&fifo, Mode::from_bits_truncate(0o666)).unwrap();
        let mut child = account.begin(&["max-wait=3"], &fifo, &stream[..1000]);
        let _held = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        let said = after_here(output.stdout).replace("WAIT\n", "");
        assert_eq!(said, format!("{READY}FAIL (again) nobody has opened the fifo to read it for 3 seconds\n"), "{sh}");
        account.left_nothing(sh);
    });
}

/// `recv-hole --request` into a fifo.
fn request(fifo: &Path) -> Command {
    let mut command = Command::new(tools!().recv_hole);
    command.arg("--request").arg(format!("1 0 -- {} x", fifo.display()));
    command
}

#[test]
fn a_fifo_that_nobody_reads_does_not_hold_a_receiver_whose_link_is_gone() {
    let target = TempDir::new().unwrap();
    let (bytes, stream) = sample(target.path());
    let fifo = target.path().join("fifo");
    mkfifo(&fifo, Mode::from_bits_truncate(0o666)).unwrap();
    let mut command = request(&fifo);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 17];
    stdout.read_exact(&mut ready).unwrap();
    stdin.write_all(&stream[..1000]).unwrap();
    drop((stdin, stdout));
    wait_until("it has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(2));

    // One that comes late is waited for.
    let (late, reader) = (fifo.clone(), target.path().join("read"));
    thread::scope(|scope| {
        let read = scope.spawn(move || {
            let waiting =
                |process: &Process| process.argv.contains("--request") && process.argv.contains(late.to_str().unwrap());
            wait_until("it waits", || Process::all().iter().any(waiting));
            let mut pipe = fs::File::open(late).unwrap();
            std::io::copy(&mut pipe, &mut fs::File::create(reader).unwrap()).unwrap()
        });
        let received = run(&mut request(&fifo), &stream);
        assert_eq!(received.code, Some(0), "{}", String::from_utf8_lossy(&received.out));
        assert_eq!(read.join().unwrap(), LENGTH);
    });
    assert!(fs::read(target.path().join("read")).unwrap() == bytes);
}
