//! A pipe, a character device or standard output: the full octets in order, holes as zeros.

use std::fs::File;
use std::path::PathBuf;

use crate::sink::{Sink, write_zeros};
use crate::{Error, Kind, Result, sys};

/// Octets one after the other. Must be called in order, as a stream of records is.
pub(crate) struct Stream {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) sync: bool,
}

impl Stream {
    fn write(&self, octets: &[u8]) -> Result<()> {
        sys::write_all(&self.file, octets).map_err(|source| Error::io(&self.path, "cannot write", source))
    }
}

impl Sink for Stream {
    fn data(&self, _at: u64, octets: &[u8]) -> Result<()> {
        self.write(octets)
    }

    fn is_positional(&self) -> bool {
        false
    }

    fn hole(&self, at: u64, len: u64) -> Result<()> {
        write_zeros(at, len, |_, zeros| self.write(zeros))
    }

    fn keep(&self, _at: u64, _len: u64) -> Result<()> {
        Err(Error::new(Kind::Refused, &self.path, "nothing can be kept in what is written from its beginning"))
    }

    fn remains(&self) -> String {
        "what was written is not whole".into()
    }

    fn finish(self: Box<Self>, _size: u64) -> Result<Vec<String>> {
        let regular = self.file.metadata().is_ok_and(|stat| stat.is_file());
        if self.sync && regular {
            self.file.sync_all().map_err(|source| Error::io(&self.path, "cannot sync", source))?;
        }
        Ok(Vec::new())
    }
}
