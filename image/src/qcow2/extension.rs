//! Reads the header extensions, which are between the header's fields and the backing file's name.
//!
//! qcow2 specification, "Header extensions", "String header extensions", "Bitmaps extension".

use xfer_hole_os::Result;

use super::feature::FeatureNames;
use super::field::{be32, be64, printable, string, unusable};
use super::geometry::HostOffset;
use crate::ImageFile;

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const CRYPTO: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;

/// The maximum length of a format's name: one less than the size of QEMU's `backing_format`.
const FORMAT_NAME_MAX: usize = 15;
/// Size of the bitmaps extension in bytes.
const BITMAPS_LEN: usize = 24;
/// QEMU's QCOW2_MAX_BITMAPS.
const BITMAPS_MAX: u32 = 65535;
/// QEMU's QCOW2_MAX_BITMAP_DIRECTORY_SIZE, in bytes.
const DIRECTORY_MAX: u64 = 1024 * BITMAPS_MAX as u64;
/// The maximum number of unknown types that are kept. A header may have a hundred thousand.
const UNKNOWN_KEPT: usize = 16;

/// The location of the bitmap directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitmapDirectory {
    /// The number of bitmaps, 1 to 65535.
    pub(crate) count: u32,
    /// Its file offset: a multiple of the cluster size.
    pub(crate) offset: HostOffset,
    /// Its length in bytes, at most 64 MiB.
    pub(crate) len: u64,
}

/// The content of the extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// The declared format of the backing file, safe to print. An empty one counts as none, as in QEMU.
    pub(crate) backing_format: Option<String>,
    /// The name of the external data file, in the bytes of the image.
    pub(crate) data_file: Option<Vec<u8>>,
    /// The names of feature bits.
    pub(crate) names: FeatureNames,
    /// The bitmap directory, if the bitmaps are current.
    pub(crate) bitmaps: Option<BitmapDirectory>,
    /// The first unknown types, which were ignored.
    pub(crate) unknown: Vec<u32>,
}

impl Extensions {
    /// Reads the extensions in the range `from..to` of the first cluster, whose bytes are `cluster`. Ignores bitmaps
    /// that are not current.
    pub(crate) fn read(
        file: &ImageFile,
        cluster: &[u8],
        from: usize,
        to: usize,
        bitmaps_are_current: bool,
    ) -> Result<Self> {
        let mut found = Self::default();
        let mut at = from;
        while at < to {
            let wrong = |what: String| Err(unusable(file, format!("header extension at {at:#x}: {what}")));
            if to - at < 8 {
                return wrong(format!("only {} bytes are left for it, up to {to:#x}", to - at));
            }
            let (kind, len) = (be32(cluster, at), be32(cluster, at + 4));
            let room = to - at - 8;
            let Some(len) = usize::try_from(len).ok().filter(|&len| len <= room) else {
                return wrong(format!("its {len} bytes run past {to:#x}, where the area of extensions ends"));
            };
            let data = &cluster[at + 8..][..len];
            match kind {
                END => return Ok(found),
                BACKING_FORMAT if len > FORMAT_NAME_MAX => {
                    return wrong(format!("a backing format's name of {len} bytes, {FORMAT_NAME_MAX} are the most"));
                }
                BACKING_FORMAT => {
                    let name = string(data);
                    found.backing_format = (!name.is_empty()).then(|| printable(name));
                }
                FEATURE_NAMES => found.names = FeatureNames::read(data),
                BITMAPS if len != BITMAPS_LEN => {
                    return wrong(format!("a bitmaps extension of {len} bytes, not {BITMAPS_LEN}"));
                }
                BITMAPS if bitmaps_are_current => match directory(cluster.len(), data) {
                    Ok(directory) => found.bitmaps = Some(directory),
                    Err(what) => return wrong(what),
                },
                BITMAPS => {}
                // Encrypted images were refused before, so this extension has no meaning here.
                CRYPTO => {
                    return wrong("an encryption header, though crypt_method says that there is no encryption".into());
                }
                DATA_FILE => found.data_file = Some(string(data).to_vec()),
                unknown if found.unknown.len() < UNKNOWN_KEPT => found.unknown.push(unknown),
                _ => {}
            }
            at += 8 + len.next_multiple_of(8);
        }
        Ok(found)
    }
}

/// Decodes the bitmaps extension, with QEMU's checks.
fn directory(cluster_size: usize, data: &[u8]) -> std::result::Result<BitmapDirectory, String> {
    let (count, reserved, len, offset) = (be32(data, 0), be32(data, 4), be64(data, 8), be64(data, 16));
    if reserved != 0 {
        return Err(format!("the reserved field of the bitmaps extension is {reserved:#x}, not 0"));
    }
    if count == 0 || count > BITMAPS_MAX {
        return Err(format!("nb_bitmaps is {count}: can be 1 to {BITMAPS_MAX}"));
    }
    if len == 0 || len > DIRECTORY_MAX {
        return Err(format!("bitmap_directory_size is {len}: can be 1 to {DIRECTORY_MAX} bytes"));
    }
    if offset == 0 || offset % cluster_size as u64 != 0 {
        return Err(format!("bitmap_directory_offset is {offset:#x}: not at a cluster behind the header"));
    }
    Ok(BitmapDirectory { count, offset: HostOffset(offset), len })
}

#[cfg(test)]
mod tests;
