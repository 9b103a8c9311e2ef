//! A folder of test vectors: an index, and the files that it lists, in `good` and in `bad`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The name of the folder in the crate's `vectors` folder.
pub(crate) struct Folder(pub(crate) &'static str);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.0).join(name)
    }

    pub(crate) fn index<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&fs::read(self.path("index.json")).unwrap()).unwrap()
    }

    /// The bytes of a vector.
    pub(crate) fn read(&self, group: &str, name: &str) -> Vec<u8> {
        fs::read(self.path(group).join(name)).unwrap()
    }

    /// Fails unless the index lists exactly the files that exist, and their names are sentences in snake case.
    pub(crate) fn assert_named<G, B>(&self, good: &BTreeMap<String, G>, bad: &BTreeMap<String, B>) {
        for (group, told) in [("good", good.keys().collect::<BTreeSet<_>>()), ("bad", bad.keys().collect())] {
            let file = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            let there: BTreeSet<_> = fs::read_dir(self.path(group)).unwrap().map(file).collect();
            assert_eq!(there.iter().collect::<BTreeSet<_>>(), told, "{group}");
            for name in there {
                assert!(name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
            }
        }
    }
}
