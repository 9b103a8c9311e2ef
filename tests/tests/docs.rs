//! Help, man pages and README say what the programs do.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

fn checkout(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The page of section 1, from the definitions of the command line.
fn page(command: clap::Command, see_also: &str) -> String {
    let mut page = Vec::new();
    let has_commands = command.has_subcommands();
    let man = Man::new(command).section("1").manual("xfer-hole").date("");
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    if has_commands {
        man.render_subcommands_section(&mut page).unwrap();
    }
    man.render_extra_section(&mut page).unwrap();
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(see_also)]);
    roff.to_writer(&mut page).unwrap();
    // What stands behind the options is examples, and what ends the program.
    String::from_utf8(page).unwrap().replace(".SH EXTRA", ".SH EXAMPLES AND EXIT STATUS")
}

#[test]
fn man_pages_are_made_from_the_command_lines() {
    let mut sender = xfer_hole::command();
    // So that the commands know their whole names.
    sender.build();
    let of_sender = |name: &str| {
        let command = sender.find_subcommand(name).unwrap().clone();
        let whole = format!("xfer-hole-{name}");
        command.name(whole.clone()).display_name(whole).version(env!("CARGO_PKG_VERSION"))
    };
    for (name, command, see_also) in [
        ("xfer-hole", xfer_hole::command(), "recv-hole(1), xfer-hole-map(1), xfer-hole-info(1), xfer-hole-stream(7)"),
        ("xfer-hole-map", of_sender("map"), "xfer-hole(1), xfer-hole-info(1)"),
        ("xfer-hole-info", of_sender("info"), "xfer-hole(1), xfer-hole-map(1)"),
        ("recv-hole", recv_hole::command(), "xfer-hole(1), xfer-hole-stream(7)"),
    ] {
        let file = checkout(&format!("doc/{name}.1"));
        let made = page(command, see_also);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&file, &made).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert!(made == kept, "doc/{name}.1 is not what --help says: run UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn every_flag_that_the_documents_name_is_there() {
    let flags: BTreeSet<String> = [xfer_hole::command(), recv_hole::command()]
        .iter_mut()
        .flat_map(|command| {
            command.build();
            let all = [&*command].into_iter().chain(command.get_subcommands());
            let args = all.flat_map(clap::Command::get_arguments);
            args.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect::<Vec<_>>()
        })
        .collect();
    // Flags of other programs that the documents show.
    let others = ["--path", "--release", "--target", "--posix", "--emulate"];
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "proto/SPEC.md", "doc/xfer-hole-stream.7"] {
        let text = fs::read_to_string(checkout(name)).unwrap().replace("\\-", "-");
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            let named = word.len() > 4 && word.starts_with("--") && word.as_bytes()[2].is_ascii_lowercase();
            assert!(!named || flags.contains(word) || others.contains(&word), "{name} names {word}, which is no flag");
        }
    }
}

#[test]
fn the_readme_gives_the_octets_of_an_empty_disk_as_they_are() {
    let readme = fs::read_to_string(checkout("README.md")).unwrap();
    let stream = format!("XFER-HOLE 1 {0}\nHOLE {0}\nEND\n", 1_u64 << 40);
    assert!(readme.contains(&format!("1 TiB is {} octets on the wire", stream.len())));
}
