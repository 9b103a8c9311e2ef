//! Who moves a disk, and by which command: our tools, their peers, and the floor.

use std::path::PathBuf;

use crate::case::{Case, Way};
use crate::disk::{BenchDisk, Kind};
use crate::error::Result;
use crate::line::Line;
use crate::past::Past;
use crate::sshd::HOST;
use crate::tool::{find, text};

/// Which side it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Ours.
    Ours,
    /// A peer that we want to be ahead of: the fastest of them is the best peer.
    Rival,
    /// Another peer, for comparison.
    Peer,
    /// The cheapest that there can be.
    Floor,
}

/// One of those that do the same work in turns.
#[derive(Clone, Debug)]
pub struct Contender {
    /// What it is asked for by; one of [`key`].
    pub key: &'static str,
    /// How the report calls it.
    pub name: &'static str,
    /// Whose it is.
    pub side: Side,
    /// What is run.
    pub line: Line,
    /// Whether what it makes is a disk, to be checked.
    pub makes: bool,
    /// How it is known what goes over the wire.
    pub wire: Wire,
}

/// How it is known what goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// There is none, or it can't be looked at.
    Unknown,
    /// It is what the first program writes.
    Tapped,
    /// Our sender says it.
    Told,
    /// What goes through the remote shell, both ways.
    Both,
}

/// What contenders are asked for by.
pub mod key {
    /// `xfer-hole | recv-hole`.
    pub const PIPE: &str = "pipe";
    /// The same with `--hash`.
    pub const PIPE_HASH: &str = "pipe-hash";
    /// `xfer-hole DISK COPY`.
    pub const COPY: &str = "copy";
    /// The same with `--hash`.
    pub const COPY_HASH: &str = "copy-hash";
    /// `xfer-hole | ssh recv-hole`.
    pub const SSH: &str = "ssh";
    /// `xfer-hole | ssh sh recv-hole.sh`.
    pub const SSH_SH: &str = "ssh-sh";
    /// `xfer-hole DISK HOST:COPY`.
    pub const PUSH: &str = "push";
    /// The same with `--no-hash`.
    pub const PUSH_PLAIN: &str = "push-plain";
    /// The same with `--receiver sh`.
    pub const PUSH_SH: &str = "push-sh";
    /// The same with `--receiver sh --no-hash`.
    pub const PUSH_SH_PLAIN: &str = "push-sh-plain";
    /// `xfer-hole --no-resume DISK HOST:COPY`, whatever is there.
    pub const FULL: &str = "full";
    /// `xfer-hole DISK HOST:COPY`, which brings up to date what is there.
    pub const DELTA: &str = "delta";
    /// The same with `--in-place`.
    pub const DELTA_IN_PLACE: &str = "delta-in-place";
    /// The same with `--remember`, where both sides' fingerprints are noted.
    pub const REMEMBER: &str = "remember";
    /// `recv-hole HOST:DISK COPY`, which brings up to date what is there.
    pub const DELTA_PULL: &str = "delta-pull";
    /// `rsync --inplace --no-whole-file`.
    pub const RSYNC: &str = "rsync";
    /// An ssh connection, and nothing else.
    pub const CONNECT: &str = "connect";
    /// As many bytes as differ, over ssh to nowhere.
    pub const FLOOR_DUE: &str = "floor-due";
    /// `xfer-hole map`.
    pub const MAP: &str = "map";
    /// `qemu-img convert`.
    pub const QEMU: &str = "qemu-img";
    /// `qemu-img convert -W -m 16`.
    pub const QEMU_M: &str = "qemu-img-m";
    /// `qemu-img map`.
    pub const QEMU_MAP: &str = "qemu-img-map";
    /// `nbdcopy`.
    pub const NBDCOPY: &str = "nbdcopy";
    /// `cp --sparse=always`.
    pub const CP: &str = "cp";
    /// Any other peer.
    pub const OTHER: &str = "other";
    /// splice into a pipe, and out of it.
    pub const FLOOR_PIPE: &str = "floor-pipe";
    /// The same over ssh.
    pub const FLOOR_SSH: &str = "floor-ssh";
    /// `copy_file_range`, or read and write.
    pub const FLOOR_COPY: &str = "floor-copy";
    /// One core's SHA-256.
    pub const FLOOR_SHA: &str = "floor-sha256";
}

