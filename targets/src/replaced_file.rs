//! The file that a new one replaces, if parts of it are kept.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, Stamp, is_zero, settle, sys};

/// Bytes per read. A block of [`GRAIN`] zero bytes stays a hole.
const COPY: usize = 256 << 10;
const GRAIN: usize = 4 << 10;

/// The existing DEST, from which kept bytes are read. It is opened after `DEST.part` was locked: until then, another
/// receiver may replace it.
pub(crate) struct ReplacedFile {
    pub file: File,
    stamp: Stamp,
    kept: AtomicBool,
}

impl ReplacedFile {
    pub(crate) fn open(dest: &Path) -> Result<Self> {
        let failed = |source| DiskError::io(dest, "cannot read what is to be kept", source);
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(dest);
        let file = file.map_err(failed)?;
        // Without this, data with delayed allocation could look like a hole. It is done before the stamp is taken,
        // since it may change the times.
        settle(&file).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        Ok(Self { file, stamp, kept: AtomicBool::new(false) })
    }

    /// Opens DEST if it is a regular file that can be read. A file that can't be read is replaced, as without a delta.
    pub(crate) fn open_if_there(dest: &Path) -> Result<Option<Self>> {
        match Self::open(dest) {
            Ok(old) => Ok(old.file.metadata().is_ok_and(|stat| stat.is_file()).then_some(old)),
            Err(error) => match error.system().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Records that parts of the file are kept.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Fails if parts of the file were kept and DEST has changed since it was opened.
    pub(crate) fn check_unchanged(&self, dest: &Path) -> Result<()> {
        if !self.kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = fs::metadata(dest).map(|stat| Stamp::of(&stat));
        match now.is_ok_and(|now| now == self.stamp) {
            true => Ok(()),
            false => Err(DiskError::new(DiskErrorKind::Changed, dest, "changed while parts of it were kept")),
        }
    }

    /// Calls `write` with the data of the `len` bytes at `at`. Blocks of zeros are left out.
    pub(crate) fn read_data(
        &self,
        dest: &Path,
        at: u64,
        len: u64,
        mut write: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.keep();
        let failed =
            |source| DiskError::io(dest, format!("cannot read what is to be kept at disk offset {at}"), source);
        let mut buffer = vec![0; COPY];
        let (start, mut at, end) = (at, at, at + len);
        while at < end {
            // If the file system can't tell holes, everything is read and zeros are found by content. Blocks are
            // counted from the start of the KEEP record, as `dd conv=sparse` does, so that recv-hole.sh makes the same
            // file.
            let data = sys::seek_data(&self.file, at).unwrap_or(Some(at)).filter(|&data| data < end);
            at = data.map_or(end, |data| data - (data - start) % GRAIN as u64);
            let chunk = usize::try_from(end - at).unwrap_or(usize::MAX).min(COPY);
            let bytes = &mut buffer[..chunk];
            self.file.read_exact_at(bytes, at).map_err(failed)?;
            // Adjacent blocks of the same kind are written together.
            let mut blocks = bytes.chunks(GRAIN).map(|block| (block.len(), is_zero(block))).peekable();
            let mut from = 0;
            while let Some((mut merged, zero)) = blocks.next() {
                while let Some((len, _)) = blocks.next_if(|&(_, other)| other == zero) {
                    merged += len;
                }
                if !zero {
                    write(at + from as u64, &bytes[from..from + merged])?;
                }
                from += merged;
            }
            at += from as u64;
        }
        Ok(())
    }
}
