//! Opens a disk with its backing chain, and checks both before any data is read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, shown};

use crate::chain_opener::ChainOpener;
use crate::changes::found_base::FoundBase;
use crate::disk_options::TopFile;
use crate::qcow2::decompressor::DecompressorPool;
use crate::qcow2::table_cache::ChainTables;
use crate::raw::Raw;
use crate::{BackingChain, DiskOptions, Format, ImageFile};

impl BackingChain {
    /// Opens the disk at `path` and all layers that back it.
    ///
    /// # Errors
    ///
    /// A file can't be opened or is refused, or a header or table is invalid.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self> {
        let TopFile { file: image, format, options, warning, content } = options.top(path)?;
        let warnings = warning.iter().map(|warning| format!("{}: {warning}", shown(path))).collect();
        let mut opener = ChainOpener::new(&options, warnings);
        let shared = (Arc::new(ChainTables::default()), Arc::new(DecompressorPool::default()));
        let mut next = Some((image, format));
        while let Some((image, format)) = next.take() {
            next = match format {
                Format::Raw => opener.raw(image)?,
                Format::Qcow2 => opener.qcow2(image, shared.clone())?,
                // Other formats were refused when the file was opened.
                other => return Err(other.refusal(path)),
            };
        }
        let base = options.since.as_ref().map(|base| FoundBase::find(base, &mut opener)).transpose()?;
        let ChainOpener { layers, size, warnings, method, .. } = opener;
        Ok(Self { layers, size: size.unwrap_or_default(), format, warnings, method, base, content })
    }

    /// Uses the first `size` bytes of an open file or device as a raw disk, and reads them past the page cache, if
    /// possible.
    ///
    /// # Errors
    ///
    /// The file is shorter than `size`, or is no regular file or block device.
    pub fn of_file(file: File, path: &Path, size: u64) -> Result<Self> {
        let image = ImageFile::of(file, path, None)?.directly()?;
        if image.len() < size {
            return Err(DiskError::new(
                DiskErrorKind::Changed,
                path,
                format!("has {} bytes, and not {size}", image.len()),
            ));
        }
        let raw = Raw::of(image, None)?;
        let method = Some(raw.method());
        Ok(Self { method, ..Self::of_layers(vec![Arc::new(raw)], size) })
    }
}
