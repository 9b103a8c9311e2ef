//! The disks that are moved: what they are called, and how each is made.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Result, Told};
use crate::seeded::Seeded;
use crate::tool::{self, text};
use crate::{guest, ranges};

/// A disk to be made, or a form of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1 GiB in 8 GiB, in runs of 64 KiB to 4 MiB, at random places.
    ScatteredRaw,
    /// The same, as qcow2.
    ScatteredQcow2,
    /// 1 GiB in 8 GiB, in runs of 4 MiB to 64 MiB: what records towards a shell are made of.
    LongRaw,
    /// A file system with 2 GiB of /usr in 8 GiB.
    GuestRaw,
    /// The same, as qcow2.
    GuestQcow2,
    /// The same, compressed by zlib.
    GuestZlib,
    /// The same, compressed by zstd.
    GuestZstd,
    /// The same below two overlays that were written to.
    Chain,
    /// 4 KiB of data and 4 KiB of hole in turn, over 1 GiB.
    Fragments,
    /// Nothing in 1 TiB.
    Empty1tRaw,
    /// The same, as qcow2.
    Empty1tQcow2,
    /// Nothing in 16 TiB: more than a file on ext4 can be large.
    Empty16tRaw,
    /// The same, as qcow2.
    Empty16tQcow2,
}

/// A disk that was made.
#[derive(Clone, Debug)]
pub struct BenchDisk {
    /// The image.
    pub path: PathBuf,
    /// Its format, by qemu-img's name.
    pub format: &'static str,
    /// The same disk as a raw file.
    pub raw: PathBuf,
    /// Where that has data, for the floor.
    pub ranges: PathBuf,
    /// Its size, in bytes.
    pub size: u64,
    /// What the raw file takes on its file system, in bytes.
    pub allocated: u64,
}

/// Makes disks, each once.
#[derive(Clone, Debug)]
pub struct Maker {
    /// Where they are kept.
    pub folder: PathBuf,
    /// For those of 16 TiB, on a file system that has files so large.
    pub vast: PathBuf,
    /// Sizes are divided by this.
    pub scale: u64,
}

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

impl Kind {
    /// All of them, those next to each other that are made of one another.
    pub const ALL: [Self; 13] = [
        Self::ScatteredRaw,
        Self::ScatteredQcow2,
        Self::LongRaw,
        Self::GuestRaw,
        Self::GuestQcow2,
        Self::GuestZlib,
        Self::GuestZstd,
        Self::Chain,
        Self::Fragments,
        Self::Empty1tRaw,
        Self::Empty1tQcow2,
        Self::Empty16tRaw,
        Self::Empty16tQcow2,
    ];

    /// As it is called on the command line and in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ScatteredRaw => "scattered-raw",
            Self::ScatteredQcow2 => "scattered-qcow2",
            Self::LongRaw => "long-raw",
            Self::GuestRaw => "guest-raw",
            Self::GuestQcow2 => "guest-qcow2",
            Self::GuestZlib => "guest-zlib",
            Self::GuestZstd => "guest-zstd",
            Self::Chain => "chain",
            Self::Fragments => "fragments",
            Self::Empty1tRaw => "empty-1t-raw",
            Self::Empty1tQcow2 => "empty-1t-qcow2",
            Self::Empty16tRaw => "empty-16t-raw",
            Self::Empty16tQcow2 => "empty-16t-qcow2",
        }
    }

    /// What it is, in the report's words.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::ScatteredRaw => "1 GiB of data in 8 GiB, in runs of 64 KiB to 4 MiB, raw",
            Self::ScatteredQcow2 => "1 GiB of data in 8 GiB, in runs of 64 KiB to 4 MiB, qcow2",
            Self::LongRaw => "1 GiB of data in 8 GiB, in runs of 4 MiB to 64 MiB, raw",
            Self::GuestRaw => "ext4 with 2 GiB of /usr in 8 GiB, raw",
            Self::GuestQcow2 => "ext4 with 2 GiB of /usr in 8 GiB, qcow2",
            Self::GuestZlib => "ext4 with 2 GiB of /usr in 8 GiB, qcow2, zlib",
            Self::GuestZstd => "ext4 with 2 GiB of /usr in 8 GiB, qcow2, zstd",
            Self::Chain => "ext4 with 2 GiB of /usr in 8 GiB, qcow2, below two overlays",
            Self::Fragments => "1 GiB, alternating 4 KiB of data and 4 KiB of hole, raw",
            Self::Empty1tRaw => "1 TiB, empty, raw",
            Self::Empty1tQcow2 => "1 TiB, empty, qcow2",
            Self::Empty16tRaw => "16 TiB, empty, raw, on tmpfs",
            Self::Empty16tQcow2 => "16 TiB, empty, qcow2",
        }
    }

    /// Whether it is larger than a file on ext4 can be.
    #[must_use]
    pub fn is_vast(self) -> bool {
        matches!(self, Self::Empty16tRaw | Self::Empty16tQcow2)
    }

    /// Whether it has data: only then its size is divided by the scale.
    #[must_use]
    pub fn has_data(self) -> bool {
        !matches!(self, Self::Empty1tRaw | Self::Empty1tQcow2 | Self::Empty16tRaw | Self::Empty16tQcow2)
    }

    /// The disk that it is made of in the end: those of one family are there at the same time.
    #[must_use]
    pub fn family(self) -> Self {
        self.parent().map_or(self, Self::family)
    }

    /// The disk that this is another form of, or that lies below it.
    fn parent(self) -> Option<Self> {
        match self {
            Self::ScatteredQcow2 => Some(Self::ScatteredRaw),
            Self::GuestQcow2 | Self::GuestZlib | Self::GuestZstd => Some(Self::GuestRaw),
            Self::Chain => Some(Self::GuestQcow2),
            Self::Empty1tQcow2 => Some(Self::Empty1tRaw),
            Self::Empty16tQcow2 => Some(Self::Empty16tRaw),
            _ => None,
        }
    }

    fn is_raw(self) -> bool {
        self.parent().is_none()
    }
}

