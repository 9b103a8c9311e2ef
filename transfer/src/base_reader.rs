//! Computes the fingerprint of what a target holds, before parts of it are kept: it has to be the older disk that the
//! stream builds on.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use xfer_hole_image::{BackingChain, ImageFile, Raw};
use xfer_hole_os::{DiskError, Result};
use xfer_hole_pipeline::{ProgressCounters, fingerprint};
use xfer_hole_proto::{Fingerprint, HashParams};

use crate::fingerprint_cache::CacheKey;

/// Returns the fingerprint of the first `size` bytes of an open file or device ([`xfer_hole_target::BaseReader`]). With
/// `recalls`, a noted fingerprint is used if the file has not changed since; otherwise the file is read.
///
/// # Errors
///
/// Read errors, and a file that changes while it is read.
pub fn read_base(file: &File, path: &Path, size: u64, params: HashParams, recalls: bool) -> Result<Fingerprint> {
    let again = file.try_clone().map_err(|source| DiskError::io(path, "cannot open", source))?;
    // The file is flushed first, so that a later change to it can be detected.
    let image_file = ImageFile::of(again, path, None)?.flush();
    let disk = BackingChain::of_layers(vec![Arc::new(Raw::of(image_file, None)?)], size);
    let key = if recalls { CacheKey::of_chain(&disk, SystemTime::now()) } else { None };
    match key.and_then(|key| key.recall(params)) {
        Some(digest) => Ok(Fingerprint { sums: params, digest }),
        None => fingerprint(&disk, params, &ProgressCounters::default()),
    }
}
