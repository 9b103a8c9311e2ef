//! Records on their way out: lines and small payloads are gathered, large payloads go past the gathering.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_util::codec::Encoder;
use xfer_hole_image::sys::{self, Spliced};
use xfer_hole_image::{Image, Payload, Tally};
use xfer_hole_proto::{Dialect, Fingerprint, Item, Reason, Record, StreamEncoder};

use crate::error::Error;

/// Octets that are gathered before they are written.
const GATHER: usize = 256 << 10;
/// Payloads of this many octets are not gathered: writing them from where they are is cheaper than copying them.
const LARGE: usize = 32 << 10;
/// Octets that are read and written at once where they can't be spliced.
const COPY: usize = 256 << 10;
/// The pipe we ask for: fewer switches between the two ends.
const PIPE: i32 = 1 << 20;

/// The stream, on its way to a descriptor.
pub(crate) struct Wire {
    out: File,
    encoder: StreamEncoder,
    gathered: BytesMut,
    /// For what can't be spliced.
    buffer: Vec<u8>,
    /// Until it turns out that `out` is no pipe.
    splices: bool,
    /// Something was spliced.
    spliced: bool,
    tally: Arc<Tally>,
}

impl Wire {
    /// A stream to standard output.
    pub(crate) fn stdout(dialect: Dialect, tally: Arc<Tally>) -> Result<Self, Error> {
        let out: File = io::stdout().as_fd().try_clone_to_owned().map_err(Error::output)?.into();
        sys::enlarge_pipe(out.as_fd(), PIPE);
        let gathered = BytesMut::with_capacity(2 * GATHER);
        Ok(Self {
            out,
            encoder: StreamEncoder::new(dialect),
            gathered,
            buffer: Vec::new(),
            splices: true,
            spliced: false,
            tally,
        })
    }

    /// A line without payload.
    pub(crate) fn line(&mut self, item: Item) -> Result<(), Error> {
        self.encoder.encode(item, &mut self.gathered)?;
        self.flush_if(GATHER)
    }

    /// A record and its payload, of which ranges are fetched from the disk's flat file.
    pub(crate) fn data(&mut self, record: Record, payload: Payload, disk: &dyn Image) -> Result<(), Error> {
        self.encoder.encode(Item::Record(record), &mut self.gathered)?;
        match payload {
            Payload::Octets(octets) if octets.len() < LARGE => {
                self.encoder.encode(Item::Payload(octets), &mut self.gathered)?;
                self.flush_if(GATHER)
            }
            Payload::Octets(octets) => {
                self.flush()?;
                self.write(&octets)?;
                Ok(self.encoder.payload_passed(octets.len() as u64)?)
            }
            Payload::Range { at, len } if len < LARGE as u64 => {
                let held = self.gathered.len();
                self.gathered.resize(held + usize::try_from(len).unwrap_or(LARGE), 0);
                disk.read_at(at, &mut self.gathered[held..])?;
                self.encoder.payload_passed(len)?;
                self.flush_if(GATHER)
            }
            Payload::Range { at, len } => self.range(at, len, disk),
        }
    }

    /// A large range: from the page cache into the pipe where that can be, else by reading and writing.
    fn range(&mut self, mut at: u64, len: u64, disk: &dyn Image) -> Result<(), Error> {
        self.flush()?;
        let end = at + len;
        while at < end {
            let file = disk.flat().filter(|_| self.splices);
            let octets = match file.map(|file| sys::splice_to_pipe(file, at, self.out.as_fd(), end - at)) {
                Some(Ok(Spliced::Moved(octets))) if octets > 0 => {
                    self.spliced = true;
                    self.tally.add_wire(octets);
                    octets
                }
                // Nothing more in the file, or one of the two failed: reading and writing say which, and why.
                refused => {
                    self.splices &= !matches!(refused, Some(Ok(Spliced::Refused)));
                    let octets = (end - at).min(COPY as u64);
                    let mut buffer = std::mem::take(&mut self.buffer);
                    buffer.resize(usize::try_from(octets).unwrap_or(COPY), 0);
                    disk.read_at(at, &mut buffer)?;
                    self.write(&buffer)?;
                    self.buffer = buffer;
                    octets
                }
            };
            at += octets;
            self.encoder.payload_passed(octets)?;
        }
        Ok(())
    }

    /// END, and all that was gathered.
    pub(crate) fn end(&mut self) -> Result<Option<Fingerprint>, Error> {
        self.line(Item::End(self.encoder.end()))?;
        self.flush()?;
        Ok(self.encoder.fingerprint())
    }

    /// Says FAIL. What is missing of a payload is made up with zeros, so that FAIL can be heard behind it: without END,
    /// nobody takes them for the disk.
    pub(crate) fn give_up(&mut self, reason: Reason) -> Result<(), Error> {
        self.flush()?;
        self.buffer.clear();
        self.buffer.resize(COPY, 0);
        while self.encoder.payload_left() > 0 {
            let octets = self.encoder.payload_left().min(COPY as u64);
            self.write(&self.buffer[..usize::try_from(octets).unwrap_or(COPY)])?;
            self.encoder.payload_passed(octets)?;
        }
        self.line(Item::Fail(reason))?;
        self.flush()
    }

    /// Writes what was gathered, and waits until the reader has taken what was spliced: until then it is the file's own pages that lie
    /// in the pipe, and a change to the file is a change to them.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        self.flush()?;
        if self.spliced { sys::drain_pipe(self.out.as_fd()).map_err(Error::output) } else { Ok(()) }
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
