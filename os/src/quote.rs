//! Quotes names for messages and for shell command lines.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::shown;

/// A name that an image contains, in double quotes, safe to print, and cut after 1100 characters.
pub fn named(name: &Path) -> String {
    const LONGEST: usize = 1100;
    let text = shown(name);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("\"{}...\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

/// A path as a word of a POSIX shell's command line. If it has control characters or is not UTF-8, it is a word of
/// bash.
pub fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,=:@%".contains(byte);
    match path.to_str() {
        // A dash at the beginning would start an option.
        Some(text) if text.starts_with('-') => quoted(Path::new(&format!("./{text}"))),
        Some(text) if !bytes.is_empty() && bytes.iter().all(plain) => text.into(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => format!("$'{}'", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::Command;

    use super::*;

    #[test]
    fn shell_parses_quoted_paths_to_the_original() {
        for name in [
            &b"disk.vmdk"[..],
            b"a b/c",
            b"it's",
            b"$HOME;`x`",
            b"",
            b"\"",
            b"a\nb",
            b"caf\xc3\xa9",
            b"\xff\x01'\\",
            b"~",
            b"*",
        ] {
            let word = quoted(Path::new(OsStr::from_bytes(name)));
            assert!(!word.chars().any(char::is_control), "{word}");
            let out = Command::new("bash").args(["-c", &format!("printf %s {word}")]).output().unwrap();
            assert_eq!(out.stdout, name, "{word}");
        }
        assert_eq!(quoted(Path::new("-rf")), "./-rf");
    }
}
