//! A piece of a table, decoded: neighbours with one answer are one run.

/// What the entries of a piece of a table say, as runs. Counted in units: whatever an entry, or a part of one, stands for.
#[derive(Debug)]
pub(crate) struct RunMap<M> {
    runs: Vec<(u32, M)>,
    end: u32,
}

/// A part of a run, from where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunPart<M> {
    /// What its beginning says.
    pub(crate) what: M,
    /// Units between its beginning and where it was asked for.
    pub(crate) passed: u32,
    /// Units from there to its end.
    pub(crate) left: u32,
}

impl<M> Default for RunMap<M> {
    fn default() -> Self {
        Self { runs: Vec::new(), end: 0 }
    }
}

impl<M: Copy> RunMap<M> {
    /// Adds `units` that say `what`, to the run before if `joins` says so of how that began and how many units it has.
    pub(crate) fn push(&mut self, units: u32, what: M, joins: impl FnOnce(M, u32) -> bool) {
        let joined = self.runs.last().is_some_and(|&(first, before)| joins(before, self.end - first));
        if !joined {
            self.runs.push((self.end, what));
        }
        self.end += units;
    }

    /// The run that unit `at` lies in; `None` behind the last.
    pub(crate) fn find(&self, at: u32) -> Option<RunPart<M>> {
        let next = self.runs.partition_point(|&(first, _)| first <= at);
        let end = self.runs.get(next).map_or(self.end, |&(first, _)| first);
        let &(first, what) = self.runs.get(next.checked_sub(1)?)?;
        (at < end).then(|| RunPart { what, passed: at - first, left: end - at })
    }

    /// What they take in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.runs.capacity() * size_of::<(u32, M)>()
    }

    /// Lets go of room for runs that don't come.
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
        fn every_unit_is_found_with_what_was_said_of_it(said in prop::collection::vec((1..9_u32, 0..3_u8), 0..20)) {
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
                // Neighbours are joined: a run goes as far as it can.
                prop_assert!(units.get(end) != Some(&what) && (first == 0 || units[first - 1] != what));
            }
            prop_assert_eq!(runs.find(units.len() as u32), None);
        }
    }
}
