//! Compares the tools' results with qemu-img's: bytes, holes and extents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::qcow2::qemu_img;
use crate::{Receiver, Tools, assert_holes_within, assert_same, holes, holes_within, run, send_to};

/// One entry of `map --output=json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "they are qemu-img's")]
pub struct Mapped {
    pub start: u64,
    pub length: u64,
    pub depth: u32,
    pub present: bool,
    pub zero: bool,
    pub data: bool,
    pub compressed: bool,
    pub offset: Option<u64>,
}

impl Mapped {
    /// True if `next` continues this entry, with the same properties.
    fn goes_on(&self, next: &Self) -> bool {
        let alike = Self { start: self.start, length: self.length, offset: self.offset, ..next.clone() };
        *self == alike
            && self.start + self.length == next.start
            && match (self.offset, next.offset) {
                (Some(offset), Some(next)) => offset + self.length == next,
                (here, next) => here.is_none() && next.is_none(),
            }
    }
}

/// The entries of a map, with adjacent entries of the same kind merged.
#[track_caller]
pub fn merged(map: &str) -> Vec<Mapped> {
    join(serde_json::from_str(map).unwrap_or_else(|error| panic!("{error}: {map}")))
}

fn join(lines: Vec<Mapped>) -> Vec<Mapped> {
    let mut merged: Vec<Mapped> = Vec::new();
    for line in lines {
        match merged.last_mut() {
            Some(last) if last.goes_on(&line) => last.length += line.length,
            _ => merged.push(line),
        }
    }
    merged
}

/// The entries of a map by the image's tables alone. Whether data reads as zeros is dropped, since it depends on the
/// file below and differs between copies.
#[track_caller]
pub fn by_tables(map: &str) -> Vec<Mapped> {
    let mut lines = merged(map);
    lines.iter_mut().for_each(|line| line.zero &= !line.data);
    join(lines)
}

/// The output of `qemu-img map --output=json`.
#[track_caller]
pub fn qemu_map(image: &Path) -> String {
    qemu_img(&["map", "--output=json", "-f", "qcow2"], image)
}

/// Converts an image to a raw file next to it, by qemu-img, and returns its path.
#[track_caller]
pub fn qemu_disk(image: &Path) -> PathBuf {
    let disk = image.with_extension("judge");
    let name = image.file_name().unwrap().to_str().unwrap();
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", name], &disk);
    disk
}

/// Copies an image and reverts the copy to a snapshot by qemu-img. The disk of the copy is that of the snapshot.
#[track_caller]
pub fn gone_back(image: &Path, snapshot: &str) -> PathBuf {
    let copy = image.with_file_name(format!("back-to-{snapshot}.qcow2"));
    fs::copy(image, &copy).unwrap();
    qemu_img(&["snapshot", "-a", snapshot], &copy);
    copy
}

/// The output of `xfer-hole map --output json ARGS IMAGE`, which must succeed.
#[track_caller]
pub fn our_map(tools: &Tools, args: &[&str], image: &Path) -> String {
    // Options for digests don't apply to a map.
    let of_digests = |at: usize| args[at].starts_with("--hash") || (at > 0 && args[at - 1] == "--hash-interval");
    let args = (0..args.len()).filter(|&at| !of_digests(at)).map(|at| args[at]);
    let outcome = run(Command::new(&tools.xfer_hole).args(["map", "--output", "json"]).args(args).arg(image), b"");
    String::from_utf8(outcome.ok().out).unwrap()
}

/// Fails unless `xfer-hole ARGS IMAGE | recv-hole` rebuilds the disk that qemu-img reads, with the same holes and
/// without messages, and both programs print the same map.
#[track_caller]
pub fn assert_as_qemu(tools: &Tools, image: &Path, args: &[&str]) {
    assert_eq!(assert_as(tools, image, args, image), "", "{} {args:?}", image.display());
}

/// Fails unless `xfer-hole ARGS IMAGE | recv-hole` rebuilds the disk that qemu-img reads in the image `reference`, with
/// the same holes. Returns the sender's messages.
#[track_caller]
pub fn assert_as(tools: &Tools, image: &Path, args: &[&str], reference: &Path) -> String {
    let (disk, dest) = (qemu_disk(reference), image.with_extension("ours"));
    let what = format!("{} {args:?}", image.display());
    let _not_there = fs::remove_file(&dest);
    let (sent, received) = send_to(tools, args, image, Receiver::Binary, &dest);
    assert_eq!(sent.code, Some(0), "{what}: {}", sent.err);
    assert_eq!((received.code, received.err.as_str()), (Some(0), ""), "{what}");
    assert_same(&disk, &dest);
    assert_holes_within(&holes_within(&disk, 4096), &holes(&dest), &what);
    let (ours, theirs) = (our_map(tools, args, image), qemu_map(reference));
    if reference == image {
        assert_eq!(merged(&ours), merged(&theirs), "{what}");
    } else {
        assert_eq!(by_tables(&ours), by_tables(&theirs), "{what}");
    }
    fs::remove_file(disk).unwrap();
    fs::remove_file(dest).unwrap();
    sent.err
}

/// Fails unless `xfer-hole ARGS IMAGE` and `xfer-hole map ARGS IMAGE` refuse the image: exit code 2, nothing on
/// standard output, and the same one-line message, which contains all of `words`, ignoring case. Returns all
/// messages, including hints.
#[track_caller]
pub fn assert_refused(tools: &Tools, image: &Path, args: &[&str], words: &[&str]) -> String {
    let ours = |command: &[&str]| {
        // The command is limited in time, since reading some of these images would never end.
        let mut guarded = Command::new("timeout");
        run(guarded.args(["-s", "KILL", "20"]).arg(&tools.xfer_hole).args(command).args(args).arg(image), b"")
    };
    let sent = ours(&[]).refused(&["xfer-hole: "]);
    let message = sent.complaints()[0].to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "\"{word}\" is not in: {}", sent.err);
    }
    let mapped = ours(&["map"]).refused(&[]);
    assert_eq!(mapped.err, sent.err, "map and send give the same reason");
    sent.err
}
