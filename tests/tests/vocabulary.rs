//! The field's words: a private vocabulary that was given up doesn't come back, in documents, in help, or in code.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::Path;

use rig::{checkout, files_below};

/// Words that have a better one in the field: byte, layer, applier, chain opener, event loop, coalescer, input, pipe, buffer, dialect ...
const GIVEN_UP: [&str; 17] = [
    "octet", "octets", "river", "stairs", "rim", "sift", "sluice", "floor", "floors", "shelf", "tongue", "crew",
    "mouth", "ledger", "arena", "arenas", "dealer",
];
/// What is read, besides all Markdown at the top: folders, and scripts.
const PLACES: [&str; 15] = [
    "proto/src",
    "os",
    "image",
    "pipeline",
    "targets",
    "ui",
    "transport",
    "transfer",
    "sender",
    "receiver",
    "doc",
    "completions",
    "tests/rig",
    "recv-hole.sh",
    "README.md",
];

fn is_text(file: &Path) -> bool {
    let ends = ["rs", "sh", "md", "1", "7", "bash", "fish"];
    let is_text = ends.iter().any(|end| file.extension().is_some_and(|has| has == *end));
    is_text || file.ends_with("_xfer-hole") || file.ends_with("_recv-hole")
}

#[test]
fn words_that_were_given_up_do_not_come_back() {
    let places = PLACES.into_iter().chain(["ARCHITECTURE.md", "DECISIONS.md"]);
    let files = places.flat_map(|place| files_below(&checkout(place))).filter(|file| is_text(file));
    let files: Vec<_> = files.collect();
    assert!(files.len() > 200, "{}", files.len());
    let mut found = Vec::new();
    for file in files {
        // The bench measures a floor, and says so in what it writes; the grammar has a rule that RFC 5234 calls so.
        let text = fs::read_to_string(&file).unwrap().replace("OCTET", "");
        for (number, line) in text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
            for word in words.filter(|word| GIVEN_UP.contains(&word.as_str())) {
                found.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
