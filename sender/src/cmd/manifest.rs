//! `xfer-hole manifest`: prints the record lines of a disk with their digests, without data.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use xfer_hole_image::{BackingChain, Disk};
use xfer_hole_os::{DiskError as ImageError, DiskErrorKind, shown, sys};
use xfer_hole_pipeline::{Phase, Plan, record_lines};
use xfer_hole_proto::{FailReason, Fingerprint, HashParams, ManifestHeader};
use xfer_hole_target::{Target, TargetOptions};
use xfer_hole_ui::{Messages, ProgressKind};

use crate::cmd::disk_args::DiskArgs;
use crate::cmd::hash_args::HashArgs;
use crate::cmd::output::{Output, failed};
use crate::error::SendError;
use crate::run_command::{CommandContext, CommandResult};

const STATUS: &str = "\
Examples:
  xfer-hole manifest -o disk.manifest disk.qcow2
  xfer-hole manifest disk.qcow2 | ssh host recv-hole --verify disk.img
  xfer-hole verify copy.img disk.manifest

A manifest is text that lists the disk's extents, with a SHA-256 for each interval of data; see xfer-hole-stream(7).

Exit status is 0 if the whole manifest was written, 2 for every failure: it then has no END line, and FILE is unchanged.";

/// The arguments of `manifest`.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS, max_term_width = 100)]
pub(crate) struct ManifestArgs {
    /// The image or block device
    pub(crate) image: PathBuf,

    /// The file to create or replace (default standard output)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) hash: HashArgs,

    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// Runs `manifest`.
pub(crate) fn manifest(args: &ManifestArgs, messages: Messages) -> ExitCode {
    let file = args.output.as_deref().filter(|file| file.as_os_str() != "-");
    let usual = if file.is_some() { ProgressKind::Auto } else { ProgressKind::None };
    args.disk.run(usual, messages, |context| {
        let params = args.hash.params()?;
        let disk = args.disk.open(&args.image, context.messages)?;
        context.counters.set_size(disk.size());
        let fingerprint = match file {
            Some(file) => to_file(&disk, params, file, context)?,
            None => to_stdout(&disk, params, context)?,
        };
        disk.noticed().iter().for_each(|noticed| context.messages.warn(noticed));
        context.messages.verbose(format_args!("fingerprint {fingerprint}"));
        Ok(CommandResult { fingerprint: Some(fingerprint), ..CommandResult::default() })
    })
}

/// Passes all lines of the manifest to `write` while the disk is read.
fn lines(
    disk: &BackingChain,
    params: HashParams,
    context: &CommandContext<'_>,
    mut write: impl FnMut(&str) -> Result<(), SendError>,
) -> Result<Fingerprint, SendError> {
    context.counters.set_phase(Phase::Hashing);
    write(&format!("{}\n", ManifestHeader::whole(disk.size(), params)))?;
    context.estimate_during(disk, Plan::whole(disk), || record_lines(disk, params, false, context.counters, write))
}

/// Writes the manifest to standard output. Each line is flushed at once, and a read error becomes a FAIL line.
fn to_stdout(disk: &BackingChain, params: HashParams, context: &CommandContext<'_>) -> Result<Fingerprint, SendError> {
    let mut out = Output::stdout()?;
    let mut write = |lines: &str| out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(failed);
    let written = lines(disk, params, context, &mut write);
    if let Err(SendError::Image(error)) = &written {
        // If this write fails too, the missing END marks the manifest as incomplete.
        let _said = write(&format!("FAIL {}\n", FailReason::new(&error.to_string())));
    }
    written
}

/// Writes the manifest to a file, which gets its name when it is complete and synced.
fn to_file(
    disk: &BackingChain,
    params: HashParams,
    file: &Path,
    context: &CommandContext<'_>,
) -> Result<Fingerprint, SendError> {
    if fs::metadata(file).is_ok_and(|stat| stat.file_type().is_block_device()) {
        let what = "is a block device, which no manifest is written to";
        return Err(SendError::Word { word: file.into(), what: what.into(), hint: None });
    }
    if disk.is_private() {
        // A user without access to the disk must not learn its digests.
        sys::keep_private();
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    if let Some(folder) = folder {
        return Err(ImageError::new(DiskErrorKind::Refused, folder, "no such directory").into());
    }
    let target = Target::find_apart(file, TargetOptions::default(), &disk.storages());
    let writer = target.and_then(|target| target.open(None, None)).map_err(ImageError::without_override)?;
    context.signals.set_remains(Some(writer.leftover_message()));
    let mut at = 0;
    let written = lines(disk, params, context, |lines| {
        writer.write_at(at, lines.as_bytes())?;
        at += lines.len() as u64;
        Ok(())
    });
    match written {
        Ok(fingerprint) => {
            context.counters.set_phase(Phase::Syncing);
            for note in writer.commit(at)? {
                context.messages.warn(format_args!("{}: {note}", shown(file)));
            }
            context.signals.set_remains(None);
            Ok(fingerprint)
        }
        Err(error) => {
            // An incomplete manifest is not kept.
            writer.give_up();
            Err(error)
        }
    }
}
