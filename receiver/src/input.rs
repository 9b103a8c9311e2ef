//! The stream on its way in: lines and small payloads through a gathering buffer, large payloads past it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_util::codec::Decoder;
use xfer_hole_image::sys::{self, Spliced};
use xfer_hole_image::{Sink, Tally};
use xfer_hole_proto::{Dialect, Item, StreamDecoder};

use crate::error::Error;

/// Octets that are read at once while lines are awaited.
const GATHER: usize = 64 << 10;
/// The pipe we ask for: fewer switches between the two ends.
const PIPE: i32 = 1 << 20;

fn unreadable(source: io::Error) -> Error {
    xfer_hole_image::Error::io("standard input", "cannot read", source).into()
}

/// A stream from a descriptor.
pub(crate) struct Input {
    file: File,
    gathered: BytesMut,
    decoder: StreamDecoder,
    tally: Arc<Tally>,
}

impl Input {
    /// The stream on standard input.
    pub(crate) fn stdin(dialect: Dialect, tally: Arc<Tally>) -> Result<Self, Error> {
        let file: File = io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?.into();
        sys::enlarge_pipe(file.as_fd(), PIPE);
        Ok(Self { file, gathered: BytesMut::with_capacity(GATHER), decoder: StreamDecoder::new(dialect), tally })
    }

    /// What has been decoded so far.
    pub(crate) fn decoder(&self) -> &StreamDecoder {
        &self.decoder
    }

    /// The next item; `None` where the stream has rightly ended.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.decoder.decode(&mut self.gathered)? {
                return Ok(Some(item));
            }
            let held = self.gathered.len();
            self.gathered.resize(held + GATHER, 0);
            let read = self.read(held);
            self.gathered.truncate(held + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(self.decoder.decode_eof(&mut self.gathered)?);
            }
        }
    }

    fn read(&mut self, from: usize) -> Result<usize, Error> {
        let octets = sys::read_some(&self.file, &mut self.gathered[from..]).map_err(unreadable)?;
        self.tally.add_wire(octets as u64);
        Ok(octets)
    }

    /// Reads payload that is awaited into `buf`, as much as comes at once; nothing if the stream is cut.
    pub(crate) fn payload(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let awaited = usize::try_from(self.decoder.payload_left()).unwrap_or(usize::MAX).min(buf.len());
        let octets = if self.gathered.is_empty() {
            let octets = sys::read_some(&self.file, &mut buf[..awaited]).map_err(unreadable)?;
            self.tally.add_wire(octets as u64);
            octets
        } else {
            let octets = awaited.min(self.gathered.len());
            buf[..octets].copy_from_slice(&self.gathered.split_to(octets));
            octets
        };
        self.decoder.payload_passed(octets as u64)?;
        Ok(octets)
    }

    /// True if octets were read ahead, which have to be taken from here.
    pub(crate) fn gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Moves payload that is awaited, `most` octets of it, into the sink at `at`, without a copy of ours: how many octets, 0 if the stream is cut.
    pub(crate) fn splice(&mut self, sink: &dyn Sink, at: u64, most: u64) -> Result<Spliced, Error> {
        if self.gathered() {
            return Ok(Spliced::Refused);
        }
        let most = self.decoder.payload_left().min(most);
        let spliced = sink.data_from_pipe(at, self.file.as_fd(), most)?;
        if let Spliced::Moved(octets) = spliced {
            self.tally.add_wire(octets);
            self.decoder.payload_passed(octets)?;
        }
        Ok(spliced)
    }

    /// The error of a stream that is cut here.
    pub(crate) fn cut(&mut self) -> xfer_hole_proto::Error {
        match self.decoder.decode_eof(&mut BytesMut::new()) {
            Err(error) => error,
            Ok(_) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        }
    }
}
