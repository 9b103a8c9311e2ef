//! The tools' commands by their definitions, and the files of the checkout that are made of those.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// A file of the checkout.
pub fn checkout(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Fails unless the file in the checkout is what the code makes; with UPDATE_DOCS set it becomes that.
#[track_caller]
pub fn assert_kept(file: &str, made: &str) {
    let path = checkout(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(made == kept, "{file} is not what the code makes: run UPDATE_DOCS=1 ./check tests");
}

/// The programs.
pub fn programs() -> [(&'static str, clap::Command); 2] {
    [("xfer-hole", xfer_hole::command()), ("recv-hole", recv_hole::command())]
}

/// Every command that has flags of its own: the words that call it, and its definition under its whole name.
pub fn commands() -> [(&'static [&'static str], clap::Command); 9] {
    let mut sender = xfer_hole::command();
    // So that the commands know their whole names.
    sender.build();
    let of_sender = |name: &str| {
        let command = sender.find_subcommand(name).unwrap().clone();
        let whole = format!("xfer-hole-{name}");
        command.name(whole.clone()).display_name(whole).version(env!("CARGO_PKG_VERSION"))
    };
    [
        (&["xfer-hole"], xfer_hole::command()),
        (&["xfer-hole", "map"], of_sender("map")),
        (&["xfer-hole", "info"], of_sender("info")),
        (&["xfer-hole", "fold"], of_sender("fold")),
        (&["xfer-hole", "prune"], of_sender("prune")),
        (&["xfer-hole", "manifest"], of_sender("manifest")),
        (&["xfer-hole", "digest"], of_sender("digest")),
        (&["xfer-hole", "verify"], of_sender("verify")),
        (&["recv-hole"], recv_hole::command()),
    ]
}

/// The flags of a command, as `-v` and `--verbose`: those that its user is told of, or `hidden` ones too.
pub fn flags(command: &clap::Command, hidden: bool) -> BTreeSet<String> {
    let mut command = command.clone();
    command.build();
    let seen = command.get_arguments().filter(|arg| hidden || !arg.is_hide_set());
    seen.flat_map(|arg| {
        let short = arg.get_short().map(|short| format!("-{short}"));
        [short, arg.get_long().map(|long| format!("--{long}"))].into_iter().flatten()
    })
    .collect()
}

/// The words of a text that look like flags.
pub fn flags_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with('-') && word.len() > 1).map(str::to_owned).collect()
}
