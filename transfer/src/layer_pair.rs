//! Two neighbours in a chain of sparse raw files, as storage engines keep them: where the child has a hole, its parent is asked.
//!
//! ```text
//! fold    what the child has ─▶ the parent, which then is what both were
//! prune   what the child has ─▶ nobody asks the parent for it: punched out there
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use xfer_hole_image::{BackingChain, Disk, ExtentMethod, Format, ImageFile, Raw};
use xfer_hole_os::{DiskError, DiskErrorKind, Result, qemu_lock, shown};
use xfer_hole_pipeline::{Action, Plan, ProgressCounters, ReadOptions};
use xfer_hole_target::fingerprint_store::forget;
use xfer_hole_target::{DiskWriter, InPlace, StoredFile, Target, TargetOptions};

use crate::ParallelCopy;

/// What the user allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerPairOptions {
    /// Files that begin as an image of another format does are taken as they are.
    pub any_format: bool,
    /// Success is said without waiting for the disk.
    pub no_sync: bool,
}

/// How much of a parent its child hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParentCoverage {
    /// In bytes.
    pub bytes: u64,
    /// Ranges without gaps that they lie in.
    pub ranges: u64,
}

/// A child and its parent, both open, locked and found to be two. Neither has been changed.
pub struct LayerPair {
    child: BackingChain,
    parent: Box<InPlace>,
    /// The child's.
    size: u64,
    sync: bool,
}

impl LayerPair {
    /// Opens and locks both. Refuses what are no regular files of raw disks, a file beside itself, and a parent that is larger than its
    /// child.
    pub fn open(child: &Path, parent: &Path, options: LayerPairOptions) -> Result<Self> {
        let host = ImageFile::open(child)?;
        if host.is_device() {
            return Err(host.error(DiskErrorKind::Refused, "is no regular file"));
        }
        qemu_lock::lock_for_reading(host.file(), host.path())
            .map_err(|error| error.hint("end the program that uses it first"))?;
        let host = host.looked_at_again()?;
        check_named(&host)?;
        let size = host.len();
        check_raw(&host, options)?;
        let layer = Raw::layer(host)?;
        let method = layer.method();
        let child = BackingChain::of_layers(vec![Arc::new(layer)], size).found_by(method);
        // Whoever finds a target has in mind to make what isn't there.
        let there = fs::metadata(parent).map_err(|source| DiskError::io(parent, "cannot open", source))?;
        if !there.is_file() {
            return Err(DiskError::new(DiskErrorKind::Refused, parent, "is no regular file"));
        }
        let how = TargetOptions { in_place: true, no_sync: options.no_sync, ..Default::default() };
        let target = Target::find(parent, how).map_err(DiskError::without_override)?;
        target.check_apart(&child.storages()).map_err(|error| error.hint("a file is not its own parent: name two"))?;
        let parent = Box::new(target.open_as_it_is().map_err(DiskError::without_override)?);
        // Both are locked by now: what they are is what they stay.
        let StoredFile { file, path } = parent.opened()?;
        check_raw(&ImageFile::of(file, &path, None)?, options)?;
        if parent.held > size {
            let what = format!("has {} bytes, more than the {size} that its child has", parent.held);
            return Err(DiskError::new(DiskErrorKind::Refused, parent.path(), what)
                .hint("parent and child are maybe exchanged"));
        }
        Ok(Self { child, parent, size, sync: !options.no_sync })
    }

    /// Bytes of the child, holes and all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the parent, as it was found.
    #[must_use]
    pub fn parent_size(&self) -> u64 {
        self.parent.held
    }

    /// The parent as it stands in messages, links followed.
    #[must_use]
    pub fn parent_path(&self) -> &Path {
        self.parent.path()
    }

    /// How the child's data was found.
    #[must_use]
    pub fn method(&self) -> Option<ExtentMethod> {
        self.child.method()
    }

    /// What of the disk's first `size` bytes the child has. Nothing is read of it, and nothing changed.
    pub fn cover(&self, size: u64) -> Result<ParentCoverage> {
        let (mut cover, mut reached) = (ParentCoverage::default(), None);
        self.each(size, |at, len| {
            cover.bytes += len;
            cover.ranges += u64::from(reached != Some(at));
            reached = Some(at + len);
            Ok(())
        })?;
        Ok(cover)
    }

