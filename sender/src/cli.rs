//! The command line of `xfer-hole` ([`Cli`]) and the options of a transfer that are derived from it
//! ([`SendOptions`]).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use xfer_hole_pipeline::{ReadOptions, UNIT};
use xfer_hole_proto::{Dialect, Digest, Fingerprint, GRAIN_DEFAULT, HashParams, INTERVAL_DEFAULT, INTERVAL_MAX};
use xfer_hole_target::TargetOptions;
use xfer_hole_transport::{RateLimiter, SshArgs, copy_name, own_name, parse_version};
use xfer_hole_ui::{ProgressKind, TargetArgs, parse_size};

use crate::cmd::digest::DigestArgs;
use crate::cmd::fold_prune::{FoldArgs, PruneArgs};
use crate::cmd::hash_args::checked_params;
use crate::cmd::info::InfoArgs;
use crate::cmd::manifest::ManifestArgs;
use crate::cmd::map::MapArgs;
use crate::cmd::verify::VerifyArgs;
use crate::error::SendError;
use crate::image_args::ImageArgs;
use crate::incremental_args::IncrementalArgs;

const EXAMPLES: &str = "\
Examples:
  xfer-hole web.qcow2 hypervisor:/srv/images/
  xfer-hole --delta web.qcow2 ssh://me@hypervisor:2222/srv/images/web.img
  xfer-hole --since-snapshot monday web.qcow2 hypervisor:web.img
  xfer-hole web.qcow2 copy.img
  xfer-hole --hash disk.img | recv-hole copy.img

If DEST is a directory, the new file takes the image's name, with .img instead of an extension such as .qcow2: web.qcow2 \
becomes web.img. A file there that was made from an image of another name is replaced only with --force.
HOST:~/PATH and ssh://HOST/~/PATH are in the home directory on HOST. Write ./a:b for a local file whose name has a colon, and \
./map for an image with the name of a command.
Sizes and rates take K, M, G, T (powers of 1024), KB, MB, GB, TB (powers of 1000), and fractions such as 1.5M.

Exit status is 0 if the disk was sent and, with a DEST, is complete, synced and under its final name; 75 if trying again can \
help: the connection was cut or silent, the host does not answer, or another transfer writes DEST; 2 for every other failure; \
128 plus the signal's number for SIGINT, SIGTERM and SIGHUP.";

/// Send a disk image: data as it is, a hole as its length
#[derive(Clone, Debug, Parser)]
#[command(name = "xfer-hole", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(override_usage = "xfer-hole [OPTIONS] IMAGE [DEST]\n       \
                           xfer-hole <map|info|manifest|digest|verify> [OPTIONS] IMAGE\n       \
                           xfer-hole fold [OPTIONS] CHILD PARENT\n       xfer-hole prune [OPTIONS] PARENT CHILD")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The disk to send: a raw or qcow2 image, or a block device
    #[arg(required_unless_present_any = ["print_receiver", "speaks", "restrict"])]
    pub(crate) image: Option<PathBuf>,

    /// The destination: HOST:PATH, a local PATH, or "-" for standard output (default: "-")
    ///
    /// Another machine is HOST:PATH, USER@HOST:PATH or ssh://[USER@]HOST[:PORT]/PATH. PATH is a file to create or
    /// replace, a directory to create the file in, or a block device. Without DEST the stream goes to standard
    /// output, for a pipe into recv-hole.
    // A second word is accepted here so that the refusal can name the command to type.
    pub(crate) dest: Vec<OsString>,

    /// Send SHA-256 checksums, which the receiver verifies (default: only to another machine)
    #[arg(long, help_heading = "Data")]
    pub(crate) hash: bool,

    /// Send no checksums to another machine (default: with checksums)
    #[arg(long, conflicts_with = "hash", help_heading = "Data")]
    pub(crate) no_hash: bool,

    /// Set the interval of the checksums: a power of two from 4K to 16M bytes (default: 1M)
    ///
    /// A receiver verifies data interval by interval. The default is 64K with --delta and for increments, and 16M for
    /// recv-hole.sh.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "no_hash", help_heading = "Data")]
    pub(crate) hash_interval: Option<u64>,

    /// Send holes shorter than SIZE bytes as data (default: 4K with checksums, else 1)
    ///
    /// With checksums, SIZE is the grain in which zeros are found: a power of two from 512 to the interval. The
    /// default is 64K for recv-hole.sh.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Data")]
    pub(crate) min_hole: Option<u64>,

    /// Write the 2014 stream format, in which truncation can't be detected
    ///
    /// That format has no disk size, no end record and no checksums.
    #[arg(long, conflicts_with = "hash", help_heading = "Data")]
    pub(crate) classic: bool,

    #[command(flatten)]
    pub(crate) incremental: IncrementalArgs,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) ssh: SshArgs,

    /// Choose the receiver on the other machine (default: auto)
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Connection")]
    pub(crate) receiver: Option<Receiver>,

    /// Read replies from standard input, for programs that hold both directions of a link
    #[arg(long, conflicts_with = "classic", help_heading = "Connection")]
    pub(crate) converse: bool,

    /// Exit with 0 if conversation VERSION is supported, else with 2 (for programs)
    #[arg(long, value_name = "VERSION", value_parser = parse_version, exclusive = true, help_heading = "Connection")]
    pub(crate) speaks: Option<u32>,

    /// Serve requests for images below DIR only, as the forced command of an ssh key
    ///
    /// For command="..." in authorized_keys. The request is read from SSH_ORIGINAL_COMMAND. See
    /// xfer-hole-restrict(7).
    #[arg(long, value_name = "DIR", exclusive = true, help_heading = "Connection")]
    pub(crate) restrict: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) source: ImageArgs,

    /// Look for zeros in allocated data and send them as holes (default: on)
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "Source")]
    pub(crate) detect_zeroes: Option<Detect>,

    /// Accept that the image changes while it is sent
    ///
    /// The destination is then not the disk at one point in time. Without this option a change of a file is an error;
    /// a change of a block device can't be detected.
    #[arg(long, help_heading = "Source")]
    pub(crate) live: bool,

    /// Share blocks between image and copy (default: auto)
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "Destination")]
    pub(crate) reflink: Option<Reflink>,

    /// Show progress (default: auto, or none for a stream on standard output)
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Messages")]
    pub(crate) progress: Option<ProgressKind>,

    /// Print warnings and errors only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Messages")]
    pub(crate) quiet: bool,

    /// Print the fingerprint of the disk on standard error
    ///
    /// The receiver prints the same fingerprint for the same disk.
    #[arg(long, conflicts_with = "no_hash", help_heading = "Messages")]
    pub(crate) print_digest: bool,

    /// Write recv-hole.sh, the receiver that needs only a POSIX shell, to standard output
    #[arg(long, exclusive = true, help_heading = "Connection")]
    pub(crate) print_receiver: bool,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the extents of an image: what is data, zero or a hole
    Map(MapArgs),
    /// Print the format, sizes, snapshots and backing files of an image
    Info(InfoArgs),
    /// Copy the data of a sparse raw file into its parent, the next file down a chain
    Fold(FoldArgs),
    /// Punch holes into a sparse raw file where its child, the next file up a chain, has data
    Prune(PruneArgs),
    /// Print the manifest of a disk: its extents with checksums, without data
    Manifest(ManifestArgs),
    /// Print the fingerprint of a disk
    Digest(DigestArgs),
    /// Compare a disk with a manifest
    Verify(VerifyArgs),
}

