//! What both ends share towards the user (arguments, messages, progress, signals, and the rim that they live on), and the way to the
//! other side.

mod answers;
mod bar;
mod beneath;
mod ending;
mod event;
mod failure;
mod far;
mod manifest_input;
mod message;
mod panics;
mod place;
mod progress;
mod request;
mod rim;
mod rsh;
mod screen;
mod seconds;
mod signal;
mod size;
mod spool;
mod status;
mod summary;
mod talk;
mod target_args;
mod throttle;
mod verify;

pub use answers::{Answers, Offer, TERMINAL, Told};
pub use beneath::{components, original_command, relative};
pub use ending::Ending;
pub use failure::Failure;
pub use far::{Far, Loss, REFUSED_HINT};
pub use manifest_input::ManifestInput;
pub use message::{Messages, is_near};
pub use panics::exit_on_panic;
pub use place::{BadPlace, Place, Remote, copy_name, own_name};
pub use progress::{Progress, ProgressKind};
pub use request::{
    NOT_CODED, REQUEST_MAX, Request, coded, decoded, is_plain, is_push, pull_command, pull_words, quoted_for_sh,
    shell_word, unquoted,
};
pub use rim::Rim;
pub use rsh::{RshArgs, parse_version};
pub use signal::Signals;
pub use size::{parse_size, size_text};
pub use spool::Spool;
pub use summary::{Made, Summary};
pub use talk::{Talk, wait_after};
pub use target_args::TargetArgs;
pub use throttle::Throttle;
pub use verify::{Verdict, verify};
