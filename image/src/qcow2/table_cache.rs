//! One bounded cache of decoded table pieces, for all layers of a chain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xfer_hole_os::Result;

use crate::qcow2::entry::Mapping;
use crate::qcow2::geometry::HostOffset;
use crate::qcow2::run_map::RunMap;

/// What a piece costs besides its runs.
const OVERHEAD: usize = 160;

/// Which piece of which table: the layer, and where the piece is in that layer's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    pub(crate) layer: u32,
    pub(crate) piece: HostOffset,
}

/// The tables of a whole chain, as far as they are kept.
#[derive(Debug)]
pub(crate) struct ChainTables {
    /// Offsets of L2 tables.
    pub(crate) l1: TableCache<Option<HostOffset>>,
    pub(crate) l2: TableCache<Mapping>,
}

impl Default for ChainTables {
    fn default() -> Self {
        Self { l1: TableCache::new(2 << 20), l2: TableCache::new(8 << 20) }
    }
}

/// Pieces asked for lately. Two generations: a piece that is asked for moves to the young one, and when that is full, the old
/// one is let go of.
#[derive(Debug)]
pub(crate) struct TableCache<M> {
    /// Bytes of decoded pieces that may be kept.
    bound: usize,
    generations: Mutex<CacheGenerations<M>>,
}

#[derive(Debug)]
struct CacheGenerations<M> {
    young: HashMap<TableKey, Arc<RunMap<M>>>,
    old: HashMap<TableKey, Arc<RunMap<M>>>,
    /// Bytes of the young.
    bytes: usize,
    /// What was asked for last, which is asked for next mostly.
    last: Option<(TableKey, Arc<RunMap<M>>)>,
}

impl<M: Copy> TableCache<M> {
    fn new(bound: usize) -> Self {
        let generations = CacheGenerations { young: HashMap::new(), old: HashMap::new(), bytes: 0, last: None };
        Self { bound, generations: Mutex::new(generations) }
    }

    /// The piece of this key, read by `load` if it isn't here. Two that miss it at once both read it.
    pub(crate) fn get(&self, key: TableKey, load: impl FnOnce() -> Result<RunMap<M>>) -> Result<Arc<RunMap<M>>> {
        if let Some(piece) = self.find(key) {
            return Ok(piece);
        }
        let piece = Arc::new(load()?);
        self.keep(&mut self.lock(), key, &piece);
        Ok(piece)
    }

    fn lock(&self) -> MutexGuard<'_, CacheGenerations<M>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: TableKey) -> Option<Arc<RunMap<M>>> {
        let mut generations = self.lock();
        if let Some((_, piece)) = generations.last.as_ref().filter(|(last, _)| *last == key) {
            return Some(Arc::clone(piece));
        }
        let piece = match generations.young.get(&key) {
            Some(piece) => Arc::clone(piece),
            None => {
                let piece = generations.old.remove(&key)?;
                self.keep(&mut generations, key, &piece);
                piece
            }
        };
        generations.last = Some((key, Arc::clone(&piece)));
        Some(piece)
    }

    fn keep(&self, generations: &mut CacheGenerations<M>, key: TableKey, piece: &Arc<RunMap<M>>) {
        let bytes = piece.bytes() + OVERHEAD;
        if generations.bytes + bytes > self.bound / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.bytes = 0;
        }
        if generations.young.insert(key, Arc::clone(piece)).is_none() {
            generations.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_what_is_asked_for_again_and_again_stays() {
        let cache = TableCache::<Mapping>::new(1 << 20);
        let key = |offset| TableKey { layer: 0, piece: HostOffset(offset) };
        let mut loads = 0;
        for offset in 0..100_000 {
            cache.get(key(offset + 1), || Ok(RunMap::default())).unwrap();
            let often = || {
                loads += 1;
                Ok(RunMap::default())
            };
            cache.get(key(0), often).unwrap();
            let generations = cache.lock();
            assert!((generations.young.len() + generations.old.len()) * OVERHEAD <= 1 << 20);
        }
        assert_eq!(loads, 1);
    }
}
