//! How a conversation with a receiver ended, as its sender heard it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use xfer_hole_proto::{Digest, Refusal};
use xfer_hole_ui::Failure;

/// How a conversation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConversationEnd {
    /// The image is there, durable, under its name; with the digest of its fingerprint, if the receiver told it.
    Done(Option<Digest>),
    /// The receiver gave up, and this is why.
    Failed(Refusal),
    /// What it says can't be taken, or can't be kept here.
    Wrong(String),
    /// The receiver went away without a word. What it said last that was no answer may tell why.
    Closed(Option<String>),
    /// Nothing moved, and nothing was heard, for so long.
    Silent(Duration),
}

/// Why there is no image, but for [`ConversationEnd::Done`], which came too early then.
impl Display for ConversationEnd {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(_) => f.write_str("said that it was done before it was"),
            Self::Failed(why) => write!(f, "{}", why.reason()),
            Self::Wrong(what) => f.write_str(what),
            Self::Closed(_) => f.write_str("the connection ended before the image was whole there"),
            Self::Silent(patience) => {
                write!(f, "the link is dead: nothing was heard for {} seconds", patience.as_secs())
            }
        }
    }
}

impl ConversationEnd {
    /// It failed for a reason of ours.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    /// Whether the same transfer may succeed later. Of [`ConversationEnd::Closed`] the program that held the link may know more.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Done(_) | Self::Wrong(_) => Failure::Permanent,
            Self::Failed(why) => Failure::temporary_if(why.is(Refusal::AGAIN)),
            Self::Closed(_) | Self::Silent(_) => Failure::Temporary,
        }
    }
}
