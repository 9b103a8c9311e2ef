//! qcow2 images with more extents than a tool could write in time: tables, and one cluster of data that all of them point at.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Result, Told};
use crate::seeded::Seeded;

/// Bytes of a cluster, the least that there can be.
const CLUSTER: u64 = 512;
/// Entries of an L2 table.
const ENTRIES: u64 = CLUSTER / 8;

/// An image of `clusters` clusters of 512 bytes: every other one is data, the others are nowhere.
///
/// # Errors
/// If the file can't be written.
pub fn alternating(to: &Path, clusters: u64) -> Result<()> {
    let file = File::create(to).told(to.display())?;
    write(BufWriter::with_capacity(1 << 20, file), clusters).told(to.display())
}

fn write(mut to: impl Write, clusters: u64) -> std::io::Result<()> {
    let tables = clusters.div_ceil(ENTRIES);
    // Header, refcount table, data, L1 table, L2 tables.
    let (refcounts, data, l1) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
    let l2 = l1 + (tables * 8).div_ceil(CLUSTER) * CLUSTER;
    let mut header = Vec::new();
    let number = |header: &mut Vec<u8>, number: u32| header.extend(number.to_be_bytes());
    let long = |header: &mut Vec<u8>, number: u64| header.extend(number.to_be_bytes());
    header.extend(b"QFI\xfb");
    number(&mut header, 3);
    // No backing file.
    long(&mut header, 0);
    number(&mut header, 0);
    number(&mut header, CLUSTER.trailing_zeros());
    long(&mut header, clusters * CLUSTER);
    // Not encrypted.
    number(&mut header, 0);
    number(&mut header, u32::try_from(tables).map_err(std::io::Error::other)?);
    long(&mut header, l1);
    long(&mut header, refcounts);
    number(&mut header, 1);
    // No snapshots, no features.
    number(&mut header, 0);
    long(&mut header, 0);
    (0..3).for_each(|_| long(&mut header, 0));
    // Refcounts of 16 bits; nobody who only reads asks for them.
    number(&mut header, 4);
    number(&mut header, 104);
    header.resize(usize::try_from(data).map_err(std::io::Error::other)?, 0);
    to.write_all(&header)?;
    let mut bytes = [0; CLUSTER as usize];
    Seeded::new(clusters).fill(&mut bytes);
    to.write_all(&bytes)?;
    for table in 0..tables {
        to.write_all(&((1 << 63) | (l2 + table * CLUSTER)).to_be_bytes())?;
    }
    let padding = l2 - l1 - tables * 8;
    to.write_all(&vec![0; usize::try_from(padding).map_err(std::io::Error::other)?])?;
    for at in 0..tables * ENTRIES {
        let entry = if at % 2 == 0 && at < clusters { data } else { 0 };
        to.write_all(&entry.to_be_bytes())?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool;

    #[test]
    fn qemu_sees_every_other_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        alternating(&path, 1001).unwrap();
        let map = tool::run("qemu-img", ["map", "--output", "json", path.to_str().unwrap()]).unwrap();
        assert_eq!(map.matches("\"start\"").count(), 1001);
        assert_eq!(map.matches("\"data\": true").count(), 501);
    }
}
