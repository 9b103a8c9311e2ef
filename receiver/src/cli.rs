//! The command line: what the user typed, and what it comes to.

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

A directory takes the image's name, with .img for what names of images end in. A file there
that was made from an image of another name is replaced only by --force. HOST:~/IMAGE is
in the home directory there. A local name with a colon is written ./a:b.
Sizes and rates take K, M, G, T (1024), KB, MB, GB, TB (1000), and fractions such as 1.5M.
Exit status is 0 when the whole disk is there, synced and under its final name; 75 where trying again can help: the link was cut or
silent, the host doesn't answer, another transfer writes DEST; 2 for every other failure, as for a stream from a pipe that was cut;
128 and its number for SIGINT, SIGTERM and SIGHUP. DEST is then as it was, unless it is a device or --in-place was given, and what arrived is in DEST.part.
With --verify it is 0 when DEST is the disk of the manifest, 1 when it differs, 2 for every failure.";

/// Receives a disk image from xfer-hole, and rebuilds it with its holes.
#[derive(Clone, Debug, Parser)]
#[command(name = "recv-hole", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(
    override_usage = "recv-hole [OPTIONS] DEST < STREAM\n       recv-hole [OPTIONS] HOST:IMAGE DEST\n       recv-hole --verify [--list] DEST < MANIFEST"
)]
pub(crate) struct Cli {
    /// DEST: the file to make or replace, a block device to overwrite, or "-" for the full bytes on standard output. HOST:IMAGE: an
    /// image on another machine, also USER@HOST:IMAGE or ssh://[USER@]HOST[:PORT]/IMAGE, which xfer-hole sends from there; without it
    /// the stream comes on standard input
    #[arg(value_name = "DEST", required_unless_present_any = ["restrict", "request", "speaks"])]
    pub(crate) words: Vec<OsString>,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) rsh: SshArgs,

    /// Give this option to the xfer-hole at the other side, such as --snapshot=NAME; can be repeated
    #[arg(
        short = 'M',
        long,
        value_name = "OPTION",
        allow_hyphen_values = true,
        help_heading = "How the other side is reached"
    )]
    pub(crate) remote_option: Vec<OsString>,

    /// Accept an image from another machine without digests: less work for both
    #[arg(long, conflicts_with = "require_hash", help_heading = "How the other side is reached")]
    pub(crate) no_hash: bool,

    /// For programs that hold both directions of a link: standard output takes the answers
    #[arg(long, conflicts_with = "classic", help_heading = "How the other side is reached")]
    pub(crate) converse: bool,

    /// For programs: end with 0 if this version of the conversation is spoken, else with 2
    #[arg(long, value_name = "VERSION", value_parser = parse_version, exclusive = true, help_heading = "How the other side is reached")]
    pub(crate) speaks: Option<u32>,

    /// For programs: receive what the words of a sender's request ask for, and answer on standard output
    #[arg(long, value_name = "WORDS", exclusive = true, help_heading = "How the other side is reached")]
    pub(crate) request: Option<OsString>,

    /// Write nothing: compare DEST, read as it is, with the manifest on standard input, which xfer-hole manifest writes
    #[arg(long, help_heading = "What is compared",
          conflicts_with_all = ["restrict", "in_place", "target_is_zero", "discard", "no_sync", "read_back", "check_base", "no_clobber", "force", "mkpath", "chmod", "chown",
                                "dry_run", "converse", "classic", "require_hash", "max_size", "print_digest"])]
    pub(crate) verify: bool,

    /// With --verify: print all ranges that differ, and nothing else: offset and length in bytes, a line each, whole intervals joined
    #[arg(long, requires = "verify", conflicts_with = "quiet", help_heading = "What is compared")]
    pub(crate) list: bool,

    /// Refuse a stream without digests
    #[arg(long, conflicts_with = "classic", help_heading = "What is accepted")]
    pub(crate) require_hash: bool,

    /// Refuse a disk larger than this
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "What is accepted")]
    pub(crate) max_size: Option<u64>,

    /// For "command=" in authorized_keys: take the request from SSH_ORIGINAL_COMMAND, and write beneath DIR only, and with
    /// --no-clobber new files only; see xfer-hole-restrict(7)
    #[arg(long, value_name = "DIR", help_heading = "What is accepted",
          conflicts_with_all = ["words", "in_place", "target_is_zero", "discard", "no_sync", "direct", "read_back", "check_base", "force", "mkpath", "chmod", "chown", "dry_run",
                                "converse", "classic", "progress", "print_digest", "verbose"])]
    pub(crate) restrict: Option<PathBuf>,

    /// With --restrict: what is there already may be kept and told of
    #[arg(long, requires = "restrict", help_heading = "What is accepted")]
    pub(crate) allow_read: bool,

    /// Read the dialect of 2014, which has no size, no end and no digests: a cut can't be seen
    #[arg(long, help_heading = "What is accepted")]
    pub(crate) classic: bool,

    /// Show how far it is: auto is a bar if standard error is a terminal. If not given: auto for HOST:IMAGE, and none for a stream
    /// on standard input
    #[arg(long, value_name = "KIND", value_enum, help_heading = "What is said")]
    pub(crate) progress: Option<ProgressKind>,

    /// Say nothing but warnings, and why it failed
    #[arg(short, long, conflicts_with = "verbose", help_heading = "What is said")]
    pub(crate) quiet: bool,

    /// Print the disk's fingerprint on standard error, to compare it with the sender's
    #[arg(long, help_heading = "What is said")]
    pub(crate) print_digest: bool,

    /// Say what is done; twice: each record
    #[arg(short, long, action = ArgAction::Count, help_heading = "What is said")]
    pub(crate) verbose: u8,
}

impl Cli {
    pub(crate) fn dialect(&self) -> Dialect {
        if self.classic { Dialect::Classic } else { Dialect::V1 }
    }

    pub(crate) fn rules(&self) -> ReceiveOptions {
        ReceiveOptions {
            dialect: self.dialect(),
            require_hash: self.require_hash,
            max_size: self.max_size,
            allow_base: self.restrict.is_none() || self.allow_read,
        }
    }
}
