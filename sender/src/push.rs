//! Pushes one disk to another machine over one connection, and waits until the receiver confirms that it is stored.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xfer_hole_image::{BackingChain, Disk};
use xfer_hole_os::{shown, sys};
use xfer_hole_pipeline::{Phase, ProgressCounters};
use xfer_hole_proto::{Dialect, Fingerprint, HashParams, Refusal, Reply};
use xfer_hole_target::TargetOutcome;
use xfer_hole_transfer::{CacheKey, FormatWarning};
use xfer_hole_transport::{
    ConversationEnd, LinkLoss, PushRequest, REFUSED_HINT, Remote, RemoteProcess, ReplyReader, copy_name, own_name,
    quoted_for_sh,
};
use xfer_hole_ui::{Failure, Messages, Signals, WrittenTarget};

use crate::cli::{Cli, PeerKind};
use crate::error::{SendError, TargetState};
use crate::image_args::{check_content, data_of};
use crate::incremental_args::{KnownBase, is_disk_to_send, names_disk};
use crate::send::{self, Known, Ready};
use crate::stream_writer::StreamWriter;
use crate::{RECV_HOLE_SH, TransferResult};

/// The shell functions that let recv-hole.sh resume an interrupted transfer.
const RESUME_SH: &str = include_str!("../resume.sh");
/// The shell text that starts the receiver on the other machine and sends the replies of recv-hole.sh.
const FAR_END_SH: &str = include_str!("../far-end.sh");
/// The time that the receiver gets to send its error after the stream broke.
const LAST_WORD: Duration = Duration::from_secs(10);
/// The time that this program gets to end by itself after the connection failed.
const GRACE: Duration = Duration::from_secs(3);

/// The shell text that precedes the stream if recv-hole is not installed on the other machine.
fn preamble() -> String {
    format!("script={}\n{RESUME_SH}{FAR_END_SH}", quoted_for_sh(RECV_HOLE_SH))
}

/// The time limit from READY to DONE in a dry run.
const DRY_RUN_DONE: Duration = Duration::from_secs(10);

/// A push, with everything that it needs besides the disk.
pub(crate) struct Push<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) image: &'a Path,
    /// The image's cache key, if cached fingerprints may be used.
    pub(crate) cache_key: Option<&'a CacheKey>,
    pub(crate) remote: &'a Remote,
    /// The disk that the target must hold, if only changes are sent.
    pub(crate) known_base: &'a KnownBase,
    pub(crate) counters: &'a Arc<ProgressCounters>,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

/// A connected receiver that has sent READY.
struct ReadyPeer {
    process: RemoteProcess,
    /// The pipe to the remote process, for the stream.
    to: File,
    ready: Ready,
}

