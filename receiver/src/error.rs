//! Why a disk wasn't received.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use xfer_hole_os::{DiskErrorKind as Trouble, reason, shown};
use xfer_hole_proto::{Refusal, StreamErrorKind};
use xfer_hole_ui::Failure;

/// Each is one line; the hint stands apart.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    /// Nobody types a disk.
    #[error("standard input is a terminal, which no disk comes from")]
    InputTerminal,
    /// Nobody wants a disk on the screen.
    #[error("standard output is a terminal, which a disk is not written to")]
    OutputTerminal,
    /// We were started without one.
    #[error("standard output is closed")]
    OutputClosed,
    /// Nothing came for too long.
    #[error("nothing came for {} seconds: the link is taken for dead", .0.as_secs())]
    Silent(Duration),
    /// Something else has failed, which is told.
    #[error("reading was called off")]
    CalledOff,
    /// Wrong words on the command line.
    #[error("{0}")]
    Usage(String),
    /// A word that is none for an image or a target.
    #[error("{}: {what}", shown(.word))]
    Word {
        /// As it was typed.
        word: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The other side, or the way to it, failed.
    #[error("{what}")]
    Far {
        /// What it said last.
        what: String,
        /// Whether trying again can mend it.
        failure: Failure,
        /// What to do about it.
        hint: Option<&'static str>,
    },
    /// The sender gave up before its stream began, and this is why.
    #[error("{}", .0.reason())]
    Unsent(Refusal),
    /// The stream was cut while its sender heard us: the link to it is lost.
    #[error(transparent)]
    Lost(xfer_hole_proto::StreamError),
    /// Whoever asked was told of the failure.
    #[error("the other side was told")]
    Told(Failure),
    /// The system has no thread for us.
    #[error("cannot start a thread: {}", reason(.0))]
    Thread(std::io::Error),
    /// The user asked for digests.
    #[error("the stream carries no digests, and --require-hash was given")]
    NoHash,
    /// What is to be read back has to be compared with something.
    #[error("{0}, which --read-back goes by")]
    ReadBack(&'static str),
    /// The user set a limit.
    #[error("the disk of {size} bytes is larger than --max-size allows, {max}")]
    TooLarge {
        /// In bytes; at least so many, where the stream doesn't tell.
        size: u64,
        /// In bytes.
        max: u64,
    },
    /// Nobody asked for anything, as when the key is used for a shell.
    #[error("no transfer was asked for: SSH_ORIGINAL_COMMAND is not set")]
    NoRequest,
    /// The request has another shape.
    #[error("the request is refused: {0}")]
    Request(&'static str),
    /// The request is good, but not here.
    #[error("this receiver is restricted, and refuses {0}")]
    Forbidden(&'static str),
    /// What is there may not be kept.
    #[error("this receiver is restricted, and refuses a stream that keeps parts of an older image")]
    NoBase,
    /// The target can't be written.
    #[error(transparent)]
    Image(#[from] xfer_hole_os::DiskError),
    /// The stream is wrong.
    #[error(transparent)]
    Stream(#[from] xfer_hole_proto::StreamError),
    /// A failure after writing began.
    #[error("{error}; {remains}")]
    Begun {
        /// What went wrong.
        error: Box<ReceiveError>,
        /// What is left behind.
        remains: String,
    },
}

impl ReceiveError {
    /// The error itself, without what is left behind.
    pub(crate) fn cause(&self) -> &Self {
        match self {
            Self::Begun { error, .. } => error.cause(),
            error => error,
        }
    }

    /// The same, for another reason.
    pub(crate) fn because(self, cause: Self) -> Self {
        match self {
            Self::Begun { remains, .. } => Self::Begun { error: cause.into(), remains },
            _ => cause,
        }
    }

    /// A failure of a stream that comes by a link of ours: a cut is the link's then.
    pub(crate) fn of_link(self) -> Self {
        match self {
            Self::Begun { error, remains } => Self::Begun { error: error.of_link().into(), remains },
            Self::Stream(error) if error.kind() == StreamErrorKind::Cut => Self::Lost(error),
            error => error,
        }
    }

    /// Whether trying again can mend it.
    pub(crate) fn failure(&self) -> Failure {
        match self.cause() {
            Self::Silent(_) | Self::Lost(_) => Failure::Temporary,
            Self::Far { failure, .. } | Self::Told(failure) => *failure,
            Self::Unsent(why) => Failure::temporary_if(why.is(Refusal::AGAIN)),
            Self::Image(error) => Failure::temporary_if(error.kind() == Trouble::Busy),
            _ => Failure::Permanent,
        }
    }

    /// What a sender that hears us is told.
    pub(crate) fn refusal(&self) -> Refusal {
        let (mkpath, published) = match self.cause() {
            Self::Image(error) => (error.kind() == Trouble::NoDirectory, error.leaves_nothing()),
            _ => (false, false),
        };
        let left = published || matches!(self, Self::Begun { .. });
        let again = self.failure() == Failure::Temporary;
        let kinds = [(again, Refusal::AGAIN), (left, Refusal::LEFT), (mkpath, Refusal::MKPATH)];
        let kinds: Vec<_> = kinds.into_iter().filter(|(is, _)| *is).map(|(_, kind)| kind).collect();
        let hint = self.hint().filter(|_| matches!(self.cause(), Self::Image(_)) && !mkpath);
        let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
        Refusal::new(&kinds, &format!("{self}{hint}"))
    }

    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage(_) => Some("see recv-hole --help"),
            Self::Word { hint, .. } => hint.as_deref(),
            Self::Far { hint, .. } => *hint,
            Self::InputTerminal => Some("pipe a stream into it: xfer-hole IMAGE | recv-hole DEST"),
            Self::OutputTerminal => Some("pipe it into a program that reads a disk"),
            Self::NoHash => Some("send with xfer-hole --hash"),
            Self::Image(error) => error.hint_text(),
            Self::Begun { error, .. } => error.hint(),
            Self::Stream(error) if error.kind() == StreamErrorKind::NotAStream => {
                Some("a stream comes from xfer-hole; one in the dialect of 2014 needs --classic")
            }
            Self::NoRequest | Self::Request(_) | Self::Forbidden(_) | Self::NoBase => None,
            Self::Silent(_)
            | Self::CalledOff
            | Self::Told(_)
            | Self::Unsent(_)
            | Self::Lost(_)
            | Self::OutputClosed
            | Self::Thread(_)
            | Self::TooLarge { .. }
            | Self::ReadBack(_)
            | Self::Stream(_) => None,
        }
    }
}
