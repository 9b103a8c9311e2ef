//! The command line: what the user typed ([`Cli`]), and what sending comes to ([`SendOptions`]).

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
use crate::cmd::hash_args::sums;
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
  xfer-hole web.qcow2 ssh://me@hypervisor:2222/dev/vg0/web
  xfer-hole -J jump --bwlimit 5M web.qcow2 inside:web.img
  xfer-hole web.qcow2 copy.img
  xfer-hole --hash disk.img | recv-hole copy.img
  xfer-hole --since-snapshot monday web.qcow2 hypervisor:web.img
  xfer-hole disk.img | ssh host sh recv-hole.sh disk.img
  xfer-hole map disk.qcow2
  xfer-hole info --output json disk.qcow2
  xfer-hole manifest -o disk.manifest disk.qcow2
  xfer-hole verify copy.img disk.manifest
  xfer-hole fold volume-snap-2.img volume-snap-1.img

A directory takes the image's name, with .img for what names of images end in: web.qcow2 becomes web.img. A file there
that was made from an image of another name is replaced only by --force.
HOST:~/PATH and ssh://HOST/~/PATH are in the home directory there. A local name with a colon is written ./a:b, and an image that is called as a command is, such as map, ./map.
Sizes and rates take K, M, G, T (1024), KB, MB, GB, TB (1000), and fractions such as 1.5M.
Exit status is 0 when the disk was sent, and for a DEST when it is whole there, synced and under its name; 75 where trying again can
help: the link was cut or silent, the host doesn't answer, another transfer writes DEST; 2 for every other failure; 128 and its number
for SIGINT, SIGTERM and SIGHUP.";

/// Sends a disk image as what is in it: data, and how long the holes are.
#[derive(Clone, Debug, Parser)]
#[command(name = "xfer-hole", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(override_usage = "xfer-hole [OPTIONS] IMAGE [DEST]\n       \
                           xfer-hole <map|info|manifest|digest|verify> [OPTIONS] IMAGE\n       \
                           xfer-hole fold [OPTIONS] CHILD PARENT\n       xfer-hole prune [OPTIONS] PARENT CHILD")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The disk to send: a raw or qcow2 image or a block device
    #[arg(required_unless_present_any = ["print_receiver", "speaks", "restrict"])]
    pub(crate) image: Option<PathBuf>,

    /// Where to: HOST:PATH, USER@HOST:PATH or ssh://[USER@]HOST[:PORT]/PATH on another machine, or PATH on this one: a file to make or
    /// replace, a directory to make it in, or a block device. "-" or nothing is standard output, for a pipe into recv-hole
    // More than one is refused with what to do.
    pub(crate) dest: Vec<OsString>,

    /// Send a SHA-256 with each interval, so that nothing arrives unverified. To another machine that is so without this flag
    #[arg(long, help_heading = "What is sent")]
    pub(crate) hash: bool,

    /// Send no SHA-256 to another machine
    #[arg(long, conflicts_with = "hash", help_heading = "What is sent")]
    pub(crate) no_hash: bool,

    /// Interval of the digests: a power of two, 4K to 16M; 1M if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "no_hash", help_heading = "What is sent")]
    pub(crate) hash_interval: Option<u64>,

    /// Send holes shorter than this as data; with --hash it is the grain: a power of two, 512 to the interval
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "What is sent")]
    pub(crate) min_hole: Option<u64>,

    /// Speak the dialect of 2014, which has no size, no end and no digests: a cut can't be seen
    #[arg(long, conflicts_with = "hash", help_heading = "What is sent")]
    pub(crate) classic: bool,

    #[command(flatten)]
    pub(crate) since: IncrementalArgs,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    #[command(flatten)]
    pub(crate) rsh: SshArgs,

    /// What receives at the other side: binary is the recv-hole installed there, sh is recv-hole.sh, which is sent along and needs only
    /// sh, auto is binary where it is installed, else sh; if not given, auto
    #[arg(long, value_name = "KIND", value_enum, help_heading = "How the other side is reached")]
    pub(crate) receiver: Option<Receiver>,

    /// For programs that hold both directions of a link: the receiver's answers come on standard input
    #[arg(long, conflicts_with = "classic", help_heading = "How the other side is reached")]
    pub(crate) converse: bool,

    /// For programs: end with 0 if this version of the conversation is spoken, else with 2
    #[arg(long, value_name = "VERSION", value_parser = parse_version, exclusive = true, help_heading = "How the other side is reached")]
    pub(crate) speaks: Option<u32>,

    /// For "command=" in authorized_keys: take the request of a pull from SSH_ORIGINAL_COMMAND, and read images beneath DIR only; see
    /// xfer-hole-restrict(7)
    #[arg(long, value_name = "DIR", exclusive = true, help_heading = "How the other side is reached")]
    pub(crate) restrict: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) source: ImageArgs,

    /// Whether zeros in what the extents call data become holes; on if not given
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "How it is read")]
    pub(crate) detect_zeroes: Option<Detect>,

    /// Accept that the image changes while it is sent: what arrives is then not of one moment. Changes are noticed of files only,
    /// not of block devices
    #[arg(long, help_heading = "How it is read")]
    pub(crate) live: bool,

    /// Whether a copy shares its blocks with the image: auto does where that can be, if the image is raw and no flag has zeros
    /// looked for; if not given, auto
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "How it is written")]
    pub(crate) reflink: Option<Reflink>,

    /// Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a stream on standard
    /// output
    #[arg(long, value_name = "KIND", value_enum, help_heading = "What is said")]
    pub(crate) progress: Option<ProgressKind>,

    /// Say nothing but warnings, and why it failed
    #[arg(short, long, conflicts_with = "verbose", help_heading = "What is said")]
    pub(crate) quiet: bool,

    /// Print the disk's fingerprint on standard error, to compare it with the receiver's
    #[arg(long, conflicts_with = "no_hash", help_heading = "What is said")]
    pub(crate) print_digest: bool,

    /// Write recv-hole.sh, the receiver that needs nothing but sh, to standard output
    #[arg(long, exclusive = true, help_heading = "What is said")]
    pub(crate) print_receiver: bool,
}

