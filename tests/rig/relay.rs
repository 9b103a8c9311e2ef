//! Records both directions of a conversation: between the two tools on this machine, where it can be cut, or over
//! ssh.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::BytesMut;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_util::codec::Decoder;
use xfer_hole_proto::{Dialect, Frame, Record, StreamDecoder};

use crate::{Outcome, Sshd, Tools, requires};

/// What happens to a conversation after so many bytes were sent to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing happens.
    Never,
    /// The connection ends.
    Link(usize),
    /// The sender is killed.
    Sender(usize),
    /// The receiver is killed.
    Receiver(usize),
}

impl Cut {
    fn after(self) -> usize {
        match self {
            Self::Never => usize::MAX,
            Self::Link(bytes) | Self::Sender(bytes) | Self::Receiver(bytes) => bytes,
        }
    }
}

/// The recorded bytes of a conversation.
#[derive(Clone, Debug)]
pub struct Flowed {
    /// The sender's bytes, from WANT or the header on.
    pub up: Vec<u8>,
    /// The receiver's replies, and output of a login before them.
    pub down: Vec<u8>,
}

impl Flowed {
    /// The line WANT, if it was sent.
    pub fn want(&self) -> Option<String> {
        let line = self.up.split(|&byte| byte == b'\n').next().unwrap_or_default();
        line.starts_with(b"WANT ").then(|| String::from_utf8_lossy(line).into_owned())
    }

    /// The stream, as far as it was sent.
    pub fn stream(&self) -> &[u8] {
        let want = self.want().map_or(0, |line| line.len() + 1);
        &self.up[want.min(self.up.len())..]
    }

    /// The frames of the stream without payloads, as far as it was sent. Fails if they are invalid.
    #[track_caller]
    pub fn items(&self) -> Vec<Frame> {
        let mut decoder = StreamDecoder::new(Dialect::V1);
        if self.want().is_some() {
            decoder.agree();
        }
        let (mut left, mut frames) = (BytesMut::from(self.stream()), Vec::new());
        while let Some(frame) = decoder.decode(&mut left).unwrap() {
            if !matches!(frame, Frame::Payload(_)) {
                frames.push(frame);
            }
        }
        frames
    }

    /// The records of the stream, with the disk offset of each.
    #[track_caller]
    pub fn records(&self) -> Vec<(u64, Record)> {
        let mut at = 0;
        let record = |frame| if let Frame::Record(record) = frame { Some(record) } else { None };
        let mut placed = |record: Record| {
            at += record.len();
            (at - record.len(), record)
        };
        self.items().into_iter().filter_map(record).map(&mut placed).collect()
    }

    /// The number of payload bytes that were announced.
    #[track_caller]
    pub fn payload(&self) -> u64 {
        self.records().iter().map(|(_, record)| record.payload_len()).sum()
    }

    /// The lines of the replies.
    pub fn answers(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.down).lines().map(str::to_owned).collect()
    }

    /// The number of manifest records that the receiver sent.
    pub fn told(&self) -> usize {
        let is_record = |line: &String| line.starts_with("DATA ") || line.starts_with("HOLE ");
        self.answers().iter().filter(|line| is_record(line)).count()
    }
}

