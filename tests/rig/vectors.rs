//! The streams of `proto/vectors`, with what their index says of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Hole, TestDisk};

/// What `index.json` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Streams that give a disk.
    pub good: BTreeMap<String, Good>,
    /// Streams that are refused.
    pub bad: BTreeMap<String, Bad>,
}

/// What becomes of a good stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Good {
    /// Of the disk, in bytes.
    pub size: u64,
    /// Of the disk, unless it is too large to be read.
    pub sha256: Option<String>,
    /// What must be holes where blocks have 4096 bytes.
    pub holes: Vec<Hole>,
    /// The old target.
    pub dest: Option<Dest>,
    /// Which language it is in.
    pub dialect: Dialects,
    /// Of the disk, if the stream has one.
    pub fingerprint: Option<String>,
    /// Whether the script takes it too.
    #[serde(default = "yes")]
    pub shell_takes: bool,
}

/// Why and where a bad stream is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bad {
    /// A kind of proto's errors, or `target`.
    pub kind: String,
    /// The record's number.
    pub record: u64,
    /// Where it begins on the disk.
    pub offset: u64,
    /// The old target.
    pub dest: Option<Dest>,
    /// Whether the script has to refuse it too.
    pub shell_sees: bool,
    /// Which language it is in.
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
    /// Makes the file.
    pub fn make(&self, path: &Path) {
        TestDisk::empty(self.size).make(path);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        for &(start, len, value) in &self.data {
            let bytes = vec![value; usize::try_from(len).unwrap()];
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, start).unwrap();
        }
    }
}

/// Which language a stream is in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dialects {
    /// Version 1.
    V1,
    /// The 2014 dialect.
    Classic,
}

impl Index {
    /// Reads it.
    pub fn read() -> Self {
        serde_json::from_slice(&fs::read(folder().join("index.json")).unwrap()).unwrap()
    }
}

/// A stream, `good` or `bad`, by its name.
pub fn vector(group: &str, name: &str) -> Vec<u8> {
    fs::read(folder().join(group).join(name)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/vectors")
}
