//! Why a disk wasn't received.

use thiserror::Error;
use xfer_hole_proto::Kind;

/// Each is one line; the hint stands apart.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// Nobody types a disk.
    #[error("standard input is a terminal, which no disk comes from")]
    InputTerminal,
    /// Nobody wants a disk on the screen.
    #[error("standard output is a terminal, which a disk is not written to")]
    OutputTerminal,
    /// We were started without one.
    #[error("standard output is closed")]
    OutputClosed,
    /// The user asked for digests.
    #[error("the stream carries no digests, and --require-hash was given")]
    NoHash,
    /// The user set a limit.
    #[error("the disk of {size} octets is larger than --max-size allows, {max}")]
    TooLarge {
        /// In octets; at least so many, where the stream doesn't tell.
        size: u64,
        /// In octets.
        max: u64,
    },
    /// The target can't be written.
    #[error(transparent)]
    Image(#[from] xfer_hole_image::Error),
    /// The stream is wrong.
    #[error(transparent)]
    Stream(#[from] xfer_hole_proto::Error),
    /// A failure after writing began.
    #[error("{error}; {remains}")]
    Begun {
        /// What went wrong.
        error: Box<Error>,
        /// What is left behind.
        remains: String,
    },
}

impl Error {
    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::InputTerminal => Some("pipe a stream into it: xfer-hole IMAGE | recv-hole DEST"),
            Self::OutputTerminal => Some("pipe it into a program that reads a disk"),
            Self::NoHash => Some("send with xfer-hole --hash"),
            Self::Image(error) => error.hint_text(),
            Self::Begun { error, .. } => error.hint(),
            Self::Stream(error) if error.kind() == Kind::NotAStream => {
                Some("a stream comes from xfer-hole; one in the dialect of 2014 needs --classic")
            }
            Self::OutputClosed | Self::TooLarge { .. } | Self::Stream(_) => None,
        }
    }
}
