//! The completions of bash, zsh and fish are made of the command lines' definitions, and the shells complete by them.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rig::{Shell, assert_kept, checkout, commands, completion, flags, flags_named, programs, requires, run, tool};

#[test]
fn completions_are_made_from_the_command_lines() {
    for (name, command) in programs() {
        let files = [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ];
        for (shell, file) in files {
            assert_kept(&format!("completions/{file}"), &completion(shell, name, &command));
        }
    }
}

/// What bash offers behind `words`, by its own completion.
fn bash_offers(words: &[&str]) -> BTreeSet<String> {
    let script = r#"
        source "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        "$(complete -p "$1" | sed 's/.* -F \([^ ]*\) .*/\1/')" "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let file = checkout(&format!("completions/{}.bash", words[0]));
    offered(Command::new("bash").args(["--norc", "-c", script, "bash"]).arg(file).args(words))
}

/// What fish offers behind `words`.
fn fish_offers(words: &[&str]) -> BTreeSet<String> {
    let file = checkout(&format!("completions/{}.fish", words[0]));
    offered(
        Command::new("fish")
            .args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"])
            .arg(file)
            .arg(words.join(" ")),
    )
}

/// The first word of each line, in a folder without files that could be offered, too.
fn offered(command: &mut Command) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(command.current_dir(folder.path()).env("HOME", folder.path()), b"").ok();
    assert_eq!(outcome.err, "");
    let text = String::from_utf8(outcome.out).unwrap();
    text.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn bash_and_fish_offer_every_flag_of_every_command_and_nothing_else() {
    requires(&["bash", "fish"]);
    for (words, command) in commands() {
        let line = [words, &["-"]].concat();
        let flags = flags(&command, false);
        let of_bash = bash_offers(&line).into_iter().filter(|word| word.starts_with('-')).collect::<BTreeSet<_>>();
        assert_eq!(of_bash, flags, "bash: {words:?}");
        assert_eq!(fish_offers(&line), flags, "fish: {words:?}");
    }
    // A word that has begun goes on, and a flag's values are known.
    let all = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(bash_offers(&["xfer-hole", "--has"]), all(&["--hash", "--hash-interval"]));
    assert_eq!(fish_offers(&["xfer-hole", "--has"]), all(&["--hash", "--hash-interval"]));
    assert_eq!(bash_offers(&["xfer-hole", "info", "--output", ""]), all(&["human", "json"]));
    assert_eq!(fish_offers(&["xfer-hole", "info", "--output", ""]), all(&["human", "json"]));
    // An image, which is no command, changes nothing; behind a command there are only its own flags.
    assert_eq!(bash_offers(&["xfer-hole", "disk.img", "--has"]), all(&["--hash", "--hash-interval"]));
    assert_eq!(fish_offers(&["xfer-hole", "disk.img", "--has"]), all(&["--hash", "--hash-interval"]));
    assert_eq!(fish_offers(&["xfer-hole", "map", "--has"]), all(&[]));
    assert_eq!(fish_offers(&["xfer-hole", "in"]), all(&["info"]));
    assert_eq!(bash_offers(&["xfer-hole", "in"]), all(&["info"]));
    assert_eq!(bash_offers(&["recv-hole", "--max"]), all(&["--max-size"]));
}

/// The line that zsh makes of a line and a TAB behind it.
fn zsh_completes(line: &str) -> String {
    // A shell of its own on a terminal of its own. Whatever is run there says only how it was called.
    let script = r#"
        zmodload zsh/zpty
        zpty inner zsh -f -i
        zpty -w inner "PS1= PS2=; stty -echo; fpath=(${(q)1} \$fpath); autoload -U compinit; compinit -u -D"
        zpty -w inner 'xfer-hole recv-hole() { print -r -- "called:$0 $*:" }; print -r -- "set"":up"'
        zpty -r -m inner said '*set:up*'
        zpty -w -n inner "$2"$'\t\n'
        zpty -r -m inner said '*called:*:*'
        print -r -- "$said"
        zpty -d inner"#;
    let outcome =
        run(Command::new("zsh").args(["-f", "-c", script, "zsh"]).arg(checkout("completions")).arg(line), b"").ok();
    let said = String::from_utf8_lossy(&outcome.out).into_owned();
    let called = said.rsplit("called:").next().unwrap();
    called.split(':').next().unwrap().trim_end().to_owned()
}

#[test]
fn zsh_reads_its_completions_and_completes_by_them() {
    requires(&["zsh"]);
    for (words, command) in commands() {
        let file = checkout(&format!("completions/_{}", words[0]));
        drop(tool("zsh", &["-n", file.to_str().unwrap()]));
        let said = flags_named(&fs::read_to_string(file).unwrap());
        assert!(flags(&command, false).is_subset(&said), "zsh: {words:?}");
    }
    for (line, whole) in [
        ("xfer-hole --hash-i", "xfer-hole --hash-interval"),
        ("xfer-hole disk.img --hash-i", "xfer-hole disk.img --hash-interval"),
        ("xfer-hole inf", "xfer-hole info"),
        ("xfer-hole map --hash-i", "xfer-hole map --hash-i"),
        ("xfer-hole info --backing-f", "xfer-hole info --backing-format"),
        ("xfer-hole map --output j", "xfer-hole map --output json"),
        ("recv-hole --in-p", "recv-hole --in-place"),
    ] {
        assert_eq!(zsh_completes(line), whole);
    }
}
