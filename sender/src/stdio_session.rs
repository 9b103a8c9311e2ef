//! Sends one disk on standard output, with the receiver's replies on standard input (`--converse`).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use clap::Args;
use xfer_hole_image::BackingChain;
use xfer_hole_os::sys;
use xfer_hole_pipeline::{DataEstimate, Plan, ProgressCounters};
use xfer_hole_proto::{Fingerprint, HashParams, Refusal, Reply, SourceFacts};
use xfer_hole_transfer::CacheKey;
use xfer_hole_transport::{ConversationEnd, LinkLoss, ReplyReader, ReplyWriter};
use xfer_hole_ui::Messages;

use crate::cli::{Cli, PeerKind, SendOptions};
use crate::error::SendError;
use crate::image_args::{ImageArgs, check_content};
use crate::incremental_args::{IncrementalArgs, KnownBase};
use crate::send::{self, Known, Ready};
use crate::stream_writer::StreamWriter;

/// The time that the receiver gets to send its error after the stream broke.
const LAST_WORD: Duration = Duration::from_secs(5);

/// The time limit for counting the disk's data before the first byte. The rest is estimated.
const COUNT: Duration = Duration::from_millis(100);

/// Sends WAIT replies ahead of the stream, while the disk is opened, or the reason why there is no stream.
pub(crate) struct EarlyReplies(ReplyWriter);

impl EarlyReplies {
    /// Starts to write WAIT on standard output, often enough for a receiver with this patience.
    pub(crate) fn start(patience: Duration) -> Result<Self, SendError> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(SendError::output)?;
        Ok(Self(ReplyWriter::start(stdout.into(), patience).map_err(SendError::Thread)?))
    }

    /// Writes FAIL with the error in place of the stream.
    pub(crate) fn fail(self, error: &SendError) -> SendError {
        self.0.say(&refusal(error));
        SendError::Reported(error.failure())
    }
}

/// Writes FAIL with the error on standard output, before anything else was written.
pub(crate) fn refuse(error: &SendError) -> SendError {
    // If the write fails, the receiver is gone.
    let _heard = sys::write_all(io::stdout(), refusal(error).text().as_bytes());
    SendError::Reported(error.failure())
}

fn refusal(error: &SendError) -> Reply {
    let hint = error.hint().map_or(String::new(), |hint| format!(" ({})", hint_for_pull(hint)));
    Reply::Fail(Refusal::new(&[], &format!("{error}{hint}")))
}

/// Rewrites a hint for the user of a pull: options that only the sender has are passed with `-M`, in one word with
/// their value.
fn hint_for_pull(hint: &str) -> String {
    let flags = IncrementalArgs::augment_args(ImageArgs::augment_args(clap::Command::new("")));
    let mut text = String::new();
    let mut words = hint.split(' ').peekable();
    while let Some(word) = words.next() {
        let name =
            word.strip_prefix("--").map_or("", |name| name.split([',', ';', ':', '=']).next().unwrap_or_default());
        let flag = flags.get_arguments().find(|flag| flag.get_long() == Some(name));
        text.push_str(if text.is_empty() { "" } else { " " });
        text.push_str(if flag.is_some() { "-M " } else { "" });
        text.push_str(word);
        let takes = |next: &&str| match flag {
            Some(flag) if name == "allow" => flag.get_action().takes_values(),
            Some(flag) => {
                flag.get_possible_values().iter().any(|value| next.split('|').any(|next| next == value.get_name()))
            }
            None => false,
        };
        if word.len() == name.len() + 2
            && let Some(value) = words.next_if(takes)
        {
            text.push('=');
            text.push_str(value);
        }
    }
    text
}

