//! Why a disk wasn't sent.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use xfer_hole_os::{DiskErrorKind, reason, shown};
use xfer_hole_transport::LinkLoss;
use xfer_hole_ui::Failure;

/// Each is one line; the hint stands apart.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// Wrong words on the command line.
    #[error("{0}")]
    Usage(String),
    /// Words that the parser of the command line refuses.
    #[error("{what}")]
    Words {
        /// One line.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A word that is none for an image or a destination.
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
        /// One line.
        what: String,
        /// Whether trying again can mend it.
        failure: Failure,
        /// What to do about it.
        hint: Option<&'static str>,
        /// What is known of the target.
        left: Left,
    },
    /// The other side has been told.
    #[error("the other side was told")]
    Told(Failure),
    /// A pull that a restricted key may not ask for.
    #[error("the request is refused: {0}")]
    Asked(String),
    /// The target holds another disk than the one that the changes are for.
    #[error("{0}")]
    OtherBase(String),
    /// The receiver doesn't check what the target holds, and parts of that would be kept.
    #[error("{what}, so it can't be told whether DEST holds the older disk")]
    Unchecked {
        /// Who it is.
        what: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// Nobody wants a disk on the screen.
    #[error("standard output is a terminal, which a disk is not written to")]
    Terminal,
    /// We were started without one.
    #[error("standard output is closed")]
    Closed,
    /// The receiver went away.
    #[error("broken pipe: the receiver ended before the whole disk was sent")]
    BrokenPipe,
    /// Whoever read what we print has had enough, and knows why.
    #[error("broken pipe: nobody reads on")]
    Unread,
    /// The stream can't be written.
    #[error("standard output: cannot write: {}", reason(.0))]
    Output(io::Error),
    /// The receiver's answers can't be read.
    #[error("standard input: cannot read: {}", reason(.0))]
    Input(io::Error),
    /// The system has no thread for us.
    #[error("cannot start a thread: {}", reason(.0))]
    Thread(io::Error),
    /// A failure after writing of a copy began.
    #[error("{error}; {remains}")]
    Begun {
        /// What went wrong.
        error: Box<SendError>,
        /// What is left behind.
        remains: String,
    },
    /// Blocks were to be shared, and can't be.
    #[error("{}: cannot share its blocks, as --reflink always wants it: {why}", shown(.image))]
    Reflink {
        /// The disk.
        image: PathBuf,
        /// Half a sentence.
        why: String,
    },
    /// The disk can't be read, or the copy not be written.
    #[error(transparent)]
    Image(#[from] xfer_hole_os::DiskError),
    /// We were about to write a stream that the receiver would refuse.
    #[error(transparent)]
    Stream(#[from] xfer_hole_proto::StreamError),
}

/// What a failure of the other side tells of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The line says it, or there is nothing to be said.
    Said,
    /// Nothing was begun there.
    Untouched,
    /// It isn't told.
    Unknown,
}

impl SendError {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// The other side, or the way to it, failed for good.
    pub(crate) fn remote(what: impl Into<String>) -> Self {
        Self::Far { what: what.into(), failure: Failure::Permanent, hint: None, left: Left::Unknown }
    }

    /// Whether trying again can mend it.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Far { failure, .. } | Self::Told(failure) => *failure,
            Self::Image(error) => Failure::temporary_if(error.kind() == DiskErrorKind::Busy),
            Self::Begun { error, .. } => error.failure(),
            _ => Failure::Permanent,
        }
    }

    /// A failed read of the answers.
    pub(crate) fn input(source: io::Error) -> Self {
        Self::Input(source)
    }

    /// A failed write of the stream.
    pub(crate) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Output(source),
        }
    }

    /// True if it was the receiver, or the way to it, that didn't take the stream.
    pub(crate) fn is_of_output(&self) -> bool {
        matches!(self, Self::BrokenPipe | Self::Output(_))
    }

    /// What to do about it, where that is known.
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
            Self::Far { hint, .. } => *hint,
            Self::Told(_)
            | Self::Asked(_)
            | Self::Input(_)
            | Self::Closed
            | Self::Thread(_)
            | Self::BrokenPipe
            | Self::Unread
            | Self::Output(_)
            | Self::Stream(_) => None,
        }
    }
}

impl From<LinkLoss> for SendError {
    fn from(LinkLoss { what, failure }: LinkLoss) -> Self {
        Self::Far { what, failure, hint: None, left: Left::Unknown }
    }
}
