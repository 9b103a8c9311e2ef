//! The cases of the guard: a disk, what is done with it, and what has to come of it.

use std::error::Error;
use std::path::Path;

use xfer_hole_image::{BackingChain, DiskOptions};
use xfer_hole_pipeline::ReadOptions;

use super::{Fragments, Mixture, Tables, carry, count, drain};

/// How often a case is done.
pub const TURNS: u64 = 5;

/// What is counted. No case hashes or inflates: how that is done is left to the processor, and so are its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The tables of a qcow2 image are decoded and walked through: 131,072 entries, 73,728 extents.
    Extents,
    /// Data with zeros among it is read and judged: 16 MiB in blocks of 4 KiB.
    Coalescer,
    /// A fragmented raw disk becomes records, bytes and records again: 2,048 pieces of 4 KiB, and as many holes.
    Codec,
}

impl Case {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Extents, Self::Coalescer, Self::Codec];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Extents => "extents",
            Self::Coalescer => "coalescer",
            Self::Codec => "codec",
        }
    }

    /// The case of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name() == name)
    }

    /// Makes its disk, and does the work on it this many times.
    pub fn run(self, path: &Path, turns: u64) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Extents => Tables { tables: 16 }.make(path)?,
            Self::Coalescer => Mixture { blocks: 4096 }.make(path)?,
            Self::Codec => Fragments { count: 2048 }.make(path)?,
        }
        for _ in 0..turns {
            let chain = BackingChain::open(path, &DiskOptions::default())?;
            let (expected, found) = match self {
                Self::Extents => (73_728, count(&chain)?),
                Self::Coalescer => (2049 * 4096, drain(&chain, ReadOptions::plain(true, 1))?),
                Self::Codec => (4096, carry(&chain)?),
            };
            if found != expected {
                return Err(format!("{found} found, {expected} expected").into());
            }
        }
        Ok(())
    }
}
