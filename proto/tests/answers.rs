//! Every vector of an answer, read and written.

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
    fn from(answer: &Reply) -> Self {
        match answer {
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

/// The line of a vector, without its LF, which is its only one.
fn line(group: &str, name: &str) -> Vec<u8> {
    let mut bytes = FOLDER.read(group, name);
    assert_eq!(bytes.pop(), Some(b'\n'), "{name}");
    assert!(!bytes.contains(&b'\n'), "{name}");
    bytes
}

#[test]
fn index_and_folders_name_the_same_answers() {
    let index = index();
    FOLDER.assert_named(&index.good, &index.bad);
}

#[test]
fn good_answers_mean_what_the_index_says_and_are_written_as_they_were_read() {
    for (name, meaning) in index().good {
        let line = line("good", &name);
        let answer = Reply::parse(&line).unwrap_or_else(|flaw| panic!("{name}: {flaw}"));
        assert_eq!(Meaning::from(&answer), meaning, "{name}");
        assert!(answer.text().as_bytes() == [&line[..], b"\n"].concat(), "{name}");
    }
}

#[test]
fn bad_answers_are_refused_with_the_kind_of_the_index_in_words_that_are_safe_to_print() {
    for (name, kind) in index().bad {
        let flaw = Reply::parse(&line("bad", &name)).expect_err(&name);
        assert_eq!(flaw.kind().word(), kind, "{name}: {flaw}");
        let said = flaw.to_string();
        assert!(said.len() <= FAIL_TEXT_MAX && said.bytes().all(|c| matches!(c, b' '..=b'~')), "{name}: {said}");
    }
}
