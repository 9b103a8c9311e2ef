//! One disk to whoever holds both ends of us: the stream on standard output, the receiver's answers on standard input.

use std::io;
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use xfer_hole_image::{Chain, Identity, Outlook, Plan, Tally};
use xfer_hole_link::{Answers, Ending, Loss, Messages, Talk};
use xfer_hole_proto::{Answer, Fingerprint, Refusal, SourceFacts, Sums};

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
        let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
        self.0.say(&Answer::Fail(Refusal::new(&[], &format!("{error}{hint}"))));
        Error::Told(error.failure())
    }
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
        Ending::Failed(_) | Ending::Closed(_) => Error::Told(ending.failure()),
        Ending::Done(_) => Error::far("the receiver said that it was done before it was"),
        Ending::Silent(_) => Loss { what: ending.to_string(), failure: ending.failure() }.into(),
    }
}
