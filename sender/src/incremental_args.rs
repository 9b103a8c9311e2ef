//! The options for an incremental transfer, and the fingerprint that the target must have for it.

use std::ffi::OsStr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;
use xfer_hole_image::{BackingChain, Disk, IncrementalBase};
use xfer_hole_pipeline::{Phase, ProgressCounters, fingerprint, record_lines};
use xfer_hole_proto::{Fingerprint, HashParams};
use xfer_hole_transfer::CacheKey;
use xfer_hole_ui::TargetArgs;

use crate::error::SendError;

/// The interval between two checks whether the older disk is still to be read.
const POLL: Duration = Duration::from_secs(1);

/// The options that name the older state, which the target holds.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct IncrementalArgs {
    /// Send only changes since an internal snapshot of the image
    ///
    /// The target must hold the disk of that snapshot, the base disk. Changes are found from the image's tables
    /// alone; the rest of the target is kept.
    #[arg(long, value_name = "NAME|ID", conflicts_with_all = ["since_base", "bitmap", "classic"])]
    since_snapshot: Option<String>,

    /// Send only the data of the layers above FILE in the backing chain
    ///
    /// The target must hold the disk of FILE, the base disk.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bitmap", "classic"])]
    since_base: Option<PathBuf>,

    /// Send only the ranges that a persistent bitmap of the image marks as changed
    ///
    /// The target must hold the disk as it was when the bitmap was created, the base disk.
    #[arg(long, value_name = "NAME", conflicts_with = "classic")]
    bitmap: Option<String>,

    /// Set the fingerprint of the base disk, which the receiver checks
    ///
    /// Without a value, or without this option, the base disk is read on this machine, unless its fingerprint is
    /// cached.
    #[arg(
        long,
        value_name = "FINGERPRINT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = BaseDigest::parse
    )]
    base_digest: Option<BaseDigest>,

    /// Skip the check that the target holds the base disk
    ///
    /// If the target holds another disk, it is corrupted without an error.
    #[arg(long, conflicts_with_all = ["base_digest", "check_base"])]
    trust_base: bool,
}

/// The argument of `--base-digest`.
#[derive(Clone, Copy, Debug)]
enum BaseDigest {
    /// The fingerprint is computed on this machine.
    Read,
    /// The fingerprint is given.
    Given(Fingerprint),
}

impl BaseDigest {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Read);
        }
        let wrong = || "a fingerprint is sha256:INTERVAL:GRAIN:DIGEST, as --print-digest prints it".to_owned();
        Fingerprint::parse(text).map(Self::Given).ok_or_else(wrong)
    }
}

impl IncrementalArgs {
    /// The older state that the options name, if any.
    pub(crate) fn wanted(&self) -> Option<IncrementalBase> {
        let snapshot = self.since_snapshot.clone().map(IncrementalBase::Snapshot);
        let base = || self.since_base.clone().map(IncrementalBase::Base);
        snapshot.or_else(base).or_else(|| self.bitmap.clone().map(IncrementalBase::Bitmap))
    }

    /// The fingerprint given with `--base-digest`, if any.
    pub(crate) fn given(&self) -> Option<Fingerprint> {
        match self.base_digest {
            Some(BaseDigest::Given(fingerprint)) => Some(fingerprint),
            Some(BaseDigest::Read) | None => None,
        }
    }

    /// Fails if the options exclude each other or lack one that they need.
    pub(crate) fn check(&self, image: &OsStr, target: &TargetArgs) -> Result<(), SendError> {
        let since = "--since-snapshot, --since-base or --bitmap";
        if self.base_digest.is_some() && image.to_str().is_some_and(|word| Fingerprint::parse(word).is_some()) {
            return Err(SendError::usage(
                "--base-digest takes a fingerprint behind an equals sign: --base-digest=sha256:...",
            ));
        }
        for (given, flag) in [(target.delta, "--delta"), (target.read_back, "--read-back")] {
            if given && self.wanted().is_some() {
                return Err(SendError::usage(format!(
                    "{flag} can't be had with {since}, where parts of the disk are not read"
                )));
            }
        }
        let needs = [
            (self.base_digest.is_some(), "--base-digest"),
            (self.trust_base, "--trust-base"),
            (target.check_base, "--check-base"),
        ];
        for (given, flag) in needs {
            if given && self.wanted().is_none() {
                return Err(SendError::usage(format!("{flag} needs {since}")));
            }
        }
        if self.bitmap.is_some() && self.given().is_none() && !self.trust_base {
            let what = "tells what changed, but not what the disk was before, which the target must hold";
            return Err(SendError::Word {
                word: "--bitmap".into(),
                what: what.into(),
                hint: Some(
                    "--base-digest=FINGERPRINT names that disk, --trust-base sends without a check, --delta asks the target".into(),
                ),
            });
        }
        Ok(())
    }