/// Runs `xfer-hole --converse SEND IMAGE` and `recv-hole --converse RECEIVE DEST`, joined by two pipes. Returns both
/// outcomes, the sender's first, and the recorded bytes.
pub fn converse(
    tools: &Tools,
    send: &[&str],
    image: &Path,
    receive: &[&str],
    dest: &Path,
    cut: Cut,
) -> (Outcome, Outcome, Flowed) {
    let mut sender = guarded(&tools.xfer_hole, &[&["--converse", "--hash"], send].concat(), image);
    let mut receiver = guarded(&tools.recv_hole, &[&["--converse"], receive].concat(), dest);
    let (mut stream, mut sender_stdin) = (sender.stdout.take().unwrap(), sender.stdin.take().unwrap());
    let (mut replies, mut receiver_stdin) = (receiver.stdout.take().unwrap(), receiver.stdin.take().unwrap());
    let disconnected = AtomicBool::new(false);
    let (up, down) = thread::scope(|scope| {
        let reply_thread = scope.spawn(|| {
            let (mut down, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            while let Ok(bytes @ 1..) = replies.read(&mut buffer) {
                if disconnected.load(Ordering::Relaxed) {
                    continue;
                }
                down.extend_from_slice(&buffer[..bytes]);
                let _closed = sender_stdin.write_all(&buffer[..bytes]);
            }
            drop(sender_stdin);
            down
        });
        let (mut up, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            let bytes = bytes.min(cut.after() - up.len());
            up.extend_from_slice(&buffer[..bytes]);
            let _closed = receiver_stdin.write_all(&buffer[..bytes]);
            if up.len() == cut.after() {
                disconnected.store(true, Ordering::Relaxed);
                match cut {
                    Cut::Sender(_) => end(&sender),
                    Cut::Receiver(_) => end(&receiver),
                    Cut::Link(_) | Cut::Never => {}
                }
                break;
            }
        }
        drop((receiver_stdin, stream));
        (up, reply_thread.join().unwrap())
    });
    let outcome = |child: Child| {
        let output = child.wait_with_output().unwrap();
        Outcome { code: output.status.code(), out: output.stdout, err: String::from_utf8_lossy(&output.stderr).into() }
    };
    (outcome(sender), outcome(receiver), Flowed { up, down })
}

/// Starts a tool with pipes, limited to a minute.
fn guarded(tool: &Path, args: &[&str], path: &Path) -> Child {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(tool).args(args).arg(path).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: &Child) {
    let _gone = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
}

/// A program for `-e`: ssh to a server, with both directions recorded.
#[derive(Debug)]
pub struct Wiretap {
    folder: TempDir,
}

impl Wiretap {
    /// Creates the program for this server.
    pub fn new(sshd: &Sshd) -> Self {
        requires(&["bash", "tee"]);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = sshd.config();
        // The script executes ssh, so that ssh itself is waited for and killed.
        let (config, words) = (config.display(), "#!/bin/bash\nexec ssh -F");
        let text = format!("{words} '{config}' \"$@\" < <(exec tee '{}') > >(exec tee '{}')\n", at("in"), at("out"));
        fs::write(at("tap"), text).unwrap();
        fs::set_permissions(at("tap"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// The program's path.
    pub fn program(&self) -> PathBuf {
        self.folder.path().join("tap")
    }

    /// The recorded bytes of a push of a disk of `size` bytes.
    pub fn pushed(&self, size: u64) -> Flowed {
        Flowed { up: from(&self.bytes("in"), size), down: self.bytes("out") }
    }

    /// The recorded bytes of a pull of a disk of `size` bytes.
    pub fn pulled(&self, size: u64) -> Flowed {
        Flowed { up: from(&self.bytes("out"), size), down: self.bytes("in") }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        File::open(self.folder.path().join(name)).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// The sender's bytes after the shell text.
fn from(bytes: &[u8], size: u64) -> Vec<u8> {
    let begins = [format!("WANT {size} sha256 "), format!("XFER-HOLE 1 {size}")];
    let find = |line: &String| bytes.windows(line.len()).position(|words| words == line.as_bytes());
    bytes[begins.iter().find_map(find).unwrap_or(bytes.len())..].to_vec()
}

/// The number of bytes that a delta sends: the data in intervals of `new` that are missing in `old` or differ. Zeros
/// are counted by the grain.
pub fn differing(old: &[u8], new: &[u8], interval: usize, grain: usize) -> u64 {
    let mut bytes = 0;
    for (number, piece) in new.chunks(interval).enumerate() {
        let at = number * interval;
        if old.get(at..at + piece.len()) != Some(piece) {
            let data = piece.chunks(grain).filter(|block| block.iter().any(|&byte| byte != 0));
            bytes += data.map(<[u8]>::len).sum::<usize>();
        }
    }
    bytes as u64
}

/// The existing bytes of a receiver for a new file: `part`, with its holes filled from the old file.
pub fn held(part: &Path, old: &Path) -> Vec<u8> {
    let mut bytes = fs::read(old).unwrap_or_default();
    let Ok(left) = fs::read(part) else { return bytes };
    bytes.resize(bytes.len().max(left.len()), 0);
    for (start, len) in crate::extents(part) {
        let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
        bytes[range.clone()].copy_from_slice(&left[range]);
    }
    bytes
}
