//! `xfer-hole fold` and `xfer-hole prune`: operations on two adjacent layers of a chain of sparse raw files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use xfer_hole_os::shown;
use xfer_hole_pipeline::Phase;
use xfer_hole_transfer::{LayerPair, LayerPairOptions, ParentCoverage, copy_threads};
use xfer_hole_ui::{Messages, ProgressKind};

use crate::error::SendError;
use crate::run_command::{CommandContext, CommandResult, run_command};

const FOLD_STATUS: &str = "\
Examples:
  xfer-hole fold volume-snap-2.img volume-snap-1.img
  xfer-hole fold --dry-run volume-snap-2.img volume-snap-1.img

PARENT is changed only where CHILD has data; CHILD is not changed. Space that is allocated in CHILD but was never written counts \
as a hole; written zeros count as data. A PARENT that is smaller grows to CHILD's size; one that is larger is refused. If PARENT \
has a parent itself, its file system must not have larger blocks than CHILD's: a block that is written in part hides all of that \
block in the files below. If fold is interrupted, run it again.

Exit status is 0 if PARENT has all of CHILD's data and is synced, 2 for every failure, 128 plus the signal's number for SIGINT, \
SIGTERM and SIGHUP.";

const PRUNE_STATUS: &str = "\
Examples:
  xfer-hole prune volume-snap-1.img volume-snap-2.img
  xfer-hole prune --dry-run volume-snap-1.img volume-snap-2.img

What is read through CHILD stays the same. PARENT alone loses data: don't prune a file that has other children or is read on its \
own. CHILD is synced first and not changed. A PARENT that is smaller grows to CHILD's size; one that is larger is refused.
If prune is interrupted, run it again.

Exit status is 0 if all holes were punched and PARENT is synced, 2 for every failure, 128 plus the signal's number for SIGINT, \
SIGTERM and SIGHUP.";

/// The arguments of `fold`.
#[derive(Clone, Debug, Args)]
#[command(after_help = FOLD_STATUS, max_term_width = 100)]
pub(crate) struct FoldArgs {
    /// The file whose data is copied into PARENT
    pub(crate) child: PathBuf,

    /// The next file down the chain, which is updated in place
    pub(crate) parent: PathBuf,

    #[command(flatten)]
    pub(crate) pair: PairArgs,
}

/// The arguments of `prune`.
#[derive(Clone, Debug, Args)]
#[command(after_help = PRUNE_STATUS, max_term_width = 100)]
pub(crate) struct PruneArgs {
    /// The file to punch holes into
    pub(crate) parent: PathBuf,

    /// The next file up the chain, whose data hides PARENT's
    pub(crate) child: PathBuf,

    #[command(flatten)]
    pub(crate) pair: PairArgs,
}

/// The options of both commands.
#[derive(Clone, Debug, Args)]
pub(crate) struct PairArgs {
    /// Set the format of both files
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: PairFormat,

    /// Check everything and print what would be done; write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    /// Skip waiting for stable storage; a crash soon after may lose changes
    #[arg(long)]
    pub(crate) no_sync: bool,

    /// Show progress
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto", help_heading = "Messages")]
    pub(crate) progress: ProgressKind,

    /// Print warnings and errors only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Messages")]
    pub(crate) quiet: bool,

    /// Print each step
    #[arg(short, long, action = ArgAction::Count, help_heading = "Messages")]
    pub(crate) verbose: u8,
}

/// The argument of `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PairFormat {
    /// Raw; a file that looks like another image format is refused
    #[default]
    Auto,
    /// Raw, whatever the content
    Raw,
}

/// Runs `fold`: copies the child's data into the parent.
pub(crate) fn fold(args: &FoldArgs, messages: Messages) -> ExitCode {
    PairCommand { child: &args.child, parent: &args.parent, args: &args.pair, folds: true }.run(messages)
}

/// Runs `prune`: punches holes into the parent where the child has data.
pub(crate) fn prune(args: &PruneArgs, messages: Messages) -> ExitCode {
    PairCommand { child: &args.child, parent: &args.parent, args: &args.pair, folds: false }.run(messages)
}

struct PairCommand<'a> {
    child: &'a Path,
    parent: &'a Path,
    args: &'a PairArgs,
    /// True for `fold`, false for `prune`.
    folds: bool,
}

impl PairCommand<'_> {
    /// Runs the command with progress and signal handling.
    fn run(&self, messages: Messages) -> ExitCode {
        let args = self.args;
        let kind = if args.quiet && args.progress == ProgressKind::Auto { ProgressKind::None } else { args.progress };
        let summary = !args.quiet && !args.dry_run;
        run_command(kind, summary, messages, |context| self.work(context).map(|()| CommandResult::default()))
    }

    fn work(&self, context: &CommandContext<'_>) -> Result<(), SendError> {
        let (args, CommandContext { counters, signals, messages }) = (self.args, *context);
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

    /// The message of a dry run: one line.
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
