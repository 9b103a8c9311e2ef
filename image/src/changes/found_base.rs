//! An older state of a disk that was found in its image or chain.

use std::sync::Arc;

use crate::changes::change_tracker::ChangeTracker;
use crate::layer::Layer;
use crate::probe::Format;

/// An older state that was found.
#[derive(Debug)]
pub(crate) struct FoundBase {
    pub(crate) older: Box<dyn ChangeTracker>,
    /// The layers of the older disk, top first, and the format of its top layer, if the image still has them.
    pub(crate) disk: Option<(Vec<Arc<dyn Layer>>, Format)>,
}