/// What is done with an image besides sending it.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what is where in an image, extent by extent
    Map(MapArgs),
    /// Print what an image is, and what it lies on
    Info(InfoArgs),
    /// Put the data of a sparse raw file into its parent, the file below it in a chain
    Fold(FoldArgs),
    /// Punch out of a sparse raw file what its child, the file above it in a chain, has itself
    Prune(PruneArgs),
    /// Print the disk's record lines, with digests and without its bytes
    Manifest(ManifestArgs),
    /// Print the disk's fingerprint
    Digest(DigestArgs),
    /// Compare a disk with a manifest
    Verify(VerifyArgs),
}

/// Whether zeros are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Detect {
    /// In blocks of 4 KiB
    On,
    /// Extents alone are trusted
    Off,
}

/// What receives at the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Receiver {
    /// recv-hole if it is there, else the script
    #[default]
    Auto,
    /// recv-hole
    Binary,
    /// recv-hole.sh
    Sh,
}

impl Receiver {
    /// As it stands in a request.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Binary => "binary",
            Self::Sh => "sh",
        }
    }
}

/// Whom a disk is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerKind {
    /// Whoever reads standard output, or a file of this machine.
    Unknown,
    /// recv-hole at the other side.
    Binary,
    /// recv-hole.sh at the other side: each record costs it a process.
    Sh,
    /// The same, where a transfer was cut before: what it has finished is what it can go on from.
    ShAgain,
    /// One that tells what it holds: by short intervals there is less to be sent again.
    Holder,
}

/// Whether a copy shares its blocks with the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reflink {
    /// If it can
    #[default]
    Auto,
    /// Or it is refused
    Always,
    /// All is copied
    Never,
}

/// A copy to be made on this machine, checked.
#[derive(Clone, Debug)]
pub(crate) struct Copying {
    pub(crate) job: SendOptions,
    pub(crate) options: TargetOptions,
    pub(crate) reflink: Reflink,
    /// Zeros are to be looked for, or digests to be made: nothing is shared as it stands.
    pub(crate) looks: bool,
    /// Shorter holes are to become data.
    pub(crate) fills: bool,
}

/// What is to be done, checked.
#[derive(Clone, Debug)]
pub(crate) struct SendOptions {
    pub(crate) dialect: Dialect,
    pub(crate) sums: Option<HashParams>,
    pub(crate) shape: ReadOptions,
    pub(crate) live: bool,
    /// What the target has to be, if only changes are sent, and that is said.
    pub(crate) base: Option<Digest>,
}

