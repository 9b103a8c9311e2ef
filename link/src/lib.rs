//! What both ends share towards the user (arguments, messages, progress), and the way to the other side.

mod answers;
mod far;
mod message;
mod place;
mod progress;
mod request;
mod rsh;
mod size;
mod talk;
mod target_args;

pub use answers::{Answers, Ending};
pub use far::Far;
pub use message::Messages;
pub use place::{Place, Remote, copy_name};
pub use progress::{Progress, ProgressKind};
pub use request::{Request, coded, pull_command, quoted_for_sh};
pub use rsh::RshArgs;
pub use size::parse_size;
pub use talk::Talk;
pub use target_args::TargetArgs;
