//! A decoded piece of a table, as a list of runs: adjacent entries with equal meaning are one run.

/// The meaning of the entries of a piece of a table, as runs. Lengths are in units: a unit is an entry, or a part of an
/// entry such as a subcluster.
#[derive(Debug)]
pub(crate) struct RunMap<M> {
    runs: Vec<(u32, M)>,
    end: u32,
}

/// The part of a run from a given unit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunPart<M> {
    /// The meaning of the run's first unit.
    pub(crate) what: M,
    /// The number of units of the run before the given unit.
    pub(crate) passed: u32,
    /// The number of units of the run from the given unit on.
    pub(crate) left: u32,
}

impl<M> Default for RunMap<M> {
    fn default() -> Self {
        Self { runs: Vec::new(), end: 0 }
    }
}

impl<M: Copy> RunMap<M> {
    /// Appends `units` with the meaning `what`. They extend the last run if `joins` returns true for its meaning and
    /// its number of units.
    pub(crate) fn push(&mut self, units: u32, what: M, joins: impl FnOnce(M, u32) -> bool) {
        let joined = self.runs.last().is_some_and(|&(first, before)| joins(before, self.end - first));
        if !joined {
            self.runs.push((self.end, what));
        }
        self.end += units;
    }

    /// Finds the run that contains unit `at`. `None` beyond the last run.
    pub(crate) fn find(&self, at: u32) -> Option<RunPart<M>> {
        let next = self.runs.partition_point(|&(first, _)| first <= at);
        let end = self.runs.get(next).map_or(self.end, |&(first, _)| first);
        let &(first, what) = self.runs.get(next.checked_sub(1)?)?;
        (at < end).then(|| RunPart { what, passed: at - first, left: end - at })
    }

    /// The memory that the runs take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.runs.capacity() * size_of::<(u32, M)>()
    }

    /// Ends the list and releases spare memory.
    pub(crate) fn close(mut self) -> Self {
        self.runs.shrink_to_fit();
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_unit_is_found_with_its_meaning(said in prop::collection::vec((1..9_u32, 0..3_u8), 0..20)) {
            let mut runs = RunMap::default();
            let mut units = Vec::new();
            for &(count, what) in &said {
                runs.push(count, what, |before, _| before == what);
                units.extend((0..count).map(|_| what));
            }
            let runs = runs.close();
            for (at, &what) in (0..).zip(&units) {
                let found = runs.find(at).unwrap();
                prop_assert_eq!(found.what, what);
                let (first, end) = ((at - found.passed) as usize, (at + found.left) as usize);
                prop_assert!(units[first..end].iter().all(|&unit| unit == what));
                // Adjacent equal units are in one run.
                prop_assert!(units.get(end) != Some(&what) && (first == 0 || units[first - 1] != what));
            }
            prop_assert_eq!(runs.find(units.len() as u32), None);
        }
    }
}