/// The argument of `--detect-zeroes`: whether allocated data is searched for zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Detect {
    /// Search in blocks of 4 KiB
    On,
    /// Trust the extents
    Off,
}

/// The argument of `--receiver`: the program that receives on the other machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Receiver {
    /// recv-hole if it is installed there, else recv-hole.sh
    #[default]
    Auto,
    /// recv-hole, which must be installed there
    Binary,
    /// recv-hole.sh, which is sent along and needs only a POSIX shell
    Sh,
}

impl Receiver {
    /// The value of the request's `receiver` option.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Binary => "binary",
            Self::Sh => "sh",
        }
    }
}

/// The kind of receiver. It decides the defaults of interval and grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerKind {
    /// A local file or device, or an unknown reader of standard output.
    Unknown,
    /// `recv-hole` on another machine.
    Binary,
    /// `recv-hole.sh` on another machine. It starts a process for each record.
    Sh,
    /// `recv-hole.sh` on another machine that holds part of an interrupted transfer. It can resume after a finished
    /// record only, so records are shorter than for [`PeerKind::Sh`].
    ShResume,
    /// A receiver that sends a manifest of its existing data. Short intervals reduce the data to send.
    Delta,
}

/// The argument of `--reflink`: whether a copy shares blocks with the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reflink {
    /// Share blocks if the image is raw, no option requires a search for zeros, and the file system can clone
    #[default]
    Auto,
    /// Fail if blocks can't be shared
    Always,
    /// Copy all data
    Never,
}

/// The checked options of a local copy.
#[derive(Clone, Debug)]
pub(crate) struct CopyOptions {
    pub(crate) job: SendOptions,
    pub(crate) options: TargetOptions,
    pub(crate) reflink: Reflink,
    /// Zeros are searched for, or digests computed, so blocks can't be shared.
    pub(crate) searches_zeros: bool,
    /// Short holes are written as data (`--min-hole`).
    pub(crate) fills_holes: bool,
}

/// The checked options of a transfer.
#[derive(Clone, Debug)]
pub(crate) struct SendOptions {
    pub(crate) dialect: Dialect,
    pub(crate) params: Option<HashParams>,
    pub(crate) read_options: ReadOptions,
    pub(crate) live: bool,
    /// The fingerprint's digest that the target must have, if only changes are sent and the target is checked.
    pub(crate) base: Option<Digest>,
}

impl SendOptions {
    /// Replaces the parameters of the digests, and the read options by the canonical ones for them.
    pub(crate) fn with_params(self, params: HashParams) -> Self {
        Self { params: Some(params), read_options: ReadOptions::canonical(params), ..self }
    }
}

