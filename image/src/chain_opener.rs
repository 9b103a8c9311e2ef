//! Opens the layers of a chain from the top down, and checks them before any data is read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xfer_hole_os::{DiskErrorKind, Result, shown};

use crate::backing_ref::BackingRef;
use crate::layer::Layer;
use crate::qcow2::Qcow2;
use crate::qcow2::bitmap_directory::Bitmaps;
use crate::qcow2::decompressor::DecompressorPool;
use crate::qcow2::header::Header;
use crate::qcow2::snapshot::Snapshots;
use crate::qcow2::table_cache::ChainTables;
use crate::raw::Raw;
use crate::{DiskOptions, ExtentMethod, Format, ImageFile};

/// Opens a chain, layer by layer.
pub(crate) struct ChainOpener<'a> {
    pub(crate) how: &'a DiskOptions,
    /// The identity of each opened file.
    seen: Vec<(u64, u64)>,
    /// The image that names the next layer.
    named_by: Option<PathBuf>,
    pub(crate) layers: Vec<Arc<dyn Layer>>,
    /// Size of the top layer's disk in bytes, once it is known.
    pub(crate) size: Option<u64>,
    pub(crate) warnings: Vec<String>,
    pub(crate) method: Option<ExtentMethod>,
    /// The top image, if it is no raw disk.
    pub(crate) top: Option<(Arc<Qcow2>, Header)>,
    /// The disk of each layer, with the layers below it.
    pub(crate) disks: Vec<LayerDisk>,
}

/// The disk of a layer.
pub(crate) struct LayerDisk {
    /// Device and inode, or the device's own number.
    pub(crate) identity: (u64, u64),
    /// Size in bytes.
    pub(crate) size: u64,
    /// The format of the layer.
    pub(crate) format: Format,
}

impl<'a> ChainOpener<'a> {
    /// Creates an opener that has opened no file yet.
    pub(crate) fn new(how: &'a DiskOptions, warnings: Vec<String>) -> Self {
        Self {
            how,
            seen: Vec::new(),
            named_by: None,
            layers: Vec::new(),
            size: None,
            warnings,
            method: None,
            top: None,
            disks: Vec::new(),
        }
    }
}

impl ChainOpener<'_> {
    /// Registers a file. Each file may occur once in a chain. Prepares it for reads past the page cache if the options
    /// ask for them.
    fn enter(&mut self, host: ImageFile) -> Result<ImageFile> {
        let identity = host.identity()?;
        if self.seen.contains(&identity) {
            return Err(host.error(DiskErrorKind::Refused, "is in its own backing chain: a loop"));
        }
        self.seen.push(identity);
        let host = if self.how.direct { host.directly()? } else { host };
        self.warnings.extend(host.refuses_direct());
        Ok(host)
    }

    pub(crate) fn raw(&mut self, host: ImageFile) -> Result<Option<(ImageFile, Format)>> {
        let host = self.enter(host)?;
        self.size.get_or_insert(host.len());
        self.disks.push(LayerDisk { identity: host.identity()?, size: host.len(), format: Format::Raw });
        let raw = Raw::of(host, self.how.method)?;
        self.method = Some(raw.method());
        self.layers.push(Arc::new(raw));
        Ok(None)
    }

    pub(crate) fn qcow2(
        &mut self,
        host: ImageFile,
        shared: (Arc<ChainTables>, Arc<DecompressorPool>),
    ) -> Result<Option<(ImageFile, Format)>> {
        let host = self.enter(host)?;
        let header = Header::read(&host).map_err(|error| match &self.named_by {
            Some(image) if error.hint_text().is_none() => error.hint(format!("{} says that it is qcow2", shown(image))),
            _ => error,
        })?;
        // The lists of snapshots and bitmaps are checked although few transfers use them, because QEMU refuses an image
        // whose lists are invalid.
        let flaw = Snapshots::check(&host, &header)?;
        Bitmaps::new(&host, &header)?.try_for_each(|bitmap| bitmap.map(drop))?;
        let name = shown(host.path());
        self.warnings.extend(header.warnings().into_iter().chain(flaw).map(|text| format!("{name}: {text}")));
        let layer = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        let wanted = self.how.snapshot.as_ref().filter(|_| layer == 0);
        let disk = match wanted {
            Some(wanted) => {
                let snapshot = Snapshots::new(&host, &header).find(wanted.as_bytes())?;
                (snapshot.l1(&host, &header)?, snapshot.disk_size)
            }
            None => (header.l1, header.size),
        };
        let external = self.data_file(&host, &header)?;
        let next =
            BackingRef::of(&header).map(|backing| backing.open(host.path(), host.dir(), self.how)).transpose()?;
        self.size.get_or_insert(disk.1);
        self.named_by = Some(host.path().into());
        self.disks.push(LayerDisk { identity: host.identity()?, size: disk.1, format: Format::Qcow2 });
        let image = Arc::new(Qcow2::new(host, external, &header, disk, layer, shared, self.how.method)?);
        self.layers.push(Arc::clone(&image) as Arc<dyn Layer>);
        self.top.get_or_insert((image, header));
        Ok(next)
    }

    /// Opens the external data file of the image `named_by`, if it has one.
    fn data_file(&mut self, named_by: &ImageFile, header: &Header) -> Result<Option<ImageFile>> {
        let Some(name) = header.data_file() else { return Ok(None) };
        let host =
            self.how.gate.open(named_by.path(), named_by.dir(), "data file", Path::new(OsStr::from_bytes(name)))?;
        let host = self.how.guard(host)?;
        Ok(Some(self.enter(host)?))
    }
}
