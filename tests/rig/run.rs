//! Runs programs and collects their results.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::Receiver;

/// The result of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended the program.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Outcome {
    /// Fails unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self
    }

    /// The lines on standard error, except hints and the warning about the dialect of 2014.
    pub fn complaints(&self) -> Vec<&str> {
        let aside = |line: &&str| line.contains(": hint: ") || line.contains(": warning: the dialect of 2014 ");
        self.err.lines().filter(|line| !aside(line)).collect()
    }

    /// Fails unless the exit code is 2, with one message (and possibly its hint) that contains all of `words`.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        self.failed(2, words)
    }

    /// Fails unless the exit code is 75 (trying again can help), with one message (and possibly its hint) that
    /// contains all of `words`.
    #[track_caller]
    pub fn retryable(self, words: &[&str]) -> Self {
        self.failed(75, words)
    }

    #[track_caller]
    fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.err);
        let lines = self.complaints();
        assert_eq!(lines.len(), 1, "one line, not: {}", self.err);
        for word in words {
            assert!(lines[0].contains(word), "\"{word}\" is not in: {}", self.err);
        }
        self
    }
}

/// The tools that cargo built.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The path of `xfer-hole`.
    pub xfer_hole: PathBuf,
    /// The path of `recv-hole`.
    pub recv_hole: PathBuf,
}

/// The tools, in a test of this package: `tools!()`.
#[macro_export]
macro_rules! tools {
    () => {
        $crate::Tools {
            xfer_hole: env!("CARGO_BIN_EXE_xfer-hole").into(),
            recv_hole: env!("CARGO_BIN_EXE_recv-hole").into(),
        }
    };
}

/// The path of an installed program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a system tool, which must succeed, and returns its standard output.
#[track_caller]
pub fn tool(program: &str, args: &[&str]) -> String {
    let found = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let output = Command::new(found).args(args).stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command with these bytes as its standard input. A command that stops reading early is no error.
pub fn run(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        let _broken_pipe = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Outcome {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The stream that `xfer-hole ARGS IMAGE` writes, which must succeed.
#[track_caller]
pub fn pour(tools: &Tools, args: &[&str], image: &Path) -> Vec<u8> {
    let outcome = run(Command::new(&tools.xfer_hole).args(args).arg(image), b"");
    outcome.ok().out
}

/// Runs `xfer-hole ARGS IMAGE | RECEIVER DEST` and returns both outcomes, the sender's first.
pub fn send_to(tools: &Tools, args: &[&str], image: &Path, receiver: Receiver, dest: &Path) -> (Outcome, Outcome) {
    let mut sender = Command::new(&tools.xfer_hole)
        .args(args)
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stream: Stdio = sender.stdout.take().unwrap().into();
    let receiver = receiver
        .command(tools, dest, false, true)
        .stdin(stream)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = String::new();
    let mut sender_err = sender.stderr.take().unwrap();
    let messages = thread::spawn(move || {
        let _text = sender_err.read_to_string(&mut err);
        err
    });
    let received = receiver.wait_with_output().unwrap();
    let sent = sender.wait().unwrap();
    let sent = Outcome { code: sent.code(), out: Vec::new(), err: messages.join().unwrap() };
    let err = String::from_utf8_lossy(&received.stderr).into_owned();
    (sent, Outcome { code: received.status.code(), out: received.stdout, err })
}

/// Fails unless two files have the same size and the same bytes. Holes are not read.
#[track_caller]
pub fn assert_same(expected: &Path, found: &Path) {
    let sizes = [expected, found].map(|path| File::open(path).unwrap().metadata().unwrap().len());
    assert_eq!(sizes[0], sizes[1], "sizes of {} and {}", expected.display(), found.display());
    let status =
        Command::new("qemu-img").args(["compare", "-q", "-f", "raw", "-F", "raw"]).arg(expected).arg(found).status();
    if sizes[0] > 0 {
        assert!(status.unwrap().success(), "{} and {} differ", expected.display(), found.display());
    }
}
