//! What is asked of the other side's shell (SPEC.md, "The request"): one command of plain words that every login shell passes on
//! as they are.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use xfer_hole_os::shown;
use xfer_hole_proto::CONVERSATION;

/// Where a program is looked for besides PATH, which sshd and a login shell that reads no profile leave short.
const PATHS: &str = "PATH=$PATH:$HOME/.cargo/bin:$HOME/.local/bin:/usr/local/bin:/usr/sbin:/sbin; ";
/// Enters the home directory. Where HOME isn't set, a login begins there.
const HOME: &str = r#"cd "${HOME:-.}" 2>/dev/null || exec echo "FAIL there is no home directory: $HOME"; "#;
/// The command of sh that becomes the recv-hole `$p` that is there, or asks for the sh text and takes it from standard input. No newline,
/// no quote, and no `!` but before a space in it: csh minds. If the link stays silent meanwhile, a timer ends it, which the text puts an
/// end to, and which doesn't outlive it. Where there is no dd, it is tried again to be heard.
const TAKE: &str = r#"case " $* " in *" receiver=sh "*"-- "*) ;; *) "$p" --speaks "$1" </dev/null >/dev/null 2>&1 && exec "$p" --request "$*"; ELSE esac; (n=80; while sleep 1 && kill -0 $$; do n=$((n-1)); [ $n -gt 0 ] || kill -9 $$; done) </dev/null >/dev/null 2>&1 & w=$! ; echo XFER-HOLE-TEXT "$1"; eval "$(dd ibs=1 count=$2 2>/dev/null || echo exec dd count=0)""#;
/// What TAKE does for ELSE where the user has named the program.
const NAMED: &str = "exec echo FAIL no recv-hole that speaks this version was found by --remote-path;";
/// The same for a sender at the other side: words are decoded, and then it is run.
const RUN: &str = r#"n=$#; while [ $n -gt 0 ]; do w=$(printf %b_ "$1"); shift; set -- "$@" "${w%_}"; n=$((n-1)); done; exec "$p" "$@""#;

/// What stands ahead of TAKE and RUN: makes `p` the program, and enters the directory that names are relative to.
fn prologue(program: &str, remote_path: Option<&OsStr>, in_home: bool) -> String {
    let mut text = PATHS.to_owned();
    let _infallible = match remote_path.map(OsStr::as_bytes) {
        None => write!(text, "p={program}; "),
        Some(path) => {
            let (home, path) = path.strip_prefix(b"~/").map_or(("", path), |rest| ("$HOME/", rest));
            write!(text, r#"p=$(printf %b_ "{}"); p={home}${{p%_}}; "#, coded(OsStr::from_bytes(path)))
        }
    };
    if in_home {
        text.push_str(HOME);
    }
    text
}

/// True for bytes that stand for themselves in a request (SPEC.md, `plain`).
#[must_use]
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._,+:@%=-".contains(&byte)
}

/// A word as it stands in a request, without its quotes: bytes of `A-Za-z0-9/._,+:@%=-` as they are, every other as `\0` and three
/// octal digits, which `printf %b` gives back.
#[must_use]
pub fn coded(word: &OsStr) -> String {
    let mut text = String::with_capacity(word.len());
    for &byte in word.as_bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            let _infallible = write!(text, "\\0{byte:03o}");
        }
    }
    text
}

/// The longest request, in bytes.
pub const REQUEST_MAX: usize = 64 << 10;
/// Why a word is refused.
pub const NOT_CODED: &str = "a word of it is not coded as it has to be";

/// A word without its quotes.
#[must_use]
pub fn unquoted(word: &[u8]) -> Option<&[u8]> {
    word.strip_prefix(b"'")?.strip_suffix(b"'")
}

/// The bytes of a coded word. There is one way to code them; none of them is NUL, and there is at least one.
pub fn decoded(word: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut left = word;
    while let Some((&first, rest)) = left.split_first() {
        if is_plain(first) {
            bytes.push(first);
            left = rest;
            continue;
        }
        let (code, rest) = rest.split_at_checked(4).filter(|_| first == b'\\').ok_or(NOT_CODED)?;
        let octal = code[0] == b'0' && code.iter().all(|digit| (b'0'..=b'7').contains(digit));
        let value = code.iter().fold(0, |value, digit| value * 8 + u32::from(digit.wrapping_sub(b'0')));
        let byte = u8::try_from(value).ok().filter(|&byte| octal && byte != 0 && !is_plain(byte));
        bytes.push(byte.ok_or(NOT_CODED)?);
        left = rest;
    }
    if bytes.is_empty() { Err(NOT_CODED) } else { Ok(bytes) }
}

