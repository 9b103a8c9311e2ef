//! Tools that make and judge disks, run to their end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result, Told};

/// Runs it, and comes back with what it wrote to standard output.
///
/// # Errors
/// If it isn't there or fails; the error has what it said.
pub fn run<W: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = W>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words).env("LC_ALL", "C").stdin(Stdio::null());
    let done = command.output().told(program)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    let last: Vec<_> = said.lines().rev().take(3).collect();
    Err(Error::new(format!("{program}: {}: {}", done.status, last.join("; "))))
}

/// Where a program is: in PATH, or where a system's own programs are.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder: PathBuf| folder.join(program)).find(|program| program.is_file())
}

/// The path as text, which all of the bench's own are.
///
/// # Errors
/// If it isn't UTF-8.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(format!("{}: no text", path.display())))
}
