//! Disks, read by their extents and written with their holes.
//!
//! ```text
//! Image.extent() ─▶ Plan ─▶ Blocks ─▶ Sift ─▶ records      reading
//!                                     records ─▶ Sink      writing
//! ```
//!
//! An [`Image`] answers what is where, a [`Plan`] turns that into steps, [`Blocks`] reads them interval by interval and
//! finds zeros and digests, [`Sift`] joins the runs to records. A [`Sink`] takes data and holes at their places, and
//! [`Target`] alone decides what becomes of the file or device that was there before.
//!
//! Raw system calls and unsafe code stand in `sys` only.

mod aligned;
mod backing;
mod behind;
mod block;
mod bounds;
mod chain;
mod content;
mod direct;
mod error;
mod extent;
mod fiemap;
mod format;
mod gate;
mod guard;
mod guess;
mod host;
mod info;
mod layer;
mod listed_locks;
mod name;
mod offer;
mod older;
mod opening;
mod outlook;
mod pair;
mod plan;
mod qcow2;
mod quote;
mod raw;
mod remember;
mod same;
mod seek;
mod sift;
mod since;
mod sink;
mod stairs;
mod stamp;
mod survey;
pub mod sys;
mod tally;
mod zero;

pub use aligned::Aligned;
pub use backing::Backing;
pub use block::{Block, Blocks, Part, Payload, Pour, Run, Shape, UNIT, Workers, put};
pub use bounds::Bounds;
pub use chain::Chain;
pub use content::Content;
pub use error::{Error, Kind, Result, reason, shown};
pub use extent::{Extent, Image, Status};
pub use format::Format;
pub use gate::Gate;
pub use host::Host;
pub use info::{BitmapInfo, DataFileInfo, Floors, Info, Qcow2Info, SnapshotInfo};
pub use offer::Offer;
pub use older::{Compared, Older, Since};
pub use opening::Opening;
pub use outlook::{Ahead, Outlook};
pub use pair::{Cover, Pair, PairOptions};
pub use plan::{Plan, Step, Want};
pub use raw::Method;
pub use remember::{Identity, Mark, Noting};
pub use sift::{Piece, Sift};
pub use sink::{
    Becomes, Expected, FormatWarning, Holding, Owner, Sink, Target, TargetOptions, Unchanged, parse_mode, parse_owner,
    read_back,
};
pub use stamp::Stamp;
pub use survey::{fingerprint, record_lines, survey};
pub use tally::{Phase, Tally};
