//! One disk from another machine: `xfer-hole` sends it there, and is told what becomes of it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use xfer_hole_image::{Expected, Phase, Target, TargetOptions, shown};
use xfer_hole_link::{Failure, Far, Loss, Made, REFUSED_HINT, Remote, Talk, copy_name, own_name, pull_command};
use xfer_hole_proto::{Answer, Dialect, Item, Kind};

use crate::converse::Converse;
use crate::error::Error;
use crate::input::{Input, Link};
use crate::{Received, Work, offered_base};

/// What sh says of a program that it can't find.
const NOT_FOUND: i32 = 127;

/// How restricted shells end that run no command: rbash, nologin and false, sftp-only accounts, git-shell. xfer-hole doesn't.
const REFUSED: [i32; 3] = [1, 126, 128];

/// A pull.
pub(crate) struct Pull<'a> {
    pub(crate) work: Work<'a>,
    pub(crate) remote: &'a Remote,
    pub(crate) dest: &'a Path,
}

impl Pull<'_> {
    /// Receives the disk.
    pub(crate) fn run(&self) -> Result<Received, Error> {
        let Work { cli, tally, signals, messages } = self.work;
        if cli.no_hash && cli.target.read_back {
            return Err(Error::Usage("--read-back goes by digests, and --no-hash asks for none".into()));
        }
        let name = copy_name(Path::new(&self.remote.path));
        let options = cli.target.options(Some(name), None).map_err(Error::Usage)?;
        let options = TargetOptions { source: Some(own_name(Path::new(&self.remote.path))), ..options };
        let target = Target::find(self.dest, options)?;
        messages.warn_of_format(target.format_warning());
        let resumed = target.has_part() && !cli.target.no_resume && !cli.no_hash;
        let made = Made { place: shown(target.path()), becomes: Some(target.becomes()), resumed };
        let remote_path = cli.rsh.remote_path.as_deref();
        let command = pull_command(remote_path, self.remote.is_in_home(), &self.words());
        let command = cli.rsh.command(self.remote, &command).map_err(Error::Usage)?;
        tally.set_phase(Phase::Connecting);
        let started = Far::start(command, self.remote.host.clone(), messages);
        let (far, to, from) = started.map_err(|what| Error::Far { what, failure: Failure::Permanent, hint: None })?;
        signals.on_end(Box::new(far.stopper()));
        let patience = cli.rsh.patience();
        let talk = Talk::start(to, patience).map_err(Error::Thread)?;
        let at_once = cli.rsh.counts_from_the_start();
        let link = Link { patience: Some(patience), noisy: true, at_once, answered: true, asks_source: true };
        let input = Input::new(from, Dialect::V1, link, Arc::clone(tally));
        let mut converse = Converse { input, talk };
        let keeps = target.can_hold();
        let base: &[&str] = if keeps { &[Answer::BASE] } else { &[] };
        converse.ready(&target, !cli.no_hash && !cli.target.dry_run, base);
        let begun = converse.input.begin();
        far.answered();
        begun.map_err(|error| self.lost(&far, &converse.input, error))?;
        let path = target.path().to_owned();
        if cli.target.dry_run {
            // That it can be read is known when it is offered.
            let offered = converse.input.source().and_then(|facts| Ok((facts, converse.input.next()?)));
            let (facts, offered) = offered.map_err(|error| self.lost(&far, &converse.input, error))?;
            if let Some(Item::Open(open)) = offered {
                cli.rules().check(&open)?;
                let base = offered_base(&mut converse.input, &open);
                let base = base.map_err(|error| self.lost(&far, &converse.input, error))?;
                let data = facts.and_then(|facts| facts.data);
                target.rehearse(Expected { size: Some(open.size), data, delta: cli.target.delta, base })?;
                messages.note(format_args!("would write a disk of {} bytes to {}", open.size, target.plan()));
            }
            return Ok((None, None));
        }
        match converse.run(target, self.work) {
            Ok(done) => {
                drop(converse);
                far.close();
                Ok((self.work.tell(&path, &done), Some(made)))
            }
            Err(error) => {
                converse.fail(&error);
                Err(self.lost(&far, &converse.input, error))
            }
        }
    }

    /// What the sender there is told.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--converse".into()];
        words.push(if self.work.cli.no_hash { "--no-hash" } else { "--hash" }.into());
        words.push(format!("--timeout={}", self.work.cli.rsh.patience().as_secs()).into());
        words.extend(self.work.cli.rsh.bwlimit.map(|rate| format!("--bwlimit={rate}B").into()));
        words.extend(self.work.cli.target.delta.then(|| "--delta".into()));
        words.extend(self.work.cli.target.remember.then(|| "--remember".into()));
        words.extend(self.work.cli.target.no_resume.then(|| "--no-resume".into()));
        words.extend(self.work.cli.target.direct.then(|| "--direct".into()));
        words.extend(self.work.cli.remote_option.iter().cloned());
        words.extend(["--".into(), self.remote.path_there()]);
        words
    }

    /// Where the stream ended too soon, what ended it is the reason.
    fn lost(&self, far: &Far, input: &Input, error: Error) -> Error {
        let host = &self.remote.host;
        let far = match error.cause() {
            Error::Stream(stream) | Error::Lost(stream) if matches!(stream.kind(), Kind::Cut | Kind::NotAStream) => {
                let Loss { what, failure } = far.why(input.noise(), input.has_begun());
                let refused = far.code().is_some_and(|code| REFUSED.contains(&code)) && !input.has_begun();
                if let Some(what) = far.refusal(&what).filter(|_| refused) {
                    Error::Far { what, failure, hint: Some(REFUSED_HINT) }
                } else if far.code() == Some(NOT_FOUND) {
                    let what = format!("{host}: xfer-hole is not installed there, or not found");
                    let hint = "a pull needs it at the other side, and a push does not; --remote-path says where it is";
                    Error::Far { what, failure, hint: Some(hint) }
                } else {
                    Error::Far { what, failure, hint: None }
                }
            }
            cause @ (Error::Silent(_) | Error::Unsent(_)) => {
                Error::Far { what: format!("{host}: {cause}"), failure: cause.failure(), hint: None }
            }
            _ => return error,
        };
        error.because(far)
    }
}
