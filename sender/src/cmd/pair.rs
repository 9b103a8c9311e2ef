//! `xfer-hole fold` and `xfer-hole prune`: two neighbours in a chain of sparse raw files.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use xfer_hole_image::{Cover, Pair, PairOptions, Phase, Tally, shown};
use xfer_hole_link::{Messages, Progress, ProgressKind, Rim, Signals};

use crate::cli::{FoldArgs, PairArgs, PairFormat, PruneArgs};
use crate::copy::processors;
use crate::error::Error;

/// Puts what the child has into its parent.
pub(crate) fn fold(args: &FoldArgs, messages: Messages) -> ExitCode {
    Work { child: &args.child, parent: &args.parent, args: &args.pair, folds: true, messages }.run()
}

/// Punches out of the parent what its child has.
pub(crate) fn prune(args: &PruneArgs, messages: Messages) -> ExitCode {
    Work { child: &args.child, parent: &args.parent, args: &args.pair, folds: false, messages }.run()
}

struct Work<'a> {
    child: &'a Path,
    parent: &'a Path,
    args: &'a PairArgs,
    /// Or it prunes.
    folds: bool,
    messages: Messages,
}

impl Work<'_> {
    /// Does it, and shows how far it is.
    fn run(&self) -> ExitCode {
        let (args, messages) = (self.args, self.messages);
        let watched = Rim::start().and_then(|rim| Ok((Signals::watch(&rim, messages)?, rim)));
        let (signals, rim) = match watched {
            Ok(watched) => watched,
            Err(error) => return messages.fail(Error::Thread(error), None),
        };
        let tally = Arc::new(Tally::default());
        let kind = if args.quiet && args.progress == ProgressKind::Auto { ProgressKind::None } else { args.progress };
        let progress = Progress::start(&rim, &signals, kind, messages, Arc::clone(&tally));
        match self.work(&tally, &signals) {
            Ok(()) => progress.done(None, !args.quiet && !args.dry_run),
            Err(error) => progress.fail(&error, error.hint()),
        }
    }

    fn work(&self, tally: &Tally, signals: &Signals) -> Result<(), Error> {
        let args = self.args;
        let options = PairOptions { any_format: args.format == PairFormat::Raw, no_sync: args.no_sync };
        let mut pair = Pair::open(self.child, self.parent, options)?;
        if let Some(method) = pair.method() {
            self.messages.verbose(format_args!("extents by {}", method.word()));
        }
        if args.dry_run {
            let cover = pair.cover(if self.folds { pair.size() } else { pair.parent_size() })?;
            self.messages.note(self.plan(&pair, cover));
            return Ok(());
        }
        tally.set_size(pair.size());
        signals.set_remains(Some(pair.remains_meanwhile()));
        tally.set_phase(if self.folds { Phase::Copying } else { Phase::Zeroing });
        let done = if self.folds { pair.fold(processors(), tally) } else { pair.prune(tally) };
        let done = done.and_then(|()| pair.check_child());
        let remains = pair.remains();
        if done.is_ok() && !args.no_sync {
            tally.set_phase(Phase::Syncing);
        }
        let done = done.and_then(|()| pair.finish());
        done.map_err(|error| Error::Begun { error: Box::new(error.into()), remains })?;
        signals.set_remains(Some("all of it was done".to_owned()));
        Ok(())
    }

    /// What would be done: a line.
    fn plan(&self, pair: &Pair, Cover { octets, ranges }: Cover) -> String {
        let (child, parent) = (shown(self.child), shown(pair.parent_path()));
        let ranges = if ranges == 1 { "1 range".to_owned() } else { format!("{ranges} ranges") };
        let size = pair.parent_size();
        match self.folds {
            true if size < pair.size() => {
                let grown = pair.size();
                format!(
                    "would put {octets} octets in {ranges} of {child} into {parent}, which would grow from {size} to {grown} octets"
                )
            }
            true => format!("would put {octets} octets in {ranges} of {child} into {parent}, a file of {size} octets"),
            false => format!(
                "would punch {octets} octets in {ranges}, which {child} has, out of {parent}, a file of {size} octets"
            ),
        }
    }
}
