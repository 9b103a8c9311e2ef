//! What both ends share towards the user (arguments, messages, progress, signals, and the event loop that they live on), and the way to the
//! other side.

mod bar;
mod beneath;
mod conversation_end;
mod event_loop;
mod failure;
mod json_events;
mod location;
mod manifest_reader;
mod messages;
mod panics;
mod progress;
mod progress_snapshot;
mod push_request;
mod rate_limiter;
mod record_spool;
mod remote_process;
mod reply_reader;
mod reply_writer;
mod seconds;
mod signals;
mod size;
mod ssh_args;
mod stderr;
mod summary;
mod target_args;
mod verify;

pub use beneath::{components, original_command, relative};
pub use conversation_end::ConversationEnd;
pub use event_loop::EventLoop;
pub use failure::Failure;
pub use location::{BadLocation, Location, Remote, copy_name, own_name};
pub use manifest_reader::ManifestInput;
pub use messages::{Messages, is_near};
pub use panics::exit_on_panic;
pub use progress::{Progress, ProgressKind};
pub use push_request::{
    NOT_CODED, PushRequest, REQUEST_MAX, coded, decoded, is_plain, is_push, pull_command, pull_words, quoted_for_sh,
    shell_word, unquoted,
};
pub use rate_limiter::RateLimiter;
pub use record_spool::RecordSpool;
pub use remote_process::{LinkLoss, REFUSED_HINT, RemoteProcess};
pub use reply_reader::{ExistingOffer, ManifestProgress, ReplyReader, TERMINAL};
pub use reply_writer::{ReplyWriter, wait_after};
pub use signals::Signals;
pub use size::{parse_size, size_text};
pub use ssh_args::{SshArgs, parse_version};
pub use summary::{Summary, WrittenTarget};
pub use target_args::TargetArgs;
pub use verify::{Verdict, verify};
