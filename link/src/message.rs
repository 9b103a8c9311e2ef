//! What is said, and where.
//!
//! - Standard output belongs to the stream, or to what was asked for; messages go to standard error.
//! - A message is one line, `name: what: why`, lower case, no full stop.
//! - A hint has a line of its own.
//! - Nothing is said of a success, unless it was asked for.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use xfer_hole_image::reason;

/// Exit code of every failure, as of wrong usage.
const TROUBLE: u8 = 2;

/// Speaks to the user under the program's name.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    name: &'static str,
    verbose: u8,
}

impl Messages {
    /// `name` stands at the beginning of each line.
    #[must_use]
    pub fn new(name: &'static str, verbose: u8) -> Self {
        Self { name, verbose }
    }

    /// A line that was asked for, under the program's name.
    pub fn say(self, what: impl Display) {
        // One write, so that lines of two programs on one terminal stay whole. If it can't be said, it can't be helped.
        let _said = io::stderr().write_all(format!("{}: {what}\n", self.name).as_bytes());
    }

    /// Something that the user should know, though it works.
    pub fn warn(self, what: impl Display) {
        self.say(format_args!("warning: {what}"));
    }

    /// What the other side said, under its name.
    pub fn relay(self, host: &str, line: &str) {
        self.say(format_args!("{host}: {line}"));
    }

    /// What to do about something that was warned of.
    pub fn hint(self, what: impl Display) {
        self.say(format_args!("hint: {what}"));
    }

    /// Something that was asked for with `-v`.
    pub fn verbose(self, what: impl Display) {
        if self.verbose > 0 {
            self.say(what);
        }
    }

    /// Something that was asked for with `-vv`.
    pub fn trace(self, what: impl Display) {
        if self.verbose > 1 {
            self.say(what);
        }
    }

    /// True if `-vv` was asked for.
    #[must_use]
    pub fn traces(self) -> bool {
        self.verbose > 1
    }

    /// A result that was asked for: a bare line, to be compared or cut out by programs.
    pub fn result(self, what: impl Display) {
        let _said = io::stderr().write_all(format!("{what}\n").as_bytes());
    }

    /// What the command line's parser has to say: help and version, or what is wrong with the words.
    pub fn usage(self, error: &clap::Error) -> ExitCode {
        if !error.use_stderr() {
            return match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => self.fail(format_args!("standard output: cannot write: {}", reason(&error)), None),
            };
        }
        let text = error.render().to_string();
        self.say(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
        ExitCode::from(TROUBLE)
    }

    /// A failure that the user knows of already.
    #[must_use]
    pub fn fail_quietly(self) -> ExitCode {
        ExitCode::from(TROUBLE)
    }

    /// The one line of a failure, and its hint.
    #[must_use]
    pub fn fail(self, what: impl Display, hint: Option<&str>) -> ExitCode {
        self.say(what);
        if let Some(hint) = hint {
            self.hint(hint);
        }
        ExitCode::from(TROUBLE)
    }
}
