//! What all commands have in common that read a whole disk.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use xfer_hole_image::BackingChain;
use xfer_hole_ui::{Messages, ProgressKind};

use crate::error::SendError;
use crate::image_args::ImageArgs;
use crate::run_command::{CommandContext, CommandResult, watch};
use crate::warn_in_use;

/// How the disk is read, and what is shown meanwhile.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiskArgs {
    #[command(flatten)]
    pub(crate) source: ImageArgs,

    /// Leave the page cache as it is: read by O_DIRECT, and where that is not to be had, drop from the cache what was read
    #[arg(long, help_heading = "How it is read")]
    pub(crate) direct: bool,

    /// Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a manifest on standard output
    #[arg(long, value_name = "KIND", value_enum, help_heading = "What is said")]
    pub(crate) progress: Option<ProgressKind>,

    /// Say nothing but warnings, and why it failed
    #[arg(short, long, conflicts_with = "verbose", help_heading = "What is said")]
    pub(crate) quiet: bool,
}

impl DiskArgs {
    /// Does the work, and prints what came of it. `usual` is shown if nothing else was asked for.
    pub(crate) fn watch(
        &self,
        usual: ProgressKind,
        messages: Messages,
        work: impl FnOnce(&CommandContext<'_>) -> Result<CommandResult, SendError>,
    ) -> ExitCode {
        let messages = messages.json(self.progress == Some(ProgressKind::Json));
        let usual = if self.quiet { ProgressKind::None } else { usual };
        watch(self.progress.unwrap_or(usual), self.source.verbose > 0, messages, work)
    }

    /// Opens the disk, and says what there is to know of it.
    pub(crate) fn open(&self, image: &Path, messages: Messages) -> Result<BackingChain, SendError> {
        let disk = self.source.open(image, self.direct, messages)?;
        warn_in_use(&disk, messages);
        Ok(disk)
    }
}