/// Where the commands come from.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The folder that has `xfer-hole`, `recv-hole` and `floor`.
    pub folder: PathBuf,
    /// The receiver in shell.
    pub script: PathBuf,
    /// The configuration that ssh reaches the far end by, if there is one.
    pub ssh: Option<PathBuf>,
    /// The same, for a far end behind a slow link.
    pub slow: Option<PathBuf>,
}

impl Tools {
    /// The remote shell of a case, if it has one.
    ///
    /// # Errors
    /// If the path isn't text.
    pub fn shell(&self, way: Way) -> Result<Option<String>> {
        let config = if way == Way::DeltaSlow { &self.slow } else { &self.ssh };
        config.as_ref().map(|config| Ok(format!("ssh -F {}", text(config)?))).transpose()
    }
}

/// Where a disk goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The file to be made.
    pub out: PathBuf,
    /// Whether its file system takes data faster where it was reserved before.
    pub reserves: bool,
    /// Whether it lies on the disk's own file system: copy_file_range can't cross to another one.
    pub at_home: bool,
    /// A block map of the raw disk, for bmaptool.
    pub bmap: Option<PathBuf>,
    /// What stands there before, if anything does.
    pub past: Option<Past>,
}

/// All that can take part in this case on this machine.
///
/// # Errors
/// If a path isn't text.
pub fn contenders(case: &Case, disk: &BenchDisk, target: &Target, tools: &Tools) -> Result<Vec<Contender>> {
    let mut list = List { all: Vec::new(), tools };
    match case.way {
        Way::Local => {
            list.ours(case, disk, target)?;
            list.rivals(case, disk, target)?;
            list.peers(case, disk, target)?;
            // They don't sync.
            if !case.sync {
                list.floors(disk, target)?;
            }
        }
        Way::Ssh => {
            list.ours_over_ssh(disk, target)?;
            list.others_over_ssh(disk, target)?;
        }
        Way::Delta | Way::DeltaSlow | Way::DeltaSame | Way::Resume => list.renewers(case, disk, target)?,
        Way::Map => list.maps(disk)?,
    }
    Ok(list.all)
}

/// Contenders, as they come together.
struct List<'a> {
    all: Vec<Contender>,
    tools: &'a Tools,
}

