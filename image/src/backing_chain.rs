//! A chain of layers, top first: what a layer doesn't have, the one below it has, or nobody.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, StorageId};

use crate::changes::change_tracker::ChangeTracker;
use crate::changes::found_base::FoundBase;
use crate::content::Content;
use crate::disk::{BlockStatus, Disk, Extent};
use crate::image_file::ImageFile;
use crate::layer::{Allocation, Layer};
use crate::probe::Format;
use crate::raw::ExtentMethod;

/// A disk and all that it is backed by.
#[derive(Debug)]
pub struct BackingChain {
    pub(crate) layers: Vec<Arc<dyn Layer>>,
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// The top's.
    pub(crate) format: Format,
    pub(crate) warnings: Vec<String>,
    /// How the extents of the raw disk at the bottom are found, if there is one.
    pub(crate) method: Option<ExtentMethod>,
    /// The older state that it is compared with.
    pub(crate) since: Option<FoundBase>,
    /// What the top holds, if that is no disk and was not asked for as it is.
    pub(crate) content: Option<Content>,
}

impl BackingChain {
    /// Raw layers, top first, up to this size.
    pub fn of_layers(layers: Vec<Arc<dyn Layer>>, size: u64) -> Self {
        Self { layers, size, format: Format::Raw, warnings: Vec::new(), method: None, since: None, content: None }
    }

    /// The same disk, whose extents at the bottom are found so.
    #[must_use]
    pub fn found_by(self, method: ExtentMethod) -> Self {
        Self { method: Some(method), ..self }
    }

    /// What each image and raw disk is read as, the top first.
    pub fn formats(&self) -> impl Iterator<Item = Format> {
        self.layers.iter().map(|layer| layer.format())
    }

    /// What the top was taken for.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// What the top file holds, if its bytes are no disk and its format was not named. Files only: a device is a disk.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        self.content
    }

    /// What a user should know before trusting the disk, a line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same of what was noticed while it was read.
    #[must_use]
    pub fn noticed(&self) -> Vec<String> {
        let layers = self.layers.iter().filter_map(|layer| layer.noticed());
        layers.chain(self.files().filter_map(ImageFile::noticed)).collect()
    }

    /// How the extents of the raw disk at the bottom are found, if there is one.
    #[must_use]
    pub fn method(&self) -> Option<ExtentMethod> {
        self.method
    }

    /// Images and raw disks, 1 for a disk that nothing backs.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// All files that it lies in, those of the top first.
    pub fn files(&self) -> impl Iterator<Item = &ImageFile> {
        self.layers.iter().flat_map(|layer| layer.files())
    }

    /// The files and devices that it lies in, as they stand in messages, and what of the storage each is.
    #[must_use]
    pub fn storages(&self) -> Vec<(PathBuf, StorageId)> {
        self.files().filter_map(|host| Some((host.path().to_owned(), host.storage()?))).collect()
    }

    /// True if one of its files is a regular one that not everybody may read: a copy of it isn't for everybody, either.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.files().any(|host| host.file().metadata().is_ok_and(|stat| stat.mode() & 0o004 == 0))
    }

    /// About how many bytes of data the disk has, by what its files take on their file systems: at most its size.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        let taken = |host: &ImageFile| if host.is_device() { host.len() } else { host.allocated().unwrap_or_default() };
        self.files().map(taken).fold(0, u64::saturating_add).min(self.size)
    }

    /// The regular file that is this disk, byte for byte.
    #[must_use]
    pub fn plain(&self) -> Option<&ImageFile> {
        let top = self.host(0).filter(|_| self.layers.len() == 1 && self.format == Format::Raw);
        top.filter(|host| !host.is_device())
    }

    /// If this is a block device as it is, of more bytes: from now on the disk is its first `size` bytes. Tells how many are left.
    pub fn limit_device(&mut self, size: u64) -> u64 {
        let is_device =
            self.layers.len() == 1 && self.format == Format::Raw && self.host(0).is_some_and(ImageFile::is_device);
        let tail = if is_device { self.size.saturating_sub(size) } else { 0 };
        self.size -= tail;
        tail
    }

    /// The disk as it was in the older state that it is compared with; none if only the changes since are known.
    #[must_use]
    pub fn before(&self) -> Option<Self> {
        let state = self.since.as_ref()?;
        let (layers, format) = state.disk.clone()?;
        let (size, warnings) = (state.older.size(), Vec::new());
        Some(Self { layers, size, format, warnings, method: self.method, since: None, content: None })
    }

    /// The disk as it is now, and all of it, whatever it is compared with.
    #[must_use]
    pub fn whole(&self) -> Self {
        let (layers, warnings) = (self.layers.clone(), Vec::new());
        let (size, format, method, content) = (self.size, self.format, self.method, self.content);
        Self { layers, size, format, warnings, method, since: None, content }
    }

    fn layer(&self, depth: u32) -> Option<&dyn Layer> {
        self.layers.get(usize::try_from(depth).unwrap_or(usize::MAX)).map(AsRef::as_ref)
    }

    /// What a map of the disk covers, in bytes: a raw disk counts as QEMU counts it, in whole sectors of 512.
    #[must_use]
    pub fn mapped_size(&self) -> u64 {
        self.layer(0).map_or(0, Layer::size)
    }
}

impl Disk for BackingChain {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent(&self, at: u64, max: u64) -> Result<Extent> {
        let mut max = max;
        for (depth, layer) in (0..).zip(&self.layers) {
            let span = layer.span(at, max.min(layer.size() - at))?;
            let status = match span.allocation {
                Allocation::Data => Some(BlockStatus::Data),
                Allocation::Unwritten => Some(BlockStatus::Unwritten),
                Allocation::Zero => Some(BlockStatus::Zero),
                Allocation::Unallocated => None,
            };
            let extent = Extent {
                start: at,
                len: span.len,
                status: status.unwrap_or(BlockStatus::Zero),
                depth,
                present: status.is_some(),
                compressed: span.compressed,
                host: span.host,
            };
            // Below the last layer, and behind the end of the next, are zeros.
            let below = self.layer(depth + 1).is_some_and(|below| at < below.size());
            if status.is_some() || !below {
                return Ok(extent);
            }
            max = span.len;
        }
        Err(DiskError::new(DiskErrorKind::Io, "chain", "has no layer"))
    }

    fn read(&self, extent: &Extent, at: u64, buf: &mut [u8]) -> Result<()> {
        let layer =
            self.layer(extent.depth).ok_or_else(|| DiskError::new(DiskErrorKind::Io, "chain", "has no such layer"))?;
        match extent.host.filter(|_| !extent.compressed) {
            Some(host) => layer.host().read_data_at(host + (at - extent.start), buf),
            None => layer.inflate(at, buf),
        }
    }

    fn host(&self, depth: u32) -> Option<&ImageFile> {
        self.layer(depth).map(Layer::host)
    }

    fn chunk(&self) -> u64 {
        self.layers.iter().map(|layer| layer.chunk()).max().unwrap_or(1)
    }

    fn is_direct(&self) -> bool {
        self.files().any(ImageFile::is_direct)
    }

    fn older(&self) -> Option<&dyn ChangeTracker> {
        self.since.as_ref().map(|state| state.older.as_ref())
    }

    fn check_unchanged(&self, live: bool) -> Result<()> {
        self.layers.iter().try_for_each(|layer| layer.check_unchanged(live))
    }
}
