//! The command line of recv-hole, as clap parses it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use xfer_hole_proto::Dialect;
use xfer_hole_transport::{SshArgs, parse_version};
use xfer_hole_ui::{ProgressKind, TargetArgs, parse_size};

use crate::receive_options::ReceiveOptions;

const EXAMPLES: &str = "\
Examples:
  recv-hole hypervisor:/dev/vg0/web web.img
  recv-hole -M --snapshot=monday hypervisor:web.qcow2 backup/
  xfer-hole disk.img | recv-hole copy.img
  xfer-hole manifest disk.qcow2 | ssh hypervisor recv-hole --verify /dev/vg0/web
  recv-hole - < disk.stream | VBoxManage convertfromraw stdin disk.vdi 8589934592

If DEST is a directory, the file in it is named after the image, with an image extension such as
.qcow2 replaced by .img. A file that was made from an image of another name is replaced only with
--force. HOST:~/IMAGE is relative to the home directory on HOST. Write a local name that contains a
colon as ./a:b.

Sizes and rates accept K, M, G, T (powers of 1024), KB, MB, GB, TB (powers of 1000) and fractions
such as 1.5M.

Exit status is 0 if the whole disk is stored, synced and under its final name; 75 if a retry can
succeed: the connection was cut or silent, the host does not answer, or another transfer writes
DEST; 2 for any other failure, including a truncated stream from a pipe; 128 plus the signal number
after SIGINT, SIGTERM or SIGHUP. After a failure DEST is unchanged, unless it is a device or
--in-place was given, and the data received so far is in DEST.part. With --verify the exit status
is 0 if DEST equals the disk of the manifest, 1 if it differs, and 2 for any failure.";

/// Receive a disk image from xfer-hole and restore its holes.
#[derive(Clone, Debug, Parser)]
#[command(name = "recv-hole", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(
    override_usage = "recv-hole [OPTIONS] DEST < STREAM\n       recv-hole [OPTIONS] HOST:IMAGE DEST\n       recv-hole --verify [--list] DEST < MANIFEST"
)]
pub(crate) struct Cli {
    /// Destination, or a remote image HOST:IMAGE and then its destination
    ///
    /// DEST is a file to create or replace, a directory to create the file in, a block device to overwrite, or "-" to write the raw disk
    /// to standard output. HOST:IMAGE is an image on another machine, which xfer-hole sends from there; USER@HOST:IMAGE and
    /// ssh://USER@HOST:PORT/IMAGE are accepted too. Without HOST:IMAGE the stream is read from standard input.
    #[arg(value_name = "DEST", required_unless_present_any = ["restrict", "request", "speaks"])]
    pub(crate) operands: Vec<OsString>,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) ssh: SshArgs,

    /// Pass OPTION, such as --snapshot=NAME, to xfer-hole there (repeatable)
    #[arg(short = 'M', long, value_name = "OPTION", allow_hyphen_values = true, help_heading = "Connection")]
    pub(crate) remote_option: Vec<OsString>,

    /// Transfer a remote image without checksums (default: with checksums)
    #[arg(long, conflicts_with = "require_hash", help_heading = "Connection")]
    pub(crate) no_hash: bool,

    /// Write replies to standard output (for programs)
    ///
    /// For programs that hold both directions of a link.
    #[arg(long, conflicts_with = "classic", help_heading = "Connection")]
    pub(crate) converse: bool,

    /// Exit with 0 if VERSION is supported, else with 2 (for programs)
    ///
    /// VERSION is that of the conversation between sender and receiver.
    #[arg(long, value_name = "VERSION", value_parser = parse_version, exclusive = true, help_heading = "Connection")]
    pub(crate) speaks: Option<u32>,

    /// Serve push request WORDS, reply on standard output (for programs)
    #[arg(long, value_name = "WORDS", exclusive = true, help_heading = "Connection")]
    pub(crate) request: Option<OsString>,

    /// Compare DEST with the manifest on standard input; write nothing
    ///
    /// xfer-hole manifest writes such a manifest. DEST is read as a raw disk.
    #[arg(long, help_heading = "Verification",
          conflicts_with_all = ["restrict", "in_place", "target_is_zero", "discard", "no_sync", "read_back", "check_base", "no_clobber", "force", "mkpath", "chmod", "chown",
                                "dry_run", "converse", "classic", "require_hash", "max_size", "print_digest"])]
    pub(crate) verify: bool,

    /// Print only the ranges that differ: OFFSET LENGTH in bytes (with --verify)
    ///
    /// One range per line. Ranges consist of whole intervals of the manifest; adjacent ones are joined.
    #[arg(long, requires = "verify", conflicts_with = "quiet", help_heading = "Verification")]
    pub(crate) list: bool,

    /// Refuse a stream without checksums
    #[arg(long, conflicts_with = "classic", help_heading = "Input")]
    pub(crate) require_hash: bool,

    /// Refuse a disk larger than SIZE bytes (K, M, G, T accepted; default: none)
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Input")]
    pub(crate) max_size: Option<u64>,

    /// Serve push requests below DIR only, as the forced command of an ssh key
    ///
    /// For command="..." in authorized_keys. The request is read from SSH_ORIGINAL_COMMAND. With --no-clobber only new files are
    /// created. See xfer-hole-restrict(7).
    #[arg(long, value_name = "DIR", help_heading = "Input",
          conflicts_with_all = ["operands", "in_place", "target_is_zero", "discard", "no_sync", "direct", "read_back", "check_base", "force", "mkpath", "chmod", "chown", "dry_run",
                                "converse", "classic", "progress", "print_digest", "verbose"])]
    pub(crate) restrict: Option<PathBuf>,

    /// Let senders keep existing data and read its checksums (with --restrict)
    #[arg(long, requires = "restrict", help_heading = "Input")]
    pub(crate) allow_read: bool,

    /// Read the 2014 stream format, in which truncation can't be detected
    ///
    /// That format has no disk size, no end record and no checksums.
    #[arg(long, help_heading = "Input")]
    pub(crate) classic: bool,

    /// Show progress (default: auto for HOST:IMAGE, none for standard input)
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Messages")]
    pub(crate) progress: Option<ProgressKind>,

    /// Print warnings and errors only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Messages")]
    pub(crate) quiet: bool,

    /// Print the fingerprint of the disk on standard error
    ///
    /// The sender prints the same fingerprint for the same disk.
    #[arg(long, help_heading = "Messages")]
    pub(crate) print_digest: bool,

    /// Print each step; given twice, each record too
    #[arg(short, long, action = ArgAction::Count, help_heading = "Messages")]
    pub(crate) verbose: u8,
}

impl Cli {
    /// The stream dialect that is read.
    pub(crate) fn dialect(&self) -> Dialect {
        if self.classic { Dialect::Classic } else { Dialect::V1 }
    }

    /// Returns the options that limit which streams are accepted.
    pub(crate) fn receive_options(&self) -> ReceiveOptions {
        ReceiveOptions {
            dialect: self.dialect(),
            require_hash: self.require_hash,
            max_size: self.max_size,
            allow_base: self.restrict.is_none() || self.allow_read,
        }
    }
}
