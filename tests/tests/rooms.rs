//! The rooms of the code: the order of the crates, no circle between the files of one, unsafe code in one place, short files.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rig::{checkout, rust_files};

/// Each crate's directory, and the crates of this workspace that it may depend on: those before it, in the order of ARCHITECTURE.md.
const ROOMS: [(&str, &[&str]); 10] = [
    ("proto", &[]),
    ("os", &["proto"]),
    ("image", &["proto", "os"]),
    ("pipeline", &["proto", "os", "image"]),
    ("targets", &["proto", "os"]),
    ("ui", &["os", "pipeline", "target"]),
    ("transport", &["proto", "os", "ui"]),
    ("transfer", &["proto", "os", "image", "pipeline", "target", "transport"]),
    ("sender", &["proto", "os", "image", "pipeline", "target", "ui", "transport", "transfer"]),
    ("receiver", &["proto", "os", "image", "pipeline", "target", "ui", "transport", "transfer"]),
];
/// Lines of a file at most.
const LINES: usize = 500;

/// The text without comments, and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let program = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    program.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn crates_depend_in_one_direction() {
    for (room, allowed) in ROOMS {
        let text = fs::read_to_string(checkout(room).join("Cargo.toml")).unwrap();
        let lines =
            text.lines().skip_while(|&line| line != "[dependencies]").skip(1).take_while(|line| !line.starts_with('['));
        let names = lines.filter_map(|line| line.strip_prefix("xfer-hole")?.split(['.', ' ']).next());
        let found: BTreeSet<_> = names.map(|name| name.trim_start_matches('-')).collect();
        assert_eq!(found, allowed.iter().copied().collect(), "{room}");
    }
}

/// The paths that a `use` tree names, as `a::b::c`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((prefix, group)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let mut depth = 0;
    let parts = group.strip_suffix('}').unwrap_or(group).split(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty()).flat_map(|part| expanded(&format!("{prefix}{part}"))).collect()
}

/// What a file's code names of its own crate, without `crate::`.
fn named(code: &str, module: &str) -> Vec<String> {
    let parent = module.rsplit_once("::").map_or(String::new(), |(parent, _)| format!("{parent}::"));
    let uses = code.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
    let trees = uses.flat_map(|tree| expanded(&tree.split_whitespace().collect::<String>()));
    let inline = code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
        format!("crate::{}", &rest[..end])
    });
    let paths = trees.chain(inline).filter_map(|path| match path.strip_prefix("super::") {
        Some(rest) => Some(format!("{parent}{rest}")),
        None => path.strip_prefix("crate::").map(str::to_owned),
    });
    paths.collect()
}

#[test]
fn no_circle_between_the_files_of_a_crate() {
    for (room, _) in ROOMS {
        let root = checkout(room).join("src");
        let files = rust_files(&root);
        let module = |path: &Path| {
            let path = path.strip_prefix(&root).unwrap().with_extension("");
            path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("::")
        };
        let sources: BTreeMap<_, _> = files.iter().map(|path| (module(path), code(path))).collect();
        // What lib.rs gives to others by its short name.
        let library = sources["lib"].split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
        let short: BTreeMap<_, _> = library
            .flat_map(|tree| expanded(&tree.split_whitespace().collect::<String>()))
            .filter_map(|path| path.rsplit_once("::").map(|(module, name)| (name.to_owned(), module.to_owned())))
            .collect();
        let home = |path: &str| {
            let parts: Vec<_> = path.split("::").collect();
            let by_module = (1..=parts.len()).rev().map(|len| parts[..len].join("::"));
            by_module.into_iter().find(|module| sources.contains_key(module)).or_else(|| short.get(parts[0]).cloned())
        };
        let program = |module: &str| !["lib", "main"].contains(&module) && !module.ends_with("tests");
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, code) in sources.iter().filter(|(module, _)| program(module)) {
            let uses = named(code, module).iter().filter_map(|path| home(path)).collect::<BTreeSet<_>>();
            edges.insert(module.clone(), uses.into_iter().filter(|other| other != module && program(other)).collect());
        }
        assert!(edges.values().any(|uses| !uses.is_empty()), "{room}: no file uses another");
        // A file that uses no file that is left is taken away, until none is: what stays lies on a circle, or above one.
        loop {
            let before = edges.len();
            let left: BTreeSet<_> = edges.keys().cloned().collect();
            edges.retain(|_, uses| uses.iter().any(|other| left.contains(other)));
            if edges.len() == before {
                break;
            }
        }
        assert!(edges.is_empty(), "{room}: a circle, or files above one: {edges:#?}");
    }
}

#[test]
fn unsafe_code_is_in_the_system_calls_of_os_alone() {
    for (room, _) in ROOMS {
        let files = rust_files(&checkout(room));
        for path in files.iter().filter(|path| !path.to_str().unwrap().contains("/os/src/sys")) {
            let words = code(path);
            let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(!words.any(|word| word == "unsafe"), "{}", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let folders = ["tests", "benches", "fuzz"].into_iter().chain(ROOMS.map(|(room, _)| room));
    let files: Vec<_> = folders.flat_map(|folder| rust_files(&checkout(folder))).collect();
    assert!(files.len() > 300, "{}", files.len());
    for path in files {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES, "{} has {lines} lines", path.display());
    }
}
