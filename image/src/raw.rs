//! A raw disk: a regular file or a block device. The file system determines its extents.

mod fiemap_extents;
pub(crate) mod seek_extents;

use std::io;
use std::sync::OnceLock;

use nix::errno::Errno;
use xfer_hole_os::{DiskError, DiskErrorKind, Result, is_zero, reason, shown};
use xfer_hole_proto::GRAIN_DEFAULT;

use crate::layer::{Allocation, Layer, Span};
use crate::raw::fiemap_extents::FiemapExtents;
use crate::raw::seek_extents::SeekExtents;
use crate::{Format, ImageFile};

/// The method that determines the extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentMethod {
    /// lseek(2) SEEK_DATA and SEEK_HOLE.
    Seek,
    /// ioctl(2) FS_IOC_FIEMAP.
    Fiemap,
    /// Reads everything: all is data, and zeros are detected by reading.
    Scan,
}

impl ExtentMethod {
    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Seek => "seek",
            Self::Fiemap => "fiemap",
            Self::Scan => "scan",
        }
    }
}

/// A raw disk, open for reading.
#[derive(Debug)]
pub struct Raw {
    image: ImageFile,
    method: ExtentMethod,
    seek: SeekExtents,
    fiemap: FiemapExtents,
    /// The allocation status of a hole.
    holes: Allocation,
    /// The file system doesn't record holes, so blocks of zeros count as holes.
    looks: bool,
    /// An extent method that doesn't work is an error, because the user named it, or because holes show the layer
    /// below.
    strict: bool,
    /// The offset from which the file system's replies were invalid, and the reason. All that is asked for afterwards
    /// counts as data.
    lost: OnceLock<(u64, String)>,
}

/// Zeros are detected in blocks of this many bytes, [`BLOCKS`] blocks at a time.
const BLOCK: u64 = GRAIN_DEFAULT;
const BLOCKS: u64 = 64;

