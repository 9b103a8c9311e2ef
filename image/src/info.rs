//! What there is to tell of an image file, layer by layer, without reading its disk.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result};

use crate::backing_ref::BackingRef;
use crate::disk_options::TopFile;
use crate::qcow2::bitmap_directory::{Bitmap, Bitmaps};
use crate::qcow2::header::Header;
use crate::qcow2::snapshot::{Snapshot, Snapshots};
use crate::{DiskOptions, Format, ImageFile};

/// Bytes of names that are listed at most: nobody has so many.
const NAMES_MAX: usize = 8 << 20;

/// What one image file is. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its path, as given or as its overlay has it.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
    /// The size of the disk in it.
    pub virtual_size: u64,
    /// The size of the file.
    pub file_size: u64,
    /// What the file system has allocated for it.
    pub actual_size: u64,
    /// What it says of the file below it.
    pub backing: Option<BackingRef>,
    /// Its internal snapshots, as they stand in its table.
    pub snapshots: Vec<SnapshotInfo>,
    /// What only qcow2 images have.
    pub qcow2: Option<Qcow2Info>,
    /// What the user should know, though it can be read.
    pub warnings: Vec<String>,
    /// What makes two names the same file.
    identity: (u64, u64),
    /// The true directory that the names in it are relative to.
    dir: Option<PathBuf>,
    /// How the file below it is opened.
    how: DiskOptions,
}

/// What only qcow2 images have.
#[derive(Clone, Debug)]
pub struct Qcow2Info {
    /// 2 or 3.
    pub version: u32,
    /// In bytes.
    pub cluster_size: u64,
    /// The width of a refcount.
    pub refcount_bits: u32,
    /// The compression of its compressed clusters: "zlib" or "zstd".
    pub compression: &'static str,
    /// Refcounts may lag behind.
    pub lazy_refcounts: bool,
    /// It was not closed.
    pub dirty: bool,
    /// Somebody found it inconsistent.
    pub corrupt: bool,
    /// Clusters have subclusters.
    pub extended_l2: bool,
    /// The file that its data lies in, if that is another.
    pub data_file: Option<DataFileInfo>,
    /// Its persistent bitmaps.
    pub bitmaps: Vec<BitmapInfo>,
}

/// An external data file.
#[derive(Clone, Debug)]
pub struct DataFileInfo {
    /// Its name, as it stands in the image.
    pub name: PathBuf,
    /// It is the disk itself.
    pub raw: bool,
}

/// An internal snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotInfo {
    /// What it is found by first.
    pub id: String,
    /// What it is found by otherwise.
    pub name: String,
    /// The size of its disk in bytes.
    pub virtual_size: u64,
    /// Bytes of the machine's memory and devices.
    pub vm_state_size: u64,
    /// When it was made, in seconds since 1970.
    pub date_sec: u32,
    /// And nanoseconds.
    pub date_nsec: u32,
    /// How long the machine had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instructions that the machine had run, if they were counted.
    pub icount: Option<u64>,
}

/// A persistent bitmap.
#[derive(Clone, Debug)]
pub struct BitmapInfo {
    /// Its name.
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// It is kept up to date whenever the image is in use.
    pub auto: bool,
    /// It was not written back: it can't be relied on.
    pub in_use: bool,
}

impl From<Snapshot> for SnapshotInfo {
    fn from(snapshot: Snapshot) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            id: text(&snapshot.id),
            name: text(&snapshot.name),
            virtual_size: snapshot.disk_size,
            vm_state_size: snapshot.vm_state_size,
            date_sec: snapshot.date_sec,
            date_nsec: snapshot.date_nsec,
            vm_clock_nsec: snapshot.vm_clock_nsec,
            icount: snapshot.icount,
        }
    }
}

impl Info {
    /// Looks at a top image.
    pub fn read(path: &Path, how: &DiskOptions) -> Result<Self> {
        let TopFile { host, format, how, warning, content } = how.top(path)?;
        let mut info = Self::of(&host, format, &how, how.snapshot.as_deref())?;
        info.warnings.extend(warning);
        info.warnings.extend(content.map(|content| content.warning(path)));
        if let Some(DataFileInfo { name, .. }) = info.qcow2.as_ref().and_then(|qcow2| qcow2.data_file.as_ref()) {
            let closed = info.how.gate.check_open(path, "data file", name).err();
            info.warnings.extend(closed.map(|error| error.what().to_owned()));
        }
        Ok(info)
    }

