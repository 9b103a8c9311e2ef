//! Help, man pages, README and doc/*.md say what the programs do.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

mod page;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use page::PAGES;
use rig::{RECIPE_DOCUMENTS, assert_kept, checkout, commands, flags, flags_named, run, rust_files, script, tools};
use xfer_hole_bench::picture;
use xfer_hole_bench::speed::{self, Speed};

#[test]
fn man_pages_are_made_from_the_command_lines() {
    for ((words, command), page) in commands().into_iter().zip(PAGES) {
        assert_eq!(words, page.words);
        assert_kept(&format!("doc/{}.1", words.join("-")), &page.text(command));
    }
}

#[test]
fn every_man_page_has_the_usual_sections() {
    let pages = fs::read_dir(checkout("doc")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = pages.filter(|page| page.extension().is_some_and(|section| section == "1")).collect();
    assert!(pages.len() >= PAGES.len());
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for section in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
        {
            let heading = |line: &str| line.strip_prefix(".SH ").is_some_and(|name| name.trim_matches('"') == section);
            assert!(text.lines().any(heading), "{} has no {section}", page.display());
        }
    }
}

/// The variables that a file of the sources reads, by the calls that read them.
fn variables_read(text: &str) -> Vec<String> {
    let calls = ["var_os(\"", "env::var(\"", "absolute(\""];
    let constant = text.split("const COMMAND: &str = \"").nth(1).map(|rest| rest.split('"').next().unwrap());
    let named = calls.iter().flat_map(|call| text.split(call).skip(1)).map(|rest| rest.split('"').next().unwrap());
    named.chain(constant).map(str::to_owned).collect()
}

#[test]
fn every_variable_that_is_read_is_documented_and_no_other() {
    let folders = [
        "sender/src",
        "receiver/src",
        "ui/src",
        "transport/src",
        "transfer/src",
        "targets/src",
        "pipeline/src",
        "image/src",
        "os/src",
    ];
    let files = folders.iter().flat_map(|folder| rust_files(&checkout(folder)));
    // What stands behind the tests of a file is not the program.
    let program = |file: PathBuf| fs::read_to_string(file).unwrap().split("#[cfg(test)]").next().unwrap().to_owned();
    let mut read: BTreeSet<String> = files.flat_map(|file| variables_read(&program(file))).collect();
    assert!(read.contains("TMPDIR") && read.contains("SSH_ORIGINAL_COMMAND"), "{read:?}");
    // The library that writes help reads it.
    read.insert("NO_COLOR".to_owned());
    let names = PAGES.iter().flat_map(|page| page.environment).flat_map(|(names, _)| names.split(", "));
    let said: BTreeSet<String> = names.chain(["NO_COLOR"]).map(str::to_owned).collect();
    assert_eq!(said, read);
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
fn the_script_has_a_page_of_its_own_with_all_its_options() {
    let help = run(Command::new("sh").arg(script()).arg("--help"), b"").ok().out;
    let said = flags_named(&String::from_utf8(help).unwrap());
    assert!(said.len() >= 8, "{said:?}");
    let page = fs::read_to_string(checkout("doc/recv-hole.sh.1")).unwrap();
    let plain = ["\\fB", "\\fI", "\\fR"].iter().fold(page.replace("\\-", "-"), |text, font| text.replace(font, " "));
    assert!(said.is_subset(&flags_named(&plain)), "the page lacks {:?}", said.difference(&flags_named(&plain)));
    for section in ["DESCRIPTION", "OPTIONS", "FILES", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES"] {
        assert!(page.contains(&format!("\n.SH {section}\n")), "{section}");
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
        "--skip-hash",
        "--fsync",
    ];
    let mut documents: Vec<PathBuf> = ["ARCHITECTURE.md", "CHANGELOG.md", "proto/SPEC.md"].map(checkout).to_vec();
    documents.extend(guides().into_iter().map(|name| checkout(&name)));
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
fn the_readme_gives_the_bytes_of_an_empty_disk_as_they_are() {
    let readme = fs::read_to_string(checkout("README.md")).unwrap();
    let stream = format!("XFER-HOLE 1 {0}\nHOLE {0}\nEND\n", 1_u64 << 40);
    assert!(readme.contains(&format!("1 TiB is {} bytes on the wire", stream.len())));
}

/// README.md and doc/*.md, from the checkout.
fn guides() -> Vec<String> {
    let doc = fs::read_dir(checkout("doc")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = doc.filter(|name| name.ends_with(".md")).map(|name| format!("doc/{name}")).collect();
    names.push("README.md".to_owned());
    names
}

#[test]
fn every_document_with_recipes_has_them_run() {
    for name in guides() {
        let recipes = fs::read_to_string(checkout(&name)).unwrap().contains("```sh recipe\n");
        assert_eq!(recipes, RECIPE_DOCUMENTS.contains(&&*name), "{name}");
    }
}

/// The anchor that a heading of Markdown gets.
fn anchor(heading: &str) -> String {
    let words = heading.to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for name in guides() {
        let path = checkout(&name);
        let text = fs::read_to_string(&path).unwrap();
        let links: Vec<_> = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
        assert!(!links.is_empty() || !text.contains("]("), "{name}");
        for link in links {
            assert!(!link.contains("://"), "{name}: {link}: documents link to files only");
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{name}: {link}");
            if let Some(heading) = heading {
                let there = fs::read_to_string(&file).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                let there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
                assert!(there, "{name}: {link}");
            }
        }
    }
}

#[test]
fn pictures_are_those_that_are_drawn() {
    let figures = speed::parse(&fs::read_to_string(checkout("BENCHMARKS.md")).unwrap());
    assert_eq!(figures.len(), 11);
    assert_kept("doc/speed.svg", &speed::draw(&figures));
    assert_kept("doc/what-is-sent.svg", &picture::draw());
}

#[test]
fn the_table_in_the_readme_has_the_figures_of_the_benchmarks() {
    let readme = fs::read_to_string(checkout("README.md")).unwrap();
    let figures = speed::parse(&fs::read_to_string(checkout("BENCHMARKS.md")).unwrap());
    for Speed { about, pipe, copy, peer } in figures {
        let [pipe, copy] = [pipe, copy].map(Option::unwrap);
        let (name, best) = peer;
        let line = format!(
            "\n| {about} | {} | {} | {}, {name} | {} × | {} × |\n",
            pipe.median, copy.median, best.median, pipe.ratio, copy.ratio
        );
        assert!(readme.contains(&line), "{line}");
    }
}
