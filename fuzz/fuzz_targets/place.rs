//! Where an image under test lies.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The image under test, alone in a folder of its own, in memory.
pub static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/xfer-hole-fuzz.{}", std::process::id()));
    fs::create_dir_all(&folder).expect("/dev/shm is needed");
    folder.join("image.qcow2")
});