    /// Fails if `--base-digest` has other parameters than `params`: those of the stream, or the default ones for a
    /// stream without digests.
    pub(crate) fn check_params(&self, params: HashParams) -> Result<(), SendError> {
        match self.given() {
            Some(base) if base.sums != params => Err(SendError::usage(format!(
                "--base-digest is of intervals of {} and a grain of {} bytes, and the stream's are {} and {}",
                base.sums.interval(),
                base.sums.grain(),
                params.interval(),
                params.grain()
            ))),
            _ => Ok(()),
        }
    }

    /// Determines the fingerprint that the target must have, without reading data. `params` are the stream's, if it
    /// has digests; a cached fingerprint with other parameters is accepted only if they are not `fixed`. With `live`
    /// the image may change while it is read.
    pub(crate) fn known_base(
        &self,
        disk: &BackingChain,
        params: Option<HashParams>,
        fixed: bool,
        live: bool,
    ) -> KnownBase {
        let params = params.map_or((HashParams::default(), true), |params| (params, fixed));
        match (self.given(), disk.before()) {
            _ if self.trust_base => KnownBase::NoCheck,
            (Some(named), _) => KnownBase::Known(named),
            (None, None) => KnownBase::NoCheck,
            (None, Some(before)) => match self.cached(&before, params) {
                Some(cached) => KnownBase::Known(cached),
                None => KnownBase::Unread { before, live },
            },
        }
    }

    /// The cached fingerprint of the older disk, if that disk is a file of its own. A snapshot has no cache entry.
    fn cached(&self, before: &BackingChain, (params, fixed): (HashParams, bool)) -> Option<Fingerprint> {
        self.since_base.as_ref()?;
        let cached = CacheKey::of_chain(before, SystemTime::now())?.recall_all();
        let fits = cached.into_iter().filter(|cached| !fixed || cached.sums == params);
        fits.min_by_key(|cached| (cached.sums != params, cached.sums.interval(), cached.sums.grain()))
    }
}

/// The fingerprints in a text.
fn fingerprints(text: &str) -> impl Iterator<Item = Fingerprint> {
    text.split([' ', ',', ';']).filter_map(Fingerprint::parse)
}

/// True if a failure's text names the fingerprint of another disk, during an incremental transfer.
pub(crate) fn names_disk(disk: &BackingChain, text: &str) -> bool {
    disk.older().is_some() && fingerprints(text).next().is_some()
}

/// True if one of the fingerprints in the text is that of the disk to send. Reads the whole disk.
pub(crate) fn is_disk_to_send(disk: &BackingChain, text: &str) -> bool {
    let whole = disk.whole();
    let is_it = |named: Fingerprint| {
        fingerprint(&whole, named.sums, &ProgressCounters::default()).is_ok_and(|disk| disk == named)
    };
    names_disk(disk, text) && fingerprints(text).any(is_it)
}

/// The state of the base of an incremental transfer: the disk that the target must hold.
#[derive(Debug)]
pub(crate) enum KnownBase {
    /// The target is not checked.
    NoCheck,
    /// The fingerprint is known.
    Known(Fingerprint),
    /// The fingerprint is not known yet.
    Unread {
        /// The older disk, to be read.
        before: BackingChain,
        /// The image's files may change while the older disk is read; its own data does not.
        live: bool,
    },
}

impl KnownBase {
    /// The fingerprint, if it is known without reading.
    pub(crate) fn known(&self) -> Option<Fingerprint> {
        match self {
            Self::Known(fingerprint) => Some(*fingerprint),
            Self::NoCheck | Self::Unread { .. } => None,
        }
    }

    /// The fingerprint with these parameters, computed by reading the disk if it is unknown. `wait` is called once a
    /// second meanwhile; an error from it stops the reading.
    pub(crate) fn read(
        &self,
        params: Option<HashParams>,
        counters: &ProgressCounters,
        mut wait: impl FnMut() -> Result<(), SendError>,
    ) -> Result<Option<Fingerprint>, SendError> {
        let Self::Unread { before, live } = self else { return Ok(self.known()) };
        counters.set_phase(Phase::Hashing);
        let (over, (done, ended)) = (AtomicBool::new(false), channel::<()>());
        let go_on = || if over.load(Ordering::Relaxed) { Err(SendError::BrokenPipe) } else { Ok(()) };
        let read = || {
            let read =
                record_lines(before, params.unwrap_or_default(), *live, &ProgressCounters::default(), |_| go_on());
            drop(done);
            read
        };
        thread::scope(|scope| {
            let reading = thread::Builder::new().spawn_scoped(scope, read).map_err(SendError::Thread)?;
            while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                wait().inspect_err(|_| over.store(true, Ordering::Relaxed))?;
            }
            let read = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
            counters.set_phase(Phase::Preparing);
            read.map(Some)
        })
    }
}
