//! The canonical form, computed as SPEC.md describes it: cut the disk into blocks, classify each, and join equal
//! neighbours.

use xfer_hole_proto::{Digest, HashParams};

/// Returns the expected records of a disk: lengths in bytes, and the digests of data. Holes have no digest.
pub(crate) fn form(bytes: &[u8], params: HashParams) -> Vec<(u64, Option<Digest>)> {
    let [interval, grain] = [params.interval(), params.grain()].map(|bytes| usize::try_from(bytes).unwrap());
    let mut segments: Vec<(bool, usize, usize)> = Vec::new();
    for start in (0..bytes.len()).step_by(grain) {
        let end = (start + grain).min(bytes.len());
        let data = bytes[start..end].iter().any(|&byte| byte != 0);
        match segments.last_mut() {
            Some((kind, _, last)) if *kind == data && !(data && start % interval == 0) => *last = end,
            _ => segments.push((data, start, end)),
        }
    }
    let record =
        |(data, start, end): (bool, usize, usize)| ((end - start) as u64, data.then(|| Digest::of(&bytes[start..end])));
    segments.into_iter().map(record).collect()
}
