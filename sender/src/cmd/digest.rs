//! `xfer-hole digest`: the fingerprint of a disk, whatever it is stored in.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use xfer_hole_image::Disk;
use xfer_hole_pipeline::{Plan, fingerprint};
use xfer_hole_ui::{Messages, ProgressKind};

use crate::cmd::disk_args::DiskArgs;
use crate::cmd::hash_args::HashArgs;
use crate::run_command::CommandResult;

const STATUS: &str = "\
Examples:
  xfer-hole digest disk.qcow2
  [ \"$(xfer-hole digest a.qcow2)\" = \"$(xfer-hole digest b.img)\" ] && echo equal

What is printed is sha256:INTERVAL:GRAIN:DIGEST. It is the same for every image of the disk, raw, qcow2, compressed or a chain, and
for --print-digest of those who send and receive it, where interval and grain are the same.
Exit status is 0 when it was printed, 2 for every failure.";

/// The words behind `digest`.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS, max_term_width = 100)]
pub(crate) struct DigestArgs {
    /// The image or block device
    pub(crate) image: PathBuf,

    #[command(flatten)]
    pub(crate) sums: HashArgs,

    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Prints it.
pub(crate) fn digest(args: &DigestArgs, messages: Messages) -> ExitCode {
    args.disk.watch(ProgressKind::Auto, messages, |watch| {
        let sums = args.sums.sums()?;
        let disk = args.disk.open(&args.image, watch.messages)?;
        watch.counters.set_size(disk.size());
        let made = || fingerprint(&disk, sums, watch.counters);
        let fingerprint = watch.ahead_of(&disk, Plan::whole(&disk), made)?;
        disk.noticed().iter().for_each(|noticed| watch.messages.warn(noticed));
        Ok(CommandResult {
            text: format!("{fingerprint}\n"),
            fingerprint: Some(fingerprint),
            ..CommandResult::default()
        })
    })
}
