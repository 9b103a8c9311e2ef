//! A child and its parent, two sparse raw files of a chain, and the expected results of fold and prune.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{TestDisk, extents, tool};

/// Both files, and the test disks they were made from.
#[derive(Debug)]
pub struct Layers {
    /// The path of `child.img`.
    pub child: PathBuf,
    /// The path of `parent.img`.
    pub parent: PathBuf,
    made: [TestDisk; 2],
    /// The block sizes of their file systems in bytes, the child's first.
    blocks: [u64; 2],
}

impl Layers {
    /// Makes both files in one directory.
    pub fn make(folder: &Path, child: &TestDisk, parent: &TestDisk) -> Self {
        Self::apart([folder, folder], child, parent)
    }

    /// Makes each file in its own directory, the child's first.
    pub fn apart(folders: [&Path; 2], child: &TestDisk, parent: &TestDisk) -> Self {
        let paths = [folders[0].join("child.img"), folders[1].join("parent.img")];
        child.make(&paths[0]);
        parent.make(&paths[1]);
        let blocks = [&paths[0], &paths[1]].map(|path| fs::metadata(path).unwrap().blksize());
        let [child_path, parent_path] = paths;
        Self { child: child_path, parent: parent_path, made: [child.clone(), parent.clone()], blocks }
    }

    /// Makes both files from letters, one for each block of 4096 bytes: D for data, H for a hole.
    pub fn of_letters(folder: &Path, child: &str, parent: &str) -> Self {
        Self::make(folder, &lettered(child, 1), &lettered(parent, 2))
    }

    /// Allocates unwritten space in the child, and reads the whole child.
    pub fn preallocate(&self, at: u64, len: u64) {
        let (at, len) = (at.to_string(), len.to_string());
        drop(tool("fallocate", &["-n", "-o", &at, "-l", &len, self.child.to_str().unwrap()]));
        drop(fs::read(&self.child).unwrap());
    }

    /// The bytes that are read through the child, as the files were made.
    pub fn overlay(&self) -> Vec<u8> {
        self.over(self.made[1].bytes())
    }

    /// The bytes that are read through the child, with these bytes in the parent.
    fn over(&self, mut below: Vec<u8>) -> Vec<u8> {
        let bytes = self.made[0].bytes();
        below.resize(bytes.len(), 0);
        self.each_of_child(bytes.len(), |range| below[range.clone()].copy_from_slice(&bytes[range]));
        below
    }

    /// Calls `each` with the child's data ranges within its first `bytes` bytes.
    fn each_of_child(&self, bytes: usize, mut each: impl FnMut(std::ops::Range<usize>)) {
        let block = self.blocks[0];
        for index in blocks_of(&self.made[0], block) {
            let at = usize::try_from(index * block).unwrap();
            let end = bytes.min(at + usize::try_from(block).unwrap());
            if at < end {
                each(at..end);
            }
        }
    }

    /// Fails unless the parent holds the data of both files and nothing else.
    #[track_caller]
    pub fn folded(&self, what: &str) {
        assert!(fs::read(&self.parent).unwrap() == self.overlay(), "other bytes: {what}");
        if self.blocks[0] == self.blocks[1] {
            let [child, parent] = [0, 1].map(|n| blocks_of(&self.made[n], self.blocks[n]));
            assert_eq!(self.blocks_of_parent(), &child | &parent, "blocks with data: {what}");
        }
    }

    /// Fails unless the parent lost the ranges that the child has, and nothing else.
    #[track_caller]
    pub fn pruned(&self, what: &str) {
        let mut expected = self.made[1].bytes();
        self.each_of_child(expected.len(), |range| expected[range].fill(0));
        expected.resize(self.made[0].bytes().len(), 0);
        let found = fs::read(&self.parent).unwrap();
        assert!(found == expected, "other bytes: {what}");
        assert!(self.over(found) == self.overlay(), "read through the child: {what}");
        if self.blocks[0] == self.blocks[1] {
            let [child, parent] = [0, 1].map(|n| blocks_of(&self.made[n], self.blocks[n]));
            assert_eq!(self.blocks_of_parent(), &parent - &child, "blocks with data: {what}");
        }
    }

    fn blocks_of_parent(&self) -> BTreeSet<u64> {
        let extents = extents(&self.parent).into_iter();
        extents.flat_map(|(at, len)| touched(at, len, self.blocks[1])).collect()
    }
}

fn lettered(letters: &str, seed: u8) -> TestDisk {
    let size = 4096 * u64::try_from(letters.len()).unwrap();
    let data = (0..).zip(letters.chars()).filter(|(_, letter)| *letter == 'D');
    data.fold(TestDisk::empty(size), |disk, (index, _)| disk.with(index * 4096, 4096, seed))
}

/// The indexes of the file system blocks that a range covers.
fn touched(at: u64, len: u64, block: u64) -> std::ops::Range<u64> {
    at / block..(at + len).div_ceil(block)
}

fn blocks_of(disk: &TestDisk, block: u64) -> BTreeSet<u64> {
    let data = disk.data.iter().filter(|(_, len, _)| *len > 0);
    data.flat_map(|&(at, len, _)| touched(at, len, block)).collect()
}