impl Push<'_> {
    /// Sends the disk, and waits until it is synced under its final name.
    pub(crate) fn run(&self, disk: &BackingChain) -> Result<TransferResult, SendError> {
        let path = Path::new(&self.remote.path);
        let place = format!("{}:{}", self.remote.destination(), shown(path));
        if let Some(FormatWarning { what, hint }) = FormatWarning::of_name(path, &place) {
            self.messages.warn_with_hint(what, hint);
        }
        let expected = self.cli.target.dry_run.then(|| self.expected(disk)).transpose()?;
        let ready_peer = self.connect(disk, expected)?;
        check_content(disk, ready_peer.ready.is_device(), self.messages)?;
        let written = self.written_target(&ready_peer.ready.words);
        if let Some((data, kept)) = expected {
            self.counters.set_size(disk.size());
            send::check_can_verify(self.known_base, &ready_peer.ready.words)?;
            send::wants_manifest(disk, self.cli, &ready_peer.ready, self.messages)?;
            // The receiver's warnings follow READY, and DONE follows them.
            if let Some(ending @ (ConversationEnd::Failed(_) | ConversationEnd::Wrong(_))) =
                ready_peer.ready.replies.ending(Some(DRY_RUN_DONE))
            {
                return Err(self.failed(&ready_peer.process, &ending, false));
            }
            drop(ready_peer.to);
            ready_peer.process.close();
            self.would_send(disk, &written, data, kept);
            return Ok((None, None));
        }
        let kept = self.state_after_failure(written.becomes, ready_peer.ready.is_device());
        let untouched = format!("{}:{} is as it was", self.remote.host, shown(path));
        let remains = |failure: Failure| match failure {
            Failure::Temporary if self.goes_on() => format!("{kept}; run it again to go on"),
            _ => kept.clone(),
        };
        self.signals.set_remains(Some(remains(Failure::Temporary)));
        let sent = self.send(disk, ready_peer).map_err(|error| match error {
            SendError::Remote { what, failure, hint, target: TargetState::Unknown } => SendError::Remote {
                what: format!("{what}; {}", remains(failure)),
                failure,
                hint,
                target: TargetState::Stated,
            },
            SendError::Remote { what, failure, hint, target: TargetState::Unchanged } => {
                SendError::Remote { what: format!("{what}; {untouched}"), failure, hint, target: TargetState::Stated }
            }
            error => error,
        });
        sent.map(|fingerprint| (fingerprint, Some(written)))
    }

    /// The target that will be written, as far as the words of READY describe it.
    fn written_target(&self, words: &[String]) -> WrittenTarget {
        let has = |word: &str| words.iter().any(|token| token == word);
        let mut path = PathBuf::from(&self.remote.path);
        if has(Reply::DIRECTORY) {
            path.push(copy_name(self.image));
        }
        let becomes = words.iter().find_map(|word| TargetOutcome::of_word(word));
        let resumed = has(Reply::PART) && self.goes_on();
        WrittenTarget { place: format!("{}:{}", self.remote.destination(), shown(&path)), becomes, resumed }
    }

    /// The state of the target after a failure, for a receiver that has sent READY.
    fn state_after_failure(&self, becomes: Option<TargetOutcome>, is_device: bool) -> String {
        let (host, dest) = (&self.remote.host, shown(self.remote.path.as_ref()));
        match becomes {
            Some(TargetOutcome::New | TargetOutcome::Replaced) => format!("{host}:{dest} is as it was"),
            _ if is_device || self.cli.target.in_place || becomes.is_some() => {
                format!("{host}:{dest} may be updated in part")
            }
            _ => format!("{host}:{dest} is as it was, unless it is a device there"),
        }
    }

    /// True if an interrupted transfer can be resumed.
    fn goes_on(&self) -> bool {
        !self.cli.no_hash && !self.cli.target.no_resume && !self.cli.target.dry_run
    }

    /// Starts the receiver on the other machine, and waits for READY.
    fn connect(&self, disk: &BackingChain, expected: Option<(u64, u64)>) -> Result<ReadyPeer, SendError> {
        let Self { cli, remote, messages, .. } = self;
        let patience = cli.ssh.patience();
        let mut options = vec![format!("receiver={}", cli.receiver.unwrap_or_default().word())];
        options.push(format!("max-wait={}", patience.as_secs()));
        options.extend(disk.is_private().then(|| "private".to_owned()));
        options.extend(cli.target.words());
        options.push(format!("source={}", own_name(self.image).to_string_lossy()));
        if let Some((data, _)) = expected {
            options.push(format!("size={}", disk.size()));
            options.push(format!("data={data}"));
            options.extend(cli.target.delta.then(|| "delta".to_owned()));
            if let Some(older) = disk.older() {
                options.push(format!("base={}", older.size()));
                let named =
                    self.known_base.read(cli.send_options(PeerKind::Binary)?.params, self.counters, || Ok(()))?;
                options.extend(named.map(|named| format!("base-digest={named}")));
            }
        }
        let request = PushRequest {
            remote_path: cli.ssh.remote_path.clone(),
            in_home: remote.is_in_home(),
            options,
            dest: remote.path_there(),
            name: copy_name(self.image),
        };
        let preamble = preamble();
        let command = cli.ssh.command(remote, &request.command(preamble.len())).map_err(SendError::Usage)?;
        messages.verbose(format_args!("runs {}", command.get_program().to_string_lossy()));
        self.counters.set_phase(Phase::Connecting);
        let host = remote.host.clone();
        let (process, to, from) = RemoteProcess::start(command, host.clone(), *messages).map_err(SendError::remote)?;
        self.signals.on_end(Box::new(process.stopper()));
        let (stopper, signals, name) = (process.stopper(), self.signals.clone(), host.clone());
        let stop = move |ending: &ConversationEnd| {
            stopper();
            // A blocked write, whose reader holds the pipe open without reading, would otherwise never end.
            signals.give_up_after(GRACE, ending.failure(), format!("{name}: {ending}"));
        };
        let replies = ReplyReader::listen(from, Some(host), *messages, stop).map_err(SendError::Thread)?;
        replies.watch(patience, cli.ssh.counts_from_the_start()).map_err(SendError::Thread)?;
        let nothing = |ending: ConversationEnd| match &ending {
            ConversationEnd::Closed(noise) => {
                let LinkLoss { what, failure } = process.why(noise.as_deref(), false);
                match process.refusal(&what) {
                    Some(what) => {
                        SendError::Remote { what, failure, hint: Some(REFUSED_HINT), target: TargetState::Unknown }
                    }
                    None => LinkLoss { what, failure }.into(),
                }
            }
            _ => self.failed(&process, &ending, false),
        };
        let wants_text = replies.wants_text();
        process.answered();
        if wants_text.map_err(nothing)? {
            // If this write fails, the reply tells why.
            let _taken = sys::write_all(&to, preamble.as_bytes());
        }
        let words = replies.ready().map_err(|ending| self.failed(&process, &ending, false))?;
        self.counters.set_phase(Phase::Preparing);
        messages.verbose(format_args!("{}: receives by {}", remote.host, words.join(" ")));
        let peer = if words.iter().any(|word| word == Reply::SH) { PeerKind::Sh } else { PeerKind::Binary };
        Ok(ReadyPeer { process, to, ready: Ready { replies, peer, words } })
    }

    fn send(&self, disk: &BackingChain, ready_peer: ReadyPeer) -> Result<Option<Fingerprint>, SendError> {
        let ReadyPeer { process, to, ready } = ready_peer;
        let replies = &ready.replies;
        let mut stream = StreamWriter::new(to, Dialect::V1, Arc::clone(self.counters), self.cli.rate_limiter());
        stream.watch_replies(replies.clone(), self.cli.ssh.patience());
        let Self { cli, counters, messages, .. } = self;
        let known = Known { cache_key: self.cache_key, known_base: self.known_base };
        let sent = send::to_receiver(disk, known, cli, &ready, &mut stream, counters, *messages);
        if sent.is_ok() {
            let dest = shown(self.remote.path.as_ref());
            let what = format!("all of it was sent, and {}:{dest} may be the new disk by now", self.remote.host);
            self.signals.set_remains(Some(what));
        }
        // Closing the stream is the end of input, which recv-hole.sh waits for.
        drop(stream);
        let ending = match &sent {
            Ok(_) => {
                self.counters.set_phase(Phase::Syncing);
                replies.ending(None)
            }
            // The receiver sees why the stream ended, and ends by itself.
            Err(_) => replies.ending(Some(LAST_WORD)),
        };
        match (sent, ending.unwrap_or(ConversationEnd::Closed(None))) {
            (Err(error), _) if !error.is_of_output() => Err(error),
            (Ok(fingerprint), ConversationEnd::Done(digest)) => {
                ready.check_done(fingerprint, digest).map_err(|what| {
                    let (host, dest) = (&self.remote.host, shown(self.remote.path.as_ref()));
                    let what = format!("{host}: {what}; {host}:{dest} isn't to be relied on");
                    SendError::Remote { what, failure: Failure::Permanent, hint: None, target: TargetState::Stated }
                })?;
                process.close();
                Ok(fingerprint)
            }
            (_, ConversationEnd::Failed(why)) if names_disk(disk, &why.reason().to_string()) => {
                let (host, why) = (&self.remote.host, why.reason().to_string());
                let already = is_disk_to_send(disk, &why);
                let what = "; it is the disk that was to be sent already, and there is nothing to be done";
                Err(if already {
                    SendError::remote(format!("{host}: {why}{what}"))
                } else {
                    SendError::OtherBase(format!("{host}: {why}"))
                })
            }
            (_, ending) => Err(match (self.failed(&process, &ending, true), &ending) {
                (
                    SendError::Remote { what, failure, hint, target: TargetState::Unknown },
                    ConversationEnd::Failed(_),
                ) => SendError::Remote { what, failure, hint, target: self.target_state(&ready, failure) },
                (error, _) => error,
            }),
        }
    }

    /// The state of the target after a FAIL whose text does not state it.
    fn target_state(&self, ready: &Ready, failure: Failure) -> TargetState {
        match ready.peer {
            // A terminated or timed-out recv-hole.sh does not tell whether it had written to the target.
            PeerKind::Sh if failure == Failure::Temporary => TargetState::Unknown,
            PeerKind::Sh if ready.is_device() || self.cli.target.in_place => TargetState::Stated,
            PeerKind::Sh => TargetState::Unknown,
            _ => TargetState::Unchanged,
        }
    }

    /// The bytes of data that would be sent, and the bytes that would be kept on the target.
    fn expected(&self, disk: &BackingChain) -> Result<(u64, u64), SendError> {
        data_of(
            disk,
            self.cli
                .send_options(PeerKind::Binary)?
                .with_base(self.known_base.known())
                .params
                .map_or(1, HashParams::interval),
        )
    }

    /// Prints the result of a dry run.
    fn would_send(&self, disk: &BackingChain, written: &WrittenTarget, data: u64, kept: u64) {
        let kept = disk.older().map_or(String::new(), |_| format!(", {kept} to be kept there"));
        let (image, size, place) = (shown(self.image), disk.size(), &written.place);
        let becomes = written.becomes.map_or("a raw image", TargetOutcome::plan);
        let what =
            format!("would send {image}, a disk of {size} bytes with {data} of data{kept}, to {place}, {becomes}");
        self.messages.note(what);
    }

    /// The error for a conversation that ended without DONE. `ready` tells whether READY was received before.
    fn failed(&self, process: &RemoteProcess, ending: &ConversationEnd, ready: bool) -> SendError {
        let what = format!("{}: {ending}", self.remote.host);
        match ending {
            ConversationEnd::Closed(noise) => process.why(noise.as_deref(), ready).into(),
            ConversationEnd::Failed(why) => SendError::Remote {
                what,
                failure: ending.failure(),
                hint: why.is(Refusal::MKPATH).then_some("--mkpath makes the directories that lead to it"),
                target: if why.is(Refusal::LEFT) { TargetState::Stated } else { TargetState::Unknown },
            },
            _ => SendError::Remote { what, failure: ending.failure(), hint: None, target: TargetState::Unknown },
        }
    }
}
