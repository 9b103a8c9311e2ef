//! One disk to whoever holds both ends of us: the stream on standard output, the receiver's answers on standard input.

use std::io;
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use xfer_hole_image::{Chain, Identity, Outlook, Plan, Tally, sys};
use xfer_hole_link::{Answers, Ending, Loss, Messages, Talk};
use xfer_hole_proto::{Answer, Fingerprint, Refusal, SourceFacts, Sums};

use crate::cli::{Cli, Job, Towards};
use crate::error::Error;
use crate::send::{self, Known, Ready};
use crate::since::{Basis, SinceArgs};
use crate::source::{ImageArgs, check_content};
use crate::wire::Wire;

/// How long the receiver may take to say why it doesn't take any more.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How long the disk's data may be counted before the first byte. What isn't counted by then is estimated.
const COUNT: Duration = Duration::from_millis(100);

/// What a receiver that hears us is told ahead of the stream: that we are still here, or why there will be none.
pub(crate) struct Ahead(Talk);

impl Ahead {
    /// Begins to say WAIT on standard output, to a receiver with so much patience.
    pub(crate) fn start(patience: Duration) -> Result<Self, Error> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(Error::output)?;
        Ok(Self(Talk::start(stdout.into(), patience).map_err(Error::Thread)?))
    }

    /// Says why there will be no stream.
    pub(crate) fn fail(self, error: &Error) -> Error {
        self.0.say(&refusal(error));
        Error::Told(error.failure())
    }
}

/// Says on standard output why there will be no stream, where nothing has been said yet.
pub(crate) fn refuse(error: &Error) -> Error {
    // A receiver that hears nothing any more is gone.
    let _heard = sys::write_all(io::stdout(), refusal(error).text().as_bytes());
    Error::Told(error.failure())
}

fn refusal(error: &Error) -> Answer {
    let hint = error.hint().map_or(String::new(), |hint| format!(" ({})", hint_for_pull(hint)));
    Answer::Fail(Refusal::new(&[], &format!("{error}{hint}")))
}

/// A hint as the user of a pull can type it: options that only the sender has are passed on by `-M`, in one word with their value.
fn hint_for_pull(hint: &str) -> String {
    let flags = SinceArgs::augment_args(ImageArgs::augment_args(clap::Command::new("")));
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

/// Sends the disk when the receiver is ready, and waits until it is done.
pub(crate) fn converse(
    disk: &Chain,
    identity: Option<&Identity>,
    basis: &Basis,
    job: &Job,
    cli: &Cli,
    tally: &Arc<Tally>,
    messages: Messages,
) -> Result<Option<Fingerprint>, Error> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(Error::input)?;
    // A sender has nothing to lose, and may be held up in a write that nobody takes.
    let stop = |ending: &Ending| process::exit(i32::from(ending.failure().status()));
    let answers = Answers::listen(stdin.into(), None, messages, stop).map_err(Error::Thread)?;
    let patience = cli.rsh.patience();
    answers.watch(patience, true).map_err(Error::Thread)?;
    let words = answers.ready().map_err(ended)?;
    let ready = Ready { answers, towards: Towards::Unknown, words };
    check_content(disk, ready.is_device(), messages)?;
    let answers = &ready.answers;
    let asked = ready.words.iter().any(|word| word == SourceFacts::ASKED);
    let mut wire = Wire::stdout(job.dialect, Arc::clone(tally), cli.throttle())?;
    wire.heed(answers.clone(), patience);
    if asked {
        let plan = Plan::changed(disk, job.sums.map_or(1, Sums::interval));
        let data = Outlook::within(plan, COUNT).map_or_else(|| disk.allocated(), |outlook| outlook.total());
        wire.tell(SourceFacts { private: disk.is_private(), data: Some(data) })?;
    }
    let known = Known { identity, basis };
    let sent = send::to_receiver(disk, known, cli, &ready, &mut wire, tally, messages);
    match sent {
        Ok(fingerprint) => match answers.ending(None) {
            Some(Ending::Done(digest)) => {
                let checked = ready.check_done(fingerprint, digest);
                checked.map(|()| fingerprint).map_err(|what| Error::far(format!("the receiver {what}")))
            }
            ending => Err(ended(ending.unwrap_or(Ending::Closed(None)))),
        },
        Err(error) if error.is_of_output() => Err(answers.ending(Some(LAST_WORD)).map_or(error, ended)),
        // The receiver has our reason, and tells its user.
        Err(error) if wire.has_said_why() => Err(Error::Told(error.failure())),
        Err(error) => Err(error),
    }
}

fn ended(ending: Ending) -> Error {
    match ending {
        // It tells its user itself.
        Ending::Failed(_) | Ending::Wrong(_) | Ending::Closed(_) => Error::Told(ending.failure()),
        Ending::Done(_) => Error::far("the receiver said that it was done before it was"),
        Ending::Silent(_) => Loss { what: ending.to_string(), failure: ending.failure() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_the_sender_s_options_as_a_pull_passes_them_on() {
        for (hint, said) in [
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
            assert_eq!(hint_for_pull(hint), said);
        }
    }
}
