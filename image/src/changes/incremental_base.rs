//! Finds the older state that the user names in the image and its chain, before any data is read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use xfer_hole_os::{DiskError, DiskErrorKind, Result, identity, shown};

use crate::chain_opener::ChainOpener;
use crate::changes::change_tracker::LayerDiff;
use crate::changes::dirty_bitmap::DirtyBitmap;
use crate::changes::found_base::FoundBase;
use crate::changes::snapshot_diff::SnapshotDiff;
use crate::layer::Layer;
use crate::qcow2::Qcow2;
use crate::qcow2::bitmap_directory::Bitmaps;
use crate::qcow2::header::Header;
use crate::qcow2::snapshot::Snapshots;
use crate::{BackingChain, Format, IncrementalBase};

impl FoundBase {
    /// Finds the older state. All layers must be open.
    pub(crate) fn find(wanted: &IncrementalBase, opener: &mut ChainOpener<'_>) -> Result<Self> {
        let Some((top, header)) = opener.top.take() else {
            // The other formats were refused when the top file was opened.
            return Err(DiskError::new(DiskErrorKind::Unsupported, "chain", "has no image on top"));
        };
        match wanted {
            IncrementalBase::Snapshot(wanted) => Self::snapshot(wanted, top, &header, opener),
            IncrementalBase::Base(file) => Self::base(file, &top, opener),
            IncrementalBase::Bitmap(wanted) => Self::bitmap(wanted, top, &header, opener),
        }
    }

    fn snapshot(wanted: &str, top: Arc<Qcow2>, header: &Header, opener: &ChainOpener<'_>) -> Result<Self> {
        let file = top.image();
        if header.data_file().is_some() {
            let what = "has its data in an external file, where what a snapshot had is written over";
            return Err(file.error(DiskErrorKind::Unsupported, what));
        }
        let snapshot = Snapshots::new(file, header).find(wanted.as_bytes())?;
        let older = Arc::new(top.other_state(header, (snapshot.l1(file, header)?, snapshot.disk_size))?);
        let mut layers = opener.layers.clone();
        let below = (layers.len() > 1).then(|| BackingChain {
            layers: layers[1..].to_vec(),
            size: layers[1].size(),
            format: Format::Qcow2,
            warnings: Vec::new(),
            method: None,
            base: None,
            content: None,
        });
        layers[0] = Arc::clone(&older) as Arc<dyn Layer>;
        Ok(Self { older: Box::new(SnapshotDiff { newer: top, older, below }), disk: Some((layers, Format::Qcow2)) })
    }

    fn base(file: &Path, top: &Qcow2, opener: &ChainOpener<'_>) -> Result<Self> {
        let image = shown(top.image().path());
        let stat = fs::metadata(file).map_err(|source| DiskError::io(file, "cannot look at it", source))?;
        let found = opener.disks.iter().position(|disk| disk.identity == identity(&stat));
        let refused = |what: String| DiskError::new(DiskErrorKind::Refused, file, what);
        match found {
            Some(0) => Err(refused("is the image itself, and no file below it".into())),
            Some(depth) => {
                let (above, below) = opener.layers.split_at(depth);
                let older = LayerDiff { above: above.to_vec(), size: opener.disks[depth].size };
                Ok(Self { older: Box::new(older), disk: Some((below.to_vec(), opener.disks[depth].format)) })
            }
            None if opener.layers.len() == 1 => {
                Err(refused(format!("is not what {image} lies on, which has no backing file")))
            }
            None => Err(refused(format!("is not in the backing chain of {image}"))
                .hint("xfer-hole info lists the files that an image lies on")),
        }
    }

    fn bitmap(wanted: &str, top: Arc<Qcow2>, header: &Header, opener: &mut ChainOpener<'_>) -> Result<Self> {
        let file = top.image();
        if opener.options.snapshot.is_some() {
            let what = format!("bitmap \"{wanted}\" tells of the present state, and not of a snapshot");
            return Err(file.error(DiskErrorKind::Refused, what));
        }
        let (bitmap, table_ref) = Bitmaps::new(file, header)?.find(wanted.as_bytes())?;
        if !bitmap.auto {
            let (image, name) = (shown(file.path()), &bitmap.name);
            let what = "is disabled: what was written since then is not in it, and is taken for unchanged";
            opener.warnings.push(format!("{image}: bitmap \"{name}\" {what}"));
        }
        let older = DirtyBitmap::new(Arc::clone(&top), header, &table_ref, bitmap.granularity)?;
        Ok(Self { older: Box::new(older), disk: None })
    }
}
