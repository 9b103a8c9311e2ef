//! Describes an image file and its layers, without reading the disk's data.

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

/// The maximum number of bytes of snapshot and bitmap names that are listed.
const NAMES_MAX: usize = 8 << 20;

/// The description of one image file. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its path, as given or as the image above refers to it.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The size of its disk.
    pub virtual_size: u64,
    /// The size of the file.
    pub file_size: u64,
    /// The allocated space of the file.
    pub actual_size: u64,
    /// Its reference to a backing file.
    pub backing: Option<BackingRef>,
    /// Its internal snapshots, in the order of the snapshot table.
    pub snapshots: Vec<SnapshotInfo>,
    /// Properties that only qcow2 images have.
    pub qcow2: Option<Qcow2Info>,
    /// Warnings about the image.
    pub warnings: Vec<String>,
    /// Device and inode, or the device's own number.
    identity: (u64, u64),
    /// The true directory that names in the image are relative to.
    dir: Option<PathBuf>,
    /// The options for opening the backing file.
    options: DiskOptions,
}

/// Properties that only qcow2 images have.
#[derive(Clone, Debug)]
pub struct Qcow2Info {
    /// 2 or 3.
    pub version: u32,
    /// Size of a cluster in bytes.
    pub cluster_size: u64,
    /// Width of a reference count in bits.
    pub refcount_bits: u32,
    /// The compression method: "zlib" or "zstd".
    pub compression: &'static str,
    /// Reference counts may be written late.
    pub lazy_refcounts: bool,
    /// The image was not closed cleanly.
    pub dirty: bool,
    /// A program has found the image inconsistent and marked it.
    pub corrupt: bool,
    /// L2 entries are extended: clusters have subclusters.
    pub extended_l2: bool,
    /// The external data file, if the image has one.
    pub data_file: Option<DataFileInfo>,
    /// Its persistent bitmaps.
    pub bitmaps: Vec<BitmapInfo>,
}

/// An external data file.
#[derive(Clone, Debug)]
pub struct DataFileInfo {
    /// Its name in the image.
    pub name: PathBuf,
    /// The file is a raw disk by itself.
    pub raw: bool,
}

/// An internal snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotInfo {
    /// Its ID. A name that the user gives is compared with IDs first.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Size of its disk in bytes.
    pub virtual_size: u64,
    /// Size of the saved state of the virtual machine, in bytes.
    pub vm_state_size: u64,
    /// Time of its creation, in seconds since 1970.
    pub date_sec: u32,
    /// The nanoseconds of that time.
    pub date_nsec: u32,
    /// Run time of the virtual machine until then, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// The number of instructions that the virtual machine had executed, if they were counted.
    pub icount: Option<u64>,
}

/// A persistent bitmap.
#[derive(Clone, Debug)]
pub struct BitmapInfo {
    /// Its name.
    pub name: String,
    /// The number of bytes of the disk per bit.
    pub granularity: u64,
    /// It is updated whenever the image is in use.
    pub auto: bool,
    /// It was not written back, so its content is not reliable.
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
    /// Describes a top image.
    ///
    /// # Errors
    ///
    /// The image can't be opened, or its header or tables are invalid.
    pub fn read(path: &Path, options: &DiskOptions) -> Result<Self> {
        let TopFile { file, format, options, warning, content } = options.top(path)?;
        let mut info = Self::of(&file, format, &options, options.snapshot.as_deref())?;
        info.warnings.extend(warning);
        info.warnings.extend(content.map(|content| content.warning(path)));
        if let Some(DataFileInfo { name, .. }) = info.qcow2.as_ref().and_then(|qcow2| qcow2.data_file.as_ref()) {
            let closed = info.options.gate.check_open(path, "data file", name).err();
            info.warnings.extend(closed.map(|error| error.what().to_owned()));
        }
        Ok(info)
    }

    /// Describes an open file. With `snapshot`, the disk size is that of this internal snapshot.
    fn of(file: &ImageFile, format: Format, options: &DiskOptions, snapshot: Option<&str>) -> Result<Self> {
        let mut info = Self {
            path: file.path().into(),
            format,
            virtual_size: file.len(),
            file_size: file.len(),
            actual_size: file.allocated()?,
            backing: None,
            snapshots: Vec::new(),
            qcow2: None,
            warnings: Vec::new(),
            identity: file.identity()?,
            dir: file.dir().map(Into::into),
            options: options.clone(),
        };
        if format == Format::Qcow2 {
            info.look_into(file, snapshot)?;
        }
        Ok(info)
    }

    /// Adds the properties of a qcow2 image.
    fn look_into(&mut self, file: &ImageFile, snapshot: Option<&str>) -> Result<()> {
        let header = Header::read(file)?;
        self.virtual_size = match snapshot {
            Some(wanted) => Snapshots::new(file, &header).find(wanted.as_bytes())?.disk_size,
            None => header.size,
        };
        self.warnings = header.warnings();
        self.backing = BackingRef::of(&header);
        let mut names = 0;
        let mut bounded = |bytes: usize| {
            names += bytes;
            let what = || {
                file.error(
                    DiskErrorKind::Unsupported,
                    format!("its snapshots and bitmaps have names of more than {NAMES_MAX} bytes"),
                )
            };
            if names > NAMES_MAX { Err(what()) } else { Ok(()) }
        };
        self.warnings.extend(Snapshots::check(file, &header)?);
        let listed = Snapshots::new(file, &header).take_while(|_| header.snapshots_problem.is_none());
        for snapshot in listed {
            let snapshot = snapshot?;
            if snapshot.problem.is_some() {
                break;
            }
            let snapshot = SnapshotInfo::from(snapshot);
            bounded(snapshot.id.len() + snapshot.name.len())?;
            self.snapshots.push(snapshot);
        }
        let mut bitmaps = Vec::new();
        for bitmap in Bitmaps::new(file, &header)? {
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

    /// Describes the backing files below the image, from top to bottom. An error ends the iteration.
    #[must_use]
    pub fn layers(&self) -> BackingFiles {
        BackingFiles { options: self.options.clone(), next: self.below(), seen: vec![self.identity] }
    }

    fn below(&self) -> Option<(PathBuf, Option<PathBuf>, BackingRef)> {
        Some((self.path.clone(), self.dir.clone(), self.backing.clone()?))
    }
}

/// An iterator over the layers below an image, from top to bottom. It holds one description in memory at a time.
#[derive(Debug)]
pub struct BackingFiles {
    options: DiskOptions,
    /// The image that refers to the next layer: its path, its true directory, and the reference.
    next: Option<(PathBuf, Option<PathBuf>, BackingRef)>,
    seen: Vec<(u64, u64)>,
}

impl Iterator for BackingFiles {
    type Item = Result<Info>;

    fn next(&mut self) -> Option<Result<Info>> {
        let (named_by, dir, backing) = self.next.take()?;
        let looked = backing.open(&named_by, dir.as_deref(), &self.options).and_then(|(file, format)| {
            let info = Info::of(&file, format, &self.options, None)?;
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
