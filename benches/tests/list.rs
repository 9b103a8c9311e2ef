//! What there is to run is named without running it.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use std::process::Command;

fn listed(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xfer-hole-bench")).arg("--list").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_list_is_of_the_cases_that_are_named_or_of_all() {
    assert_eq!(listed(&["map"]), "empty-16t-qcow2/map/tmpfs\n");
    assert_eq!(listed(&["long-raw", "growth"]), "long-raw/ssh/disk\nlong-raw/ssh/tmpfs\ngrowth\n");
    let all = listed(&[]);
    assert!(all.lines().count() > 20 && all.ends_with("/tmpfs\ngrowth\n"), "{all}");
}