/// True if a command is the request of a push, as far as its beginning tells.
#[must_use]
pub fn is_push(command: &[u8]) -> bool {
    let rest = command.strip_prefix(b"exec sh -c '").unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'\'').unwrap_or_default();
    rest[end..].starts_with(b"' recv-hole ")
}

/// The words of xfer-hole that [`pull_command`] has made a command of. Whatever isn't exactly one is refused.
pub fn pull_words(command: &[u8]) -> Result<Vec<OsString>, &'static str> {
    const NOT_ONE: &str = "it is no pull";
    if command.len() > REQUEST_MAX {
        return Err("it is too long");
    }
    let rest = command.strip_prefix(b"exec sh -c '").ok_or(NOT_ONE)?;
    let end = rest.iter().position(|&byte| byte == b'\'').ok_or(NOT_ONE)?;
    let rest = rest[end..].strip_prefix(b"' xfer-hole ").ok_or(NOT_ONE)?;
    let words = rest.split(|&byte| byte == b' ').map(|word| unquoted(word).ok_or(NOT_CODED).and_then(decoded));
    words.map(|word| word.map(OsString::from_vec)).collect()
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushRequest {
    /// The recv-hole there, if it isn't to be looked for; `~/` is the home directory.
    pub remote_path: Option<OsString>,
    /// The name is relative to the home directory, wherever a login begins.
    pub in_home: bool,
    /// Options, such as `no-sync` and `chmod=600`.
    pub options: Vec<String>,
    /// The name of the file to make, or of a directory.
    pub dest: OsString,
    /// The name of the file in that directory.
    pub name: OsString,
}

impl PushRequest {
    /// The command; `bytes` of sh text are to follow on standard input, if they are asked for.
    #[must_use]
    pub fn command(&self, bytes: usize) -> String {
        let prologue = prologue("recv-hole", self.remote_path.as_deref(), self.in_home);
        let take = TAKE.replace("ELSE ", if self.remote_path.is_some() { NAMED } else { "" });
        let mut command = format!("exec sh -c '{prologue}{take}' recv-hole {CONVERSATION} {bytes}");
        for option in &self.options {
            let _infallible = write!(command, " '{}'", coded(OsStr::new(option)));
        }
        let _infallible = write!(command, " -- '{}' '{}'", coded(&self.dest), coded(&self.name));
        command
    }
}

/// The command that runs `xfer-hole` with these words at the other side. `remote_path` and `in_home` are as in a [`PushRequest`].
#[must_use]
pub fn pull_command(remote_path: Option<&OsStr>, in_home: bool, words: &[OsString]) -> String {
    let prologue = prologue("xfer-hole", remote_path, in_home);
    let mut command = format!("exec sh -c '{prologue}{RUN}' xfer-hole");
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
        let options = vec!["no-sync".into()];
        let request = PushRequest { options, dest: "a b".into(), name: "disk.img".into(), ..PushRequest::default() };
        let command = request.command(17);
        let (script, words) = command.strip_prefix("exec sh -c '").unwrap().split_once('\'').unwrap();
        assert_eq!(words, " recv-hole 1 17 'no-sync' -- 'a\\0040b' 'disk.img'");
        assert!(script.contains("p=recv-hole; ") && !script.contains("cd "), "{script}");
    }

    #[test]
    fn commands_have_nothing_in_them_that_csh_would_change() {
        let remote_path = OsStr::new("~/it's here!/\\x\n");
        for command in [&prologue("x", None, true), &prologue("x", Some(remote_path), false), TAKE, NAMED, RUN] {
            let command = &command.replace("\\0", "");
            assert!(!command.replace("! ", "").contains(['\'', '!', '\n', '\\']), "{command}");
        }
    }
}
