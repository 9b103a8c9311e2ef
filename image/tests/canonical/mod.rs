//! The canonical form by the letter of SPEC.md.

/// Its runs: whether one is data, where it begins, and where it ends, in octets.
pub(crate) fn runs(octets: &[u8], interval: usize, grain: usize) -> Vec<(bool, usize, usize)> {
    let mut runs: Vec<(bool, usize, usize)> = Vec::new();
    for start in (0..octets.len()).step_by(grain) {
        let end = (start + grain).min(octets.len());
        let data = octets[start..end].iter().any(|&octet| octet != 0);
        match runs.last_mut() {
            Some((kind, _, last)) if *kind == data && !(data && start % interval == 0) => *last = end,
            _ => runs.push((data, start, end)),
        }
    }
    runs
}
