//! A pipe, a character device or standard output. All bytes are written in order, holes as zeros.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, sys};

use crate::disk_writer::{DiskWriter, write_zeros};

/// Writes bytes in order, without offsets. Calls have to be in the order of the disk.
pub(crate) struct PipeWriter {
    pub file: File,
    pub path: PathBuf,
    pub sync: bool,
}

/// Time between two checks for a reader.
const LOOK: Duration = Duration::from_millis(100);

impl PipeWriter {
    /// Opens a fifo or a character device. With `patience`, waits at most that long for a reader of a fifo, and only
    /// while standard output has a reader.
    pub(crate) fn open(path: PathBuf, sync: bool, patience: Option<Duration>) -> Result<Self> {
        let file = match patience {
            Some(patience) => open_for_reader(&path, patience, || sys::is_deserted(io::stdout()))?,
            None => {
                let opened = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(&path);
                opened.map_err(|source| DiskError::io(&path, "cannot open", source))?
            }
        };
        Ok(Self { file, path, sync })
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        sys::write_all(&self.file, bytes).map_err(|source| DiskError::io(&self.path, "cannot write", source))
    }
}

/// Opens a fifo or a character device. Waits for a reader of a fifo, for at most `patience`, and only until `is_gone`
/// returns true.
pub(crate) fn open_for_reader(path: &Path, patience: Duration, is_gone: impl Fn() -> bool) -> Result<File> {
    let failed = |source| DiskError::io(path, "cannot open", source);
    let mut how = OpenOptions::new();
    how.write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    let begun = Instant::now();
    loop {
        match how.open(path) {
            Ok(file) => {
                sys::set_blocking(&file).map_err(failed)?;
                return Ok(file);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_fifo(path) => {
                if is_gone() {
                    return Err(DiskError::new(DiskErrorKind::Refused, path, "was not opened: the sender is gone"));
                }
                if begun.elapsed() >= patience {
                    let seconds = patience.as_secs();
                    let what = format!("is a fifo that no program has opened for reading for {seconds} seconds");
                    return Err(DiskError::new(DiskErrorKind::Refused, path, what));
                }
                thread::sleep(LOOK);
            }
            Err(source) => return Err(failed(source)),
        }
    }
}

fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|stat| stat.file_type().is_fifo())
}

impl DiskWriter for PipeWriter {
    fn write_at(&self, _at: u64, bytes: &[u8]) -> Result<()> {
        self.write(bytes)
    }

    fn is_positional(&self) -> bool {
        false
    }

    fn zero_range(&self, at: u64, len: u64) -> Result<()> {
        write_zeros(at, len, |_, zeros| self.write(zeros))
    }

    fn keep_existing(&self, _at: u64, _len: u64) -> Result<()> {
        Err(DiskError::new(
            DiskErrorKind::Refused,
            &self.path,
            "nothing can be kept in what is written from its beginning",
        ))
    }

    fn leftover_message(&self) -> String {
        "what was written is not whole".into()
    }

    fn commit(self: Box<Self>, _size: u64) -> Result<Vec<String>> {
        let regular = self.file.metadata().is_ok_and(|stat| stat.is_file());
        if self.sync && regular {
            self.file.sync_all().map_err(|source| DiskError::io(&self.path, "cannot sync", source))?;
        }
        Ok(Vec::new())
    }
}
