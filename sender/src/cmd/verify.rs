//! `xfer-hole verify`: compares a disk with a manifest and reports the ranges that differ.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use xfer_hole_os::shown;
use xfer_hole_pipeline::Plan;
use xfer_hole_transfer::{ManifestInput, verify as compare};
use xfer_hole_transport::shell_word;
use xfer_hole_ui::{Messages, ProgressKind};

use crate::cmd::disk_args::DiskArgs;
use crate::cmd::output::{Output, failed};
use crate::error::SendError;
use crate::run_command::{CommandContext, CommandResult};

const STATUS: &str = "\
Examples:
  xfer-hole verify disk.img disk.manifest
  ssh host xfer-hole manifest disk.qcow2 | xfer-hole verify copy.img -
  xfer-hole verify --list disk.img disk.manifest | while read -r offset length; do ...; done

Interval and grain are those of the manifest. If the sizes differ, the range after the end of the smaller disk counts as \
different. The space after the disk on a larger block device is not compared.
A manifest that is truncated, or does not cover the whole disk, is a failure.

Exit status is 0 if the disk matches the manifest, 1 if it differs, 2 for every failure, as in cmp(1) and diff(1).";

/// The arguments of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS, max_term_width = 100)]
pub(crate) struct VerifyArgs {
    /// The image or block device
    pub(crate) image: PathBuf,

    /// The manifest that xfer-hole manifest wrote; - is standard input
    pub(crate) manifest: PathBuf,

    /// Print only the ranges that differ: offset and length in bytes, one range per line
    ///
    /// Ranges are whole intervals; adjacent ones are joined.
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) list: bool,

    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Runs `verify`.
pub(crate) fn verify(args: &VerifyArgs, messages: Messages) -> ExitCode {
    args.disk.run(ProgressKind::Auto, messages, |context| compare_and_print(args, context))
}

fn compare_and_print(args: &VerifyArgs, context: &CommandContext<'_>) -> Result<CommandResult, SendError> {
    let mut disk = args.disk.open(&args.image, context.messages)?;
    let mut manifest = ManifestInput::open(&args.manifest).map_err(|error| match error.hint_text() {
        Some(hint) => {
            let hint = hint.replace("verify IMAGE", &format!("verify {}", shell_word(args.image.as_os_str())));
            error.hint(hint)
        }
        None => error,
    })?;
    let tail = disk.limit_device(manifest.manifest().size);
    if tail > 0 {
        context
            .messages
            .warn(format_args!("{}: the last {tail} bytes of the device aren't compared", shown(&args.image)));
    }
    let mut out = Output::stdout()?;
    let report = |at, len| match args.list {
        true => writeln!(out, "{at} {len}").map_err(failed),
        false => Ok(()),
    };
    let compared =
        context.estimate_during(&disk, Plan::whole(&disk), || compare(&disk, &mut manifest, context.counters, report));
    // The ranges that were found before a failure are valid.
    out.flush().map_err(failed)?;
    let verdict = compared?;
    disk.noticed().iter().for_each(|noticed| context.messages.warn(noticed));
    let text = if args.list || args.disk.quiet { String::new() } else { verdict.text(&shown(&args.image)) };
    Ok(CommandResult { differs: !verdict.is_equal(), text, ..CommandResult::default() })
}
