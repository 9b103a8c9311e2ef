//! A guest's file system, made of what this machine has in /usr.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Told};
use crate::tool::{self, text};

/// Where the tree is taken from.
const TREE: &str = "/usr";

/// An ext4 of `size` bytes, with files of /usr in it that take about `used` bytes; all of them, if there are less.
///
/// # Errors
/// If files can't be copied, or mkfs.ext4 fails.
pub fn make(to: &Path, size: u64, used: u64) -> Result<()> {
    let stage = to.with_extension("stage");
    let made = fill(&stage, used).and_then(|()| file_system(to, size, &stage));
    let _made = fs::remove_dir_all(&stage);
    made
}

fn file_system(to: &Path, size: u64, stage: &Path) -> Result<()> {
    crate::disk::empty(to, size)?;
    let program = tool::find("mkfs.ext4").ok_or_else(|| Error::new("mkfs.ext4 isn't installed"))?;
    // What mkfs would choose by itself is chosen here, so that the disk doesn't depend on time and chance.
    let options = "hash_seed=00000000-0000-0000-0000-000000000001,lazy_itable_init=1";
    let uuid = "00000000-0000-0000-0000-000000000002";
    tool::run(text(&program)?, ["-q", "-F", "-E", options, "-U", uuid, "-d", text(stage)?, text(to)?]).map(drop)
}

/// Copies files in the order of their names, until they take that much.
fn fill(stage: &Path, used: u64) -> Result<()> {
    fs::create_dir_all(stage).told(stage.display())?;
    let mut left = used;
    let mut open = vec![PathBuf::from(TREE)];
    while let Some(folder) = open.pop() {
        // What can't be read is left out: it is a tree like any other without it.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        let here = stage.join(folder.strip_prefix(TREE).unwrap_or(&folder));
        fs::create_dir_all(&here).told(here.display())?;
        for path in entries {
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            if about.is_dir() {
                open.push(path);
                continue;
            }
            let room = about.blocks() * 512;
            // A file that would be most of the disk makes no file system of it.
            if !about.is_file() || room > used / 8 {
                continue;
            }
            if room > left {
                return Ok(());
            }
            let to = here.join(path.file_name().unwrap_or_default());
            if fs::copy(&path, &to).is_ok() {
                left -= room;
            }
        }
    }
    Ok(())
}
