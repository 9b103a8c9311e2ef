//! `xfer-hole fold` and `xfer-hole prune`: two neighbours in a chain of sparse raw files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use xfer_hole_os::shown;
use xfer_hole_pipeline::Phase;
use xfer_hole_transfer::{LayerPair, LayerPairOptions, ParentCoverage, copy_threads};
use xfer_hole_ui::{Messages, ProgressKind};

use crate::error::SendError;
use crate::run_command::{CommandContext, CommandResult, watch};

const FOLD_STATUS: &str = "\
Examples:
  xfer-hole fold volume-snap-2.img volume-snap-1.img
  xfer-hole fold --dry-run volume-snap-2.img volume-snap-1.img

Where CHILD has a hole, PARENT stays as it is; CHILD is not changed. Space that CHILD has only allocated, and never written, is a
hole; zeros that were written are data. A PARENT that is smaller grows to CHILD's size, one that is larger is refused. A PARENT that has
a parent itself is to lie on a file system with blocks as long as CHILD's, or shorter: where only a part of a block is written, the rest
of it hides what lies below, too. If it is interrupted, run it again.
Exit status is 0 when PARENT holds all, and is synced; 2 for every failure; 128 and its number for SIGINT, SIGTERM and SIGHUP.";

const PRUNE_STATUS: &str = "\
Examples:
  xfer-hole prune volume-snap-1.img volume-snap-2.img
  xfer-hole prune --dry-run volume-snap-1.img volume-snap-2.img

Read through CHILD, both are what they were; PARENT alone is not: don't prune what has other children, or is read without them.
CHILD is synced first, and not changed. A PARENT that is smaller grows
to CHILD's size, one that is larger is refused.
If it is interrupted, run it again.
Exit status is 0 when all of it was punched out, and is synced; 2 for every failure; 128 and its number for SIGINT, SIGTERM and
SIGHUP.";

/// The words behind `fold`.
#[derive(Clone, Debug, Args)]
#[command(after_help = FOLD_STATUS, max_term_width = 100)]
pub(crate) struct FoldArgs {
    /// The file whose data goes into PARENT
    pub(crate) child: PathBuf,

    /// The file below it, which is updated in place
    pub(crate) parent: PathBuf,

    #[command(flatten)]
    pub(crate) pair: PairArgs,
}

/// The words behind `prune`.
#[derive(Clone, Debug, Args)]
#[command(after_help = PRUNE_STATUS, max_term_width = 100)]
pub(crate) struct PruneArgs {
    /// The file that holes are punched into
    pub(crate) parent: PathBuf,

    /// The file above it, which hides PARENT where it has data
    pub(crate) child: PathBuf,

    #[command(flatten)]
    pub(crate) pair: PairArgs,
}

/// How two neighbours of a chain are treated.
#[derive(Clone, Debug, Args)]
pub(crate) struct PairArgs {
    /// What both are: auto refuses files that begin as images of other formats do, raw takes them as they are
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: PairFormat,

    /// Check all that can be checked, say how much would be done, and write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    /// Don't wait until it is on stable storage; if the machine fails soon after, it may be lost
    #[arg(long)]
    pub(crate) no_sync: bool,

    /// Show how far it is: auto is a bar if standard error is a terminal
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto", help_heading = "What is said")]
    pub(crate) progress: ProgressKind,

    /// Say nothing but warnings, and why it failed
    #[arg(short, long, conflicts_with = "verbose", help_heading = "What is said")]
    pub(crate) quiet: bool,

    /// Say what is done
    #[arg(short, long, action = ArgAction::Count, help_heading = "What is said")]
    pub(crate) verbose: u8,
}

/// What the files of a chain are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PairFormat {
    /// Raw, as far as their beginnings show
    #[default]
    Auto,
    /// Raw, whatever is in them
    Raw,
}

/// Puts what the child has into its parent.
pub(crate) fn fold(args: &FoldArgs, messages: Messages) -> ExitCode {
    PairCommand { child: &args.child, parent: &args.parent, args: &args.pair, folds: true }.run(messages)
}

/// Punches out of the parent what its child has.
pub(crate) fn prune(args: &PruneArgs, messages: Messages) -> ExitCode {
    PairCommand { child: &args.child, parent: &args.parent, args: &args.pair, folds: false }.run(messages)
}

struct PairCommand<'a> {
    child: &'a Path,
    parent: &'a Path,
    args: &'a PairArgs,
    /// Or it prunes.
    folds: bool,
}

impl PairCommand<'_> {
    /// Does it, and shows how far it is.
    fn run(&self, messages: Messages) -> ExitCode {
        let args = self.args;
        let kind = if args.quiet && args.progress == ProgressKind::Auto { ProgressKind::None } else { args.progress };
        let summary = !args.quiet && !args.dry_run;
        watch(kind, summary, messages, |watch| self.work(watch).map(|()| CommandResult::default()))
    }

    fn work(&self, watch: &CommandContext<'_>) -> Result<(), SendError> {
        let (args, CommandContext { counters, signals, messages }) = (self.args, *watch);
        let options = LayerPairOptions { any_format: args.format == PairFormat::Raw, no_sync: args.no_sync };
        let mut pair = LayerPair::open(self.child, self.parent, options)?;
        if let Some(method) = pair.method() {
            messages.verbose(format_args!("extents by {}", method.word()));
        }
        if args.dry_run {
            let cover = pair.cover(if self.folds { pair.size() } else { pair.parent_size() })?;
            messages.note(self.plan(&pair, cover));
            return Ok(());
        }
        counters.set_size(pair.size());
        signals.set_remains(Some(pair.remains_meanwhile()));
        counters.set_phase(if self.folds { Phase::Copying } else { Phase::Zeroing });
        let done = if self.folds { pair.fold(copy_threads(), counters) } else { pair.prune(counters) };
        let done = done.and_then(|()| pair.check_child());
        let remains = pair.remains();
        if done.is_ok() && !args.no_sync {
            counters.set_phase(Phase::Syncing);
        }
        let done = done.and_then(|()| pair.finish());
        done.map_err(|error| SendError::Begun { error: Box::new(error.into()), remains })?;
        signals.set_remains(Some("all of it was done".to_owned()));
        Ok(())
    }

    /// What would be done: a line.
    fn plan(&self, pair: &LayerPair, ParentCoverage { bytes, ranges }: ParentCoverage) -> String {
        let (child, parent) = (shown(self.child), shown(pair.parent_path()));
        let ranges = if ranges == 1 { "1 range".to_owned() } else { format!("{ranges} ranges") };
        let size = pair.parent_size();
        match self.folds {
            true if size < pair.size() => {
                let grown = pair.size();
                format!(
                    "would put {bytes} bytes in {ranges} of {child} into {parent}, which would grow from {size} to {grown} bytes"
                )
            }
            true => format!("would put {bytes} bytes in {ranges} of {child} into {parent}, a file of {size} bytes"),
            false => format!(
                "would punch {bytes} bytes in {ranges}, which {child} has, out of {parent}, a file of {size} bytes"
            ),
        }
    }
}
