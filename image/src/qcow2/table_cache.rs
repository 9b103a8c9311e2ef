//! A cache of decoded table pieces with bounded memory, shared by all layers of a chain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xfer_hole_os::Result;

use crate::qcow2::entry::Mapping;
use crate::qcow2::geometry::HostOffset;
use crate::qcow2::run_map::RunMap;

/// The memory in bytes that a piece takes in addition to its runs.
const OVERHEAD: usize = 160;

/// Identifies a piece of a table: the layer's number, and the offset of the piece in that layer's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    pub(crate) layer: u32,
    pub(crate) piece: HostOffset,
}

/// The caches for the tables of a whole chain.
#[derive(Debug)]
pub(crate) struct ChainTables {
    /// Decoded L1 tables: offsets of L2 tables.
    pub(crate) l1: TableCache<Option<HostOffset>>,
    pub(crate) l2: TableCache<Mapping>,
}

impl Default for ChainTables {
    fn default() -> Self {
        Self { l1: TableCache::new(2 << 20), l2: TableCache::new(8 << 20) }
    }
}

/// A cache with two generations. A piece that is used moves to the young generation. When that is full, the old
/// generation is dropped and the young one becomes the old one.
#[derive(Debug)]
pub(crate) struct TableCache<M> {
    /// The maximum memory of the decoded pieces, in bytes.
    bound: usize,
    generations: Mutex<CacheGenerations<M>>,
}

#[derive(Debug)]
struct CacheGenerations<M> {
    young: HashMap<TableKey, Arc<RunMap<M>>>,
    old: HashMap<TableKey, Arc<RunMap<M>>>,
    /// The memory of the young generation, in bytes.
    bytes: usize,
    /// The piece that was used last, which is mostly used next too.
    last: Option<(TableKey, Arc<RunMap<M>>)>,
}

impl<M: Copy> TableCache<M> {
    fn new(bound: usize) -> Self {
        let generations = CacheGenerations { young: HashMap::new(), old: HashMap::new(), bytes: 0, last: None };
        Self { bound, generations: Mutex::new(generations) }
    }

    /// Returns the piece with this key. If it is not cached, `load` reads it. Two threads that need it at the same time
    /// may both read it.
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
    fn cache_is_bounded_and_keeps_pieces_in_use() {
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
