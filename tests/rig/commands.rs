//! The tools' command definitions, and the files of the repository that are generated from them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a file in the repository.
pub fn checkout(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// All files below a directory of the repository, without what cargo builds; the file itself, if it is one.
pub fn files_below(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|entry| !entry.ends_with("target")).flat_map(|entry| files_below(&entry)).collect()
}

/// All Rust files below a directory of the repository.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files_below(folder).into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs")).collect()
}

/// Fails unless the file in the repository equals `made`. With UPDATE_DOCS set, the file is written first.
#[track_caller]
pub fn assert_kept(file: &str, made: &str) {
    let path = checkout(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(made == kept, "{file} is not what the code makes: run UPDATE_DOCS=1 ./check tests");
}

/// The programs with their command definitions.
pub fn programs() -> [(&'static str, clap::Command); 2] {
    [("xfer-hole", xfer_hole::command()), ("recv-hole", recv_hole::command())]
}

/// All commands with options of their own: the words that call them, and the definition under the full name.
pub fn commands() -> [(&'static [&'static str], clap::Command); 9] {
    let mut sender = xfer_hole::command();
    // Building sets the full names of the subcommands.
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

/// The options of a command, such as `-v` and `--verbose`; with `hidden`, hidden ones too.
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

/// The words of a text that look like options.
pub fn flags_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with('-') && word.len() > 1).map(str::to_owned).collect()
}
