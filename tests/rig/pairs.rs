//! Covering arrays: rows of a table of choices that contain every pair of values of two choices, without being all
//! rows.

use std::collections::BTreeSet;

/// Two choices and their values: first choice, its value, second choice, its value.
type Pair = (usize, usize, usize, usize);

/// Returns rows with one value per choice, such that every allowed pair of values is in a row. `counts` are the
/// numbers of values of the choices; `allowed` tells whether two values (as choice and value) may be combined; among
/// equally good rows, the one with the lowest `cost` is taken.
pub fn pairwise(
    counts: &[usize],
    allowed: impl Fn((usize, usize), (usize, usize)) -> bool,
    cost: impl Fn(&[usize]) -> u64,
) -> Vec<Vec<usize>> {
    let rows: Vec<_> =
        product(counts).into_iter().filter(|row| pairs(row).iter().all(|pair| may(&allowed, pair))).collect();
    let mut open: BTreeSet<Pair> = rows.iter().flat_map(|row| pairs(row)).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let gain = |row: &[usize]| pairs(row).iter().filter(|pair| open.contains(pair)).count();
        let best = rows.iter().max_by_key(|row| (gain(row), std::cmp::Reverse(cost(row)))).unwrap().clone();
        for pair in pairs(&best) {
            open.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

/// All pairs of a row.
pub fn pairs(row: &[usize]) -> Vec<Pair> {
    let second = |first: usize| (first + 1..row.len()).map(move |second| (first, row[first], second, row[second]));
    (0..row.len()).flat_map(second).collect()
}

fn may(allowed: impl Fn((usize, usize), (usize, usize)) -> bool, pair: &Pair) -> bool {
    allowed((pair.0, pair.1), (pair.2, pair.3))
}

/// All rows.
pub fn product(counts: &[usize]) -> Vec<Vec<usize>> {
    let longer = |rows: Vec<Vec<usize>>, &count: &usize| {
        let with = |row: &Vec<usize>, value| row.iter().copied().chain([value]).collect::<Vec<_>>();
        rows.iter().flat_map(|row| (0..count).map(move |value| with(row, value))).collect()
    };
    counts.iter().fold(vec![Vec::new()], longer)
}
