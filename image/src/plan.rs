//! What is to become of each octet of the disk: steps, lazily, from the image's extents. Moves no data.

use xfer_hole_proto::{Base, Cursor, Open, Record};

use crate::{Error, Extent, Image, Kind, Result, Status};

/// What a step wants of its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// They are to be read.
    Copy,
    /// They are zeros.
    Zero,
    /// They are not touched: whoever takes the disk has them already.
    Keep,
}

/// A part of the disk with one wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part, and all that is needed to read it.
    pub extent: Extent,
    /// What is to be done.
    pub want: Want,
}

/// The steps of a whole disk, in order: they cover `[0, size)` once, for the cursor that each is drawn through says so.
pub struct Plan<'a> {
    image: &'a dyn Image,
    cursor: Cursor,
    /// What no floor has is kept.
    over: bool,
}

impl<'a> Plan<'a> {
    /// All of the disk, by its extents.
    #[must_use]
    pub fn whole(image: &'a dyn Image) -> Self {
        Self { image, cursor: Cursor::new(&Open { size: image.size(), sums: None }, None), over: false }
    }

    /// What the disk's floors have, to be laid over another disk of its size: what none of them has is kept.
    #[must_use]
    pub fn over(image: &'a dyn Image) -> Self {
        let size = image.size();
        let base = Base { size, digest: None };
        Self { image, cursor: Cursor::new(&Open { size, sums: None }, Some(&base)), over: true }
    }

    fn draw(&mut self) -> Result<Step> {
        let at = self.cursor.at();
        let extent = self.image.extent(at, self.cursor.size() - at)?;
        let (record, want) = match extent.status {
            Status::Data => (Record::Data { len: extent.len, digest: None }, Want::Copy),
            _ if self.over && !extent.present => (Record::Keep { len: extent.len }, Want::Keep),
            Status::Unwritten | Status::Zero => (Record::Hole { len: extent.len }, Want::Zero),
        };
        let stepped = self.cursor.step(&record).map_err(|step| step.to_string());
        let place = stepped.map_err(|what| Error::new(Kind::Io, "extents", what))?;
        if place.start != extent.start {
            let what = format!("asked for at 0x{at:x}, one begins at 0x{:x}", extent.start);
            return Err(Error::new(Kind::Io, "extents", what));
        }
        Ok(Step { extent, want })
    }
}

impl Iterator for Plan<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        self.cursor.finish().is_err().then(|| self.draw())
    }
}
