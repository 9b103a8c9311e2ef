//! One disk to another machine: one connection, and the receiver's word that the image is there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use xfer_hole_image::{Image, Phase, Plan, Tally, Want, shown, sys};
use xfer_hole_link::{Answers, Ending, Far, Messages, Remote, Request, Signals, copy_name, quoted_for_sh};
use xfer_hole_proto::{Answer, Dialect, Fingerprint};

use crate::RECV_HOLE_SH;
use crate::cli::{Cli, Towards};
use crate::error::Error;
use crate::send;
use crate::wire::Wire;

/// What runs the receiver at the other side, and speaks for recv-hole.sh.
const FAR_END_SH: &str = include_str!("../far-end.sh");
/// How long the receiver may take to say why it doesn't take any more.
const LAST_WORD: Duration = Duration::from_secs(10);
/// The text of sh that goes ahead of the stream.
fn preamble() -> String {
    format!("script={}\n{FAR_END_SH}", quoted_for_sh(RECV_HOLE_SH))
}

/// Says what a dry run has found: how much there is by the extents, of which zeros may still be found.
fn would_send(disk: &dyn Image, image: &Path, remote: &Remote, messages: Messages) -> Result<(), Error> {
    let mut data = 0;
    for step in Plan::whole(disk) {
        let step = step?;
        data += if step.want == Want::Copy { step.extent.len } else { 0 };
    }
    let (image, dest, size) = (shown(image), shown(remote.path.as_ref()), disk.size());
    let host = remote.destination();
    messages.note(format_args!("would send {image}, a disk of {size} octets with {data} of data, to {host}:{dest}"));
    Ok(())
}

/// A push: what it needs besides the disk.
pub(crate) struct Push<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) image: &'a Path,
    pub(crate) remote: &'a Remote,
    pub(crate) tally: &'a Arc<Tally>,
    pub(crate) signals: &'a Signals,
    pub(crate) messages: Messages,
}

impl Push<'_> {
    /// Sends the disk, and waits until it is durable under its final name.
    pub(crate) fn run(&self, disk: &dyn Image) -> Result<Option<Fingerprint>, Error> {
        let patience = self.cli.rsh.patience();
        let mut options = vec![format!("receiver={}", self.cli.receiver.unwrap_or_default().word())];
        options.push(format!("max-wait={}", patience.as_secs()));
        options.extend(self.cli.target.words());
        let request = Request { options, dest: self.remote.path.clone(), name: copy_name(self.image) };
        let preamble = preamble();
        let command = request.command(preamble.len());
        let command = self.cli.rsh.command(self.remote, &command).map_err(Error::Usage)?;
        self.messages.verbose(format_args!("runs {}", command.get_program().to_string_lossy()));
        let host = self.remote.host.clone();
        let (far, to, from) = Far::start(command, host.clone(), self.messages).map_err(Error::Far)?;
        self.signals.on_end(Box::new(far.stopper()));
        let answers = Answers::listen(from, Some(host), self.messages, far.stopper()).map_err(Error::Thread)?;
        answers.watch(Arc::clone(self.tally), patience).map_err(Error::Thread)?;
        // If it isn't taken, the answer says why.
        let _taken = sys::write_all(&to, preamble.as_bytes());
        let words = answers.ready().map_err(|ending| self.failed(&far, ending))?;
        self.messages.verbose(format_args!("{}: receives by {}", self.remote.host, words.join(" ")));
        if self.cli.target.dry_run {
            drop(to);
            far.close();
            return would_send(disk, self.image, self.remote, self.messages).map(|()| None);
        }
        let towards = if words.iter().any(|word| word == Answer::SH) { Towards::Sh } else { Towards::Binary };
        let job = self.cli.job(towards)?;
        let mut wire = Wire::new(to, Dialect::V1, Arc::clone(self.tally), self.cli.throttle());
        wire.heed(answers.clone());
        let sent = send::send(disk, &job, &mut wire, self.tally, self.messages);
        // The end of the stream, which sh waits for.
        drop(wire);
        let fingerprint = match sent {
            Ok(fingerprint) => fingerprint,
            Err(error) if error.is_of_output() => {
                let ending = answers.ending(Some(LAST_WORD)).unwrap_or(Ending::Closed(None));
                return Err(self.failed(&far, ending));
            }
            Err(error) => {
                // It hears why, and ends by itself.
                let _ending = answers.ending(Some(LAST_WORD));
                return Err(error);
            }
        };
        self.tally.set_phase(Phase::Syncing);
        match answers.ending(None) {
            Some(Ending::Done(digest)) => {
                let ours = fingerprint.map(|fingerprint| fingerprint.digest);
                if let (Some(theirs), Some(ours)) = (digest, ours)
                    && theirs != ours
                {
                    let what = "says that it has written another disk than was sent";
                    return Err(Error::Far(format!("{}: {what}", self.remote.host)));
                }
                far.close();
                Ok(fingerprint)
            }
            ending => Err(self.failed(&far, ending.unwrap_or(Ending::Closed(None)))),
        }
    }

    fn failed(&self, far: &Far, ending: Ending) -> Error {
        let host = &self.remote.host;
        Error::Far(match ending {
            Ending::Failed(why) => format!("{host}: {why}"),
            Ending::Closed(noise) => far.why(noise.as_deref()),
            Ending::Silent(patience) => {
                format!("{host}: the link is dead: nothing moved for {} seconds", patience.as_secs())
            }
            Ending::Done(_) => format!("{host}: said that it was done before it was"),
        })
    }
}
