//! The command that is sent to the shell of the other side (SPEC.md, "The request"): words that every login shell passes on unchanged.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use xfer_hole_os::shown;
use xfer_hole_proto::CONVERSATION;

/// Sets the remote PATH with more directories, because sshd and a shell without a profile set a short one.
const PATHS: &str = "PATH=$PATH:$HOME/.cargo/bin:$HOME/.local/bin:/usr/local/bin:/usr/sbin:/sbin; ";
/// Changes to the home directory. If HOME is not set, the working directory of the login is used.
const HOME: &str = r#"cd "${HOME:-.}" 2>/dev/null || exec echo "FAIL there is no home directory: $HOME"; "#;
/// The sh script that executes the installed recv-hole `$p`, or requests the text of recv-hole.sh and reads it from standard input.
///
/// The script has no newline, no quote, and no `!` except before a space, because csh would change them. A timer ends the script if
/// the text does not arrive; the text itself stops the timer. If dd is missing, it is run again so that its error message is printed.
const TAKE: &str = r#"case " $* " in *" receiver=sh "*"-- "*) ;; *) "$p" --speaks "$1" </dev/null >/dev/null 2>&1 && exec "$p" --request "$*"; ELSE esac; (n=80; while sleep 1 && kill -0 $$; do n=$((n-1)); [ $n -gt 0 ] || kill -9 $$; done) </dev/null >/dev/null 2>&1 & w=$! ; echo XFER-HOLE-TEXT "$1"; eval "$(dd ibs=1 count=$2 2>/dev/null || echo exec dd count=0)""#;
/// The replacement of ELSE in [`TAKE`] if the user gave `--remote-path`.
const NAMED: &str = "exec echo FAIL no recv-hole that speaks this version was found by --remote-path;";
/// The sh script that decodes its arguments and executes the sender `$p` with them.
const RUN: &str = r#"n=$#; while [ $n -gt 0 ]; do w=$(printf %b_ "$1"); shift; set -- "$@" "${w%_}"; n=$((n-1)); done; exec "$p" "$@""#;

/// Returns the beginning of the script: it sets `p` to the program and changes to the directory that names are relative to.
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

/// Returns true for a byte that is not escaped in a request (SPEC.md, `plain`).
#[must_use]
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._,+:@%=-".contains(&byte)
}

/// Encodes a word for a request, without quotes.
///
/// Bytes of `A-Za-z0-9/._,+:@%=-` stay as they are. Every other byte becomes `\0` and three octal digits, which `printf %b` decodes.
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

/// Maximum length of a request in bytes.
pub const REQUEST_MAX: usize = 64 << 10;
/// The reason for refusing a word that is not encoded as [`coded`] does.
pub const NOT_CODED: &str = "a word of it is not coded as it has to be";

/// Returns a word without its single quotes, or `None` if it is not quoted.
#[must_use]
pub fn unquoted(word: &[u8]) -> Option<&[u8]> {
    word.strip_prefix(b"'")?.strip_suffix(b"'")
}

/// Decodes a word that [`coded`] encoded. Each word has exactly one valid encoding.
///
/// # Errors
/// Returns [`NOT_CODED`] if the encoding is not that one, if the word is empty, or if it contains NUL.
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

/// Returns true if the command begins like the request of a push.
#[must_use]
pub fn is_push(command: &[u8]) -> bool {
    let rest = command.strip_prefix(b"exec sh -c '").unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'\'').unwrap_or_default();
    rest[end..].starts_with(b"' recv-hole ")
}

/// Returns the arguments of xfer-hole in a command that [`pull_command`] made.
///
/// # Errors
/// Returns the reason if the command is not exactly such a command.
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

/// Quotes a text as one word of sh.
#[must_use]
pub fn quoted_for_sh(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Formats a word for display in a hint, quoted if a shell requires it.
#[must_use]
pub fn shell_word(word: &OsStr) -> String {
    let text = shown(word.as_ref());
    let plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "/._,+:@%=-".contains(c));
    if plain { text } else { quoted_for_sh(&text) }
}

/// The request of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushRequest {
    /// The path of recv-hole on the other machine; `None` to search for it. A leading `~/` is the home directory.
    pub remote_path: Option<OsString>,
    /// True if `dest` is relative to the home directory.
    pub in_home: bool,
    /// Options, such as `no-sync` and `chmod=600`.
    pub options: Vec<String>,
    /// The name of the file to create, or of a directory.
    pub dest: OsString,
    /// The name of the file if `dest` is a directory.
    pub name: OsString,
}

impl PushRequest {
    /// Returns the command. `bytes` is the length of the recv-hole.sh text that is sent if the other side requests it.
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

/// Returns the command that runs `xfer-hole` with the arguments `words` on the other machine.
///
/// `remote_path` and `in_home` are as in a [`PushRequest`].
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
    fn words_are_coded_without_characters_special_to_a_shell() {
        assert_eq!(coded(OsStr::new("/srv/a-b_c.img")), "/srv/a-b_c.img");
        assert_eq!(coded(OsStr::new("it's $x!\\\n~")), r"it\0047s\0040\0044x\0041\0134\0012\0176");
        assert_eq!(coded(OsStr::from_bytes(&[0xff, 0xc3])), r"\0377\0303");
    }

    #[test]
    fn a_request_has_a_fixed_format() {
        let options = vec!["no-sync".into()];
        let request = PushRequest { options, dest: "a b".into(), name: "disk.img".into(), ..PushRequest::default() };
        let command = request.command(17);
        let (script, words) = command.strip_prefix("exec sh -c '").unwrap().split_once('\'').unwrap();
        assert_eq!(words, " recv-hole 1 17 'no-sync' -- 'a\\0040b' 'disk.img'");
        assert!(script.contains("p=recv-hole; ") && !script.contains("cd "), "{script}");
    }

    #[test]
    fn commands_have_no_characters_that_csh_would_change() {
        let remote_path = OsStr::new("~/it's here!/\\x\n");
        for command in [&prologue("x", None, true), &prologue("x", Some(remote_path), false), TAKE, NAMED, RUN] {
            let command = &command.replace("\\0", "");
            assert!(!command.replace("! ", "").contains(['\'', '!', '\n', '\\']), "{command}");
        }
    }
}
