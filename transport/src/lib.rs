//! The connection to the other side of an xfer-hole transfer: ssh, push and pull requests, and replies.

mod beneath;
mod conversation_end;
mod existing_offer;
mod location;
mod push_request;
mod rate_limiter;
mod record_spool;
mod remote_process;
mod reply_reader;
mod reply_state;
mod reply_writer;
mod ssh_args;

pub use beneath::{components, original_command, relative};
pub use conversation_end::ConversationEnd;
pub use existing_offer::{ExistingOffer, ManifestProgress};
pub use location::{BadLocation, Location, Remote, copy_name, own_name};
pub use push_request::{
    NOT_CODED, PushRequest, REQUEST_MAX, coded, decoded, is_push, pull_command, pull_words, quoted_for_sh, shell_word,
    unquoted,
};
pub use rate_limiter::RateLimiter;
pub use record_spool::RecordSpool;
pub use remote_process::{LinkLoss, REFUSED_HINT, RemoteProcess};
pub use reply_reader::{ReplyReader, TERMINAL};
pub use reply_writer::{ReplyWriter, wait_after};
pub use ssh_args::{SshArgs, parse_version};
