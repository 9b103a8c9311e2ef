//! What is said, and where.
//!
//! - Standard output belongs to the stream, or to what was asked for; messages go to standard error.
//! - A message is one line, `name: what: why`, lower case, no full stop.
//! - A hint has a line of its own.
//! - Nothing is said of a success, unless it was asked for.
//! - Where programs listen, each of them is a JSON object.

use std::fmt::Display;
use std::process::ExitCode;

use xfer_hole_os::reason;

use crate::{Failure, json_events, stderr};

/// Speaks to the user under the program's name.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    name: &'static str,
    verbose: u8,
    json: bool,
}

impl Messages {
    /// `name` stands at the beginning of each line.
    #[must_use]
    pub fn new(name: &'static str, verbose: u8) -> Self {
        Self { name, verbose, json: false }
    }

    /// The same for programs, if `json`: each message is then a line of JSON, see xfer-hole-progress(7).
    #[must_use]
    pub fn json(self, json: bool) -> Self {
        Self { json, ..self }
    }

    /// The program's name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// True if programs listen.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// A message as it is written: `event` for programs, `kind` for people.
    pub fn line(self, event: &str, kind: &str, what: impl Display) -> String {
        if self.json {
            json_events::said(self.name, event, &what.to_string())
        } else {
            format!("{}: {kind}{what}\n", self.name)
        }
    }

    fn say(self, event: &str, kind: &str, what: impl Display) {
        stderr::say(&self.line(event, kind, what));
    }

    /// Something that the user should know, though it works.
    pub fn warn(self, what: impl Display) {
        self.say("warning", "warning: ", what);
    }

    /// Something that the user should know, though it works, and what to do about it.
    pub fn warn_with_hint(self, what: impl Display, hint: impl Display) {
        self.warn(what);
        self.hint(hint);
    }

    /// What the other side said, under its name.
    pub fn relay(self, host: &str, line: &str) {
        self.note(format_args!("{host}: {line}"));
    }

    /// What to do about something that was warned of.
    pub fn hint(self, what: impl Display) {
        self.say("hint", "hint: ", what);
    }

    /// Something that belongs to what was done, and is said without being asked for.
    pub fn note(self, what: impl Display) {
        self.say("note", "", what);
    }

    /// Something that was asked for with `-v`.
    pub fn verbose(self, what: impl Display) {
        if self.verbose > 0 {
            self.note(what);
        }
    }

    /// Something that was asked for with `-vv`.
    pub fn trace(self, what: impl Display) {
        if self.verbose > 1 {
            self.note(what);
        }
    }

    /// True if `-vv` was asked for.
    #[must_use]
    pub fn traces(self) -> bool {
        self.verbose > 1
    }

    /// A result that was asked for: a bare line, to be compared or cut out by programs.
    pub fn result(self, what: impl Display) {
        if self.json {
            self.say("result", "", what);
        } else {
            stderr::say(&format!("{what}\n"));
        }
    }

    /// What the command line's parser has to say: help and version, or what is wrong with the words behind `command`, if there is one.
    pub fn usage(self, error: &clap::Error, command: Option<&str>) -> ExitCode {
        if !error.use_stderr() {
            return match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.fail_quietly(Failure::Permanent),
                Err(error) => self.fail(format_args!("standard output: cannot write: {}", reason(&error)), None),
            };
        }
        let (line, hints) = self.wrong_words(error, command);
        self.say("error", "", line);
        hints.iter().for_each(|hint| self.hint(hint));
        Failure::Permanent.exit_code()
    }

    /// What is wrong with the words of a command line in one line, and its hints.
    #[must_use]
    pub fn wrong_words(self, error: &clap::Error, command: Option<&str>) -> (String, Vec<String>) {
        // The parser says it in several lines: what is wrong, tips, how it is called, and where more is said.
        let text = error.render().to_string();
        let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let line = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        // How a flag is passed as something else is no help to who has mistyped one, and neither is a word that is only a little alike.
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

    /// A failure that the user knows of already.
    #[must_use]
    pub fn fail_quietly(self, failure: Failure) -> ExitCode {
        failure.exit_code()
    }

    /// The one line of a permanent failure, and its hint.
    #[must_use]
    pub fn fail(self, what: impl Display, hint: Option<&str>) -> ExitCode {
        self.fail_as(Failure::Permanent, what, hint)
    }

    /// The one line of a failure, and its hint.
    #[must_use]
    pub fn fail_as(self, failure: Failure, what: impl Display, hint: Option<&str>) -> ExitCode {
        self.say("error", "", what);
        if let Some(hint) = hint {
            self.hint(hint);
        }
        failure.exit_code()
    }
}

/// The words between quotes in a line of the parser.
fn quoted_words(line: &str) -> impl Iterator<Item = &str> {
    line.split('\'').skip(1).step_by(2)
}

/// True if a word is probably the other, mistyped: few letters have to be changed, added or left out.
#[must_use]
pub fn is_near(wrong: &str, meant: &str) -> bool {
    let letters = |word: &str| word.trim_start_matches('-').chars().collect::<Vec<_>>();
    let (wrong, meant) = (letters(wrong), letters(meant));
    // The distance of Levenshtein, row by row.
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
