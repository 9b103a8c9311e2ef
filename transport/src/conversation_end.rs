//! How a conversation with a receiver ended, as the sender sees it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use xfer_hole_proto::{Digest, Refusal};
use xfer_hole_ui::Failure;

/// How a conversation with a receiver ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConversationEnd {
    /// The image is durable under its final name. The digest is that of its fingerprint, if the receiver sent one.
    Done(Option<Digest>),
    /// The receiver gave up for this reason.
    Failed(Refusal),
    /// The receiver sent something invalid, or the sender could not process it.
    Wrong(String),
    /// The receiver closed the connection without a result. The text is its last line that was not a reply.
    Closed(Option<String>),
    /// No data moved and no reply arrived for this time.
    Silent(Duration),
}

/// Formats the reason why there is no image. For [`ConversationEnd::Done`] that is a DONE before the end of the stream.
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
    /// Returns [`ConversationEnd::Wrong`] with a reason.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }

    /// Returns whether the same transfer may succeed later.
    ///
    /// For [`ConversationEnd::Closed`], [`RemoteProcess::why`](crate::RemoteProcess::why) is more precise.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Done(_) | Self::Wrong(_) => Failure::Permanent,
            Self::Failed(why) => Failure::temporary_if(why.is(Refusal::AGAIN)),
            Self::Closed(_) | Self::Silent(_) => Failure::Temporary,
        }
    }
}
