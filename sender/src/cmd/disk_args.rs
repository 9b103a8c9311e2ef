//! The options of all commands that read a whole disk.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use xfer_hole_image::BackingChain;
use xfer_hole_ui::{Messages, ProgressKind};

use crate::error::SendError;
use crate::image_args::ImageArgs;
use crate::run_command::{CommandContext, CommandResult, run_command};
use crate::warn_in_use;

/// The options for reading a disk and for showing progress.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiskArgs {
    #[command(flatten)]
    pub(crate) source: ImageArgs,

    /// Bypass the page cache with O_DIRECT
    ///
    /// Where O_DIRECT is not available, the data that was read is dropped from the cache.
    #[arg(long, help_heading = "Source")]
    pub(crate) direct: bool,

    /// Show progress (default: auto, or none for a manifest on standard output)
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Messages")]
    pub(crate) progress: Option<ProgressKind>,

    /// Print warnings and errors only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Messages")]
    pub(crate) quiet: bool,
}

impl DiskArgs {
    /// Runs `work` with progress and signal handling, and prints its result. `usual` is the progress display if none
    /// was given.
    pub(crate) fn run(
        &self,
        usual: ProgressKind,
        messages: Messages,
        work: impl FnOnce(&CommandContext<'_>) -> Result<CommandResult, SendError>,
    ) -> ExitCode {
        let messages = messages.json(self.progress == Some(ProgressKind::Json));
        let usual = if self.quiet { ProgressKind::None } else { usual };
        run_command(self.progress.unwrap_or(usual), self.source.verbose > 0, messages, work)
    }

    /// Opens the disk and prints its warnings.
    pub(crate) fn open(&self, image: &Path, messages: Messages) -> Result<BackingChain, SendError> {
        let disk = self.source.open(image, self.direct, messages)?;
        warn_in_use(&disk, messages);
        Ok(disk)
    }
}