/// Waits for READY, sends the disk, and waits for DONE.
pub(crate) fn converse(
    disk: &BackingChain,
    cache_key: Option<&CacheKey>,
    known_base: &KnownBase,
    job: &SendOptions,
    cli: &Cli,
    counters: &Arc<ProgressCounters>,
    messages: Messages,
) -> Result<Option<Fingerprint>, SendError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(SendError::input)?;
    // The sender can exit at once, since it has written no file; a blocked write could otherwise hold it up.
    let stop = |ending: &ConversationEnd| process::exit(i32::from(ending.failure().status()));
    let replies = ReplyReader::listen(stdin.into(), None, messages, stop).map_err(SendError::Thread)?;
    let patience = cli.ssh.patience();
    replies.watch(patience, true).map_err(SendError::Thread)?;
    let words = replies.ready().map_err(ended)?;
    let ready = Ready { replies, peer: PeerKind::Unknown, words };
    check_content(disk, ready.is_device(), messages)?;
    let replies = &ready.replies;
    let asked = ready.words.iter().any(|word| word == SourceFacts::ASKED);
    let mut stream = StreamWriter::stdout(job.dialect, Arc::clone(counters), cli.rate_limiter())?;
    stream.watch_replies(replies.clone(), patience);
    if asked {
        let plan = Plan::changed(disk, job.params.map_or(1, HashParams::interval));
        let data = DataEstimate::within(plan, COUNT).map_or_else(|| disk.allocated(), |estimate| estimate.total());
        stream.write_facts(SourceFacts { private: disk.is_private(), data: Some(data) })?;
    }
    let known = Known { cache_key, known_base };
    let sent = send::to_receiver(disk, known, cli, &ready, &mut stream, counters, messages);
    match sent {
        Ok(fingerprint) => match replies.ending(None) {
            Some(ConversationEnd::Done(digest)) => {
                let checked = ready.check_done(fingerprint, digest);
                checked.map(|()| fingerprint).map_err(|what| SendError::remote(format!("the receiver {what}")))
            }
            ending => Err(ended(ending.unwrap_or(ConversationEnd::Closed(None)))),
        },
        Err(error) if error.is_of_output() => Err(replies.ending(Some(LAST_WORD)).map_or(error, ended)),
        // The receiver has the reason from FAIL, and prints it.
        Err(error) if stream.has_written_fail() => Err(SendError::Reported(error.failure())),
        Err(error) => Err(error),
    }
}

fn ended(ending: ConversationEnd) -> SendError {
    match ending {
        // The receiver prints the reason itself.
        ConversationEnd::Failed(_) | ConversationEnd::Wrong(_) | ConversationEnd::Closed(_) => {
            SendError::Reported(ending.failure())
        }
        ConversationEnd::Done(_) => SendError::remote("the receiver said that it was done before it was"),
        ConversationEnd::Silent(_) => LinkLoss { what: ending.to_string(), failure: ending.failure() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_for_a_pull_pass_options_by_m() {
        for (hint, expected) in [
            (
                "--format qcow2 if it is a qcow2 image of yours, --format raw if it is the disk of a guest, as it is",
                "-M --format=qcow2 if it is a qcow2 image of yours, -M --format=raw if it is the disk of a guest, as it is",
            ),
            ("use --format raw to send the file as it is", "use -M --format=raw to send the file as it is"),
            ("say which it is: --backing-format raw|qcow2", "say which it is: -M --backing-format=raw|qcow2"),
            (
                "if you trust this image, --allow '/srv/a b' lets it be read",
                "if you trust this image, -M --allow='/srv/a b' lets it be read",
            ),
            (
                "stop it, send a snapshot, or read it all the same with --force-share",
                "stop it, send a snapshot, or read it all the same with -M --force-share",
            ),
            (
                "leave --extents out, or use --extents scan to read everything",
                "leave -M --extents out, or use -M --extents=scan to read everything",
            ),
            (
                "--base-digest=FINGERPRINT names that disk, --trust-base sends without a check, --delta asks the target",
                "-M --base-digest=FINGERPRINT names that disk, -M --trust-base sends without a check, --delta asks the target",
            ),
            ("free some space", "free some space"),
        ] {
            assert_eq!(hint_for_pull(hint), expected);
        }
    }
}
