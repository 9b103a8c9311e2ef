//! The arguments IMAGE and DEST, and the checks of options that depend on them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use xfer_hole_transport::{BadLocation, Location, shell_word};
use xfer_hole_ui::is_near;

use crate::cli::{Cli, Receiver};
use crate::error::SendError;

/// The checked arguments.
#[derive(Debug)]
pub(crate) struct Operands {
    pub(crate) image: PathBuf,
    pub(crate) dest: Location,
}

impl Operands {
    /// Parses the arguments. Fails if the transfer is not supported with these options; the error's hint names the
    /// command that does it.
    pub(crate) fn of(cli: &Cli) -> Result<Self, SendError> {
        let dest = cli.dest.first().map_or(OsStr::new("-"), OsString::as_os_str);
        let image = cli.image.clone().unwrap_or_default();
        let refused = |word: &OsStr, what: &str, hint: Option<String>| {
            Err(SendError::Word { word: word.into(), what: what.into(), hint })
        };
        let missing = image.to_str().filter(|_| !image.exists());
        if let Some(command) = missing.filter(|name| crate::command().find_subcommand(name).is_some()) {
            let hint = format!("a command comes before all options: xfer-hole {command} ...");
            return refused(image.as_os_str(), "there is no image of this name", Some(hint));
        }
        if let Some(meant) = missing.and_then(suggestion) {
            return refused(image.as_os_str(), "there is no image or command of this name", Some(meant));
        }
        if let Some(more) = cli.dest.get(1) {
            let hint = "for IMAGE in *.qcow2; do xfer-hole \"$IMAGE\" HOST:DIRECTORY/ || break; done";
            return refused(more, "one image is sent at a time, and this would be the third word", Some(hint.into()));
        }
        cli.incremental.check(image.as_os_str(), &cli.target)?;
        let from = parse_location(image.as_os_str())?;
        let to = parse_location(dest)?;
        match (&from, &to) {
            (Location::Remote(there), Location::Remote(_)) => {
                let (host, path) = (there.destination(), shell_word(&there.path));
                let hint = format!("ssh {host} xfer-hole {path} {}", shell_word(dest));
                return refused(image.as_os_str(), "a disk is sent from here, not from another machine", Some(hint));
            }
            (Location::Remote(_), to) => {
                let dest = if matches!(to, Location::Stream) { "DEST".into() } else { shell_word(dest) };
                let hint =
                    format!("recv-hole {} {dest} (a local name with a colon: ./NAME)", shell_word(image.as_os_str()));
                return refused(image.as_os_str(), "is on another machine, from which recv-hole gets it", Some(hint));
            }
            _ => {}
        }
        let remote = matches!(to, Location::Remote(_));
        let given = cli.ssh.first_given().filter(|_| !remote);
        if let Some(flag) = given {
            return Err(SendError::usage(format!("{flag} is for another machine, and there is none: HOST:PATH")));
        }
        // A receiver that replies can be asked for a manifest.
        let given = cli
            .target
            .first_given()
            .filter(|flag| !(cli.converse && ["--delta", "--remember", "--no-resume"].contains(flag)));
        let given = given.filter(|_| matches!(to, Location::Stream));
        if let Some(flag) = given {
            return Err(SendError::usage(format!("{flag} is for the receiver of a stream to be told, or for a DEST")));
        }
        if cli.reflink.is_some() && !matches!(to, Location::Local(_)) {
            return Err(SendError::usage("--reflink is for a copy on this machine"));
        }
        if cli.receiver.is_some() && !remote {
            return Err(SendError::usage("--receiver is for another machine, and there is none: HOST:PATH"));
        }
        if cli.ssh.remote_path.is_some() && cli.receiver == Some(Receiver::Sh) {
            return Err(SendError::usage("--remote-path names a recv-hole, and --receiver sh runs none"));
        }
        if cli.ssh.bwlimit.is_some() && matches!(to, Location::Local(_)) {
            return Err(SendError::usage("--bwlimit is for what leaves this machine"));
        }
        if cli.converse && !matches!(to, Location::Stream) {
            return Err(SendError::usage("--converse goes by standard input and output, and takes no DEST"));
        }
        if cli.classic && !matches!(to, Location::Stream) {
            return Err(SendError::usage("--classic is a stream on standard output, and takes no DEST"));
        }
        Ok(Self { image, dest: to })
    }
}

/// A hint for an argument that resembles a command of this program, or is one of other programs.
fn suggestion(word: &str) -> Option<String> {
    const OTHERS: [(&str, &str); 6] = [
        ("push", "xfer-hole IMAGE HOST:PATH"),
        ("send", "xfer-hole IMAGE HOST:PATH"),
        ("pull", "recv-hole HOST:IMAGE DEST"),
        ("receive", "recv-hole HOST:IMAGE DEST"),
        ("copy", "xfer-hole IMAGE DEST"),
        ("compare", "xfer-hole verify IMAGE MANIFEST"),
    ];
    let commands = crate::command();
    let near = commands.get_subcommands().map(clap::Command::get_name).find(|name| is_near(word, name));
    let exact = OTHERS.into_iter().find(|(name, _)| *name == word);
    let other = || exact.or_else(|| OTHERS.into_iter().find(|(name, _)| is_near(word, name)));
    let other = || other().map(|(_, line)| line.to_owned());
    near.map(|name| format!("xfer-hole {name} ...")).or_else(other).map(|line| format!("did you mean: {line}"))
}

fn parse_location(word: &OsStr) -> Result<Location, SendError> {
    Location::parse(word).map_err(|BadLocation { what, hint }| SendError::Word { word: word.into(), what, hint })
}
