//! One disk to whoever holds both ends of us: the stream on standard output, the receiver's answers on standard input.

use std::io;
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use xfer_hole_image::{Chain, Identity, Outlook, Plan, Tally};
use xfer_hole_link::{Answers, Ending, Messages};
use xfer_hole_proto::{Fingerprint, SourceFacts, Sums};

use crate::cli::{Cli, Job, Towards};
use crate::error::Error;
use crate::send::{self, Known, Ready};
use crate::since::Basis;
use crate::source::check_content;
use crate::wire::Wire;

/// How long the receiver may take to say why it doesn't take any more.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How long the disk's data may be counted before the first byte. What isn't counted by then is estimated.
const COUNT: Duration = Duration::from_millis(100);

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
    let stop = |_: &Ending| process::exit(2);
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
            Some(Ending::Done(digest)) if answers.was_asked() && digest != fingerprint.map(|sent| sent.digest) => {
                Err(Error::Far("the receiver says that it has written another disk than was sent".into()))
            }
            Some(Ending::Done(_)) => Ok(fingerprint),
            ending => Err(ended(ending.unwrap_or(Ending::Closed(None)))),
        },
        Err(error) if error.is_of_output() => Err(answers.ending(Some(LAST_WORD)).map_or(error, ended)),
        // The receiver has our reason, and tells its user.
        Err(_) if wire.has_said_why() => Err(Error::Unread),
        Err(error) => Err(error),
    }
}

fn ended(ending: Ending) -> Error {
    match ending {
        // It tells its user itself.
        Ending::Failed(_) | Ending::Closed(_) => Error::Unread,
        Ending::Done(_) => Error::Far("the receiver said that it was done before it was".into()),
        ending @ Ending::Silent(_) => Error::Far(ending.to_string()),
    }
}
