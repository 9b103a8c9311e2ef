//! Requests of a restricted ssh key (SPEC.md, "The request"): the original command, and names that stay below a directory.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The environment variable in which sshd passes the command of the client.
const COMMAND: &str = "SSH_ORIGINAL_COMMAND";

/// Returns the command that the ssh client requested; `None` if it requested a shell.
#[must_use]
pub fn original_command() -> Option<OsString> {
    env::var_os(COMMAND)
}

/// Returns `name` relative to `dir`.
///
/// An absolute name must begin with `dir` or its canonical path. A relative name is returned unchanged.
///
/// # Errors
/// Returns the reason if `name` is absolute and not below `dir`.
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

/// Returns the components of a relative name without `.`; empty if the name is the directory itself.
///
/// # Errors
/// Returns the reason if a component is `..`.
pub fn components(name: &[u8]) -> Result<Vec<&OsStr>, &'static str> {
    let parts: Vec<_> = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err("a name with \"..\" in it");
    }
    Ok(parts.into_iter().map(OsStr::from_bytes).collect())
}
