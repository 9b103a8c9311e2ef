//! The canonical form by the letter of SPEC.md: cut into blocks, judge each, join what is alike.

use xfer_hole_proto::{Digest, HashParams};

/// What a disk's records are to say: lengths in octets, and the digests of data; without one it is a hole.
pub(crate) fn form(octets: &[u8], sums: HashParams) -> Vec<(u64, Option<Digest>)> {
    let [interval, grain] = [sums.interval(), sums.grain()].map(|octets| usize::try_from(octets).unwrap());
    let mut runs: Vec<(bool, usize, usize)> = Vec::new();
    for start in (0..octets.len()).step_by(grain) {
        let end = (start + grain).min(octets.len());
        let data = octets[start..end].iter().any(|&octet| octet != 0);
        match runs.last_mut() {
            Some((kind, _, last)) if *kind == data && !(data && start % interval == 0) => *last = end,
            _ => runs.push((data, start, end)),
        }
    }
    let told = |(data, start, end): (bool, usize, usize)| {
        ((end - start) as u64, data.then(|| Digest::of(&octets[start..end])))
    };
    runs.into_iter().map(told).collect()
}