impl SendOptions {
    /// The same in canonical form with these parameters.
    pub(crate) fn cut(self, sums: HashParams) -> Self {
        Self { sums: Some(sums), shape: ReadOptions::canonical(sums), ..self }
    }
}

/// The interval where a receiver is asked what it holds, in bytes.
const DELTA_INTERVAL: u64 = 64 << 10;
/// Towards sh: records are long and holes are not short, in bytes.
const SH_INTERVAL: u64 = INTERVAL_MAX;
const SH_HOLE: u64 = 64 << 10;
/// Where only changes are sent, intervals are short: what changed is sent by whole ones.
const SINCE_INTERVAL: u64 = 64 << 10;

impl SendOptions {
    /// The same where the target has to be this: digests are taken as it was.
    pub(crate) fn building_on(self, base: Option<Fingerprint>) -> Self {
        let Some(base) = base else { return self };
        match self.sums {
            Some(_) => Self {
                sums: Some(base.sums),
                shape: ReadOptions::canonical(base.sums),
                base: Some(base.digest),
                ..self
            },
            None => Self { base: Some(base.digest), ..self },
        }
    }
}

impl Cli {
    /// What was typed for a copy of `image` on this machine.
    pub(crate) fn copying(&self, image: &Path, job: SendOptions) -> Result<Copying, SendError> {
        let reflink = self.reflink.unwrap_or_default();
        let looks = self.hash || self.min_hole.is_some() || self.detect_zeroes == Some(Detect::On);
        if looks && reflink == Reflink::Always {
            let flags = "--hash, --min-hole or --detect-zeroes on";
            return Err(SendError::usage(format!(
                "--reflink always copies as it stands, and can't be had with {flags}"
            )));
        }
        Ok(Copying {
            job,
            options: TargetOptions {
                source: Some(own_name(image)),
                ..self.target.options(Some(copy_name(image)), None).map_err(SendError::Usage)?
            },
            reflink,
            looks,
            fills: self.min_hole.is_some_and(|bytes| bytes > 1),
        })
    }

    /// What was typed, checked as far as that can be done without touching anything.
    pub(crate) fn job(&self, peer: PeerKind) -> Result<SendOptions, SendError> {
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
        let sums = hash.then(|| self.sums(peer)).transpose()?;
        if sums.is_none() {
            self.since.check_sums(HashParams::default())?;
        }
        let shape = match sums {
            Some(_) if !detect => {
                let what = "--detect-zeroes=off can't be had with digests, which go by content";
                return Err(SendError::usage(if self.hash { what.into() } else { format!("{what}: add --no-hash") }));
            }
            Some(sums) => ReadOptions::canonical(sums),
            None => ReadOptions::plain(detect, self.min_hole.unwrap_or(if peer == PeerKind::Sh { SH_HOLE } else { 1 })),
        };
        if self.min_hole.is_some_and(|bytes| bytes > UNIT) {
            return Err(SendError::usage(format!("--min-hole takes up to {UNIT} bytes")));
        }
        Ok(SendOptions {
            dialect: if self.classic { Dialect::Classic } else { Dialect::V1 },
            sums,
            shape,
            live: self.live,
            base: None,
        })
    }

    /// What holds back the bytes that leave.
    pub(crate) fn throttle(&self) -> Option<RateLimiter> {
        self.rsh.bwlimit.map(RateLimiter::new)
    }

    fn sums(&self, peer: PeerKind) -> Result<HashParams, SendError> {
        let (interval, grain) = match peer {
            PeerKind::Sh => (SH_INTERVAL, SH_HOLE),
            PeerKind::ShAgain => (INTERVAL_DEFAULT, SH_HOLE),
            PeerKind::Unknown | PeerKind::Binary => (INTERVAL_DEFAULT, GRAIN_DEFAULT),
            PeerKind::Holder => (DELTA_INTERVAL, GRAIN_DEFAULT),
        };
        let interval = if self.since.wanted().is_some() { SINCE_INTERVAL } else { interval };
        let (interval, grain) = match self.since.named() {
            Some(base) => (base.sums.interval(), base.sums.grain()),
            None => (interval, grain),
        };
        let interval = self.hash_interval.unwrap_or(interval);
        let sums = sums(interval, self.min_hole.unwrap_or(grain.min(interval)))?;
        self.since.check_sums(sums)?;
        Ok(sums)
    }
}
