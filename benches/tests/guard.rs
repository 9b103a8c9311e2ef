//! The guard itself: what it says of a case that is as it was, and of one that does more.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::path::Path;
use std::process::Command;

/// Runs the guard on figures of its own: whether it is green, and what it says.
fn guard(figures: &Path, words: &str) -> (bool, String) {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_guard"));
    let (word, rest) = words.split_once(' ').unwrap();
    let output = guard.arg(word).arg("--figures").arg(figures).args(rest.split(' ')).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    assert!(matches!(output.status.code(), Some(0 | 2)), "{said}");
    (output.status.success(), said)
}

#[test]
fn a_case_that_does_a_fifth_more_than_its_figure_is_red_and_so_is_one_that_does_a_fifth_less() {
    let folder = tempfile::tempdir().unwrap();
    let (as_is, slowed) = (folder.path().join("as-is"), folder.path().join("slowed"));
    assert!(guard(&as_is, "update codec").0);
    let (green, said) = guard(&as_is, "check codec");
    assert!(green && said.contains(" expected: 0.0 % "), "{said}");
    let (green, said) = guard(&as_is, "check codec --slow 20");
    assert!(!green && said.contains(" expected: 20.") && said.contains(" % more\n"), "{said}");
    assert!(guard(&slowed, "update codec --slow 20").0);
    let (green, said) = guard(&slowed, "check codec");
    assert!(!green && said.contains(" expected: 16.") && said.contains(" % fewer\n"), "{said}");
    assert!(said.ends_with("\nif that is meant, renew the figures: cargo guard update\n"), "{said}");
}

#[test]
fn a_case_without_a_figure_is_red() {
    let folder = tempfile::tempdir().unwrap();
    let figures = folder.path().join("figures");
    let (green, said) = guard(&figures, "check codec");
    assert!(!green && said.contains("No such file"), "{said}");
    std::fs::write(&figures, "# nothing\n").unwrap();
    let (green, said) = guard(&figures, "check codec");
    assert!(!green && said.contains(" instructions, no figure for "), "{said}");
}
