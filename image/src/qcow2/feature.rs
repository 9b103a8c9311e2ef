//! Feature bits, and the names that an image contains for them.
//!
//! qcow2 specification, "Header" (incompatible_features and on) and "Feature name table".

use super::field::{printable, string};

/// Size in bytes of an entry of the feature name table.
const NAME_ENTRY: usize = 48;

/// Incompatible bit 0: reference counts may be wrong.
pub(crate) const DIRTY: u64 = 1;
/// Incompatible bit 1: any structure may be wrong.
pub(crate) const CORRUPT: u64 = 1 << 1;
/// Incompatible bit 2: data is in an external file.
pub(crate) const DATA_FILE: u64 = 1 << 2;
/// Incompatible bit 3: the compression method is not deflate.
pub(crate) const COMPRESSION: u64 = 1 << 3;
/// Incompatible bit 4: L2 entries are extended to two words.
pub(crate) const EXTENDED_L2: u64 = 1 << 4;
/// All incompatible bits that this crate supports.
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
/// Compatible bit 0: reference counts may be written late.
const LAZY_REFCOUNTS: u64 = 1;
/// Autoclear bit 0: the bitmaps are current.
const BITMAPS: u64 = 1;
/// Autoclear bit 1: the external data file is a raw disk by itself.
const DATA_FILE_RAW: u64 = 1 << 1;

/// The three sets of feature bits in a header. All are clear in version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Bits that a reader must support.
    pub(crate) incompatible: u64,
    /// Bits that a program may ignore.
    pub(crate) compatible: u64,
    /// Bits that a writer must clear if it doesn't support them.
    pub(crate) autoclear: u64,
}

impl Features {
    /// The image was not closed cleanly.
    pub(crate) fn is_dirty(self) -> bool {
        self.incompatible & DIRTY != 0
    }

    /// A program has found the image damaged and marked it.
    pub(crate) fn is_corrupt(self) -> bool {
        self.incompatible & CORRUPT != 0
    }

    /// Data is in an external file.
    pub(crate) fn has_data_file(self) -> bool {
        self.incompatible & DATA_FILE != 0
    }

    /// The external data file is a raw disk by itself.
    pub(crate) fn data_file_raw(self) -> bool {
        self.autoclear & DATA_FILE_RAW != 0
    }

    /// The compression method is not deflate.
    pub(crate) fn has_compression_type(self) -> bool {
        self.incompatible & COMPRESSION != 0
    }

    /// L2 entries are extended: clusters have subclusters.
    pub(crate) fn extended_l2(self) -> bool {
        self.incompatible & EXTENDED_L2 != 0
    }

    /// Reference counts may be written late.
    pub(crate) fn lazy_refcounts(self) -> bool {
        self.compatible & LAZY_REFCOUNTS != 0
    }

    /// The bitmaps extension is current. If it isn't, QEMU ignores it.
    pub(crate) fn bitmaps_are_current(self) -> bool {
        self.autoclear & BITMAPS != 0
    }

    /// The incompatible bits that this crate doesn't support.
    pub(crate) fn unknown(self) -> u64 {
        self.incompatible & !KNOWN
    }
}

/// The names of incompatible feature bits. A reader doesn't need the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeatureNames(Vec<(u32, String)>);

impl FeatureNames {
    /// Reads the table as QEMU does: up to the first entry without a name, and with the first of several names for a
    /// bit.
    pub(crate) fn read(table: &[u8]) -> Self {
        let mut names = Vec::<(u32, String)>::new();
        for entry in table.chunks_exact(NAME_ENTRY) {
            let name = string(&entry[2..]);
            if name.is_empty() {
                break;
            }
            let (kind, bit) = (entry[0], u32::from(entry[1]));
            if kind == 0 && bit < 64 && names.iter().all(|&(named, _)| named != bit) {
                names.push((bit, printable(name)));
            }
        }
        Self(names)
    }

    /// Describes these bits by name, or by number if they have none.
    pub(crate) fn of(&self, bits: u64) -> String {
        let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
        let word = |bit| match self.0.iter().find(|&&(named, _)| named == bit) {
            Some((_, name)) => format!("\"{name}\" (incompatible bit {bit})"),
            None => format!("incompatible bit {bit}"),
        };
        set.map(word).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, bit: u8, name: &[u8]) -> Vec<u8> {
        let mut entry = vec![kind, bit];
        entry.extend_from_slice(name);
        entry.resize(NAME_ENTRY, 0);
        entry
    }

    #[test]
    fn bits_are_named_if_the_table_names_them() {
        let table =
            [entry(1, 5, b"compatible"), entry(0, 5, b"teleport"), entry(0, 5, b"second name"), entry(0, 77, b"none")];
        let names = FeatureNames::read(&table.concat());
        assert_eq!(names.of(1 << 5), "\"teleport\" (incompatible bit 5)");
        assert_eq!(names.of(1 << 5 | 1 << 63), "\"teleport\" (incompatible bit 5), incompatible bit 63");
    }

    #[test]
    fn name_may_fill_its_field_and_empty_name_ends_table() {
        let long = [b'x'; 46];
        let table = [entry(0, 6, &long), entry(0, 7, b""), entry(0, 8, b"behind")].concat();
        let names = FeatureNames::read(&table);
        assert_eq!(names.of(1 << 6), format!("\"{}\" (incompatible bit 6)", "x".repeat(46)));
        assert_eq!(names.of(1 << 8), "incompatible bit 8");
        assert_eq!(FeatureNames::read(&table[..47]), FeatureNames::default());
    }

    #[test]
    fn control_characters_of_names_are_escaped() {
        let names = FeatureNames::read(&entry(0, 9, b"a\x1b[2Jb\xff\nc"));
        assert_eq!(names.of(1 << 9), "\"a\\u{1b}[2Jb\u{fffd}\\nc\" (incompatible bit 9)");
    }
}
