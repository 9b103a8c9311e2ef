//! Help, man pages and README say what the programs do.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use rig::{assert_kept, checkout, commands, flags, flags_named, run, tools};

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
    let see_also = [
        "recv-hole(1), xfer-hole-map(1), xfer-hole-info(1), xfer-hole-manifest(1), xfer-hole-digest(1), xfer-hole-verify(1), xfer-hole-fold(1), xfer-hole-prune(1), xfer-hole-progress(7), xfer-hole-restrict(7), xfer-hole-stream(7)",
        "xfer-hole(1), xfer-hole-info(1)",
        "xfer-hole(1), xfer-hole-map(1)",
        "xfer-hole(1), xfer-hole-prune(1), xfer-hole-progress(7)",
        "xfer-hole(1), xfer-hole-fold(1), xfer-hole-progress(7)",
        "xfer-hole(1), recv-hole(1), xfer-hole-digest(1), xfer-hole-verify(1), xfer-hole-stream(7)",
        "xfer-hole(1), xfer-hole-manifest(1), xfer-hole-stream(7)",
        "xfer-hole(1), recv-hole(1), xfer-hole-manifest(1), xfer-hole-stream(7)",
        "xfer-hole(1), xfer-hole-progress(7), xfer-hole-restrict(7), xfer-hole-stream(7)",
    ];
    for ((words, command), see_also) in commands().into_iter().zip(see_also) {
        assert_kept(&format!("doc/{}.1", words.join("-")), &page(command, see_also));
    }
}

#[test]
fn every_flag_is_in_help_and_man_page() {
    for (words, command) in commands() {
        let expected = flags(&command, false);
        let program = if words[0] == "xfer-hole" { tools!().xfer_hole } else { tools!().recv_hole };
        for help in ["-h", "--help"] {
            let said = run(Command::new(&program).args(&words[1..]).arg(help), b"").ok().out;
            let said = flags_named(&String::from_utf8(said).unwrap());
            assert!(expected.is_subset(&said), "{words:?} {help} lacks {:?}", expected.difference(&said));
        }
        let page = fs::read_to_string(checkout(&format!("doc/{}.1", words.join("-")))).unwrap();
        let plain =
            ["\\fB", "\\fI", "\\fR"].iter().fold(page.replace("\\-", "-"), |text, font| text.replace(font, " "));
        let said = flags_named(&plain);
        assert!(expected.is_subset(&said), "{words:?}(1) lacks {:?}", expected.difference(&said));
    }
}

#[test]
fn every_flag_that_the_documents_name_is_there() {
    // Those that no help shows may be named, too: they are for programs.
    let flags: BTreeSet<String> = commands().iter().flat_map(|(_, command)| flags(command, true)).collect();
    // Flags of other programs that the documents show.
    let others = [
        "--path",
        "--release",
        "--target",
        "--posix",
        "--emulate",
        "--sparse",
        "--list",
        "--inplace",
        "--no-whole-file",
    ];
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "proto/SPEC.md"].map(checkout).to_vec();
    let pages = fs::read_dir(checkout("doc")).unwrap().map(|entry| entry.unwrap().path());
    documents.extend(pages.filter(|page| page.extension().is_some_and(|section| section == "7")));
    assert!(documents.len() > 4, "pages of section 7");
    for name in documents {
        // Fl is how mdoc names a flag, and adds its first dash.
        let text = fs::read_to_string(&name).unwrap().replace("\\-", "-").replace("Fl -", "--");
        for word in flags_named(&text) {
            let long = word.len() > 4 && word.starts_with("--") && word.as_bytes()[2].is_ascii_lowercase();
            let known = flags.contains(&word) || others.contains(&&*word);
            assert!(!long || known, "{} names {word}, which is no flag", name.display());
        }
    }
}

#[test]
fn the_readme_gives_the_octets_of_an_empty_disk_as_they_are() {
    let readme = fs::read_to_string(checkout("README.md")).unwrap();
    let stream = format!("XFER-HOLE 1 {0}\nHOLE {0}\nEND\n", 1_u64 << 40);
    assert!(readme.contains(&format!("1 TiB is {} octets on the wire", stream.len())));
}
