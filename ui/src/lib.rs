//! The user interface that xfer-hole and recv-hole share: arguments, messages, progress and signals.

mod bar;
mod event_loop;
mod failure;
mod json_events;
mod messages;
mod panics;
mod progress;
mod progress_display;
mod progress_snapshot;
mod seconds;
mod signals;
mod size;
mod stderr;
mod summary;
mod target_args;

pub use event_loop::EventLoop;
pub use failure::Failure;
pub use messages::{Messages, is_near};
pub use panics::exit_on_panic;
pub use progress::Progress;
pub use progress_display::ProgressKind;
pub use seconds::parse_seconds;
pub use signals::Signals;
pub use size::parse_size;
pub use stderr::LentTerminal;
pub use summary::{Summary, WrittenTarget};
pub use target_args::TargetArgs;
