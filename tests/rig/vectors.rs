//! The test streams of `proto/vectors`, with their index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Hole, TestDisk};

/// The contents of `index.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The valid streams.
    pub good: BTreeMap<String, Good>,
    /// The invalid streams.
    pub bad: BTreeMap<String, Bad>,
}

/// The expected result of a valid stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Good {
    /// The size of the disk in bytes.
    pub size: u64,
    /// The SHA-256 of the disk, unless the disk is too large to be read.
    pub sha256: Option<String>,
    /// The expected holes on a file system with blocks of 4096 bytes.
    pub holes: Vec<Hole>,
    /// The file that the target is before the transfer.
    pub dest: Option<Dest>,
    /// The stream's dialect.
    pub dialect: Dialects,
    /// The disk's fingerprint, if the stream has one.
    pub fingerprint: Option<String>,
    /// True if recv-hole.sh accepts the stream too.
    #[serde(default = "yes")]
    pub shell_takes: bool,
}

/// The expected error for an invalid stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bad {
    /// The kind of error in `proto`, or `target`.
    pub kind: String,
    /// The number of the record.
    pub record: u64,
    /// The record's disk offset in bytes.
    pub offset: u64,
    /// The file that the target is before the transfer.
    pub dest: Option<Dest>,
    /// True if recv-hole.sh must refuse the stream too.
    pub shell_sees: bool,
    /// The stream's dialect.
    pub dialect: Dialects,
}

fn yes() -> bool {
    true
}

/// A file: `data` is start, length and value of its bytes; the rest is a hole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dest {
    size: u64,
    data: Vec<(u64, u64, u8)>,
}

impl Dest {
    /// Creates the file.
    pub fn make(&self, path: &Path) {
        TestDisk::empty(self.size).make(path);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        for &(start, len, value) in &self.data {
            let bytes = vec![value; usize::try_from(len).unwrap()];
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, start).unwrap();
        }
    }
}

/// The dialect of a stream.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dialects {
    /// Version 1.
    V1,
    /// The 2014 dialect.
    Classic,
}

impl Index {
    /// Reads the index.
    pub fn read() -> Self {
        serde_json::from_slice(&fs::read(folder().join("index.json")).unwrap()).unwrap()
    }
}

/// Reads a stream of the group `good` or `bad`.
pub fn vector(group: &str, name: &str) -> Vec<u8> {
    fs::read(folder().join(group).join(name)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/vectors")
}
