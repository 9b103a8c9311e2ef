//! Decodes every test vector: whole, byte by byte, and in pieces of irregular length.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod folder;
#[allow(dead_code, reason = "each test takes what it needs of the model")]
mod model;

use std::collections::BTreeMap;

use folder::Folder;
use model::{Content, Received, encode, ragged, receive};
use serde::Deserialize;
use xfer_hole_proto::{Dialect, Hasher, StreamError};

const FOLDER: Folder = Folder("vectors");
/// Resulting files up to this size have their SHA-256 in the index.
const HASHED_MAX: u64 = 64 << 20;
/// Holes are searched at multiples of this number of bytes.
const BLOCK: u64 = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    good: BTreeMap<String, Good>,
    bad: BTreeMap<String, Bad>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Good {
    size: u64,
    sha256: Option<String>,
    holes: Vec<(u64, u64)>,
    dest: Option<Dest>,
    dialect: Dialects,
    fingerprint: Option<String>,
    /// Whether recv-hole.sh accepts the stream. The tests of the script use it.
    #[serde(default, rename = "shell_takes")]
    _shell_takes: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bad {
    kind: String,
    record: u64,
    offset: u64,
    dest: Option<Dest>,
    shell_sees: bool,
    dialect: Dialects,
}

/// A file: `data` is start, length and value of its bytes; the rest is a hole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dest {
    size: u64,
    data: Vec<(u64, u64, u8)>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Dialects {
    V1,
    Classic,
}

impl From<Dialects> for Dialect {
    fn from(dialect: Dialects) -> Self {
        match dialect {
            Dialects::V1 => Self::V1,
            Dialects::Classic => Self::Classic,
        }
    }
}

fn index() -> Index {
    FOLDER.index()
}

/// The result of decoding the stream. It must not depend on how the bytes are split.
fn decoded(bytes: &[u8], dialect: Dialect) -> Result<Received, StreamError> {
    let whole = receive(bytes, dialect, || usize::MAX);
    let mut others = vec![receive(bytes, dialect, || 1)];
    others.extend((1..=8).map(|seed| receive(bytes, dialect, ragged(seed, 1 << (2 * seed)))));
    for other in others {
        match (&whole, &other) {
            (Ok(one), Ok(other)) => {
                assert_eq!(one.frames, other.frames);
                assert_eq!(one.fingerprint, other.fingerprint);
            }
            (Err(one), Err(other)) => {
                let place = |error: &StreamError| (error.kind(), error.record(), error.offset());
                assert_eq!(place(one), place(other), "{one} / {other}");
            }
            _ => panic!("accepted or refused by how it is cut: {whole:?} / {other:?}"),
        }
    }
    whole
}

/// The resulting file's bytes, piece by piece.
fn content(received: &Received, dest: Option<&Dest>, mut each: impl FnMut(&[u8])) {
    let old = |range: &std::ops::Range<u64>| {
        let dest = dest.expect("KEEP without a dest");
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        for &(start, len, value) in &dest.data {
            for at in start.max(range.start)..(start + len).min(range.end) {
                bytes[usize::try_from(at - range.start).unwrap()] = value;
            }
        }
        bytes
    };
    for (range, what) in &received.parts {
        match what {
            Content::Data(payload) => each(payload),
            Content::Hole => each(&vec![0; usize::try_from(range.end - range.start).unwrap()]),
            Content::Keep => each(&old(range)),
        }
    }
}

/// The expected holes of the resulting file: whole blocks, and a last one up to the end of the file.
fn holes(received: &Received, dest: Option<&Dest>) -> Vec<(u64, u64)> {
    let mut bare: Vec<(u64, u64)> = Vec::new();
    let mut add = |start: u64, end: u64| match bare.last_mut() {
        _ if start >= end => {}
        Some(last) if last.1 == start => last.1 = end,
        _ => bare.push((start, end)),
    };
    for (range, what) in &received.parts {
        match what {
            Content::Data(_) => {}
            Content::Hole => add(range.start, range.end),
            Content::Keep => {
                let mut at = range.start;
                for &(start, len, _) in &dest.expect("KEEP without a dest").data {
                    add(at, start.min(range.end));
                    at = at.max(start + len);
                }
                add(at, range.end);
            }
        }
    }
    let size = received.size();
    let whole_blocks = |(start, end): (u64, u64)| {
        let start = start.next_multiple_of(BLOCK);
        let end = if end == size { size } else { end / BLOCK * BLOCK };
        (start < end).then(|| (start, end - start))
    };
    bare.into_iter().filter_map(whole_blocks).collect()
}

#[test]
fn index_and_folders_list_the_same_streams() {
    let index = index();
    FOLDER.assert_named(&index.good, &index.bad);
    assert!(index.good.len() >= 15, "{} good", index.good.len());
    assert!(index.bad.len() >= 45, "{} bad", index.bad.len());
}

#[test]
fn test_streams_are_small() {
    let index = index();
    let good = index.good.keys().map(|name| ("good", name));
    for (group, name) in good.chain(index.bad.keys().map(|name| ("bad", name))) {
        assert!(FOLDER.read(group, name).len() <= 300 << 10, "{name}");
    }
}

#[test]
fn good_streams_decode_to_the_indexed_disk() {
    for (name, good) in index().good {
        let bytes = FOLDER.read("good", &name);
        let received = decoded(&bytes, good.dialect.into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(received.size(), good.size, "{name}");
        assert_eq!(holes(&received, good.dest.as_ref()), good.holes, "{name}");
        assert_eq!(received.fingerprint.map(|it| it.to_string()), good.fingerprint, "{name}");
        assert_eq!(good.sha256.is_some(), good.size <= HASHED_MAX, "{name}");
        if let Some(sha256) = good.sha256 {
            let mut hasher = Hasher::default();
            content(&received, good.dest.as_ref(), |bytes| hasher.update(bytes));
            assert_eq!(hasher.digest().to_string(), sha256, "{name}");
        }
        if let Some(base) = received.base {
            assert!(good.dest.is_some_and(|dest| dest.size >= base.size), "{name}: BASE without such a dest");
        }
    }
}

#[test]
fn good_streams_round_trip() {
    for (name, good) in index().good {
        let bytes = FOLDER.read("good", &name);
        let received = receive(&bytes, good.dialect.into(), || usize::MAX).unwrap();
        assert!(encode(&received.frames, good.dialect.into()).unwrap() == bytes, "{name}");
    }
}

#[test]
fn bad_streams_are_refused_at_the_indexed_position() {
    for (name, bad) in index().bad.into_iter().filter(|(_, bad)| bad.kind != "target") {
        let bytes = FOLDER.read("bad", &name);
        let error = decoded(&bytes, bad.dialect.into()).expect_err(&name);
        let found = (error.kind().word(), error.record(), error.offset());
        assert_eq!(found, (bad.kind.as_str(), bad.record, bad.offset), "{name}: {error}");
    }
}

#[test]
fn streams_refused_by_the_target_decode_completely() {
    for (name, bad) in index().bad.into_iter().filter(|(_, bad)| bad.kind == "target") {
        let bytes = FOLDER.read("bad", &name);
        let received = decoded(&bytes, bad.dialect.into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let base = received.base.unwrap_or_else(|| panic!("{name}: no BASE"));
        // The target must be larger than the file, or have other content.
        assert!(bad.dest.is_none_or(|dest| dest.size < base.size || base.digest.is_some()), "{name}");
        assert_eq!((bad.record, bad.offset), (0, 0), "{name}");
    }
}

#[test]
fn shell_may_miss_only_nuls_and_endless_lines() {
    for (name, _) in index().bad.into_iter().filter(|(_, bad)| !bad.shell_sees) {
        let bytes = FOLDER.read("bad", &name);
        let endless = bytes.rsplit(|&byte| byte == b'\n').next().unwrap().len() > 1024;
        assert!(bytes.contains(&0) || endless, "{name}");
    }
}
