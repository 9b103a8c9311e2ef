//! The command-line options for writing a destination, shared by xfer-hole and recv-hole.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use xfer_hole_target::{TargetOptions, parse_mode, parse_owner};

/// Options for writing a destination.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Destination")]
pub struct TargetArgs {
    /// Update an existing file directly instead of writing DEST.part
    ///
    /// After an interruption the file is part old, part new. A file that does not exist is created by way of DEST.part.
    #[arg(long)]
    pub in_place: bool,

    /// Skip writing holes: the block device DEST already reads as zeros
    #[arg(long)]
    pub target_is_zero: bool,

    /// Discard holes on the block device DEST instead of zeroing them
    ///
    /// For devices that do not free space when zeros are written, such as thin volumes. Samples of discarded ranges are read back;
    /// a range that does not read as zeros is zeroed.
    #[arg(long, conflicts_with = "target_is_zero")]
    pub discard: bool,

    /// Skip waiting for stable storage (a crash may lose the old and the new disk)
    #[arg(long)]
    pub no_sync: bool,

    /// Bypass the page cache with O_DIRECT on both machines
    ///
    /// Where O_DIRECT is not available, transferred data is dropped from the cache.
    #[arg(long)]
    pub direct: bool,

    /// Send only the 64 KiB intervals that differ from DEST
    ///
    /// Both sides read their whole disk.
    #[arg(long)]
    pub delta: bool,

    /// Trust cached fingerprints of disks unchanged since their last transfer
    ///
    /// With --delta, a DEST that already equals the image is then recognised without reading either of them.
    #[arg(long, conflicts_with = "no_sync")]
    pub remember: bool,

    /// Start over instead of resuming from DEST.part
    #[arg(long, conflicts_with = "delta")]
    pub no_resume: bool,

    /// Read the stored disk back and check its checksums before reporting success
    ///
    /// The page cache is bypassed where possible. A new file gets its final name only after this check.
    #[arg(long, conflicts_with = "no_sync")]
    pub read_back: bool,

    /// Refuse an incremental stream that does not name its base disk
    ///
    /// A base that the stream names is always checked.
    #[arg(long)]
    pub check_base: bool,

    /// Fail if DEST already exists
    #[arg(long, conflicts_with = "in_place")]
    pub no_clobber: bool,

    /// Write DEST even if it is in use or was made from another image
    ///
    /// In use means by a virtual machine or a loop device. A DEST.part that another program made is replaced too.
    #[arg(short, long)]
    pub force: bool,

    /// Create missing parent directories of DEST
    #[arg(long)]
    pub mkpath: bool,

    /// Set the permissions of the file to MODE, in octal
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub chmod: Option<u32>,

    /// Set the owner of the file: USER, USER:GROUP or :GROUP
    #[arg(long, value_name = "OWNER")]
    pub chown: Option<String>,

    /// Check everything and print what would be done; write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

impl TargetArgs {
    /// Makes the options for a target on this machine.
    ///
    /// `name` is the name of the file if DEST is a directory. `patience` is the longest time to wait for a lock.
    ///
    /// # Errors
    /// Returns a message of one line if `--chown` is not a valid owner.
    pub fn options(&self, name: Option<OsString>, patience: Option<Duration>) -> Result<TargetOptions, String> {
        let owner = self.chown.as_deref().map(parse_owner).transpose().map_err(|error| format!("--chown: {error}"))?;
        Ok(TargetOptions {
            in_place: self.in_place,
            no_sync: self.no_sync,
            target_is_zero: self.target_is_zero,
            discard: self.discard,
            no_clobber: self.no_clobber,
            mkpath: self.mkpath,
            mode: self.chmod,
            owner,
            name,
            source: None,
            is_named: false,
            patience,
            confined: false,
            direct: self.direct,
            remember: self.remember,
            read_back: self.read_back,
            check_base: self.check_base,
            force: self.force,
        })
    }

    /// Returns the options for a target on another machine, as the words of a push request (SPEC.md, "The request").
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let flags = [
            (self.in_place, "in-place"),
            (self.target_is_zero, "target-is-zero"),
            (self.discard, "discard"),
            (self.no_sync, "no-sync"),
            (self.direct, "direct"),
            (self.remember, "remember"),
            (self.read_back, "read-back"),
            (self.check_base, "check-base"),
            (self.no_clobber, "no-clobber"),
            (self.force, "force"),
            (self.mkpath, "mkpath"),
            (self.dry_run, "dry-run"),
        ];
        let mut words: Vec<String> =
            flags.into_iter().filter(|(given, _)| *given).map(|(_, word)| word.to_owned()).collect();
        words.extend(self.chmod.map(|mode| format!("chmod={mode:o}")));
        words.extend(self.chown.as_ref().map(|owner| format!("chown={owner}")));
        words
    }

    /// Returns the first given flag that is only valid with a target, as it is typed. [`Self::direct`] is not one of them.
    #[must_use]
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.in_place, "--in-place"),
            (self.target_is_zero, "--target-is-zero"),
            (self.discard, "--discard"),
            (self.no_sync, "--no-sync"),
            (self.delta, "--delta"),
            (self.remember, "--remember"),
            (self.no_resume, "--no-resume"),
            (self.read_back, "--read-back"),
            (self.check_base, "--check-base"),
            (self.no_clobber, "--no-clobber"),
            (self.force, "--force"),
            (self.mkpath, "--mkpath"),
            (self.chmod.is_some(), "--chmod"),
            (self.chown.is_some(), "--chown"),
            (self.dry_run, "--dry-run"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }
}
