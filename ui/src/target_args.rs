//! How a target is to be written: the flags that the receiver has, and the sender for it.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use xfer_hole_target::{TargetOptions, parse_mode, parse_owner};

/// How it is written.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How it is written")]
pub struct TargetArgs {
    /// Update an existing file directly, without DEST.part; an interruption leaves it half old, half new. A file that isn't there
    /// yet is made as without this flag
    #[arg(long)]
    pub in_place: bool,

    /// DEST, a block device, reads as zeros already: don't write its holes
    #[arg(long)]
    pub target_is_zero: bool,

    /// DEST, a block device that gives back no space of what is zeroed, such as a thin volume: discard its holes, and read samples of them
    /// back; what doesn't read as zeros then is zeroed
    #[arg(long, conflicts_with = "target_is_zero")]
    pub discard: bool,

    /// Don't wait until the disk is on stable storage; if the machine fails soon after, old and new may be lost
    #[arg(long)]
    pub no_sync: bool,

    /// Leave the page cache of the machine as it is, here and at the other side: read and write by O_DIRECT, and where that is not to be
    /// had, drop from the cache what was moved
    #[arg(long)]
    pub direct: bool,

    /// Send only what differs from what DEST holds, interval by interval of 64 KiB; both sides read all of theirs
    #[arg(long)]
    pub delta: bool,

    /// Believe the fingerprints that were noted when both disks were sent or written last, where nothing was touched since: with --delta, a
    /// disk that DEST has already is found without reading
    #[arg(long, conflicts_with = "no_sync")]
    pub remember: bool,

    /// Start over where an earlier transfer was cut, instead of going on from its DEST.part
    #[arg(long, conflicts_with = "delta")]
    pub no_resume: bool,

    /// Read the whole disk back once it is stored, past the page cache as far as that can be, and compare it with its digests before it is
    /// given its name, or called done
    #[arg(long, conflicts_with = "no_sync")]
    pub read_back: bool,

    /// If only changes are sent: refuse a stream that doesn't name the older disk. One that is named is always checked
    #[arg(long)]
    pub check_base: bool,

    /// Leave a DEST that is there already as it is, and fail
    #[arg(long, conflicts_with = "in_place")]
    pub no_clobber: bool,

    /// Write DEST although a virtual machine or a loop device uses it, although the file there came from another image, and although
    /// DEST.part is another program's file
    #[arg(short, long)]
    pub force: bool,

    /// Make the directories that DEST is to lie in
    #[arg(long)]
    pub mkpath: bool,

    /// Give the file these permissions, in octal
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub chmod: Option<u32>,

    /// Give the file this owner: USER, USER:GROUP or :GROUP
    #[arg(long, value_name = "OWNER")]
    pub chown: Option<String>,

    /// Check all that can be checked, say what would be done, and write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

impl TargetArgs {
    /// For a target on this machine. `name` is that of the file, if DEST is a directory; `patience` how long a lock is waited for.
    /// The error is one line.
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

    /// For a target on another machine: the options of a request (SPEC.md, "The request").
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

    /// The first of the flags that was given and is for a target alone, as it is typed.
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