impl Raw {
    /// A layer in a chain of raw files. Its holes show the layer below, and so does space that is allocated but not
    /// written.
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Unsupported`] if the file system doesn't report holes.
    pub fn layer(image: ImageFile) -> Result<Self> {
        let (seek, fiemap) = (SeekExtents::default(), FiemapExtents::default());
        let (file, size) = (image.file(), image.len());
        // SEEK_DATA reports unwritten space as data once it was read, so FIEMAP is preferred.
        let method = match if size == 0 { Ok(()) } else { fiemap.extent(file, 0, size).map(drop) } {
            Ok(()) => ExtentMethod::Fiemap,
            Err(source) if is_refusal(&source) => ExtentMethod::Seek,
            Err(source) => return Err(no_method(&image, ExtentMethod::Fiemap, source)),
        };
        if method == ExtentMethod::Seek {
            let first = seek.extent(file, 0, size).map_err(|source| no_method(&image, method, source))?;
            // A file system that doesn't record holes reports the whole file as data.
            if first == (Allocation::Data, size) && image.allocated()? < size {
                let what = "lies on a file system that doesn't tell where a file has holes, and it seems to have some";
                return Err(image.error(DiskErrorKind::Unsupported, what));
            }
        }
        let (holes, lost) = (Allocation::Unallocated, OnceLock::new());
        Ok(Self { image, method, seek, fiemap, holes, looks: false, strict: true, lost })
    }

    /// A disk that consists of this file. Without a `method`, SEEK_DATA and SEEK_HOLE are used if they work, else
    /// reading.
    ///
    /// # Errors
    ///
    /// The file system doesn't support the given `method`.
    pub fn of(image: ImageFile, method: Option<ExtentMethod>) -> Result<Self> {
        let (file, size) = (image.file(), image.len());
        let (seek, fiemap) = (SeekExtents::default(), FiemapExtents::default());
        let probe = |method| match method {
            // The first extent is cached for the first request.
            ExtentMethod::Seek => seek.extent(file, 0, size).map(drop),
            ExtentMethod::Fiemap if size == 0 => Ok(()),
            ExtentMethod::Fiemap => fiemap.extent(file, 0, size).map(drop),
            ExtentMethod::Scan => Ok(()),
        };
        let (strict, lost) = (method.is_some(), OnceLock::new());
        let method = match (method, probe(method.unwrap_or(ExtentMethod::Seek))) {
            (None, Ok(())) => ExtentMethod::Seek,
            (None, Err(source)) => {
                if !is_refusal(&source) {
                    lost.get_or_init(|| (0, reason(&source)));
                }
                ExtentMethod::Scan
            }
            (Some(method), probed) => {
                probed.map_err(|source| no_method(&image, method, source))?;
                method
            }
        };
        Ok(Self { image, method, seek, fiemap, holes: Allocation::Zero, looks: false, strict, lost })
    }

    /// The extent at `at` by SEEK_DATA and SEEK_HOLE. After an invalid reply, the rest of the file counts as data, and
    /// zeros are detected by reading.
    fn sought(&self, at: u64) -> io::Result<(Allocation, u64)> {
        let len = self.image.len();
        let all = (Allocation::Data, len - at);
        if self.lost.get().is_some() {
            return Ok(all);
        }
        match self.seek.extent(self.image.file(), at, len) {
            Err(source) if !self.strict => {
                self.lost.get_or_init(|| (at, reason(&source)));
                Ok(all)
            }
            answer => answer,
        }
    }

    /// Makes this disk a layer above another one, which its holes show. If the file system doesn't support or report
    /// holes, blocks of zeros count as holes.
    pub fn above(self) -> Self {
        let size = self.image.len();
        let first = self.seek.extent(self.image.file(), 0, size);
        let looks = first.is_ok_and(|first| first == (Allocation::Data, size)) || self.method == ExtentMethod::Scan;
        Self { holes: Allocation::Unallocated, looks, ..self }
    }

    /// Reads up to `max` bytes at `at`, and returns the status of the first blocks and their length in bytes.
    fn look(&self, at: u64, max: u64) -> Result<(Allocation, u64)> {
        let ahead = at % BLOCK;
        let mut bytes = vec![0; usize::try_from(max.min(BLOCKS * BLOCK - ahead)).unwrap_or_default()];
        self.image.read_at(at, &mut bytes)?;
        let (first, rest) = bytes.split_at(bytes.len().min(usize::try_from(BLOCK - ahead).unwrap_or_default()));
        let zero = is_zero(first);
        let alike = rest.chunks(usize::try_from(BLOCK).unwrap_or(1)).take_while(|block| is_zero(block) == zero);
        let len = first.len() + alike.map(<[u8]>::len).sum::<usize>();
        Ok((if zero { self.holes } else { Allocation::Data }, len as u64))
    }

    /// The extent method in use.
    pub fn method(&self) -> ExtentMethod {
        self.method
    }
}

/// True if the file system doesn't support the call.
fn is_refusal(source: &io::Error) -> bool {
    let refusals = [Errno::EOPNOTSUPP, Errno::ENOTTY, Errno::EINVAL, Errno::ENOSYS];
    source.raw_os_error().is_some_and(|code| code == ENOTSUPP || refusals.contains(&Errno::from_raw(code)))
}

/// The kernel's internal error number for unsupported operations. Some file systems return it to programs.
const ENOTSUPP: i32 = 524;

fn no_method(image: &ImageFile, method: ExtentMethod, source: io::Error) -> DiskError {
    let word = method.word();
    if is_refusal(&source) {
        return image
            .error(DiskErrorKind::Unsupported, format!("extents by {word} are not to be had here"))
            .hint(OTHERWISE);
    }
    image.io(format!("cannot find extents by {word}"), source).hint(OTHERWISE)
}

/// The hint if an extent method is not supported.
const OTHERWISE: &str = "leave --extents out, or use --extents scan to read everything";

impl Layer for Raw {
    fn format(&self) -> Format {
        Format::Raw
    }

    /// In whole sectors of 512 bytes, as the layer above and QEMU see it.
    fn size(&self) -> u64 {
        self.image.len().next_multiple_of(512)
    }

    fn span(&self, at: u64, max: u64) -> Result<Span> {
        let (file, len) = (self.image.file(), self.image.len());
        let extent = match self.method {
            // The remainder of the last sector.
            _ if at >= len => Ok((Allocation::Zero, max)),
            ExtentMethod::Seek => self.sought(at),
            ExtentMethod::Fiemap => self.fiemap.extent(file, at, len),
            ExtentMethod::Scan => Ok((Allocation::Data, len - at)),
        };
        let failed = |source| {
            let error =
                self.image.io(format!("cannot find the extent at offset {at} by {}", self.method.word()), source);
            match self.holes {
                Allocation::Zero => error.hint(OTHERWISE),
                _ => error,
            }
        };
        let (allocation, len) = extent.map_err(failed)?;
        let (allocation, len) = match allocation {
            Allocation::Zero => (self.holes, len),
            Allocation::Data if self.looks || self.holes != Allocation::Zero && self.lost.get().is_some() => {
                self.look(at, len.min(max))?
            }
            _ => (allocation, len),
        };
        Ok(Span { len: len.min(max), allocation, compressed: false, host: Some(at) })
    }

    fn host(&self) -> &ImageFile {
        &self.image
    }

    fn inflate(&self, at: u64, _buf: &mut [u8]) -> Result<()> {
        Err(self.image.error(DiskErrorKind::Io, format!("nothing is compressed at offset {at}")))
    }

    fn chunk(&self) -> u64 {
        1
    }

    fn noticed(&self) -> Option<String> {
        let (at, why) = self.lost.get()?;
        let name = shown(self.image.path());
        Some(format!(
            "{name}: the file system does not tell data from holes from offset {at} on ({why}): all behind that was read"
        ))
    }

    fn check_unchanged(&self, live: bool) -> Result<()> {
        self.image.check_unchanged(live)
    }
}