    /// Looks at an open file. `snapshot`: the disk's size is to be that of this internal snapshot.
    fn of(host: &ImageFile, format: Format, how: &DiskOptions, snapshot: Option<&str>) -> Result<Self> {
        let mut info = Self {
            path: host.path().into(),
            format,
            virtual_size: host.len(),
            file_size: host.len(),
            actual_size: host.allocated()?,
            backing: None,
            snapshots: Vec::new(),
            qcow2: None,
            warnings: Vec::new(),
            identity: host.identity()?,
            dir: host.dir().map(Into::into),
            how: how.clone(),
        };
        if format == Format::Qcow2 {
            info.look_into(host, snapshot)?;
        }
        Ok(info)
    }

    /// Adds what a qcow2 image says of itself.
    fn look_into(&mut self, host: &ImageFile, snapshot: Option<&str>) -> Result<()> {
        let header = Header::read(host)?;
        self.virtual_size = match snapshot {
            Some(wanted) => Snapshots::new(host, &header).find(wanted.as_bytes())?.disk_size,
            None => header.size,
        };
        self.warnings = header.warnings();
        self.backing = BackingRef::of(&header);
        let mut names = 0;
        let mut bounded = |bytes: usize| {
            names += bytes;
            let what = || {
                host.error(
                    DiskErrorKind::Unsupported,
                    format!("its snapshots and bitmaps have names of more than {NAMES_MAX} bytes"),
                )
            };
            if names > NAMES_MAX { Err(what()) } else { Ok(()) }
        };
        self.warnings.extend(Snapshots::check(host, &header)?);
        let listed = Snapshots::new(host, &header).take_while(|_| header.snapshots_flaw.is_none());
        for snapshot in listed {
            let snapshot = snapshot?;
            if snapshot.flaw.is_some() {
                break;
            }
            let snapshot = SnapshotInfo::from(snapshot);
            bounded(snapshot.id.len() + snapshot.name.len())?;
            self.snapshots.push(snapshot);
        }
        let mut bitmaps = Vec::new();
        for bitmap in Bitmaps::new(host, &header)? {
            let Bitmap { name, granularity, in_use, auto } = bitmap?;
            bounded(name.len())?;
            bitmaps.push(BitmapInfo { name, granularity, auto, in_use });
        }
        let data_file = header
            .data_file()
            .map(|name| DataFileInfo { name: OsStr::from_bytes(name).into(), raw: header.features.data_file_raw() });
        self.qcow2 = Some(Qcow2Info {
            version: header.version,
            cluster_size: header.geometry.cluster_size(),
            refcount_bits: 1 << header.refcount_order,
            compression: header.compression.name(),
            lazy_refcounts: header.features.lazy_refcounts(),
            dirty: header.features.is_dirty(),
            corrupt: header.features.is_corrupt(),
            extended_l2: header.geometry.extended_l2,
            data_file,
            bitmaps,
        });
        Ok(())
    }

    /// The files below it, one after the other; a failure is the last.
    #[must_use]
    pub fn layers(&self) -> BackingFiles {
        BackingFiles { how: self.how.clone(), next: self.below(), seen: vec![self.identity] }
    }

    fn below(&self) -> Option<(PathBuf, Option<PathBuf>, BackingRef)> {
        Some((self.path.clone(), self.dir.clone(), self.backing.clone()?))
    }
}

/// The files below an image, from the one next to it down to the base. Only one is in memory at a time.
#[derive(Debug)]
pub struct BackingFiles {
    how: DiskOptions,
    /// The image that names the next one, its directory, and what it says of it.
    next: Option<(PathBuf, Option<PathBuf>, BackingRef)>,
    seen: Vec<(u64, u64)>,
}

impl Iterator for BackingFiles {
    type Item = Result<Info>;

    fn next(&mut self) -> Option<Result<Info>> {
        let (named_by, dir, backing) = self.next.take()?;
        let looked = backing.open(&named_by, dir.as_deref(), &self.how).and_then(|(host, format)| {
            let info = Info::of(&host, format, &self.how, None)?;
            if self.seen.contains(&info.identity) {
                return Err(DiskError::new(
                    DiskErrorKind::Unsupported,
                    &named_by,
                    "is below itself: its backing files go in a circle",
                ));
            }
            Ok(info)
        });
        if let Ok(info) = &looked {
            self.seen.push(info.identity);
            self.next = info.below();
        }
        Some(looked)
    }
}
