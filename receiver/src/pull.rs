//! Pulls a disk from another machine, where `xfer-hole` sends it and reads the replies.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use xfer_hole_os::shown;
use xfer_hole_pipeline::Phase;
use xfer_hole_proto::{Dialect, Frame, Reply, StreamErrorKind};
use xfer_hole_target::{ExpectedDisk, Target, TargetOptions};
use xfer_hole_transfer::{FormatWarning, read_base};
use xfer_hole_transport::{
    LinkLoss, REFUSED_HINT, Remote, RemoteProcess, ReplyWriter, copy_name, own_name, pull_command,
};
use xfer_hole_ui::{Failure, WrittenTarget};

use crate::error::ReceiveError;
use crate::stdio_session::StdioSession;
use crate::stream_reader::{LinkLimits, StreamReader};
use crate::{ReceiveContext, Received, offered_base};

/// The exit status of sh if a program is not found.
const NOT_FOUND: i32 = 127;

/// Exit statuses of restricted shells that refuse a command: rbash, nologin, false, sftp-only accounts and git-shell. xfer-hole uses none
/// of them.
const REFUSED: [i32; 3] = [1, 126, 128];

/// A pull of a remote image.
pub(crate) struct Pull<'a> {
    pub(crate) context: ReceiveContext<'a>,
    pub(crate) remote: &'a Remote,
    pub(crate) dest: &'a Path,
}

impl Pull<'_> {
    /// Connects and receives the disk.
    pub(crate) fn run(&self) -> Result<Received, ReceiveError> {
        let ReceiveContext { cli, counters, signals, messages } = self.context;
        if cli.no_hash && cli.target.read_back {
            return Err(ReceiveError::Usage("--read-back goes by digests, and --no-hash asks for none".into()));
        }
        let name = copy_name(Path::new(&self.remote.path));
        let options = cli.target.options(Some(name), None).map_err(ReceiveError::Usage)?;
        let options = TargetOptions { source: Some(own_name(Path::new(&self.remote.path))), ..options };
        let target = Target::find(self.dest, options)?;
        if let Some(FormatWarning { what, hint }) = FormatWarning::of_target(&target) {
            messages.warn_with_hint(what, hint);
        }
        let resumed = target.has_part() && !cli.target.no_resume && !cli.no_hash;
        let made = WrittenTarget { place: shown(target.path()), becomes: Some(target.becomes()), resumed };
        let remote_path = cli.ssh.remote_path.as_deref();
        let command = pull_command(remote_path, self.remote.is_in_home(), &self.remote_args());
        let command = cli.ssh.command(self.remote, &command).map_err(ReceiveError::Usage)?;
        counters.set_phase(Phase::Connecting);
        let started = RemoteProcess::start(command, self.remote.host.clone(), messages);
        let (process, to, from) =
            started.map_err(|what| ReceiveError::Remote { what, failure: Failure::Permanent, hint: None })?;
        signals.on_end(Box::new(process.stopper()));
        let patience = cli.ssh.patience();
        let replies = ReplyWriter::start(to, patience).map_err(ReceiveError::Thread)?;
        let at_once = cli.ssh.counts_from_the_start();
        let link = LinkLimits { patience: Some(patience), noisy: true, at_once, answered: true, asks_source: true };
        let input = StreamReader::new(from, Dialect::V1, link, Arc::clone(counters));
        let mut session = StdioSession { input, replies };
        let keeps = target.can_hold();
        let base: &[&str] = if keeps { &[Reply::BASE] } else { &[] };
        session.ready(&target, !cli.no_hash && !cli.target.dry_run, base);
        let begun = session.input.begin();
        process.answered();
        begun.map_err(|error| self.explain(&process, &session.input, error))?;
        let path = target.path().to_owned();
        if cli.target.dry_run {
            // The header of the stream shows that the image can be read.
            let announced = session.input.source().and_then(|facts| Ok((facts, session.input.next()?)));
            let (facts, header) = announced.map_err(|error| self.explain(&process, &session.input, error))?;
            if let Some(Frame::Open(open)) = header {
                cli.receive_options().check(&open)?;
                let base = offered_base(&mut session.input, &open);
                let base = base.map_err(|error| self.explain(&process, &session.input, error))?;
                let data = facts.and_then(|facts| facts.data);
                target
                    .rehearse(ExpectedDisk { size: Some(open.size), data, delta: cli.target.delta, base }, read_base)?;
                messages.note(format_args!("would write a disk of {} bytes to {}", open.size, target.plan()));
            }
            return Ok((None, None));
        }
        match session.run(target, self.context) {
            Ok(done) => {
                drop(session);
                process.close();
                Ok((self.context.print_result(&path, &done), Some(made)))
            }
            Err(error) => {
                session.fail(&error);
                Err(self.explain(&process, &session.input, error))
            }
        }
    }

    /// Returns the arguments of the remote xfer-hole.
    fn remote_args(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--converse".into()];
        words.push(if self.context.cli.no_hash { "--no-hash" } else { "--hash" }.into());
        words.push(format!("--timeout={}", self.context.cli.ssh.patience().as_secs()).into());
        words.extend(self.context.cli.ssh.bwlimit.map(|rate| format!("--bwlimit={rate}B").into()));
        words.extend(self.context.cli.target.delta.then(|| "--delta".into()));
        words.extend(self.context.cli.target.remember.then(|| "--remember".into()));
        words.extend(self.context.cli.target.no_resume.then(|| "--no-resume".into()));
        words.extend(self.context.cli.target.direct.then(|| "--direct".into()));
        words.extend(self.context.cli.remote_option.iter().cloned());
        words.extend(["--".into(), self.remote.path_there()]);
        words
    }

    /// Replaces the error of a cut stream with the reason that the child process gives.
    fn explain(&self, process: &RemoteProcess, input: &StreamReader, error: ReceiveError) -> ReceiveError {
        let host = &self.remote.host;
        let cause = match error.cause() {
            ReceiveError::Stream(stream) | ReceiveError::Lost(stream)
                if matches!(stream.kind(), StreamErrorKind::Cut | StreamErrorKind::NotAStream) =>
            {
                let LinkLoss { what, failure } = process.why(input.noise(), input.has_begun());
                let refused = process.code().is_some_and(|code| REFUSED.contains(&code)) && !input.has_begun();
                if let Some(what) = process.refusal(&what).filter(|_| refused) {
                    ReceiveError::Remote { what, failure, hint: Some(REFUSED_HINT) }
                } else if process.code() == Some(NOT_FOUND) {
                    let what = format!("{host}: xfer-hole is not installed there, or not found");
                    let hint = "a pull needs it at the other side, and a push does not; --remote-path says where it is";
                    ReceiveError::Remote { what, failure, hint: Some(hint) }
                } else {
                    ReceiveError::Remote { what, failure, hint: None }
                }
            }
            cause @ (ReceiveError::Silent(_) | ReceiveError::Unsent(_)) => {
                ReceiveError::Remote { what: format!("{host}: {cause}"), failure: cause.failure(), hint: None }
            }
            _ => return error,
        };
        error.with_cause(cause)
    }
}
