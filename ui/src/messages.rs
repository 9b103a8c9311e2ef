//! Messages to the user.
//!
//! - Messages go to standard error. Standard output carries the stream or the requested result.
//! - A message is one line, `name: what: why`, in lower case, without a full stop.
//! - A hint is a line of its own.
//! - Success prints nothing, unless a flag requests it.
//! - With `--progress=json` every message is a JSON object.

use std::fmt::Display;
use std::process::ExitCode;

use xfer_hole_os::reason;

use crate::{Failure, json_events, stderr};

/// Prints messages that begin with the program's name.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    name: &'static str,
    verbose: u8,
    json: bool,
}

impl Messages {
    /// Creates a printer. `name` begins each line; `verbose` is the number of `-v` flags.
    #[must_use]
    pub fn new(name: &'static str, verbose: u8) -> Self {
        Self { name, verbose, json: false }
    }

    /// Sets whether each message is printed as a line of JSON, see xfer-hole-progress(7).
    #[must_use]
    pub fn json(self, json: bool) -> Self {
        Self { json, ..self }
    }

    /// Returns the program's name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Returns true if messages are printed as JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Returns a message as it is printed, with its newline.
    ///
    /// JSON has `event` as the kind of the message. Plain text has `kind` as a prefix, such as `"warning: "`.
    pub fn line(self, event: &str, kind: &str, what: impl Display) -> String {
        if self.json {
            json_events::message(self.name, event, &what.to_string())
        } else {
            format!("{}: {kind}{what}\n", self.name)
        }
    }

    fn print(self, event: &str, kind: &str, what: impl Display) {
        stderr::print(&self.line(event, kind, what));
    }

    /// Prints a warning.
    pub fn warn(self, what: impl Display) {
        self.print("warning", "warning: ", what);
    }

    /// Prints a warning, and a hint about what to do.
    pub fn warn_with_hint(self, what: impl Display, hint: impl Display) {
        self.warn(what);
        self.hint(hint);
    }

    /// Prints a line that the program on `host` wrote.
    pub fn relay(self, host: &str, line: &str) {
        self.note(format_args!("{host}: {line}"));
    }

    /// Prints a hint about what to do.
    pub fn hint(self, what: impl Display) {
        self.print("hint", "hint: ", what);
    }

    /// Prints a plain message, at any verbosity.
    pub fn note(self, what: impl Display) {
        self.print("note", "", what);
    }

    /// Prints a plain message if `-v` was given.
    pub fn verbose(self, what: impl Display) {
        if self.verbose > 0 {
            self.note(what);
        }
    }

    /// Prints a plain message if `-vv` was given.
    pub fn trace(self, what: impl Display) {
        if self.verbose > 1 {
            self.note(what);
        }
    }

    /// Returns true if `-vv` was given.
    #[must_use]
    pub fn traces(self) -> bool {
        self.verbose > 1
    }

    /// Prints a requested result as a line without the program's name, so that scripts can compare it.
    pub fn result(self, what: impl Display) {
        if self.json {
            self.print("result", "", what);
        } else {
            stderr::print(&format!("{what}\n"));
        }
    }

    /// Prints what the argument parser returned, and returns the exit status.
    ///
    /// That is help, the version, or a usage error. `command` is the subcommand whose arguments were wrong.
    pub fn usage(self, error: &clap::Error, command: Option<&str>) -> ExitCode {
        if !error.use_stderr() {
            return match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.fail_quietly(Failure::Permanent),
                Err(error) => self.fail(format_args!("standard output: cannot write: {}", reason(&error)), None),
            };
        }
        let (line, hints) = self.wrong_words(error, command);
        self.print("error", "", line);
        hints.iter().for_each(|hint| self.hint(hint));
        Failure::Permanent.exit_code()
    }

    /// Returns a usage error as one line, and its hints.
    #[must_use]
    pub fn wrong_words(self, error: &clap::Error, command: Option<&str>) -> (String, Vec<String>) {
        // The parser renders several paragraphs: the error, tips, usage, and a reference to --help.
        let text = error.render().to_string();
        let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let line = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        // Dropped are tips about passing a flag as a value, and suggestions of words that are not close to what was typed.
        let tips = rest.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
        let tips = tips.filter(|tip| !tip.starts_with("to pass "));
        let wrong = quoted_words(&line).next().unwrap_or_default();
        let helps = |tip: &&str| !tip.contains("similar") || quoted_words(tip).any(|word| is_near(wrong, word));
        let mut hints: Vec<_> = tips.filter(helps).map(str::to_owned).collect();
        if hints.is_empty() {
            let command = command.map_or(String::new(), |command| format!(" {command}"));
            hints.push(format!("see {}{command} --help", self.name));
        }
        (line.strip_prefix("error: ").unwrap_or(&line).to_owned(), hints)
    }

    /// Returns the exit status of a failure that was already reported.
    #[must_use]
    pub fn fail_quietly(self, failure: Failure) -> ExitCode {
        failure.exit_code()
    }

    /// Prints a permanent failure and its hint, and returns the exit status.
    #[must_use]
    pub fn fail(self, what: impl Display, hint: Option<&str>) -> ExitCode {
        self.fail_as(Failure::Permanent, what, hint)
    }

    /// Prints a failure and its hint, and returns the exit status.
    #[must_use]
    pub fn fail_as(self, failure: Failure, what: impl Display, hint: Option<&str>) -> ExitCode {
        self.print("error", "", what);
        if let Some(hint) = hint {
            self.hint(hint);
        }
        failure.exit_code()
    }
}

/// Returns the words between single quotes in a line of the parser's output.
fn quoted_words(line: &str) -> impl Iterator<Item = &str> {
    line.split('\'').skip(1).step_by(2)
}

/// Returns true if `wrong` is probably a mistyped `meant`.
///
/// The edit distance may be 1, and one more for every 4 letters of the shorter word.
#[must_use]
pub fn is_near(wrong: &str, meant: &str) -> bool {
    let letters = |word: &str| word.trim_start_matches('-').chars().collect::<Vec<_>>();
    let (wrong, meant) = (letters(wrong), letters(meant));
    // Levenshtein distance, row by row.
    let mut row: Vec<usize> = (0..=meant.len()).collect();
    for (n, letter) in wrong.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], n + 1);
        for (m, other) in meant.iter().enumerate() {
            let change = before + usize::from(letter != other);
            before = row[m + 1];
            row[m + 1] = change.min(before + 1).min(row[m] + 1);
        }
    }
    row[meant.len()] <= 1 + wrong.len().min(meant.len()) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_with_few_letters_wrong_is_near() {
        for (wrong, meant) in [
            ("--progres", "--progress"),
            ("--has", "--hash"),
            ("--inplace", "--in-place"),
            ("--backing-fromat", "--backing-format"),
            ("fiemaps", "fiemap"),
            ("--bwlimt", "--bwlimit"),
        ] {
            assert!(is_near(wrong, meant), "{wrong} {meant}");
        }
        for (wrong, meant) in
            [("--partial", "--port"), ("--sparse", "--speaks"), ("--archive", "--receiver"), ("-z", "--hash")]
        {
            assert!(!is_near(wrong, meant), "{wrong} {meant}");
        }
    }
}
