//! What only changes are sent since: the flags for an older state of the disk, and what the target has to be then.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use xfer_hole_image::{Chain, Identity, Since, Tally, fingerprint};
use xfer_hole_link::TargetArgs;
use xfer_hole_proto::{Fingerprint, Sums};

use crate::error::Error;

/// The older state that the target holds.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is sent")]
pub(crate) struct SinceArgs {
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

    /// Say which older disk the target must hold, for recv-hole --check-base: by its fingerprint, or, if none is given, by reading it
    #[arg(
        long,
        value_name = "FINGERPRINT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = BaseDigest::parse
    )]
    base_digest: Option<BaseDigest>,
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

impl SinceArgs {
    /// The older state that was asked for.
    pub(crate) fn wanted(&self) -> Option<Since> {
        let snapshot = self.since_snapshot.clone().map(Since::Snapshot);
        let base = || self.since_base.clone().map(Since::Base);
        snapshot.or_else(base).or_else(|| self.bitmap.clone().map(Since::Bitmap))
    }

    /// What the user says that the target holds.
    pub(crate) fn named(&self) -> Option<Fingerprint> {
        match self.base_digest {
            Some(BaseDigest::Named(fingerprint)) => Some(fingerprint),
            Some(BaseDigest::Read) | None => None,
        }
    }

    /// Refuses what makes no sense together.
    pub(crate) fn check(&self, image: &OsStr, target: &TargetArgs) -> Result<(), Error> {
        let since = "--since-snapshot, --since-base or --bitmap";
        if self.base_digest.is_some() && image.to_str().is_some_and(|word| Fingerprint::parse(word).is_some()) {
            return Err(Error::usage(
                "--base-digest takes a fingerprint behind an equals sign: --base-digest=sha256:...",
            ));
        }
        for (given, flag) in [(target.delta, "--delta"), (target.read_back, "--read-back")] {
            if given && self.wanted().is_some() {
                return Err(Error::usage(format!(
                    "{flag} can't be had with {since}, where parts of the disk are not read"
                )));
            }
        }
        if self.base_digest.is_some() && self.wanted().is_none() {
            return Err(Error::usage(format!("--base-digest needs {since}")));
        }
        if target.check_base && self.wanted().is_none() {
            return Err(Error::usage(format!("--check-base needs {since}")));
        }
        if self.bitmap.is_some() && matches!(self.base_digest, Some(BaseDigest::Read)) {
            let what = "--base-digest can't read what a disk was before a bitmap was begun: give its fingerprint";
            return Err(Error::usage(format!("{what}, --base-digest=sha256:...")));
        }
        Ok(())
    }

    /// Refuses a fingerprint with other parameters than these: those of the stream, or what a stream without digests stands for.
    pub(crate) fn check_sums(&self, sums: Sums) -> Result<(), Error> {
        match self.named() {
            Some(base) if base.sums != sums => Err(Error::usage(format!(
                "--base-digest is of intervals of {} and a grain of {} octets, and the stream's are {} and {}",
                base.sums.interval(),
                base.sums.grain(),
                sums.interval(),
                sums.grain()
            ))),
            _ => Ok(()),
        }
    }

    /// What the target has to be, if that is to be said: named, read from the older state, or recorded.
    pub(crate) fn base(&self, disk: &Chain, sums: Option<Sums>) -> Result<Option<Fingerprint>, Error> {
        let sums = sums.unwrap_or_default();
        let Some(before) = disk.before() else { return Ok(self.named()) };
        match self.base_digest {
            Some(BaseDigest::Named(fingerprint)) => Ok(Some(fingerprint)),
            Some(BaseDigest::Read) => match self.noted(&before, sums) {
                Some(noted) => Ok(Some(noted)),
                None => Ok(Some(fingerprint(&before, sums, &Tally::default())?)),
            },
            None => Ok(self.noted(&before, sums)),
        }
    }

    /// What was noted of the older disk, if it is a file of its own: a snapshot is not what the image's files are known by.
    fn noted(&self, before: &Chain, sums: Sums) -> Option<Fingerprint> {
        self.since_base.as_ref()?;
        let digest = Identity::of_chain(before, SystemTime::now())?.recall(sums)?;
        Some(Fingerprint { sums, digest })
    }
}
