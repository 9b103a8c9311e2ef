//! The paths of cached fingerprints.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use xfer_hole_proto::Digest;

/// The cache file for an image that exists, in a cache directory such as `~/.cache`.
pub fn note_in(cache: &Path, image: &Path) -> PathBuf {
    let image = fs::canonicalize(image).unwrap();
    cache.join("xfer-hole").join(format!("{}.fingerprint", Digest::of(image.as_os_str().as_bytes())))
}

/// The cache file for an image, as used by tools that this test starts.
pub fn note_of(image: &Path) -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    note_in(&absolute("XDG_CACHE_HOME").unwrap_or_else(|| absolute("HOME").unwrap().join(".cache")), image)
}
