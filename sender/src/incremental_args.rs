//! What only changes are sent since: the flags for an older state of the disk, and what the target has to be then.

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

/// How often it is checked, while the older disk is read, whether that is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// The older state that the target holds.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is sent")]
pub(crate) struct IncrementalArgs {
    /// Send only what changed since this internal snapshot of the image, found from its tables alone. The target must hold the
    /// snapshot's disk: the rest of it is kept
    #[arg(long, value_name = "NAME|ID", conflicts_with_all = ["since_base", "bitmap", "classic"])]
    since_snapshot: Option<String>,

    /// Send only what the images above this file of the backing chain have. The target must hold that file's disk
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bitmap", "classic"])]
    since_base: Option<PathBuf>,

    /// Send only what this persistent bitmap of the image is set for. The target must hold the disk as it was when the bitmap was begun
    #[arg(long, value_name = "NAME", conflicts_with = "classic")]
    bitmap: Option<String>,

    /// Name the older disk that the target must hold, which the receiver checks, by its fingerprint. Without it the older state is
    /// read here, unless its fingerprint was noted
    #[arg(
        long,
        value_name = "FINGERPRINT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = BaseDigest::parse
    )]
    base_digest: Option<BaseDigest>,

    /// Don't have the receiver check that the target holds the older disk: if it doesn't, the result is a disk that never was
    #[arg(long, conflicts_with_all = ["base_digest", "check_base"])]
    trust_base: bool,
}

/// How the target's content is known.
#[derive(Clone, Copy, Debug)]
enum BaseDigest {
    /// It is to be read here.
    Read,
    /// By the user.
    Named(Fingerprint),
}

impl BaseDigest {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Read);
        }
        let wrong = || "a fingerprint is sha256:INTERVAL:GRAIN:DIGEST, as --print-digest prints it".to_owned();
        Fingerprint::parse(text).map(Self::Named).ok_or_else(wrong)
    }
}

impl IncrementalArgs {
    /// The older state that was asked for.
    pub(crate) fn wanted(&self) -> Option<IncrementalBase> {
        let snapshot = self.since_snapshot.clone().map(IncrementalBase::Snapshot);
        let base = || self.since_base.clone().map(IncrementalBase::Base);
        snapshot.or_else(base).or_else(|| self.bitmap.clone().map(IncrementalBase::Bitmap))
    }

    /// What the user says that the target holds.
    pub(crate) fn named(&self) -> Option<Fingerprint> {
        match self.base_digest {
            Some(BaseDigest::Named(fingerprint)) => Some(fingerprint),
            Some(BaseDigest::Read) | None => None,
        }
    }

    /// Refuses what makes no sense together.
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
        if self.bitmap.is_some() && self.named().is_none() && !self.trust_base {
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

    /// Refuses a fingerprint with other parameters than these: those of the stream, or what a stream without digests stands for.
    pub(crate) fn check_sums(&self, sums: HashParams) -> Result<(), SendError> {
        match self.named() {
            Some(base) if base.sums != sums => Err(SendError::usage(format!(
                "--base-digest is of intervals of {} and a grain of {} bytes, and the stream's are {} and {}",
                base.sums.interval(),
                base.sums.grain(),
                sums.interval(),
                sums.grain()
            ))),
            _ => Ok(()),
        }
    }

    /// What the target has to hold, as far as that is known without reading. The stream has these `sums`, or none, and others only
    /// if they are not `fixed`; with `live` the image may change.
    pub(crate) fn basis(&self, disk: &BackingChain, sums: Option<HashParams>, fixed: bool, live: bool) -> KnownBase {
        let sums = sums.map_or((HashParams::default(), true), |sums| (sums, fixed));
        match (self.named(), disk.before()) {
            _ if self.trust_base => KnownBase::Unsaid,
            (Some(named), _) => KnownBase::Known(named),
            (None, None) => KnownBase::Unsaid,
            (None, Some(before)) => match self.noted(&before, sums) {
                Some(noted) => KnownBase::Known(noted),
                None => KnownBase::Unread { before, live },
            },
        }
    }

    /// What was noted of the older disk, if it is a file of its own: a snapshot is not what the image's files are known by.
    fn noted(&self, before: &BackingChain, (sums, fixed): (HashParams, bool)) -> Option<Fingerprint> {
        self.since_base.as_ref()?;
        let noted = CacheKey::of_chain(before, SystemTime::now())?.recall_all();
        let fits = noted.into_iter().filter(|noted| !fixed || noted.sums == sums);
        fits.min_by_key(|noted| (noted.sums != sums, noted.sums.interval(), noted.sums.grain()))
    }
}

/// The fingerprints in a text.
fn fingerprints(text: &str) -> impl Iterator<Item = Fingerprint> {
    text.split([' ', ',', ';']).filter_map(Fingerprint::parse)
}

/// Whether a receiver that was to keep parts of an older disk tells the fingerprint of another disk.
pub(crate) fn tells_disk(disk: &BackingChain, told: &str) -> bool {
    disk.older().is_some() && fingerprints(told).next().is_some()
}

/// Whether a target whose fingerprints stand in this text holds the disk already: our own fingerprint is computed by reading.
pub(crate) fn is_there_already(disk: &BackingChain, told: &str) -> bool {
    let whole = disk.whole();
    let is_it =
        |told: Fingerprint| fingerprint(&whole, told.sums, &ProgressCounters::default()).is_ok_and(|disk| disk == told);
    tells_disk(disk, told) && fingerprints(told).any(is_it)
}

/// What is known of the disk that the target has to hold, where only changes are sent.
#[derive(Debug)]
pub(crate) enum KnownBase {
    /// Nothing is said of it.
    Unsaid,
    /// It is this one.
    Known(Fingerprint),
    /// It is this one, which has not been read yet.
    Unread {
        /// The disk.
        before: BackingChain,
        /// Its files may change meanwhile: what is older in them doesn't.
        live: bool,
    },
}

impl KnownBase {
    /// What is known without reading.
    pub(crate) fn known(&self) -> Option<Fingerprint> {
        match self {
            Self::Known(fingerprint) => Some(*fingerprint),
            Self::Unsaid | Self::Unread { .. } => None,
        }
    }

    /// The fingerprint by these `sums`, read if it is unknown. `wait` is called each second meanwhile, and may call it off.
    pub(crate) fn read(
        &self,
        sums: Option<HashParams>,
        counters: &ProgressCounters,
        mut wait: impl FnMut() -> Result<(), SendError>,
    ) -> Result<Option<Fingerprint>, SendError> {
        let Self::Unread { before, live } = self else { return Ok(self.known()) };
        counters.set_phase(Phase::Hashing);
        let (over, (done, ended)) = (AtomicBool::new(false), channel::<()>());
        let go_on = || if over.load(Ordering::Relaxed) { Err(SendError::BrokenPipe) } else { Ok(()) };
        let read = || {
            let read = record_lines(before, sums.unwrap_or_default(), *live, &ProgressCounters::default(), |_| go_on());
            drop(done);
            read
        };
        thread::scope(|scope| {
            let reading = thread::Builder::new().spawn_scoped(scope, read).map_err(SendError::Thread)?;
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                wait().inspect_err(|_| over.store(true, Ordering::Relaxed))?;
            }
            let read = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
            counters.set_phase(Phase::Preparing);
            read.map(Some)
        })
    }
}
