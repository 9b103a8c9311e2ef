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
    pub(crate) options: &'a DiskOptions,
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
    pub(crate) fn new(options: &'a DiskOptions, warnings: Vec<String>) -> Self {
        Self {
            options,
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
    fn enter(&mut self, file: ImageFile) -> Result<ImageFile> {
        let identity = file.identity()?;
        if self.seen.contains(&identity) {
            return Err(file.error(DiskErrorKind::Refused, "is in its own backing chain: a loop"));
        }
        self.seen.push(identity);
        let file = if self.options.direct { file.directly()? } else { file };
        self.warnings.extend(file.refuses_direct());
        Ok(file)
    }

    pub(crate) fn raw(&mut self, file: ImageFile) -> Result<Option<(ImageFile, Format)>> {
        let file = self.enter(file)?;
        self.size.get_or_insert(file.len());
        self.disks.push(LayerDisk { identity: file.identity()?, size: file.len(), format: Format::Raw });
        let raw = Raw::of(file, self.options.method)?;
        self.method = Some(raw.method());
        self.layers.push(Arc::new(raw));
        Ok(None)
    }

    pub(crate) fn qcow2(
        &mut self,
        file: ImageFile,
        shared: (Arc<ChainTables>, Arc<DecompressorPool>),
    ) -> Result<Option<(ImageFile, Format)>> {
        let file = self.enter(file)?;
        let header = Header::read(&file).map_err(|error| match &self.named_by {
            Some(image) if error.hint_text().is_none() => error.hint(format!("{} says that it is qcow2", shown(image))),
            _ => error,
        })?;
        // The lists of snapshots and bitmaps are checked although few transfers use them, because QEMU refuses an image
        // whose lists are invalid.
        let problem = Snapshots::check(&file, &header)?;
        Bitmaps::new(&file, &header)?.try_for_each(|bitmap| bitmap.map(drop))?;
        let name = shown(file.path());
        self.warnings.extend(header.warnings().into_iter().chain(problem).map(|text| format!("{name}: {text}")));
        let layer = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        let wanted = self.options.snapshot.as_ref().filter(|_| layer == 0);
        let disk = match wanted {
            Some(wanted) => {
                let snapshot = Snapshots::new(&file, &header).find(wanted.as_bytes())?;
                (snapshot.l1(&file, &header)?, snapshot.disk_size)
            }
            None => (header.l1, header.size),
        };
        let external = self.data_file(&file, &header)?;
        let next =
            BackingRef::of(&header).map(|backing| backing.open(file.path(), file.dir(), self.options)).transpose()?;
        self.size.get_or_insert(disk.1);
        self.named_by = Some(file.path().into());
        self.disks.push(LayerDisk { identity: file.identity()?, size: disk.1, format: Format::Qcow2 });
        let image = Arc::new(Qcow2::new(file, external, &header, disk, layer, shared, self.options.method)?);
        self.layers.push(Arc::clone(&image) as Arc<dyn Layer>);
        self.top.get_or_insert((image, header));
        Ok(next)
    }

    /// Opens the external data file of the image `named_by`, if it has one.
    fn data_file(&mut self, named_by: &ImageFile, header: &Header) -> Result<Option<ImageFile>> {
        let Some(name) = header.data_file() else { return Ok(None) };
        let file =
            self.options.gate.open(named_by.path(), named_by.dir(), "data file", Path::new(OsStr::from_bytes(name)))?;
        let file = self.options.lock(file)?;
        Ok(Some(self.enter(file)?))
    }
}
