//! Compares SPEC.md with the crate: its example, its limits, its grammar, its kinds of error.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

#[allow(dead_code, reason = "each test takes what it needs of the model")]
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use model::{Content, encode, receive};
use xfer_hole_proto as proto;
use xfer_hole_proto::{Dialect, Fault, StreamErrorKind};

/// ABNF rules that RFC 5234 defines.
const CORE_RULES: [&str; 5] = ["ALPHA", "DIGIT", "LF", "OCTET", "SP"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn spec() -> String {
    fs::read_to_string(path("SPEC.md")).unwrap()
}

/// The manual page in section 7, if the tests run in a checkout. The package of this crate doesn't contain it.
fn man_page() -> Option<String> {
    let page = path("../doc/xfer-hole-stream.7");
    page.exists().then(|| fs::read_to_string(page).unwrap())
}

/// The content of the code fence with this name.
fn fenced<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{name}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

/// The grammar of the stream, of the manifest, of the replies and of the request.
fn grammars(spec: &str) -> Vec<&str> {
    spec.split("```abnf\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The rows of the table under this heading, without back quotes.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let section = rest.split("\n#").next().unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    section.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

/// The text of the literal blocks of a man page.
fn literal_blocks(page: &str) -> Vec<String> {
    let plain = |block: &str| block.replace("\\-", "-").replace("\\e", "\\");
    let blocks = page.split(".Bd -literal\n").skip(1);
    blocks.map(|rest| plain(rest.split_once(".Ed\n").unwrap().0)).collect()
}

#[test]
fn example_in_the_spec_decodes_and_encodes() {
    let spec = spec();
    let example = fenced(&spec, "stream");
    let received = receive(example.as_bytes(), Dialect::V1, || 1).unwrap();
    let text = b"Hello, disk.\n".to_vec();
    assert_eq!(received.disk(), (1048589, &[(0..1048576, Content::Hole), (1048576..1048589, Content::Data(text))][..]));
    assert_eq!(encode(&received.frames, Dialect::V1).unwrap(), example.as_bytes());
    let fingerprint = received.fingerprint.unwrap().to_string();
    assert!(spec.contains(&format!("`{fingerprint}`")), "{fingerprint}");
}

#[test]
fn example_manifest_matches_the_example_stream() {
    let spec = spec();
    let text = fenced(&spec, "text");
    let (first, rest) = text.split_once('\n').unwrap();
    let mut reader = proto::ManifestReader::new(proto::ManifestHeader::parse(first.as_bytes()).unwrap());
    rest.lines().for_each(|line| drop(reader.line(line.as_bytes()).unwrap()));
    reader.finish().unwrap();
    let received = receive(fenced(&spec, "stream").as_bytes(), Dialect::V1, || usize::MAX).unwrap();
    assert_eq!(reader.fingerprint(), received.fingerprint);
    assert_eq!(reader.at(), received.size());
}

#[test]
fn limits_table_matches_the_crate() {
    let limits: BTreeMap<&str, u64> = [
        ("LEN_MAX", proto::LEN_MAX),
        ("LINE_MAX", proto::LINE_MAX as u64),
        ("FAIL_LINE_MAX", proto::FAIL_LINE_MAX as u64),
        ("FAIL_TEXT_MAX", proto::FAIL_TEXT_MAX as u64),
        ("INTERVAL_MIN", proto::INTERVAL_MIN),
        ("INTERVAL_MAX", proto::INTERVAL_MAX),
        ("INTERVAL_DEFAULT", proto::INTERVAL_DEFAULT),
        ("GRAIN_MIN", proto::GRAIN_MIN),
        ("GRAIN_DEFAULT", proto::GRAIN_DEFAULT),
        ("WAIT_SECONDS", proto::WAIT_SECONDS),
        ("SILENCE_SECONDS", proto::SILENCE_SECONDS),
        ("ANSWER_LINE_MAX", proto::ANSWER_LINE_MAX as u64),
        ("NOISE_MAX", proto::NOISE_MAX as u64),
    ]
    .into();
    let spec = spec();
    let table = rows(&spec, "## Limits");
    let said: BTreeMap<&str, u64> = table.iter().map(|row| (row[0].as_str(), row[1].parse().unwrap())).collect();
    assert_eq!(said, limits);
    assert_eq!(table.len(), limits.len(), "a limit is said twice");
}

#[test]
fn error_table_matches_the_crate() {
    let kinds = [
        StreamErrorKind::NotAStream,
        StreamErrorKind::Version,
        StreamErrorKind::Line,
        StreamErrorKind::TooLong,
        StreamErrorKind::Number,
        StreamErrorKind::Sums,
        StreamErrorKind::Order,
        StreamErrorKind::Coverage,
        StreamErrorKind::Form,
        StreamErrorKind::Keep,
        StreamErrorKind::Mismatch,
        StreamErrorKind::Cut,
        StreamErrorKind::Trailing,
        StreamErrorKind::Fail,
        StreamErrorKind::Io,
    ];
    let fault = |kind: StreamErrorKind| match kind.fault() {
        Fault::Sender => "sender",
        Fault::Link => "link",
        Fault::Source => "source",
    };
    let said: Vec<(String, String)> =
        rows(&spec(), "## How errors are placed").into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    assert_eq!(said, kinds.map(|kind| (kind.word().to_owned(), fault(kind).to_owned())));
}

#[test]
fn grammar_rules_are_defined_once_and_used() {
    let spec = spec();
    let (mut defined, mut used) = (BTreeSet::new(), BTreeSet::new());
    // A line that begins with a space continues the rule before it.
    let grammar = grammars(&spec).concat().replace("\n ", " ");
    for line in grammar.lines() {
        let (name, rest) = line.split_once('=').unwrap();
        assert!(defined.insert(name.trim()), "{name} is defined twice");
        // A split at quotes puts quoted text at odd indexes. A comment extends to the end of the line.
        let rule: String = rest.split(';').next().unwrap().split('"').step_by(2).collect();
        let words = rule.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '^')));
        let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
        used.extend(names.map(str::to_owned));
    }
    for name in &used {
        assert!(defined.contains(name.as_str()) || CORE_RULES.contains(&name.as_str()), "{name} is not defined");
    }
    // A rule that no other rule uses is a start symbol.
    let starts: Vec<&str> = defined.into_iter().filter(|name| !used.contains(*name)).collect();
    assert_eq!(starts, ["answers", "asked", "classic", "fingerprint", "request"]);
}

#[test]
fn man_page_has_the_grammar_and_example_of_the_spec() {
    let Some(page) = man_page() else { return };
    let spec = spec();
    let [stream, manifest, answers, request] = grammars(&spec)[..] else { panic!("four grammars") };
    assert_eq!(literal_blocks(&page), [stream, answers, request, manifest, fenced(&spec, "stream")]);
}
