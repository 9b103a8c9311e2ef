//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::case::Case;
use crate::error::{Error, Result};

/// The word for what is no case of its own.
pub const GROWTH: &str = "growth";

const STATUS: &str = "\
Exit status is 0 when all was measured and what is asked of it is met; 1 when a line of what is asked was measured and is not met; 2 for
every failure, such as a command of ours that makes another disk.";

/// Measures xfer-hole and recv-hole against their peers and the floor, in turns, by medians.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench", max_term_width = 100, args_override_self = true, after_help = STATUS)]
pub struct Cli {
    /// Cases to run: names, or parts of names with slashes between them, as in fragments, guest-zlib/local or map; growth. Not given: all, and
    /// then BENCHMARKS.md, the charts in doc, and the tables in README.md and doc/sync.md are written
    #[arg(value_name = "CASE")]
    pub words: Vec<String>,

    /// Print the names of the cases, and run none
    #[arg(long)]
    pub list: bool,

    /// Disks of a sixteenth, three runs; nothing is written
    #[arg(long)]
    pub quick: bool,

    /// Turns that each command has; 7 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,

    /// Divide the sizes of all disks with data by this
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub scale: Option<u64>,

    /// Where disks are made and results go: a folder on ext4
    #[arg(long = "where", value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub place: PathBuf,

    /// Where results go that stay in memory: a folder on a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub tmpfs: PathBuf,

    /// Leave the disks for the next run
    #[arg(long)]
    pub keep: bool,

    /// Write the report there after each case, whatever was run
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,

    /// Do the work: another process looks after it
    #[arg(long, hide = true)]
    pub worker: bool,

    /// The checkout
    #[arg(long, value_name = "DIR", default_value = ".", hide = true)]
    pub checkout: PathBuf,

    /// Where xfer-hole, recv-hole and floor are; if not given, beside this program
    #[arg(long, value_name = "DIR", hide = true)]
    pub tools: Option<PathBuf>,
}

impl Cli {
    /// How often each command has its turn.
    #[must_use]
    pub fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 3 } else { 7 })
    }

    /// What sizes are divided by.
    #[must_use]
    pub fn scale(&self) -> u64 {
        self.scale.unwrap_or(if self.quick { 16 } else { 1 })
    }

    /// Where the report is written, if anywhere: a part of it is no report.
    #[must_use]
    pub fn report(&self) -> Option<&PathBuf> {
        let whole = self.words.is_empty() && !self.quick && self.scale() == 1;
        self.report.as_ref().or(whole.then_some(&self.checkout))
    }

    /// The cases that are named, and whether growth is.
    ///
    /// # Errors
    /// If a word names nothing.
    pub fn cases(&self) -> Result<(Vec<Case>, bool)> {
        let all = Case::all();
        if self.words.is_empty() {
            return Ok((all, true));
        }
        for word in self.words.iter().filter(|word| *word != GROWTH) {
            if !all.iter().any(|case| case.is_named(word)) {
                return Err(Error::new(format!("{word}: no such case: --list names them")));
            }
        }
        let growth = self.words.iter().any(|word| word == GROWTH);
        Ok((all.into_iter().filter(|case| self.words.iter().any(|word| case.is_named(word))).collect(), growth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(words: &[&str]) -> Cli {
        Cli::parse_from([&["bench"], words].concat())
    }

    #[test]
    fn only_a_whole_run_writes_to_the_checkout() {
        assert_eq!(cli(&[]).report(), Some(&PathBuf::from(".")));
        for words in [&["map"][..], &["--quick"], &["--scale", "2"]] {
            assert_eq!(cli(words).report(), None);
        }
        assert_eq!(cli(&["map", "--report", "/r"]).report(), Some(&PathBuf::from("/r")));
    }

    #[test]
    fn what_names_no_case_is_refused() {
        assert!(cli(&["map", "maps"]).cases().is_err());
        let (cases, growth) = cli(&["growth"]).cases().unwrap();
        assert!(cases.is_empty() && growth);
    }
}
