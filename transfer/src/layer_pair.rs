//! Folds or prunes two neighbouring layers of a chain of sparse raw files, as storage engines use them. Where the child
//! has a hole, its parent is read.
//!
//! ```text
//! fold    copies the child's data into the parent: the parent then is the disk of both
//! prune   punches the ranges that the child has out of the parent: they are only read from the child
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

/// The user's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerPairOptions {
    /// Treat files as raw even if they begin like an image of another format.
    pub any_format: bool,
    /// Report success without a sync.
    pub no_sync: bool,
}

/// How much of a parent its child hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParentCoverage {
    /// Bytes that the child has.
    pub bytes: u64,
    /// Number of contiguous ranges of these bytes.
    pub ranges: u64,
}

/// A child and its parent, open and locked. Neither has been changed.
pub struct LayerPair {
    child: BackingChain,
    parent: Box<InPlace>,
    /// Size of the child, in bytes.
    size: u64,
    sync: bool,
}

impl LayerPair {
    /// Opens and locks both files.
    ///
    /// # Errors
    ///
    /// If a file is not a regular file with a raw disk, both are the same file, the parent is larger than the child, or
    /// another program uses one.
    pub fn open(child: &Path, parent: &Path, options: LayerPairOptions) -> Result<Self> {
        let file = ImageFile::open(child)?;
        if file.is_device() {
            return Err(file.error(DiskErrorKind::Refused, "is no regular file"));
        }
        qemu_lock::lock_for_reading(file.file(), file.path())
            .map_err(|error| error.hint("end the program that uses it first"))?;
        let file = file.looked_at_again()?;
        check_named(&file)?;
        let size = file.len();
        check_raw(&file, options)?;
        let layer = Raw::layer(file)?;
        let method = layer.method();
        let child = BackingChain::of_layers(vec![Arc::new(layer)], size).found_by(method);
        // `Target::find` would accept a parent that doesn't exist, to create it.
        let there = fs::metadata(parent).map_err(|source| DiskError::io(parent, "cannot open", source))?;
        if !there.is_file() {
            return Err(DiskError::new(DiskErrorKind::Refused, parent, "is no regular file"));
        }
        let how = TargetOptions { in_place: true, no_sync: options.no_sync, ..Default::default() };
        let target = Target::find(parent, how).map_err(DiskError::without_override)?;
        target.check_apart(&child.storages()).map_err(|error| error.hint("a file is not its own parent: name two"))?;
        let parent = Box::new(target.open_as_it_is().map_err(DiskError::without_override)?);
        // Both files are locked, so their formats can't change any more.
        let StoredFile { file, path } = parent.opened()?;
        check_raw(&ImageFile::of(file, &path, None)?, options)?;
        if parent.held > size {
            let what = format!("has {} bytes, more than the {size} that its child has", parent.held);
            return Err(DiskError::new(DiskErrorKind::Refused, parent.path(), what)
                .hint("parent and child are maybe exchanged"));
        }
        Ok(Self { child, parent, size, sync: !options.no_sync })
    }

    /// Returns the size of the child in bytes, including holes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the size of the parent in bytes, as it was found.
    #[must_use]
    pub fn parent_size(&self) -> u64 {
        self.parent.held
    }

    /// Returns the path of the parent, links followed, for messages.
    #[must_use]
    pub fn parent_path(&self) -> &Path {
        self.parent.path()
    }

    /// Returns how the child's extents are found.
    #[must_use]
    pub fn method(&self) -> Option<ExtentMethod> {
        self.child.method()
    }

    /// Returns how much of the disk's first `size` bytes the child has. No data is read, and nothing is changed.
    ///
    /// # Errors
    ///
    /// If the child's extents can't be read.
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

    /// Copies the child's data into the parent with up to `count` threads. A smaller parent is extended. Zeros that the
    /// child has as data are copied, since they hide the parent's bytes.
    ///
    /// # Errors
    ///
    /// Read and write errors.
    pub fn fold(&mut self, count: usize, counters: &ProgressCounters) -> Result<()> {
        forget(self.parent.path());
        self.parent.grow(self.size)?;
        let options = ReadOptions::plain(false, 1);
        let copy = ParallelCopy { image: &self.child, shape: options, sink: &*self.parent, share: true, counters };
        counters.ahead().of_disk(&self.child, Plan::over(&self.child), || copy.over(count))
    }

    /// Punches the ranges that the child has out of the parent. A smaller parent is extended by a hole.
    ///
    /// # Errors
    ///
    /// If the child can't be synced, or the parent's file system can't punch holes.
    pub fn prune(&mut self, counters: &ProgressCounters) -> Result<()> {
        if self.sync {
            // Punched bytes remain only in the child: it has to be durable first.
            let file = self.child.files().next();
            let synced =
                file.map_or(Ok(()), |file| file.file().sync_all().map_err(|error| file.io("cannot sync", error)));
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
        // The parent is extended last: `punch` treats a hole at the end of the file specially.
        self.parent.grow(self.size)?;
        counters.add_disk(self.size - reached);
        Ok(())
    }

    /// Checks that the child has not changed since it was opened.
    ///
    /// # Errors
    ///
    /// If it changed or was replaced.
    pub fn check_child(&self) -> Result<()> {
        let what_to_do = "let nobody write to it, and run it again";
        let unchanged = self.child.check_unchanged(false).and_then(|()| self.child.files().try_for_each(check_named));
        unchanged.map_err(|error| error.hint(what_to_do))
    }

    /// Returns half a sentence for an error message: the state of the parent if nothing more is done.
    #[must_use]
    pub fn remains(&self) -> String {
        let again = if self.parent.is_touched() { ": run it again" } else { "" };
        format!("{}{again}", self.parent.leftover_message())
    }

    /// Returns half a sentence for a message on a signal: the state of the parent while it is updated.
    #[must_use]
    pub fn remains_meanwhile(&self) -> String {
        format!("{} is updated in part: run it again", shown(self.parent.path()))
    }

    /// Syncs and commits the parent.
    ///
    /// # Errors
    ///
    /// Write errors.
    pub fn finish(self) -> Result<()> {
        let size = self.parent.size();
        self.parent.commit(size).map(drop)
    }

    /// Calls `take` with the offset and length of each range of the disk's first `size` bytes that the child has.
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

/// Fails if the path names another file by now: the user would take that file for the child.
fn check_named(file: &ImageFile) -> Result<()> {
    match file.is_named() {
        true => Ok(()),
        false => Err(file.error(DiskErrorKind::Changed, "was replaced by another file")),
    }
}

/// Refuses an image of another format: its holes have another meaning than those of a raw disk.
fn check_raw(file: &ImageFile, options: LayerPairOptions) -> Result<()> {
    let format = if options.any_format { Format::Raw } else { Format::probe(file)? };
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
    Err(file.error(DiskErrorKind::Unsupported, what).hint(hint))
}
