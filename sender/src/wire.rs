//! Records on their way out: lines and small payloads are gathered, large payloads go past the gathering.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio_util::codec::Encoder;
use xfer_hole_image::sys::{self, Spliced};
use xfer_hole_image::{Image, Payload, Tally};
use xfer_hole_proto::{Dialect, Fingerprint, Item, Reason, Record, StreamEncoder, WAIT_SECONDS};

use crate::error::Error;

/// Octets that are gathered before they are written.
const GATHER: usize = 256 << 10;
/// Payloads of this many octets are not gathered: writing them from where they are is cheaper than copying them.
const LARGE: usize = 32 << 10;
/// Octets that are read and written at once where they can't be spliced.
const COPY: usize = 256 << 10;
/// The silence that WAIT breaks.
const WAIT: Duration = Duration::from_secs(WAIT_SECONDS);
/// The pipe we ask for: fewer switches between the two ends.
const PIPE: i32 = 1 << 20;

/// The stream, on its way to a descriptor.
pub(crate) struct Wire {
    out: File,
    dialect: Dialect,
    encoder: StreamEncoder,
    gathered: BytesMut,
    /// For what can't be spliced.
    buffer: Vec<u8>,
    /// Until it turns out that `out` is no pipe.
    splices: bool,
    /// Something was spliced.
    spliced: bool,
    /// When something was written last.
    said: Instant,
    tally: Arc<Tally>,
}

impl Wire {
    /// A stream to standard output.
    pub(crate) fn stdout(dialect: Dialect, tally: Arc<Tally>) -> Result<Self, Error> {
        let out = io::stdout().as_fd().try_clone_to_owned().map_err(Error::output)?;
        Ok(Self::new(out.into(), dialect, tally))
    }

    fn new(out: File, dialect: Dialect, tally: Arc<Tally>) -> Self {
        sys::enlarge_pipe(out.as_fd(), PIPE);
        Self {
            out,
            dialect,
            encoder: StreamEncoder::new(dialect),
            gathered: BytesMut::with_capacity(2 * GATHER),
            buffer: Vec::new(),
            splices: true,
            spliced: false,
            said: Instant::now(),
            tally,
        }
    }

    /// A line without payload.
    pub(crate) fn line(&mut self, item: Item) -> Result<(), Error> {
        self.encoder.encode(item, &mut self.gathered)?;
        self.flush_if(GATHER)
    }

    /// A record and its payload, of which ranges are fetched from the disk's flat file.
    pub(crate) fn data(&mut self, record: Record, payload: Payload, disk: &dyn Image) -> Result<(), Error> {
        if let Payload::Range { at, len } = payload
            && len < LARGE as u64
        {
            // Read before its line is written: if it can't be, FAIL can still be said.
            self.buffer.resize(usize::try_from(len).unwrap_or(LARGE), 0);
            disk.read_at(at, &mut self.buffer)?;
            self.encoder.encode(Item::Record(record), &mut self.gathered)?;
            self.gathered.extend_from_slice(&self.buffer);
            self.encoder.payload_passed(len)?;
            return self.flush_if(GATHER);
        }
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

    /// Says that no more comes, and why. Inside a payload nothing can be said: the stream just ends there.
    pub(crate) fn give_up(&mut self, reason: Reason) -> Result<(), Error> {
        if self.encoder.payload_left() == 0 {
            self.line(match self.dialect {
                Dialect::V1 => Item::Fail(reason),
                // A stream that ends between two records is whole there. One that ends inside a payload isn't.
                Dialect::Classic => Item::Record(Record::Data { len: 1, digest: None }),
            })?;
        }
        self.flush()
    }

    /// Says WAIT, if nothing else has been said for long.
    pub(crate) fn idle(&mut self) -> Result<(), Error> {
        if self.dialect == Dialect::V1 && self.said.elapsed() >= WAIT {
            self.line(Item::Wait)?;
            self.flush()?;
        }
        Ok(())
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

    fn write(&mut self, octets: &[u8]) -> Result<(), Error> {
        sys::write_all(&self.out, octets).map_err(Error::output)?;
        self.tally.add_wire(octets.len() as u64);
        self.said = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use xfer_hole_proto::Open;

    use super::*;

    fn said_by(dialect: Dialect, talk: impl FnOnce(&mut Wire) -> Result<(), Error>) -> String {
        let (mut reader, writer) = pipe().unwrap();
        let mut wire = Wire::new(OwnedFd::from(writer).into(), dialect, Arc::new(Tally::default()));
        if dialect == Dialect::V1 {
            wire.line(Item::Open(Open { size: 8192, sums: None })).unwrap();
        }
        talk(&mut wire).unwrap();
        drop(wire);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn silence_of_fifteen_seconds_is_broken_by_wait_and_no_shorter_one() {
        let said = said_by(Dialect::V1, |wire| {
            wire.idle()?;
            wire.said -= WAIT;
            wire.idle()?;
            wire.idle()
        });
        assert_eq!(said, "XFER-HOLE 1 8192\nWAIT\n");
    }

    #[test]
    fn giving_up_says_why_between_records_and_nothing_inside_a_payload() {
        let reason = || Reason::new("disk.img: cannot read");
        let said = said_by(Dialect::V1, |wire| wire.give_up(reason()));
        assert_eq!(said, "XFER-HOLE 1 8192\nFAIL disk.img: cannot read\n");
        let said = said_by(Dialect::V1, |wire| {
            wire.line(Item::Record(Record::Data { len: 4096, digest: None }))?;
            wire.give_up(reason())
        });
        assert_eq!(said, "XFER-HOLE 1 8192\nDATA 4096\n");
    }

    #[test]
    fn giving_up_in_the_dialect_of_2014_leaves_a_stream_that_is_cut() {
        let said = said_by(Dialect::Classic, |wire| {
            wire.line(Item::Record(Record::Hole { len: 4096 }))?;
            wire.give_up(Reason::new("disk.img: cannot read"))
        });
        assert_eq!(said, "HOLE\n4096\nDATA\n1\n");
    }
}
