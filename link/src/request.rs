//! What is asked of the other side's shell (SPEC.md, "The request"): one command of plain words that every login shell passes on
//! as they are.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use xfer_hole_image::shown;
use xfer_hole_proto::CONVERSATION;

/// The command of sh that becomes the recv-hole that is there, or asks for the sh text and takes it from standard input. No newline, no
/// quote, and no `!` but before a space in it: csh minds. If the link stays silent meanwhile, a timer ends it, which the text puts an end
/// to, and which doesn't outlive it. Where there is no dd, it is tried again to be heard.
const TAKE: &str = r#"PATH=$PATH:/usr/sbin:/sbin; case " $* " in *" receiver=sh "*"-- "*) ;; *) recv-hole --speaks "$1" </dev/null >/dev/null 2>&1 && exec recv-hole --request "$*";; esac; (n=80; while sleep 1 && kill -0 $$; do n=$((n-1)); [ $n -gt 0 ] || kill -9 $$; done) </dev/null >/dev/null 2>&1 & w=$! ; echo XFER-HOLE-TEXT "$1"; eval "$(dd ibs=1 count=$2 2>/dev/null || echo exec dd count=0)""#;
/// The same for a sender at the other side: words are decoded, and then it is run.
const RUN: &str = r#"n=$#; while [ $n -gt 0 ]; do w=$(printf %b_ "$1"); shift; set -- "$@" "${w%_}"; n=$((n-1)); done; exec xfer-hole "$@""#;

/// True for octets that stand for themselves in a request (SPEC.md, `plain`).
#[must_use]
pub fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"/._,+:@%=-".contains(&octet)
}

/// A word as it stands in a request, without its quotes: octets of `A-Za-z0-9/._,+:@%=-` as they are, every other as `\0` and three
/// octal digits, which `printf %b` gives back.
#[must_use]
pub fn coded(word: &OsStr) -> String {
    let mut text = String::with_capacity(word.len());
    for &octet in word.as_bytes() {
        if is_plain(octet) {
            text.push(char::from(octet));
        } else {
            let _infallible = write!(text, "\\0{octet:03o}");
        }
    }
    text
}

/// A text as one word of sh.
#[must_use]
pub fn quoted_for_sh(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A word as it can be typed, for hints.
#[must_use]
pub fn shell_word(word: &OsStr) -> String {
    let text = shown(word.as_ref());
    let plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "/._,+:@%=-".contains(c));
    if plain { text } else { quoted_for_sh(&text) }
}

/// The push that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Options, such as `no-sync` and `chmod=600`.
    pub options: Vec<String>,
    /// The name of the file to make, or of a directory.
    pub dest: OsString,
    /// The name of the file in that directory.
    pub name: OsString,
}

impl Request {
    /// The command; `octets` of sh text are to follow on standard input, if they are asked for.
    #[must_use]
    pub fn command(&self, octets: usize) -> String {
        let mut command = format!("exec sh -c '{TAKE}' recv-hole {CONVERSATION} {octets}");
        for option in &self.options {
            let _infallible = write!(command, " '{}'", coded(OsStr::new(option)));
        }
        let _infallible = write!(command, " -- '{}' '{}'", coded(&self.dest), coded(&self.name));
        command
    }
}

/// The command that runs `xfer-hole` with these words at the other side.
#[must_use]
pub fn pull_command(words: &[OsString]) -> String {
    let mut command = format!("exec sh -c '{RUN}' xfer-hole");
    for word in words {
        let _infallible = write!(command, " '{}'", coded(word));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_coded_so_that_no_shell_sees_anything_in_them() {
        assert_eq!(coded(OsStr::new("/srv/a-b_c.img")), "/srv/a-b_c.img");
        assert_eq!(coded(OsStr::new("it's $x!\\\n~")), r"it\0047s\0040\0044x\0041\0134\0012\0176");
        assert_eq!(coded(OsStr::from_bytes(&[0xff, 0xc3])), r"\0377\0303");
    }

    #[test]
    fn a_request_has_one_shape() {
        let request = Request { options: vec!["no-sync".into()], dest: "a b".into(), name: "disk.img".into() };
        assert_eq!(
            request.command(17),
            format!("exec sh -c '{TAKE}' recv-hole 1 17 'no-sync' -- 'a\\0040b' 'disk.img'")
        );
    }

    #[test]
    fn commands_have_nothing_in_them_that_csh_would_change() {
        for command in [TAKE, RUN] {
            assert!(!command.replace("! ", "").contains(['\'', '!', '\n', '\\']), "{command}");
        }
    }
}
