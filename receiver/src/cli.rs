//! The command line: what the user typed, and what it comes to.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use xfer_hole_image::TargetOptions;
use xfer_hole_link::{ProgressKind, parse_size};
use xfer_hole_proto::Dialect;

use crate::apply::Rules;

const EXAMPLES: &str = "\
Examples:
  xfer-hole disk.img | recv-hole copy.img
  ssh host xfer-hole --hash /var/lib/disk.img | recv-hole --require-hash disk.img
  xfer-hole disk.img | ssh host recv-hole /dev/vg0/disk
  recv-hole - < disk.stream | VBoxManage convertfromraw stdin disk.vdi 8589934592

Sizes take K, M, G, T (1024), KB, MB, GB, TB (1000).
Exit status is 0 when the whole disk is there, synced and under its final name; 2 for every failure.
DEST is then as it was, unless it is a device or --in-place was given, and what arrived is in DEST.part.";

/// Receives a disk image from xfer-hole on standard input, and rebuilds it with its holes.
#[derive(Clone, Debug, Parser)]
#[command(name = "recv-hole", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// The file to make or replace, a block device to overwrite, or "-" for the full octets on standard output
    pub(crate) dest: PathBuf,

    /// Update an existing file directly, without DEST.part; an interruption leaves it half old, half new. A file that isn't there
    /// yet is made as without this flag
    #[arg(long, help_heading = "How it is written")]
    pub(crate) in_place: bool,

    /// DEST, a block device, reads as zeros already: don't write its holes
    #[arg(long, help_heading = "How it is written")]
    pub(crate) target_is_zero: bool,

    /// Don't wait until the disk is on stable storage; if the machine fails soon after, old and new may be lost
    #[arg(long, help_heading = "How it is written")]
    pub(crate) no_sync: bool,

    /// Refuse a stream without digests
    #[arg(long, conflicts_with = "classic", help_heading = "What is accepted")]
    pub(crate) require_hash: bool,

    /// Refuse a disk larger than this
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "What is accepted")]
    pub(crate) max_size: Option<u64>,

    /// Read the dialect of 2014, which has no size, no end and no digests: a cut can't be seen
    #[arg(long, help_heading = "What is accepted")]
    pub(crate) classic: bool,

    /// Show how far it is
    #[arg(long, value_name = "KIND", value_enum, num_args = 0..=1, require_equals = true, default_value = "none",
          default_missing_value = "auto", help_heading = "What is said")]
    pub(crate) progress: ProgressKind,

    /// Print the disk's fingerprint on standard error, to compare it with the sender's
    #[arg(long, help_heading = "What is said")]
    pub(crate) print_digest: bool,

    /// Say what is done; twice: each record
    #[arg(short, long, action = ArgAction::Count, help_heading = "What is said")]
    pub(crate) verbose: u8,
}

impl Cli {
    pub(crate) fn target_options(&self) -> TargetOptions {
        TargetOptions { in_place: self.in_place, no_sync: self.no_sync, target_is_zero: self.target_is_zero }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        if self.classic { Dialect::Classic } else { Dialect::V1 }
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules { dialect: self.dialect(), require_hash: self.require_hash, max_size: self.max_size }
    }
}