/// The default interval for a delta, in bytes.
const DELTA_INTERVAL: u64 = 64 << 10;
/// The default interval for recv-hole.sh, in bytes.
const SH_INTERVAL: u64 = INTERVAL_MAX;
const SH_HOLE: u64 = 64 << 10;
/// The default interval for an increment, in bytes. A changed interval is sent whole, so intervals are short.
const SINCE_INTERVAL: u64 = 64 << 10;

impl SendOptions {
    /// Requires the target to have this fingerprint, and takes digests by its parameters.
    pub(crate) fn with_base(self, base: Option<Fingerprint>) -> Self {
        let Some(base) = base else { return self };
        match self.params {
            Some(_) => Self {
                params: Some(base.sums),
                read_options: ReadOptions::canonical(base.sums),
                base: Some(base.digest),
                ..self
            },
            None => Self { base: Some(base.digest), ..self },
        }
    }
}

impl Cli {
    /// Derives the options of a local copy of `image`. Fails if two of the arguments exclude each other.
    pub(crate) fn copy_options(&self, image: &Path, job: SendOptions) -> Result<CopyOptions, SendError> {
        let reflink = self.reflink.unwrap_or_default();
        let searches_zeros = self.hash || self.min_hole.is_some() || self.detect_zeroes == Some(Detect::On);
        if searches_zeros && reflink == Reflink::Always {
            let flags = "--hash, --min-hole or --detect-zeroes on";
            return Err(SendError::usage(format!(
                "--reflink always copies as it stands, and can't be had with {flags}"
            )));
        }
        Ok(CopyOptions {
            job,
            options: TargetOptions {
                source: Some(own_name(image)),
                ..self.target.options(Some(copy_name(image)), None).map_err(SendError::Usage)?
            },
            reflink,
            searches_zeros,
            fills_holes: self.min_hole.is_some_and(|bytes| bytes > 1),
        })
    }

    /// Derives the options of a transfer to a receiver of kind `peer`, without opening a file. Fails if two of the
    /// arguments exclude each other.
    pub(crate) fn send_options(&self, peer: PeerKind) -> Result<SendOptions, SendError> {
        let detect = self.detect_zeroes != Some(Detect::Off);
        let hash = self.hash || (peer != PeerKind::Unknown && !self.no_hash);
        let needing = [
            (self.hash_interval.is_some(), "--hash-interval"),
            (self.print_digest, "--print-digest"),
            (self.target.read_back, "--read-back"),
        ];
        for (given, flag) in needing {
            if given && !hash {
                return Err(SendError::usage(format!("{flag} needs --hash")));
            }
        }
        if self.target.remember && !self.target.delta {
            return Err(SendError::usage("--remember is for a --delta"));
        }
        if self.target.delta && !hash {
            return Err(SendError::usage(if self.no_hash {
                "--delta can't be had without digests"
            } else {
                "--delta needs --hash"
            }));
        }
        let params = hash.then(|| self.hash_params(peer)).transpose()?;
        if params.is_none() {
            self.incremental.check_params(HashParams::default())?;
        }
        let read_options = match params {
            Some(_) if !detect => {
                let what = "--detect-zeroes=off can't be had with digests, which go by content";
                return Err(SendError::usage(if self.hash { what.into() } else { format!("{what}: add --no-hash") }));
            }
            Some(params) => ReadOptions::canonical(params),
            None => ReadOptions::plain(detect, self.min_hole.unwrap_or(if peer == PeerKind::Sh { SH_HOLE } else { 1 })),
        };
        if self.min_hole.is_some_and(|bytes| bytes > UNIT) {
            return Err(SendError::usage(format!("--min-hole takes up to {UNIT} bytes")));
        }
        Ok(SendOptions {
            dialect: if self.classic { Dialect::Classic } else { Dialect::V1 },
            params,
            read_options,
            live: self.live,
            base: None,
        })
    }

    /// The rate limiter for the connection, if `--bwlimit` was given.
    pub(crate) fn rate_limiter(&self) -> Option<RateLimiter> {
        self.ssh.bwlimit.map(RateLimiter::new)
    }

    fn hash_params(&self, peer: PeerKind) -> Result<HashParams, SendError> {
        let (interval, grain) = match peer {
            PeerKind::Sh => (SH_INTERVAL, SH_HOLE),
            PeerKind::ShResume => (INTERVAL_DEFAULT, SH_HOLE),
            PeerKind::Unknown | PeerKind::Binary => (INTERVAL_DEFAULT, GRAIN_DEFAULT),
            PeerKind::Delta => (DELTA_INTERVAL, GRAIN_DEFAULT),
        };
        let interval = if self.incremental.wanted().is_some() { SINCE_INTERVAL } else { interval };
        let (interval, grain) = match self.incremental.given() {
            Some(base) => (base.sums.interval(), base.sums.grain()),
            None => (interval, grain),
        };
        let interval = self.hash_interval.unwrap_or(interval);
        let params = checked_params(interval, self.min_hole.unwrap_or(grain.min(interval)))?;
        self.incremental.check_params(params)?;
        Ok(params)
    }
}