    /// What the child has goes into the parent, by up to `count` threads; a parent that is smaller grows. Zeros that were written are
    /// data: they hide what the parent has.
    pub fn fold(&mut self, count: usize, counters: &ProgressCounters) -> Result<()> {
        forget(self.parent.path());
        self.parent.grow(self.size)?;
        let shape = ReadOptions::plain(false, 1);
        let copy = ParallelCopy { image: &self.child, shape, sink: &*self.parent, share: true, counters };
        counters.ahead().of_disk(&self.child, Plan::over(&self.child), || copy.over(count))
    }

    /// What the child has is punched out of the parent; one that is smaller grows to the child's size, by holes.
    pub fn prune(&mut self, counters: &ProgressCounters) -> Result<()> {
        if self.sync {
            // What is punched is nowhere but in the child: there it is durable first.
            let host = self.child.files().next();
            let synced =
                host.map_or(Ok(()), |host| host.file().sync_all().map_err(|error| host.io("cannot sync", error)));
            synced?;
        }
        let mut reached = 0;
        forget(self.parent.path());
        let punch = |at, len| {
            self.parent.punch(at, len)?;
            counters.add_disk(at + len - reached);
            counters.add_data(len);
            reached = at + len;
            Ok(())
        };
        let each = || self.each(self.parent.held, punch);
        counters.ahead().of_disk(&self.child, Plan::over(&self.child), each)?;
        // Only now: a hole at its end is punched beyond that.
        self.parent.grow(self.size)?;
        counters.add_disk(self.size - reached);
        Ok(())
    }

    /// Asks whether the child is still what it was when it was opened.
    pub fn check_child(&self) -> Result<()> {
        let what_to_do = "let nobody write to it, and run it again";
        let unchanged = self.child.check_unchanged(false).and_then(|()| self.child.files().try_for_each(check_named));
        unchanged.map_err(|error| error.hint(what_to_do))
    }

    /// What the parent is if nothing more happens from here on: a half sentence for the message of a failure.
    #[must_use]
    pub fn remains(&self) -> String {
        let again = if self.parent.is_touched() { ": run it again" } else { "" };
        format!("{}{again}", self.parent.leftover_message())
    }

    /// The same of an interruption at a time that nobody knows.
    #[must_use]
    pub fn remains_meanwhile(&self) -> String {
        format!("{} is updated in part: run it again", shown(self.parent.path()))
    }

    /// All is done: the parent is synced.
    pub fn finish(self) -> Result<()> {
        let size = self.parent.size();
        self.parent.commit(size).map(drop)
    }

    /// Calls `take` with the place and length of each part of the disk's first `size` bytes that the child has.
    fn each(&self, size: u64, mut take: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        for step in Plan::over(&self.child) {
            let step = step?;
            if step.extent.start >= size {
                break;
            }
            if step.want == Action::Copy {
                take(step.extent.start, step.extent.len.min(size - step.extent.start))?;
            }
        }
        Ok(())
    }
}

/// Refuses a file whose name is another's: that one would be taken for it when all is done.
fn check_named(host: &ImageFile) -> Result<()> {
    match host.is_named() {
        true => Ok(()),
        false => Err(host.error(DiskErrorKind::Changed, "was replaced by another file")),
    }
}

/// Refuses an image of another format, whose holes don't mean what those of a raw disk mean.
fn check_raw(host: &ImageFile, options: LayerPairOptions) -> Result<()> {
    let format = if options.any_format { Format::Raw } else { Format::probe(host)? };
    if format == Format::Raw {
        return Ok(());
    }
    let what = format!("begins as a {format} image does, and only chains of raw files can be folded and pruned");
    let hint = match format {
        Format::Qcow2 => {
            "qemu-img commit and rebase are for its chains; --format raw is for a raw disk with such an image in it"
        }
        _ => "--format raw takes it as it is",
    };
    Err(host.error(DiskErrorKind::Unsupported, what).hint(hint))
}
