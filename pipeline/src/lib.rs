//! From a disk to segments of data, zeros and unchanged bytes: plans, parallel reading, zero detection and digests.
//!
//! [`Plan`] decides what happens to each extent, [`WorkSplitter`] cuts it into work units, [`SerialReader`] or
//! [`ParallelReader`] reads them into batches of segments, and [`Coalescer`] makes one piece of each future record.

mod base_matcher;
mod buffer_pool;
mod coalescer;
mod data_estimate;
mod hash_disk;
mod parallel_reader;
mod payload;
mod plan;
mod progress_counters;
mod read_options;
mod segment;
mod serial_reader;
mod unit_reader;
mod work_unit;
mod zero_detector;

pub use base_matcher::BaseMatcher;
pub use coalescer::{Coalescer, Piece};
pub use data_estimate::{DataEstimate, DataEstimator};
pub use hash_disk::{fingerprint, hash_disk, record_lines};
pub use parallel_reader::ParallelReader;
pub use payload::{Payload, PayloadPart};
pub use plan::{Action, Plan, Step};
pub use progress_counters::{Phase, ProgressCounters};
pub use read_options::{ReadOptions, UNIT};
pub use segment::{Segment, SegmentBatch};
pub use serial_reader::SerialReader;
pub use work_unit::{UnitPart, UnitSource, WorkSplitter, WorkUnit};
pub use zero_detector::ZeroDetector;