impl Maker {
    /// Makes it, if that hasn't been done, and what it is made of.
    ///
    /// # Errors
    /// If a tool fails, or the disk is full.
    pub fn disk(&self, kind: Kind) -> Result<BenchDisk> {
        let path = self.path(kind);
        let parent = kind.parent().map(|parent| self.disk(parent)).transpose()?;
        let format = if kind.is_raw() { "raw" } else { "qcow2" };
        if !path.exists() {
            // Whole, or not under its name: an earlier run may have kept disks.
            let making = path.with_extension("making");
            let _left = fs::remove_file(&making);
            self.make(kind, &making, parent.as_ref())?;
            File::open(&making).and_then(|file| file.sync_all()).told(making.display())?;
            fs::rename(&making, &path).told(path.display())?;
        }
        let raw = match &parent {
            None => path.clone(),
            Some(_) if kind == Kind::Chain => {
                let raw = self.folder.join("chain.raw");
                if !raw.exists() {
                    tool::run("qemu-img", ["convert", "-O", "raw", text(&path)?, text(&raw)?])?;
                }
                raw
            }
            Some(parent) => parent.raw.clone(),
        };
        let list = raw.with_extension("ranges");
        if !list.exists() {
            let list_of_raw = self.folder.join(list.file_name().unwrap_or_default());
            ranges::write(&ranges::of(&raw)?, &list_of_raw)?;
        }
        let ranges = self.folder.join(list.file_name().unwrap_or_default());
        let about = fs::metadata(&raw).told(raw.display())?;
        Ok(BenchDisk { path, format, raw, ranges, size: about.len(), allocated: about.blocks() * 512 })
    }

    fn path(&self, kind: Kind) -> PathBuf {
        let folder = if kind == Kind::Empty16tRaw { &self.vast } else { &self.folder };
        folder.join(format!("{}.img", kind.name()))
    }

    fn make(&self, kind: Kind, to: &Path, parent: Option<&BenchDisk>) -> Result<()> {
        let (large, small) = (8192 * MIB / self.scale, 1024 * MIB / self.scale);
        let convert = |words: &[&str]| -> Result<()> {
            let Some(parent) = parent else { return Ok(()) };
            let all =
                [&["convert", "-O", "qcow2"], words, &["-f", parent.format, text(&parent.path)?, text(to)?]].concat();
            tool::run("qemu-img", all).map(drop)
        };
        match kind {
            Kind::ScatteredRaw => scattered(to, large, small, (64 << 10, (4 * MIB).min(small / 8))),
            Kind::LongRaw => scattered(to, large, small, ((4 * MIB).min(small / 8), (64 * MIB).min(small / 4))),
            Kind::GuestRaw => guest::make(to, large, 2 * small),
            Kind::ScatteredQcow2 | Kind::GuestQcow2 => convert(&[]),
            Kind::GuestZlib => convert(&["-c", "-o", "compression_type=zlib"]),
            Kind::GuestZstd => convert(&["-c", "-o", "compression_type=zstd"]),
            Kind::Chain => self.chain(to, large),
            Kind::Fragments => fragments(to, small),
            Kind::Empty1tRaw => empty(to, TIB),
            Kind::Empty16tRaw => empty(to, 16 * TIB),
            Kind::Empty1tQcow2 => qcow2(to, TIB),
            Kind::Empty16tQcow2 => qcow2(to, 16 * TIB),
        }
    }

