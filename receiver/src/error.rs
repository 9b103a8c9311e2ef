//! Errors of the receiver.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use xfer_hole_os::{DiskErrorKind, reason, shown};
use xfer_hole_proto::{Refusal, StreamErrorKind};
use xfer_hole_ui::Failure;

/// Why a disk was not received. Its text is one line, without the hint.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    /// Standard input is a terminal.
    #[error("standard input is a terminal, which no disk comes from")]
    InputTerminal,
    /// Standard output is a terminal and DEST is `-`.
    #[error("standard output is a terminal, which a disk is not written to")]
    OutputTerminal,
    /// Standard output was closed when the program started.
    #[error("standard output is closed")]
    OutputClosed,
    /// No data arrived for this time.
    #[error("nothing came for {} seconds: the link is taken for dead", .0.as_secs())]
    Silent(Duration),
    /// Reading stopped because another thread failed, which reports the reason.
    #[error("reading was called off")]
    CalledOff,
    /// The command line is not valid.
    #[error("{0}")]
    Usage(String),
    /// An operand is not a valid image or target.
    #[error("{}: {what}", shown(.word))]
    Word {
        /// The operand as it was typed.
        word: PathBuf,
        /// The reason.
        what: String,
        /// The hint.
        hint: Option<String>,
    },
    /// The remote program or the link to it failed.
    #[error("{what}")]
    Remote {
        /// The message, with the host.
        what: String,
        /// Whether a retry can succeed.
        failure: Failure,
        /// The hint.
        hint: Option<&'static str>,
    },
    /// The sender gave up before its stream began, for this reason.
    #[error("{}", .0.reason())]
    Unsent(Refusal),
    /// The stream of a sender that reads replies was cut: the link is lost.
    #[error(transparent)]
    Lost(xfer_hole_proto::StreamError),
    /// The failure was already reported.
    #[error("the other side was told")]
    Reported(Failure),
    /// A thread can't be started.
    #[error("cannot start a thread: {}", reason(.0))]
    Thread(std::io::Error),
    /// The stream has no digests, and `--require-hash` was given.
    #[error("the stream carries no digests, and --require-hash was given")]
    NoHash,
    /// `--read-back` was given, and the digest of the whole disk is missing for this reason.
    #[error("{0}, which --read-back goes by")]
    ReadBack(&'static str),
    /// The disk exceeds `--max-size`.
    #[error("the disk of {size} bytes is larger than --max-size allows, {max}")]
    TooLarge {
        /// Size of the disk in bytes; a lower bound if the stream does not announce it.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// `SSH_ORIGINAL_COMMAND` is not set, because a restricted key was used for a shell.
    #[error("no transfer was asked for: SSH_ORIGINAL_COMMAND is not set")]
    NoRequest,
    /// The request is not valid.
    #[error("the request is refused: {0}")]
    Request(&'static str),
    /// The request is valid, but the restricted key does not allow it.
    #[error("this receiver is restricted, and refuses {0}")]
    Forbidden(&'static str),
    /// The stream keeps parts of an existing image, which the restricted key does not allow.
    #[error("this receiver is restricted, and refuses a stream that keeps parts of an older image")]
    NoBase,
    /// Reading or writing the target failed.
    #[error(transparent)]
    Image(#[from] xfer_hole_os::DiskError),
    /// The stream is not valid.
    #[error(transparent)]
    Stream(#[from] xfer_hole_proto::StreamError),
    /// A failure that leaves something behind.
    #[error("{error}; {remains}")]
    Begun {
        /// The failure.
        error: Box<ReceiveError>,
        /// A description of what is left behind.
        remains: String,
    },
}

impl ReceiveError {
    /// Returns the error without what is left behind.
    pub(crate) fn cause(&self) -> &Self {
        match self {
            Self::Begun { error, .. } => error.cause(),
            error => error,
        }
    }

    /// Replaces the cause of the error and keeps what is left behind.
    pub(crate) fn with_cause(self, cause: Self) -> Self {
        match self {
            Self::Begun { remains, .. } => Self::Begun { error: cause.into(), remains },
            _ => cause,
        }
    }

    /// Converts an error of a stream that arrives by a link: a cut stream becomes [`ReceiveError::Lost`].
    pub(crate) fn of_link(self) -> Self {
        match self {
            Self::Begun { error, remains } => Self::Begun { error: error.of_link().into(), remains },
            Self::Stream(error) if error.kind() == StreamErrorKind::Cut => Self::Lost(error),
            error => error,
        }
    }

    /// Returns whether a retry can succeed.
    pub(crate) fn failure(&self) -> Failure {
        match self.cause() {
            Self::Silent(_) | Self::Lost(_) => Failure::Temporary,
            Self::Remote { failure, .. } | Self::Reported(failure) => *failure,
            Self::Unsent(why) => Failure::temporary_if(why.is(Refusal::AGAIN)),
            Self::Image(error) => Failure::temporary_if(error.kind() == DiskErrorKind::Busy),
            _ => Failure::Permanent,
        }
    }

    /// Returns the reply for a sender that reads replies.
    pub(crate) fn refusal(&self) -> Refusal {
        let (mkpath, published) = match self.cause() {
            Self::Image(error) => (error.kind() == DiskErrorKind::NoDirectory, error.leaves_nothing()),
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

    /// Returns what to do about the error, if that is known.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage(_) => Some("see recv-hole --help"),
            Self::Word { hint, .. } => hint.as_deref(),
            Self::Remote { hint, .. } => *hint,
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
            | Self::Reported(_)
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
