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
//! Raw system calls and unsafe code stand in `sys.rs` only.

mod block;
mod error;
mod extent;
mod fiemap;
mod plan;
mod raw;
mod sift;
mod sink;
mod stamp;
pub mod sys;
mod tally;
mod zero;

pub use block::{Block, Blocks, Payload, Run, Shape, UNIT};
pub use error::{Error, Kind, Result, reason, shown};
pub use extent::{Extent, Image, Status};
pub use plan::{Plan, Step, Want};
pub use raw::{Method, Raw};
pub use sift::{Piece, Sift};
pub use sink::{Sink, Target, TargetOptions};
pub use stamp::Stamp;
pub use tally::Tally;
