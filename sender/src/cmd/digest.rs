//! `xfer-hole digest`: prints the fingerprint of a disk, which does not depend on the image format.

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

The output is sha256:INTERVAL:GRAIN:DIGEST. It is the same for every image of the disk, whether raw, qcow2, compressed or a \
chain, and is equal to what --print-digest prints for the same interval and grain.

Exit status is 0 if the fingerprint was printed, 2 for every failure.";

/// The arguments of `digest`.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS, max_term_width = 100)]
pub(crate) struct DigestArgs {
    /// The image or block device
    pub(crate) image: PathBuf,

    #[command(flatten)]
    pub(crate) hash: HashArgs,

    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Runs `digest`.
pub(crate) fn digest(args: &DigestArgs, messages: Messages) -> ExitCode {
    args.disk.run(ProgressKind::Auto, messages, |context| {
        let params = args.hash.params()?;
        let disk = args.disk.open(&args.image, context.messages)?;
        context.counters.set_size(disk.size());
        let compute = || fingerprint(&disk, params, context.counters);
        let fingerprint = context.estimate_during(&disk, Plan::whole(&disk), compute)?;
        disk.noticed().iter().for_each(|noticed| context.messages.warn(noticed));
        Ok(CommandResult {
            text: format!("{fingerprint}\n"),
            fingerprint: Some(fingerprint),
            ..CommandResult::default()
        })
    })
}
