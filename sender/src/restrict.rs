//! Serves pulls for a restricted ssh key, which may read disks below one directory and do nothing else.
//!
//! The request is in SSH_ORIGINAL_COMMAND, which sshd sets for a forced command. Its options are checked against a
//! list; the image and all files that it names are opened below the directory only ([`ConfinedDir`]).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use xfer_hole_image::ConfinedDir;
use xfer_hole_transport::{components, is_push, original_command, pull_words, relative};

use crate::NAME;
use crate::cli::Cli;
use crate::error::SendError;

/// The options with a value that a pull may use.
const VALUES: [&str; 12] = [
    "--timeout",
    "--bwlimit",
    "--snapshot",
    "--since-snapshot",
    "--bitmap",
    "--base-digest",
    "--hash-interval",
    "--min-hole",
    "--detect-zeroes",
    "--format",
    "--backing-format",
    "--extents",
];
const FLAGS: [&str; 10] = [
    "--hash",
    "--no-hash",
    "--delta",
    "--remember",
    "--no-resume",
    "--direct",
    "--live",
    "--no-backing",
    "--trust-base",
    "--base-digest",
];

/// Parses the requested pull. The result equals what the parser gives for the same options typed locally, confined to
/// `dir`. Fails if the request is not an allowed pull.
pub(crate) fn parse_request(dir: &Path) -> Result<Cli, SendError> {
    let refused = |what: &str| SendError::RequestRefused(what.to_owned());
    let command =
        original_command().ok_or_else(|| refused("SSH_ORIGINAL_COMMAND is not set, and no pull was asked for"))?;
    let words = pull_words(command.as_bytes()).map_err(|what| match is_push(command.as_bytes()) {
        true => refused("this key only reads images, and it is no pull"),
        false => refused(what),
    })?;
    let [first, options @ .., dashes, image] = words.as_slice() else { return Err(refused("it is no pull")) };
    if first != "--converse" || dashes != "--" {
        return Err(refused("it is no pull"));
    }
    let mut line: Vec<OsString> = vec![NAME.into(), first.clone()];
    let mut seen: Vec<&[u8]> = Vec::new();
    for option in options {
        let bytes = option.as_bytes();
        let equals = bytes.iter().position(|&byte| byte == b'=');
        let key = &bytes[..equals.unwrap_or(bytes.len())];
        let known = if equals.is_some() { &VALUES[..] } else { &FLAGS[..] };
        if !known.iter().any(|known| known.as_bytes() == key) {
            return Err(refused("an option of it is not allowed here"));
        }
        if seen.contains(&key) {
            return Err(refused("an option of it stands twice"));
        }
        seen.push(key);
        if key != b"--remember" {
            line.push(option.clone());
        }
    }
    line.extend(["--".into(), name(dir, image)?]);
    let mut cli = Cli::try_parse_from(line).map_err(|_| refused("the value of an option of it is wrong"))?;
    cli.source.bounds = Some(ConfinedDir::of(dir)?);
    Ok(cli)
}

/// The image's name relative to the directory. Fails if the name leads outside.
fn name(dir: &Path, image: &OsStr) -> Result<OsString, SendError> {
    let refused = |what| SendError::RequestRefused(format!("it asks for {what}"));
    let rest = relative(dir, image.as_bytes()).map_err(refused)?;
    let parts = components(rest).map_err(refused)?;
    Ok([OsStr::new(".")].into_iter().chain(parts).collect::<PathBuf>().into_os_string())
}