    /// Two overlays of the guest, each written to at 128 places.
    fn chain(&self, to: &Path, size: u64) -> Result<()> {
        let middle = self.folder.join("middle.img");
        let base = self.path(Kind::GuestQcow2);
        overlay(&middle, &base)?;
        writes(&middle, size, 128, 1)?;
        overlay(to, &middle)?;
        writes(to, size, 128, 2)
    }
}

/// An overlay over a qcow2 image in the same folder.
///
/// # Errors
/// If qemu-img fails.
pub fn overlay(to: &Path, base: &Path) -> Result<()> {
    let name = base.file_name().map_or(base, Path::new);
    tool::run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(name)?, text(to)?]).map(drop)
}

/// Writes data to a qcow2 image at so many random places, 64 KiB to 256 KiB each, in one run of qemu-io.
///
/// # Errors
/// If qemu-io fails.
pub fn writes(to: &Path, size: u64, places: u64, seed: u64) -> Result<()> {
    let mut seeded = Seeded::new(seed);
    let mut words = vec!["-f".to_owned(), "qcow2".to_owned()];
    for _ in 0..places {
        let len = (64 + seeded.below(193)) << 10;
        let at = seeded.below((size.saturating_sub(len) >> 9) + 1) << 9;
        let pattern = 1 + seeded.below(255);
        words.extend(["-c".to_owned(), format!("write -q -P {pattern} {at} {len}")]);
    }
    words.push(text(to)?.to_owned());
    tool::run("qemu-io", words).map(drop)
}

/// A qcow2 image with nothing in it.
///
/// # Errors
/// If qemu-img fails.
pub fn qcow2(to: &Path, size: u64) -> Result<()> {
    tool::run("qemu-img", ["create", "-q", "-f", "qcow2", text(to)?, &size.to_string()]).map(drop)
}

/// A raw file with nothing in it.
///
/// # Errors
/// If the file system has no files of this size.
pub fn empty(to: &Path, size: u64) -> Result<()> {
    File::create(to).and_then(|file| file.set_len(size)).told(to.display())
}

/// `data` bytes in `size`, in runs of the lengths `between`, with gaps that are as random.
fn scattered(to: &Path, size: u64, data: u64, between: (u64, u64)) -> Result<()> {
    let mut seeded = Seeded::new(size);
    let mut runs = Vec::new();
    let mut left = data;
    while left > 0 {
        let len = (between.0 + seeded.below((between.1 - between.0) / 4096 + 1) * 4096).min(left);
        runs.push(len);
        left -= len;
    }
    let file = File::create(to).told(to.display())?;
    file.set_len(size).told(to.display())?;
    let mut bytes = vec![0; usize::try_from(between.1).told("a run")?];
    let gap = (size - data) / runs.len() as u64;
    let (mut at, mut left) = (0, data);
    for len in runs {
        // Half the mean to one and a half of it, and room for all that is left.
        let start = (at + (gap / 2 + seeded.below(gap + 1)) / 4096 * 4096).min(size - left);
        let bytes = &mut bytes[..usize::try_from(len).told("a run")?];
        seeded.fill(bytes);
        file.write_all_at(bytes, start).told(to.display())?;
        at = start + len;
        left -= len;
    }
    Ok(())
}

/// 4 KiB of data at every multiple of 8 KiB.
///
/// # Errors
/// If the file can't be written.
pub fn fragments(to: &Path, size: u64) -> Result<()> {
    let mut seeded = Seeded::new(size);
    let file = File::create(to).told(to.display())?;
    file.set_len(size).told(to.display())?;
    let mut bytes = [0; 4096];
    for at in (0..size).step_by(8192) {
        seeded.fill(&mut bytes);
        file.write_all_at(&bytes, at).told(to.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_data_is_as_much_as_was_asked_for_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            scattered(path, 64 * MIB, 8 * MIB, (64 << 10, MIB)).unwrap();
        }
        assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());
        let found = ranges::of(&paths[0]).unwrap();
        assert_eq!(ranges::total(&found), 8 * MIB);
        assert!(found.len() > 4, "{found:?}");
    }

    #[test]
    fn fragments_are_half_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fragments");
        fragments(&path, MIB).unwrap();
        let found = ranges::of(&path).unwrap();
        assert_eq!((found.len(), ranges::total(&found)), (128, MIB / 2));
    }
}
