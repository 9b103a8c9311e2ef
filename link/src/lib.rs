//! What both ends share towards the user: arguments, messages, progress. The way to the other side stands here too, once
//! there is one of our own.

mod message;
mod progress;
mod size;

pub use message::Messages;
pub use progress::{Progress, ProgressKind};
pub use size::parse_size;
