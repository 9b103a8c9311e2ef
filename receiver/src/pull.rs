//! One disk from another machine: `xfer-hole` sends it there, and is told what becomes of it.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use xfer_hole_image::{Tally, Target, shown};
use xfer_hole_link::{Far, Messages, Progress, Remote, Talk, copy_name, pull_command};
use xfer_hole_proto::{Dialect, Kind};

use crate::cli::Cli;
use crate::converse::Converse;
use crate::error::Error;
use crate::input::{Input, Link};
use crate::{NAME, tell};

/// What sh says of a program that it can't find.
const NOT_FOUND: i32 = 127;

/// A pull.
pub(crate) struct Pull<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) remote: &'a Remote,
    pub(crate) dest: &'a Path,
    pub(crate) tally: &'a Arc<Tally>,
    pub(crate) messages: Messages,
}

impl Pull<'_> {
    /// Receives the disk.
    pub(crate) fn run(&self) -> Result<(), Error> {
        let name = copy_name(Path::new(&self.remote.path));
        let options = self.cli.target.options(Some(name), None).map_err(Error::Usage)?;
        let target = Target::find(self.dest, options)?;
        let command = pull_command(&self.words());
        let command = self.cli.rsh.command(self.remote, &command).map_err(Error::Usage)?;
        let host = self.remote.host.clone();
        let started = Far::start(command, host, self.messages);
        let (far, to, from) = started.map_err(|what| Error::Far { what, hint: None })?;
        let talk = Talk::start(to).map_err(no_thread)?;
        let link = Link { patience: Some(self.cli.rsh.patience()), noisy: true, answered: true };
        let input = Input::new(from, Dialect::V1, link, Arc::clone(self.tally));
        let mut converse = Converse { input, talk };
        converse.ready();
        let progress = Progress::start(self.cli.progress, NAME, Arc::clone(self.tally));
        let path = target.path().to_owned();
        if self.cli.target.dry_run {
            // That it can be read is known when it is offered.
            converse.input.next().map_err(|error| self.lost(&far, error))?;
            self.messages.say(format_args!("would write {}", shown(&path)));
            return Ok(());
        }
        let received = converse.run(target, &self.cli.rules(), self.tally, self.messages);
        drop(progress);
        match received {
            Ok(done) => {
                drop(converse);
                far.close();
                tell(self.cli, &path, &done, self.tally, self.messages);
                Ok(())
            }
            Err(error) => {
                converse.fail(&error);
                Err(self.lost(&far, error))
            }
        }
    }

    /// What the sender there is told.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--converse".into()];
        words.push(if self.cli.no_hash { "--no-hash" } else { "--hash" }.into());
        words.push(format!("--timeout={}", self.cli.rsh.patience().as_secs()).into());
        words.extend(self.cli.rsh.bwlimit.map(|rate| format!("--bwlimit={rate}").into()));
        words.extend(self.cli.remote_option.iter().cloned());
        words.extend(["--".into(), self.remote.path.clone()]);
        words
    }

    /// Where the stream ended too soon, what ended it is the reason.
    fn lost(&self, far: &Far, error: Error) -> Error {
        let Error::Stream(stream) = error.cause() else { return error };
        match stream.kind() {
            Kind::Cut | Kind::NotAStream => {
                let what = far.why(None);
                let what = what.replacen(": xfer-hole: ", ": ", 1);
                let missing = far.code() == Some(NOT_FOUND);
                let hint = missing.then_some("a pull needs xfer-hole installed at the other side");
                error.because(Error::Far { what, hint })
            }
            _ => error,
        }
    }
}

fn no_thread(source: io::Error) -> Error {
    xfer_hole_image::Error::io("link", "cannot start a thread", source).into()
}
