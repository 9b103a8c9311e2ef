//! The operands of the command line, and the flags that are not valid with them.

use std::ffi::OsStr;
use std::path::PathBuf;

use xfer_hole_transport::{BadLocation, Location, Remote, shell_word};

use crate::cli::Cli;
use crate::error::ReceiveError;

/// The image and the target.
#[derive(Debug, Default)]
pub(crate) struct Operands {
    /// The image to pull; `None` if the stream is read from standard input.
    pub(crate) source: Option<Remote>,
    /// The target, `-` for standard output.
    pub(crate) dest: PathBuf,
}

impl Operands {
    /// Reads the operands of the command line.
    ///
    /// # Errors
    /// Returns a usage error if an operand or a combination of flags is not valid, with the command to use instead as its hint.
    pub(crate) fn of(cli: &Cli) -> Result<Self, ReceiveError> {
        let refused = |word: &OsStr, what: &str, hint: String| {
            Err(ReceiveError::Word { word: word.into(), what: what.into(), hint: Some(hint) })
        };
        let (source, dest) = match cli.operands.as_slice() {
            [] => return Err(ReceiveError::Usage("DEST is missing".into())),
            [dest] => (None, dest),
            [source, dest] => (Some(source), dest),
            [_, _, more, ..] => {
                return refused(more, "one image is received at a time, and this would be the third word", HINT.into());
            }
        };
        if cli.converse {
            // Another program passes DEST, which is always a local name.
            return match source {
                Some(_) => Err(ReceiveError::Usage("--converse takes a DEST and nothing else".into())),
                None if dest == "-" => {
                    Err(ReceiveError::Usage("--converse needs standard output for its answers".into()))
                }
                None => Ok(Self { source: None, dest: dest.into() }),
            };
        }
        let dest = match (parse_location(dest)?, source) {
            (Location::Stream, _) => PathBuf::from("-"),
            (Location::Local(path), _) => path,
            (Location::Remote(_), Some(source)) => {
                let source = if source == "-" { "IMAGE".into() } else { shell_word(source) };
                let hint = format!("xfer-hole {source} {}", shell_word(dest));
                return refused(dest, "is on another machine, to which xfer-hole sends", hint);
            }
            (Location::Remote(_), None) => {
                let hint = format!(
                    "recv-hole {} DEST gets it here; a local name with a colon is written ./NAME",
                    shell_word(dest)
                );
                return refused(dest, "is on another machine", hint);
            }
        };
        let source = match source.map(|word| parse_location(word).map(|location| (word, location))).transpose()? {
            None => None,
            Some((_, Location::Remote(remote))) => Some(remote),
            Some((word, _)) => {
                let hint = format!("xfer-hole {} {} copies it", shell_word(word), shell_word(dest.as_os_str()));
                return refused(word, "is no image on another machine", hint);
            }
        };
        if cli.verify && source.is_some() {
            return Err(ReceiveError::Usage(
                "--verify compares a DEST on this machine, and takes no HOST:IMAGE".into(),
            ));
        }
        if source.is_none() {
            let given = cli.ssh.first_given().or((!cli.remote_option.is_empty()).then_some("--remote-option"));
            if let Some(flag) = given.or(cli.no_hash.then_some("--no-hash")) {
                return Err(ReceiveError::Usage(format!(
                    "{flag} is for another machine, and there is none: HOST:IMAGE"
                )));
            }
            if cli.target.delta || cli.target.no_resume || cli.target.remember {
                let what = "--delta, --remember and --no-resume are for an image from another machine: HOST:IMAGE";
                return Err(ReceiveError::Usage(what.into()));
            }
            if cli.ssh.bwlimit.is_some() {
                return Err(ReceiveError::Usage("--bwlimit is for the sender of a stream to be told".into()));
            }
        } else if cli.target.remember && !cli.target.delta {
            return Err(ReceiveError::Usage("--remember is for a --delta".into()));
        } else if cli.target.delta && cli.no_hash {
            return Err(ReceiveError::Usage("--delta can't be had without digests".into()));
        } else if cli.classic {
            return Err(ReceiveError::Usage("--classic is a stream on standard input, and takes no HOST:IMAGE".into()));
        }
        Ok(Self { source, dest })
    }
}

/// The hint for more than one image.
const HINT: &str = "for IMAGE in a b; do recv-hole \"HOST:$IMAGE\" DIRECTORY/ || break; done";

/// Parses an operand as a location.
fn parse_location(word: &OsStr) -> Result<Location, ReceiveError> {
    Location::parse(word).map_err(|BadLocation { what, hint }| ReceiveError::Word { word: word.into(), what, hint })
}
