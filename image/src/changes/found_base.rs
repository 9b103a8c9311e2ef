//! An older state of a disk that was found in its image or chain.

use std::sync::Arc;

use crate::changes::change_tracker::ChangeTracker;
use crate::layer::Layer;
use crate::probe::Format;

/// An older state that was found.
#[derive(Debug)]
pub(crate) struct FoundBase {
    pub(crate) older: Box<dyn ChangeTracker>,
    /// The layers of the disk as it was then, top first, and what its top is, where they are still to be had.
    pub(crate) disk: Option<(Vec<Arc<dyn Layer>>, Format)>,
}
