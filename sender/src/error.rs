//! The errors of `xfer-hole`.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use xfer_hole_os::{DiskErrorKind, reason, shown};
use xfer_hole_transport::LinkLoss;
use xfer_hole_ui::Failure;

/// An error of `xfer-hole`. Its text is one line; the hint is separate.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// The options or arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// The argument parser refused the command line.
    #[error("{what}")]
    Words {
        /// The message, one line.
        what: String,
        /// The command or action that helps.
        hint: Option<String>,
    },
    /// An argument is no valid image or destination.
    #[error("{}: {what}", shown(.word))]
    Word {
        /// The argument.
        word: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The command or action that helps.
        hint: Option<String>,
    },
    /// The remote process or the connection failed.
    #[error("{what}")]
    Remote {
        /// The message, one line.
        what: String,
        /// Whether trying again can help.
        failure: Failure,
        /// The command or action that helps.
        hint: Option<&'static str>,
        /// The state of the target.
        target: TargetState,
    },
    /// The receiver has the error as a reply, and its user sees it there.
    #[error("the other side was told")]
    Reported(Failure),
    /// The request is not allowed for a restricted key.
    #[error("the request is refused: {0}")]
    RequestRefused(String),
    /// The target does not hold the disk that the changes are relative to.
    #[error("{0}")]
    OtherBase(String),
    /// The receiver can't check the target, parts of which would be kept.
    #[error("{what}, so it can't be told whether DEST holds the older disk")]
    Unchecked {
        /// The receiver and the reason.
        what: &'static str,
        /// The command or action that helps.
        hint: &'static str,
    },
    /// Standard output is a terminal.
    #[error("standard output is a terminal, which a disk is not written to")]
    Terminal,
    /// Standard output was closed when the program started.
    #[error("standard output is closed")]
    Closed,
    /// The reader of the stream closed it.
    #[error("broken pipe: the receiver ended before the whole disk was sent")]
    BrokenPipe,
    /// The reader of a result closed the pipe; no message is printed.
    #[error("broken pipe: nobody reads on")]
    ReaderGone,
    /// A write to the stream failed.
    #[error("standard output: cannot write: {}", reason(.0))]
    Output(io::Error),
    /// A read of the receiver's replies failed.
    #[error("standard input: cannot read: {}", reason(.0))]
    Input(io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {}", reason(.0))]
    Thread(io::Error),
    /// A copy failed after the target was written to.
    #[error("{error}; {remains}")]
    Begun {
        /// The cause.
        error: Box<SendError>,
        /// The state of the target.
        remains: String,
    },
    /// `--reflink always` was given and blocks can't be shared.
    #[error("{}: cannot share its blocks, as --reflink always wants it: {why}", shown(.image))]
    Reflink {
        /// The image.
        image: PathBuf,
        /// The reason.
        why: String,
    },
    /// The disk can't be read, or the copy can't be written.
    #[error(transparent)]
    Image(#[from] xfer_hole_os::DiskError),
    /// The encoder refused a frame that would make the stream invalid.
    #[error(transparent)]
    Stream(#[from] xfer_hole_proto::StreamError),
}

/// The state of the target after a failure on the receiver's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetState {
    /// The message states it, or the target does not matter.
    Stated,
    /// The target is unchanged.
    Unchanged,
    /// The state is unknown.
    Unknown,
}

impl SendError {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A permanent failure of the remote process or the connection.
    pub(crate) fn remote(what: impl Into<String>) -> Self {
        Self::Remote { what: what.into(), failure: Failure::Permanent, hint: None, target: TargetState::Unknown }
    }

    /// Whether trying again can help.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Remote { failure, .. } | Self::Reported(failure) => *failure,
            Self::Image(error) => Failure::temporary_if(error.kind() == DiskErrorKind::Busy),
            Self::Begun { error, .. } => error.failure(),
            _ => Failure::Permanent,
        }
    }

    /// Converts a failed read of the receiver's replies.
    pub(crate) fn input(source: io::Error) -> Self {
        Self::Input(source)
    }

    /// Converts a failed write of the stream.
    pub(crate) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Output(source),
        }
    }

    /// True if writing the stream failed.
    pub(crate) fn is_of_output(&self) -> bool {
        matches!(self, Self::BrokenPipe | Self::Output(_))
    }

    /// The command or action that helps, if there is one.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage(_) => Some("see xfer-hole --help"),
            Self::Word { hint, .. } | Self::Words { hint, .. } => hint.as_deref(),
            Self::Unchecked { hint, .. } => Some(hint),
            Self::OtherBase(_) => {
                Some("send the changes since the disk that it holds, or the whole disk, or use --delta")
            }
            Self::Terminal => Some("pipe it into recv-hole, or into ssh"),
            Self::Image(error) => error.hint_text(),
            Self::Begun { error, .. } => error.hint(),
            Self::Reflink { .. } => Some("leave --reflink out to have it copied where it can't be shared"),
            Self::Remote { hint, .. } => *hint,
            Self::Reported(_)
            | Self::RequestRefused(_)
            | Self::Input(_)
            | Self::Closed
            | Self::Thread(_)
            | Self::BrokenPipe
            | Self::ReaderGone
            | Self::Output(_)
            | Self::Stream(_) => None,
        }
    }
}

impl From<LinkLoss> for SendError {
    fn from(LinkLoss { what, failure }: LinkLoss) -> Self {
        Self::Remote { what, failure, hint: None, target: TargetState::Unknown }
    }
}
