//! Small disks, and the work that is done on them: what the micro-benchmarks time and the guard counts.

mod case;
mod disk;
mod work;

pub use case::{Case, TURNS};
pub use disk::{Fragments, Mixture, Tables};
pub use work::{carry, count, drain};