impl List<'_> {
    fn tool(&self, name: &str) -> Result<String> {
        text(&self.tools.folder.join(name)).map(str::to_owned)
    }

    /// One more, if its program is there.
    fn add(&mut self, key: &'static str, name: &'static str, side: Side, line: Line) {
        // Joined to a folder of PATH, an absolute path stays what it is. What isn't there is told at the beginning.
        if line.programs().all(|program| find(&program).is_some()) {
            let makes = !matches!(key, key::MAP | key::QEMU_MAP | key::FLOOR_SHA | key::CONNECT | key::FLOOR_DUE);
            let wire = match key {
                key::PUSH | key::PUSH_PLAIN | key::PUSH_SH | key::PUSH_SH_PLAIN => Wire::Told,
                key::FULL | key::DELTA | key::DELTA_IN_PLACE | key::REMEMBER | key::DELTA_PULL | key::RSYNC => {
                    Wire::Both
                }
                _ if line.programs().count() > 1 => Wire::Tapped,
                _ => Wire::Unknown,
            };
            self.all.push(Contender { key, name, side, line, makes, wire });
        }
    }

    fn ours(&mut self, case: &Case, disk: &BenchDisk, target: &Target) -> Result<()> {
        let (xfer, recv) = (self.tool("xfer-hole")?, self.tool("recv-hole")?);
        let (from, to) = (text(&disk.path)?, text(&target.out)?);
        let no_sync: &[&str] = if case.sync { &[] } else { &["--no-sync"] };
        let received = [&[recv.as_str()], no_sync, &[to]].concat();
        let pipe = Line::one([&xfer, from]).then(received.clone());
        self.add(key::PIPE, "`xfer-hole` \\| `recv-hole`", Side::Ours, pipe);
        let hashed = Line::one([&xfer, "--hash", from]).then(received);
        self.add(key::PIPE_HASH, "`xfer-hole --hash` \\| `recv-hole`", Side::Ours, hashed);
        // What shares blocks doesn't copy: it is not what is measured.
        let copy =
            |hash: &[&str]| Line::one([&[xfer.as_str()], no_sync, &["--reflink", "never"], hash, &[from, to]].concat());
        self.add(key::COPY, "`xfer-hole` copy", Side::Ours, copy(&[]));
        self.add(key::COPY_HASH, "`xfer-hole --hash` copy", Side::Ours, copy(&["--hash"]));
        Ok(())
    }

    fn rivals(&mut self, case: &Case, disk: &BenchDisk, target: &Target) -> Result<()> {
        let (from, to) = (text(&disk.path)?, text(&target.out)?);
        // By default it doesn't sync.
        let sync: &[&str] = if case.sync { &["-t", "writeback"] } else { &[] };
        let convert = |more: &[&str]| {
            Line::one([&["qemu-img", "convert"], more, sync, &["-f", disk.format, "-O", "raw", from, to]].concat())
        };
        self.add(key::QEMU, "`qemu-img convert`", Side::Rival, convert(&[]));
        self.add(key::QEMU_M, "`qemu-img convert -W -m 16`", Side::Rival, convert(&["-W", "-m", "16"]));
        let flush: &[&str] = if case.sync { &["--flush"] } else { &[] };
        if disk.format == "raw" {
            let line = Line::one([&["nbdcopy"], flush, &[from, to]].concat());
            self.add(key::NBDCOPY, "`nbdcopy`", Side::Rival, line);
            if find("nbdkit").is_some() {
                let line = Line::one([&["nbdcopy"], flush, &["--", "[", "nbdkit", "file", from, "]", to]].concat());
                self.add(key::NBDCOPY, "`nbdcopy [ nbdkit file ]`", Side::Rival, line);
            }
        }
        if find("qemu-nbd").is_some() {
            let nbd = ["--", "[", "qemu-nbd", "-r", "-f", disk.format, from, "]", to];
            let line = Line::one([&["nbdcopy"][..], flush, &nbd].concat());
            self.add(key::NBDCOPY, "`nbdcopy [ qemu-nbd ]`", Side::Rival, line);
        }
        if disk.format == "raw" {
            let line = if case.sync {
                Line::one(["sh", "-c", "cp --sparse=always \"$0\" \"$1\" && sync \"$1\"", from, to])
            } else {
                Line::one(["cp", "--sparse=always", from, to])
            };
            self.add(key::CP, "`cp --sparse=always`", Side::Rival, line);
        }
        Ok(())
    }

    fn peers(&mut self, case: &Case, disk: &BenchDisk, target: &Target) -> Result<()> {
        let (from, to) = (text(&disk.path)?, text(&target.out)?);
        // They read what isn't there: an empty disk of 1 TiB would take them minutes.
        if disk.format != "raw" || disk.size >= 1 << 40 {
            return Ok(());
        }
        let sync: &[&str] = if case.sync { &["--fsync"] } else { &[] };
        self.add(key::OTHER, "`rsync -S`", Side::Peer, Line::one([&["rsync", "-S"], sync, &[from, to]].concat()));
        if let Some(map) = &target.bmap {
            let line = Line::one(["bmaptool", "-q", "copy", "--bmap", text(map)?, from, to]);
            self.add(key::OTHER, "`bmaptool copy` (always syncs)", Side::Peer, line);
            if case.kind == Kind::ScatteredRaw {
                let both =
                    "bmaptool -q create -o \"$1.bmap\" \"$0\" && bmaptool -q copy --bmap \"$1.bmap\" \"$0\" \"$1\"";
                let line = Line::one(["sh", "-c", both, from, to]);
                self.add(key::OTHER, "`bmaptool create`, `bmaptool copy`", Side::Peer, line);
            }
        }
        Ok(())
    }

    fn floors(&mut self, disk: &BenchDisk, target: &Target) -> Result<()> {
        let floor = self.tool("floor")?;
        let (raw, list, to, size) = (text(&disk.raw)?, text(&disk.ranges)?, text(&target.out)?, disk.size.to_string());
        let receive = if target.reserves { "reserve" } else { "receive" };
        let pipe = Line::one([&floor, "send", raw, list]).then([&floor, receive, to, list, &size]);
        self.add(key::FLOOR_PIPE, "floor: splice, pipe, splice", Side::Floor, pipe);
        let copy = Line::one([&floor, "copy", raw, to, list, &size]);
        if target.at_home {
            self.add(key::FLOOR_COPY, "floor: copy_file_range", Side::Floor, copy);
        }
        let rewrite = Line::one([&floor, "rewrite", raw, to, list, &size]);
        self.add(key::FLOOR_COPY, "floor: read, write", Side::Floor, rewrite);
        let sha256 = Line::one([&floor, "sha256", raw, list]);
        self.add(key::FLOOR_SHA, "floor: SHA-256 on one core", Side::Floor, sha256);
        Ok(())
    }

    fn ours_over_ssh(&mut self, disk: &BenchDisk, target: &Target) -> Result<()> {
        let Some(config) = &self.tools.ssh else { return Ok(()) };
        let (xfer, recv) = (self.tool("xfer-hole")?, self.tool("recv-hole")?);
        let (config, from, to) = (text(config)?, text(&disk.path)?, text(&target.out)?);
        let script = text(&self.tools.script)?;
        let pipe = |sent: &[&str], far: String| {
            Line::one([&[xfer.as_str()], sent, &[from]].concat()).then(["ssh", "-F", config, HOST, &far])
        };
        let line = pipe(&[], format!("{recv} --no-sync {to}"));
        self.add(key::SSH, "`xfer-hole` \\| `ssh recv-hole`", Side::Ours, line);
        let line = pipe(&["--min-hole", "64K"], format!("sh {script} --no-sync {to}"));
        self.add(key::SSH_SH, "`xfer-hole` \\| `ssh sh recv-hole.sh`", Side::Ours, line);
        let dest = format!("{HOST}:{to}");
        let push = |more: &[&str]| {
            let words = [&[xfer.as_str(), "-F", config, "--no-sync"], more, &[from, &dest]].concat();
            Line::one(words)
        };
        self.add(key::PUSH, "`xfer-hole` push", Side::Ours, push(&["--receiver", "binary"]));
        let line = push(&["--receiver", "binary", "--no-hash"]);
        self.add(key::PUSH_PLAIN, "`xfer-hole --no-hash` push", Side::Ours, line);
        self.add(key::PUSH_SH, "`xfer-hole --receiver sh` push", Side::Ours, push(&["--receiver", "sh"]));
        let line = push(&["--receiver", "sh", "--no-hash"]);
        self.add(key::PUSH_SH_PLAIN, "`xfer-hole --receiver sh --no-hash` push", Side::Ours, line);
        Ok(())
    }

    fn others_over_ssh(&mut self, disk: &BenchDisk, target: &Target) -> Result<()> {
        let Some(config) = &self.tools.ssh else { return Ok(()) };
        let floor = self.tool("floor")?;
        let (raw, list, to) = (text(&disk.raw)?, text(&disk.ranges)?, text(&target.out)?);
        let config = text(config)?;
        let receive = if target.reserves { "reserve" } else { "receive" };
        let far = format!("{floor} {receive} {to} {list} {}", disk.size);
        let line = Line::one([&floor, "send", raw, list]).then(["ssh", "-F", config, HOST, &far]);
        self.add(key::FLOOR_SSH, "floor: splice, ssh, read and write", Side::Floor, line);
        if disk.format == "raw" && find("zstd").is_some() {
            let far = format!("zstd -q -d --sparse -o {to}");
            let line = Line::one(["zstd", "-q", "-T0", "-c", raw]).then(["ssh", "-F", config, HOST, &far]);
            self.add(key::OTHER, "`zstd -T0` \\| `ssh zstd -d`", Side::Peer, line);
        }
        if disk.format == "raw" && find("rsync").is_some() {
            let ssh = format!("ssh -F {config}");
            let line = Line::one(["rsync", "-S", "-e", &ssh, raw, &format!("{HOST}:{to}")]);
            self.add(key::OTHER, "`rsync -S` over ssh", Side::Peer, line);
        }
        Ok(())
    }

    /// Who brings up to date what is there already.
    fn renewers(&mut self, case: &Case, disk: &BenchDisk, target: &Target) -> Result<()> {
        let Some(shell) = self.tools.shell(case.way)? else { return Ok(()) };
        let (xfer, recv) = (self.tool("xfer-hole")?, self.tool("recv-hole")?);
        let (from, to) = (text(&disk.path)?, text(&target.out)?);
        let (there, here) = (format!("{HOST}:{to}"), format!("{HOST}:{from}"));
        let push =
            |more: &[&str]| Line::one([&[&xfer, "-e", &shell, "--receiver", "binary"], more, &[from, &there]].concat());
        let pull = |more: &[&str]| Line::one([&[&recv, "-e", &shell, "--no-sync"], more, &[&here, to]].concat());
        if case.way == Way::Resume {
            self.add(key::DELTA, "`xfer-hole` push again", Side::Ours, push(&["--no-sync"]));
            self.add(key::DELTA_PULL, "`recv-hole` pull again", Side::Ours, pull(&[]));
        } else {
            self.add(key::DELTA, "`xfer-hole --delta` push", Side::Ours, push(&["--no-sync", "--delta"]));
            let line = push(&["--no-sync", "--delta", "--in-place"]);
            self.add(key::DELTA_IN_PLACE, "`xfer-hole --delta --in-place` push", Side::Ours, line);
            self.add(key::DELTA_PULL, "`recv-hole --delta` pull", Side::Ours, pull(&["--delta"]));
        }
        if case.way == Way::DeltaSame {
            let line = push(&["--delta", "--remember"]);
            self.add(key::REMEMBER, "`xfer-hole --delta --remember` push", Side::Ours, line);
            let connect = Line::one(shell.split(' ').chain([HOST, "true"]));
            self.add(key::CONNECT, "floor: an ssh connection", Side::Floor, connect);
        }
        if let Some(due) = target.past.as_ref().map(|past| past.due).filter(|due| due.bytes > 0) {
            let far = shell.split(' ').chain([HOST, "cat >/dev/null"]);
            let line = Line::one(["head", "-c", &due.bytes.to_string(), text(&disk.raw)?]).then(far);
            self.add(key::FLOOR_DUE, "floor: as many bytes as differ, over ssh to nowhere", Side::Floor, line);
        }
        // All of a disk takes minutes over a slow link.
        if case.way != Way::DeltaSlow {
            self.add(key::FULL, "`xfer-hole --no-resume` push", Side::Ours, push(&["--no-sync", "--no-resume"]));
        }
        let line = Line::one(["rsync", "--inplace", "--no-whole-file", "-e", &shell, from, &there]);
        self.add(key::RSYNC, "`rsync --inplace --no-whole-file`", Side::Rival, line);
        Ok(())
    }

    fn maps(&mut self, disk: &BenchDisk) -> Result<()> {
        let (xfer, from) = (self.tool("xfer-hole")?, text(&disk.path)?);
        self.add(key::MAP, "`xfer-hole map`", Side::Ours, Line::one([&xfer, "map", "--output", "json", from]));
        let theirs = Line::one(["qemu-img", "map", "--output", "json", "-f", disk.format, from]);
        self.add(key::QEMU_MAP, "`qemu-img map`", Side::Rival, theirs);
        Ok(())
    }
}
