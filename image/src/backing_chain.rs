//! A chain of layers, top first. A range that a layer doesn't allocate comes from the layer below, or reads as zeros
//! below the last.

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

/// A disk: the top layer and the layers that back it.
#[derive(Debug)]
pub struct BackingChain {
    pub(crate) layers: Vec<Arc<dyn Layer>>,
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// The format of the top layer.
    pub(crate) format: Format,
    pub(crate) warnings: Vec<String>,
    /// The extent method of the raw disk at the bottom, if there is one.
    pub(crate) method: Option<ExtentMethod>,
    /// The older state to compare with, if the options name one.
    pub(crate) base: Option<FoundBase>,
    /// The content of the top file, if it is no disk and its format was not named.
    pub(crate) content: Option<Content>,
}

impl BackingChain {
    /// A chain of raw layers, top first, with a size in bytes.
    pub fn of_layers(layers: Vec<Arc<dyn Layer>>, size: u64) -> Self {
        Self { layers, size, format: Format::Raw, warnings: Vec::new(), method: None, base: None, content: None }
    }

    /// Replaces the extent method of the raw disk at the bottom.
    #[must_use]
    pub fn found_by(self, method: ExtentMethod) -> Self {
        Self { method: Some(method), ..self }
    }

    /// The format of each layer, top first.
    pub fn formats(&self) -> impl Iterator<Item = Format> {
        self.layers.iter().map(|layer| layer.format())
    }

    /// The format of the top layer.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The content of the top file, if it is no disk and its format was not named. Always `None` for a block device.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        self.content
    }

    /// Warnings about the image, a line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Warnings that reading the disk has added, a line each.
    #[must_use]
    pub fn noticed(&self) -> Vec<String> {
        let layers = self.layers.iter().filter_map(|layer| layer.noticed());
        layers.chain(self.files().filter_map(ImageFile::noticed)).collect()
    }

    /// The extent method of the raw disk at the bottom, if there is one.
    #[must_use]
    pub fn method(&self) -> Option<ExtentMethod> {
        self.method
    }

    /// The number of layers: 1 for a disk without a backing file.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// All files of the chain, those of the top layer first.
    pub fn files(&self) -> impl Iterator<Item = &ImageFile> {
        self.layers.iter().flat_map(|layer| layer.files())
    }

    /// All files and devices of the chain: the path as messages show it, and the storage behind it.
    #[must_use]
    pub fn storages(&self) -> Vec<(PathBuf, StorageId)> {
        self.files().filter_map(|file| Some((file.path().to_owned(), file.storage()?))).collect()
    }

    /// True if not all users may read one of its regular files, so that a copy must be private too.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.files().any(|file| file.file().metadata().is_ok_and(|stat| stat.mode() & 0o004 == 0))
    }

    /// An estimate of the disk's data in bytes: the allocated space of its files, at most the size of the disk.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        let taken = |file: &ImageFile| if file.is_device() { file.len() } else { file.allocated().unwrap_or_default() };
        self.files().map(taken).fold(0, u64::saturating_add).min(self.size)
    }

    /// The regular file whose content is the disk, if the disk is a raw file without other layers.
    #[must_use]
    pub fn plain(&self) -> Option<&ImageFile> {
        let top = self.host(0).filter(|_| self.layers.len() == 1 && self.format == Format::Raw);
        top.filter(|file| !file.is_device())
    }

    /// Limits the disk to its first `size` bytes if it is a larger block device. Returns the number of bytes cut off.
    pub fn limit_device(&mut self, size: u64) -> u64 {
        let is_device =
            self.layers.len() == 1 && self.format == Format::Raw && self.host(0).is_some_and(ImageFile::is_device);
        let tail = if is_device { self.size.saturating_sub(size) } else { 0 };
        self.size -= tail;
        tail
    }

    /// The disk in the older state that it is compared with. `None` if only the changes since then are known.
    #[must_use]
    pub fn before(&self) -> Option<Self> {
        let base = self.base.as_ref()?;
        let (layers, format) = base.disk.clone()?;
        let (size, warnings) = (base.older.size(), Vec::new());
        Some(Self { layers, size, format, warnings, method: self.method, base: None, content: None })
    }

    /// The whole disk in its present state, without a state to compare with.
    #[must_use]
    pub fn whole(&self) -> Self {
        let (layers, warnings) = (self.layers.clone(), Vec::new());
        let (size, format, method, content) = (self.size, self.format, self.method, self.content);
        Self { layers, size, format, warnings, method, base: None, content }
    }

    fn layer(&self, depth: u32) -> Option<&dyn Layer> {
        self.layers.get(usize::try_from(depth).unwrap_or(usize::MAX)).map(AsRef::as_ref)
    }

    /// The number of bytes that a map of the disk covers. A raw disk is rounded up to whole sectors of 512 bytes, as in
    /// QEMU.
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
            // Below the last layer, and beyond the end of the next one, the disk reads as zeros.
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
            Some(offset) => layer.host().read_data_at(offset + (at - extent.start), buf),
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
        self.base.as_ref().map(|base| base.older.as_ref())
    }

    fn check_unchanged(&self, live: bool) -> Result<()> {
        self.layers.iter().try_for_each(|layer| layer.check_unchanged(live))
    }
}
