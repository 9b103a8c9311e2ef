//! Records on their way out: lines and small payloads are gathered, large payloads go past the gathering.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Encoder;
use xfer_hole_image::{Tally, sys};
use xfer_hole_proto::{Dialect, Fingerprint, Item, Record, StreamEncoder};

use crate::error::Error;

/// Octets that are gathered before they are written.
const GATHER: usize = 256 << 10;
/// Payloads of this many octets are not gathered: writing them from where they are is cheaper than copying them.
const LARGE: usize = 32 << 10;
/// The pipe we ask for: fewer switches between the two ends.
const PIPE: i32 = 1 << 20;

/// The stream, on its way to a descriptor.
pub(crate) struct Wire {
    out: File,
    encoder: StreamEncoder,
    gathered: BytesMut,
    tally: Arc<Tally>,
}

impl Wire {
    /// A stream to standard output.
    pub(crate) fn stdout(dialect: Dialect, tally: Arc<Tally>) -> Result<Self, Error> {
        let out: File = io::stdout().as_fd().try_clone_to_owned().map_err(Error::output)?.into();
        sys::enlarge_pipe(out.as_fd(), PIPE);
        Ok(Self { out, encoder: StreamEncoder::new(dialect), gathered: BytesMut::with_capacity(2 * GATHER), tally })
    }

    /// A line without payload.
    pub(crate) fn line(&mut self, item: Item) -> Result<(), Error> {
        self.encoder.encode(item, &mut self.gathered)?;
        self.flush_if(GATHER)
    }

    /// A record and its payload.
    pub(crate) fn record(&mut self, record: Record, payload: Bytes) -> Result<(), Error> {
        self.encoder.encode(Item::Record(record), &mut self.gathered)?;
        if payload.len() < LARGE {
            if !payload.is_empty() {
                self.encoder.encode(Item::Payload(payload), &mut self.gathered)?;
            }
            return self.flush_if(GATHER);
        }
        self.encoder.payload_passed(payload.len() as u64)?;
        self.flush()?;
        self.write(&payload)
    }

    /// END, and all that was gathered.
    pub(crate) fn end(&mut self) -> Result<Option<Fingerprint>, Error> {
        self.line(Item::End(self.encoder.end()))?;
        self.flush()?;
        Ok(self.encoder.fingerprint())
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let gathered = self.gathered.split();
        let written = self.write(&gathered);
        drop(gathered);
        self.gathered.reserve(2 * GATHER);
        written
    }

    fn flush_if(&mut self, full: usize) -> Result<(), Error> {
        if self.gathered.len() >= full { self.flush() } else { Ok(()) }
    }

    fn write(&self, octets: &[u8]) -> Result<(), Error> {
        sys::write_all(&self.out, octets).map_err(Error::output)?;
        self.tally.add_wire(octets.len() as u64);
        Ok(())
    }
}
