//! Reads what a target holds, where parts of it are to be kept: it has to be the older disk that the changes are for.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use xfer_hole_image::{BackingChain, ImageFile, Raw};
use xfer_hole_os::{DiskError, Result};
use xfer_hole_pipeline::{ProgressCounters, fingerprint};
use xfer_hole_proto::{Fingerprint, HashParams};

use crate::fingerprint_cache::CacheKey;

/// The fingerprint of the first `size` bytes of an open file or device ([`xfer_hole_target::BaseReader`]): the one that was noted of it, if
/// `recalls` and it is unchanged since, else by reading.
///
/// # Errors
/// What can't be read, and what changes meanwhile.
pub fn read_base(file: &File, path: &Path, size: u64, sums: HashParams, recalls: bool) -> Result<Fingerprint> {
    let again = file.try_clone().map_err(|source| DiskError::io(path, "cannot open", source))?;
    // A change that comes while parts of it are kept is to be seen.
    let host = ImageFile::of(again, path, None)?.flush();
    let disk = BackingChain::of_layers(vec![Arc::new(Raw::of(host, None)?)], size);
    let key = if recalls { CacheKey::of_chain(&disk, SystemTime::now()) } else { None };
    match key.and_then(|key| key.recall(sums)) {
        Some(digest) => Ok(Fingerprint { sums, digest }),
        None => fingerprint(&disk, sums, &ProgressCounters::default()),
    }
}
