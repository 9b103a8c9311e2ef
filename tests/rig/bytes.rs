//! Reads and changes fields of a qcow2 image in place. Names are those of the qcow2 specification.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A field of the header: its offset and width in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub u64, pub u64);

/// The header's fields ("Header").
#[allow(missing_docs, reason = "they are the specification's")]
impl Field {
    pub const MAGIC: Self = Self(0, 4);
    pub const VERSION: Self = Self(4, 4);
    pub const BACKING_OFFSET: Self = Self(8, 8);
    pub const BACKING_SIZE: Self = Self(16, 4);
    pub const CLUSTER_BITS: Self = Self(20, 4);
    pub const SIZE: Self = Self(24, 8);
    pub const CRYPT_METHOD: Self = Self(32, 4);
    pub const L1_SIZE: Self = Self(36, 4);
    pub const L1_OFFSET: Self = Self(40, 8);
    pub const REFCOUNT_OFFSET: Self = Self(48, 8);
    pub const REFCOUNT_CLUSTERS: Self = Self(56, 4);
    pub const SNAPSHOTS: Self = Self(60, 4);
    pub const SNAPSHOTS_OFFSET: Self = Self(64, 8);
    pub const INCOMPATIBLE: Self = Self(72, 8);
    pub const COMPATIBLE: Self = Self(80, 8);
    pub const AUTOCLEAR: Self = Self(88, 8);
    pub const REFCOUNT_ORDER: Self = Self(96, 4);
    pub const HEADER_LENGTH: Self = Self(100, 4);
    pub const COMPRESSION_TYPE: Self = Self(104, 1);
}

/// Reads a field.
pub fn peek(image: &Path, field: Field) -> u64 {
    let mut bytes = [0; 8];
    let width = usize::try_from(field.1).unwrap();
    File::open(image).unwrap().read_exact_at(&mut bytes[8 - width..], field.0).unwrap();
    u64::from_be_bytes(bytes)
}

/// Changes a field.
pub fn poke(image: &Path, field: Field, value: u64) {
    let width = usize::try_from(field.1).unwrap();
    write_at(image, field.0, &value.to_be_bytes()[8 - width..]);
}

/// Changes bytes anywhere in a file.
pub fn write_at(image: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// An entry of the active L1 table, as a field.
pub fn l1_entry(image: &Path, index: u64) -> Field {
    Field(peek(image, Field::L1_OFFSET) + 8 * index, 8)
}

/// An entry of the L2 table of an L1 entry, as a field. An extended entry's bitmap follows it.
pub fn l2_entry(image: &Path, l1: u64, index: u64) -> Field {
    let table = peek(image, l1_entry(image, l1)) & 0x00ff_ffff_ffff_fe00;
    assert_ne!(table, 0, "no L2 table there");
    let width = if peek(image, Field::INCOMPATIBLE) & 0x10 != 0 { 16 } else { 8 };
    Field(table + width * index, 8)
}

/// Inserts header extensions before the existing ones, and sets the header's length to `header` bytes. The image must
/// have no backing file.
pub fn stretch_header(image: &Path, header: u64, extensions: &[(u32, &[u8])]) {
    assert_eq!(peek(image, Field::BACKING_OFFSET), 0);
    let old = peek(image, Field::HEADER_LENGTH);
    let bytes = fs::read(image).unwrap();
    let cluster = usize::try_from(1u64 << peek(image, Field::CLUSTER_BITS)).unwrap();
    let old_extensions = &bytes[usize::try_from(old).unwrap()..cluster];
    let mut area = Vec::new();
    for &(kind, data) in extensions {
        area.extend(kind.to_be_bytes());
        area.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        area.extend(data);
        area.resize(area.len().next_multiple_of(8), 0);
    }
    area.extend(old_extensions);
    // The end of the cluster is cut off, which must be empty.
    let room = cluster - usize::try_from(header).unwrap();
    assert!(area[room..].iter().all(|&byte| byte == 0), "no room for these extensions");
    write_at(image, old, &vec![0; usize::try_from(header - old).unwrap()]);
    write_at(image, header, &area[..room]);
    poke(image, Field::HEADER_LENGTH, header);
}

/// Writes a backing file's name without a format into an image, as old programs did. The header extensions are
/// overwritten.
pub(crate) fn name_backing(image: &Path, name: &str) {
    let cluster = 1u64 << peek(image, Field::CLUSTER_BITS);
    let at = cluster - 1 - u64::try_from(name.len()).unwrap();
    write_at(image, at, name.as_bytes());
    poke(image, Field::BACKING_OFFSET, at);
    poke(image, Field::BACKING_SIZE, u64::try_from(name.len()).unwrap());
}
