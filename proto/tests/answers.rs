//! Parses and writes every test vector of a reply.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod folder;

use std::collections::BTreeMap;

use folder::Folder;
use serde::Deserialize;
use xfer_hole_proto::{FAIL_TEXT_MAX, Reply};

const FOLDER: Folder = Folder("vectors/answers");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    good: BTreeMap<String, Meaning>,
    bad: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "answer", rename_all = "lowercase", deny_unknown_fields)]
enum Meaning {
    Text,
    Ready {
        words: Vec<String>,
    },
    Wait,
    Same,
    Done {
        digest: Option<String>,
    },
    Fail {
        #[serde(default)]
        kinds: Vec<String>,
        reason: String,
    },
    Note {
        reason: String,
    },
}

impl From<&Reply> for Meaning {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Text => Self::Text,
            Reply::Ready(words) => Self::Ready { words: words.clone() },
            Reply::Wait => Self::Wait,
            Reply::Same => Self::Same,
            Reply::Done(digest) => Self::Done { digest: digest.map(|digest| digest.to_string()) },
            Reply::Fail(refusal) => {
                Self::Fail { kinds: refusal.kinds().to_vec(), reason: refusal.reason().to_string() }
            }
            Reply::Note(reason) => Self::Note { reason: reason.to_string() },
        }
    }
}

fn index() -> Index {
    FOLDER.index()
}

/// The only line of a vector, without its LF.
fn line(group: &str, name: &str) -> Vec<u8> {
    let mut bytes = FOLDER.read(group, name);
    assert_eq!(bytes.pop(), Some(b'\n'), "{name}");
    assert!(!bytes.contains(&b'\n'), "{name}");
    bytes
}

#[test]
fn index_and_folders_list_the_same_replies() {
    let index = index();
    FOLDER.assert_named(&index.good, &index.bad);
}

#[test]
fn good_replies_match_the_index_and_round_trip() {
    for (name, meaning) in index().good {
        let line = line("good", &name);
        let reply = Reply::parse(&line).unwrap_or_else(|violation| panic!("{name}: {violation}"));
        assert_eq!(Meaning::from(&reply), meaning, "{name}");
        assert!(reply.text().as_bytes() == [&line[..], b"\n"].concat(), "{name}");
    }
}

#[test]
fn bad_replies_are_refused_with_the_indexed_kind() {
    for (name, kind) in index().bad {
        let violation = Reply::parse(&line("bad", &name)).expect_err(&name);
        assert_eq!(violation.kind().word(), kind, "{name}: {violation}");
        let said = violation.to_string();
        assert!(said.len() <= FAIL_TEXT_MAX && said.bytes().all(|c| matches!(c, b' '..=b'~')), "{name}: {said}");
    }
}
