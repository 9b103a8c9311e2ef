//! What a restricted key asks for (SPEC.md, "The request"): the command as sshd gives it, and names beneath a directory.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What sshd calls the command that the client asked for.
const COMMAND: &str = "SSH_ORIGINAL_COMMAND";

/// The command that the client of sshd asked for; none if it wants a shell.
#[must_use]
pub fn original_command() -> Option<OsString> {
    env::var_os(COMMAND)
}

/// A name without the directory's own in front of it, as it is given or as it truly is. What is left is looked up beneath it.
pub fn relative<'a>(dir: &Path, name: &'a [u8]) -> Result<&'a [u8], &'static str> {
    if !name.starts_with(b"/") {
        return Ok(name);
    }
    let real = fs::canonicalize(dir).unwrap_or_default();
    let below = |dir: &Path| {
        let dir = dir.as_os_str().as_bytes();
        let dir = dir.strip_suffix(b"/").unwrap_or(dir);
        name.strip_prefix(dir).filter(|rest| dir.starts_with(b"/") && rest.starts_with(b"/"))
    };
    let rest = below(dir).or_else(|| below(&real));
    rest.ok_or("a name that begins with a slash and isn't beneath the directory allowed here")
}

/// The components of a name, `.` left out; none if it is the directory itself.
pub fn components(name: &[u8]) -> Result<Vec<&OsStr>, &'static str> {
    let parts: Vec<_> = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err("a name with \"..\" in it");
    }
    Ok(parts.into_iter().map(OsStr::from_bytes).collect())
}
